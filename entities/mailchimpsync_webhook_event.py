"""MailchimpsyncWebhookEvent: what Mailchimp's webhooks told us, and how far we are with it. Ours, not the extension's.

Read only but for ``retry``, which has an event worked on again. What is shown is a selection: neither the posted body
(personal data that nobody needs twice) nor the secret in our address is among it.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table

from civiapi import query
from civiapi.dispatch import Context
from civiapi.errors import ApiError
from civiapi.params import NULL_TESTS
from civiapi.request import Request
from civiapi.spec import DATETIME, INT, TEXT, Action, Entity, Field, FixedOptions, Result
from civiapi.store.clock import SiteClock
from entities.sync_words import told
from sync.inbox import DONE, FAILED, IGNORED, NEW
from sync.tables import webhook_event

SHOWN = {
    "id": "id",
    "kind": "kind",
    "list_id": "list_id",
    "type": "type",
    "address": "address",
    "received": "received_s",
    "state": "status",
    "tries": "tries",
    "next_try": "next_try_s",
    "error": "error",
}
"""Fields by name, with the columns behind them."""

TIMES = ("received", "next_try")  # whole seconds in the table, site times for callers

inbox = Table(
    webhook_event.name,
    MetaData(),  # the same table under the names that callers know
    *(Column(webhook_event.c[column].name, webhook_event.c[column].type, key=name) for name, column in SHOWN.items()),
)


def get(conn: Connection, request: Request) -> Result:
    """The events that meet the filters; times are site times."""
    filters = {name: _in_seconds(value, request.clock) for name, value in request.params.items() if name in TIMES}
    found = query.get(conn, replace(request, params={**request.params, **filters}))
    if not request.options.is_count:
        for row in found.values:
            _show_times(row, request.clock)
    return found


def _in_seconds(value: Any, clock: SiteClock) -> Any:
    """A checked filter on a site time, as one on seconds."""
    if isinstance(value, dict):
        return {name: one if name in NULL_TESTS else _in_seconds(one, clock) for name, one in value.items()}
    if isinstance(value, list):
        return [_in_seconds(one, clock) for one in value]
    moment = clock.read(value) if isinstance(value, str) and value != "null" else None
    return value if moment is None else int(moment.timestamp())


def _show_times(row: dict[str, Any], clock: SiteClock) -> None:
    for name in TIMES:
        if name not in row:
            continue
        seconds = int(row[name])
        if seconds:
            row[name] = clock.write(datetime.fromtimestamp(seconds, UTC))
        else:
            del row[name]  # it is not tried again


async def retry(request: Request, ctx: Context) -> Result:
    """Have an event worked on again, as if it had just come; the event as it stands then."""
    params: Mapping[str, Any] = request.params
    with told():
        found = await ctx.sync.retry_webhook_event(int(params["id"]))
    if not found:
        raise ApiError(f"No {request.entity.name} with id {params['id']}", "not-found")
    shown = await ctx.call(request.entity.name, "get", {"id": params["id"], "sequential": 1})
    return Result(shown["values"])


MAILCHIMPSYNC_WEBHOOK_EVENT = Entity(
    "MailchimpsyncWebhookEvent",
    table=inbox,
    title="Mailchimp Sync Webhook Event",
    description="What a webhook of Mailchimp told, and what came of it. Kept for 30 days; failed ones until retried.",
    fields=(
        Field("id", INT, title="Mailchimpsync Webhook Event ID", keeps=False),
        Field(
            "kind",
            title="Kind",
            description="About a member (audience) or a finished batch (batch).",
            max_length=16,
        ),
        Field("list_id", title="Mailchimp List ID", description="The audience; empty for a batch.", max_length=32),
        Field("type", title="Type", description="subscribe, unsubscribe, profile, cleaned, upemail…", max_length=32),
        Field("address", title="Address", description="Whom it is about; the new one if it changed.", max_length=255),
        Field("received", DATETIME, title="Received"),
        Field(
            "state",
            title="State",
            description="new: waits or is tried again; done; ignored: none of ours; failed: see the error.",
            options=FixedOptions.words(NEW, DONE, IGNORED, FAILED),
            max_length=12,
        ),
        Field("tries", INT, title="Tries", description="How often it could not be worked on."),
        Field("next_try", DATETIME, title="Next Try", description="When it is worked on; empty once it is settled."),
        Field("error", TEXT, title="Error", description="Why it could not be worked on the last time."),
    ),
    actions=(
        Action("get", run=get),
        Action(
            "retry",
            arun=retry,
            params=(Field("id", INT, title="Mailchimpsync Webhook Event ID", required_by={"retry"}),),
            title="Work on an event again",
        ),
    ),
    label_field="address",
)
