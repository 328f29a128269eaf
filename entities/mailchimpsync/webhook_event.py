"""MailchimpsyncWebhookEvent: the events of Mailchimp's webhooks and their state. An addition to the extension.

Read only, except for ``retry``. Neither the posted body (personal data) nor the secret of the URL is answered.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table

from civiapi.api import query
from civiapi.api.context import Context
from civiapi.api.declaration.fields import DATETIME, INT, TEXT, Field, FixedOptions
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.params import NULL_TESTS
from civiapi.store.clock import SiteClock
from sync.inbox.events import DONE, FAILED, IGNORED, NEW
from sync.store.tables import webhook_event

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
    MetaData(),  # the same table with the names of the API
    *(Column(webhook_event.c[column].name, webhook_event.c[column].type, key=name) for name, column in SHOWN.items()),
)


def get(conn: Connection, request: Request) -> Result:
    """The events that meet the filters; times are site times."""
    filters = {name: _in_seconds(value, request.clock) for name, value in request.params.items() if name in TIMES}
    found = query.get(conn, request.with_params(**filters))
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
            row[name] = clock.write_epoch(seconds)
        else:
            del row[name]  # there is no next try


async def retry(request: Request, ctx: Context) -> Result:
    """Process an event again, as if it were new; answers the event."""
    params: Mapping[str, Any] = request.params
    found = await ctx.sync.retry_webhook_event(int(params["id"]))
    if not found:
        raise ApiError(f"No {request.entity.name} with id {params['id']}", "not-found")
    shown = await ctx.call(request.entity.name, "get", {"id": params["id"], "sequential": 1})
    return Result(shown["values"])


MAILCHIMPSYNC_WEBHOOK_EVENT = Entity(
    "MailchimpsyncWebhookEvent",
    table=inbox,
    title="Mailchimp Sync Webhook Event",
    description="An event of a Mailchimp webhook and its state. Kept for 30 days, failed ones for 90.",
    fields=(
        Field("id", INT, title="Mailchimpsync Webhook Event ID", writable=False),
        Field(
            "kind", title="Kind", description="About a member (audience) or a finished batch (batch).", max_length=16
        ),
        Field("list_id", title="Mailchimp List ID", description="The audience; empty for a batch.", max_length=32),
        Field("type", title="Type", description="subscribe, unsubscribe, profile, cleaned, upemail…", max_length=32),
        Field(
            "address", title="Address", description="The member's address; the new one if it changed.", max_length=255
        ),
        Field("received", DATETIME, title="Received"),
        Field(
            "state",
            title="State",
            description="new: queued or to be retried; done; ignored: not for this site; failed: see the error.",
            options=FixedOptions.named(NEW, DONE, IGNORED, FAILED),
            max_length=12,
        ),
        Field("tries", INT, title="Tries", description="Number of failed tries."),
        Field("next_try", DATETIME, title="Next Try", description="When it is processed; empty when it is done."),
        Field("error", TEXT, title="Error", description="The last error."),
    ),
    actions=(
        Action("get", run=get),
        Action(
            "retry",
            run_async=retry,
            params=(Field("id", INT, title="Mailchimpsync Webhook Event ID", required_by={"retry"}),),
            title="Process an event again",
        ),
    ),
    label_field="address",
)
