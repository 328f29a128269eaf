"""Whether Mailchimp still has our webhooks: checked after runs, stored, and shown by ``getstatus`` without a call.

Mailchimp removes a webhook that failed for long without telling. So after a run (hourly, where the job is on) the
webhooks of the audience and its account are fetched and the result is stored, as it is after adding or removing one and
by the doctor. A site without a public address has no webhooks, and none are checked.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Connection, select

from civiapi.store.author import Author
from civiapi.store.clock import SiteClock
from civiapi.store.databases.dialect import upsert
from sync.audience import Audience
from sync.connections.config import read_config
from sync.connections.webhook_signatures import find_signing_secrets, forget_missing_hooks
from sync.connections.webhooks import HookHealth, HookUrls, check_hooks
from sync.context import SyncContext
from sync.errors import SyncError
from sync.mailchimp.errors import MailchimpError
from sync.store.events import BY_SYNC, WEBHOOK, record
from sync.store.tables import hook_health

CHECK_INTERVAL_S = 900
"""Seconds between two checks: runs may follow each other closely, webhooks disappear rarely."""

TIMEOUT_S = 20.0
MEMBER_HOOK, BATCH_HOOK = "member_hook", "batch_hook"
_CALLED = {MEMBER_HOOK: "The webhook of the audience", BATCH_HOOK: "The account's batch webhook"}
_HAPPENED = (("is missing at Mailchimp", "is at Mailchimp again"), ("was deleted", "was added"))
"""What became of a webhook, unless found and if found: as Mailchimp told, and as somebody did."""

NO_ADDRESS = (
    "Mailchimp does not know where to reach us: [server] base_url is empty. Its changes arrive with the next sync only."
)
NOT_ASKED = "Not asked yet; the next sync asks."
NO_MEMBER_HOOK = (
    "Mailchimp has no webhook of ours for this audience (it removes one that fails for long), so its changes arrive "
    "with the next sync only. Add it: Mailchimpsync.updatewebhook process=add_webhook."
)
NO_BATCH_HOOK = (
    "Mailchimp has no enabled batch webhook of ours, so results are found by polling only. Add it: "
    "Mailchimpsync.updatewebhook process=add_batch_webhook."
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HookState:
    """The last check of an audience's webhooks; None: never checked. *asked_s*: UTC seconds since 1970."""

    member_hook: bool | None = None
    batch_hook: bool | None = None
    asked_s: int = 0


async def check_webhooks(ctx: SyncContext, audience: Audience, base_url: str) -> None:
    """Ask Mailchimp about the webhooks of an audience and store the answer, at most every quarter of an hour.

    Errors are only logged: they must not fail a sync that succeeded.
    """
    if not base_url:
        return
    known = await ctx.store.read(read_hook_state, audience.list_id)
    if time.time() - known.asked_s < CHECK_INTERVAL_S and None not in (known.member_hook, known.batch_hook):
        return
    try:
        async with asyncio.timeout(TIMEOUT_S):
            config = await ctx.store.read(read_config)
            account = config.account(audience.api_key)
            client = ctx.clients.client_for(audience.api_key)
            health = await check_hooks(client, [audience.list_id], account, HookUrls(base_url, account.secret))
    except (MailchimpError, SyncError, TimeoutError) as error:
        log.warning("webhooks could not be checked", list_id=audience.list_id, error=str(error) or "it took too long")
        return
    await ctx.store.write(note_health, {audience.list_id}, health, int(time.time()))
    for one in health:
        if not one.found:
            log.warning(
                "a webhook is missing",
                list_id=audience.list_id,
                advice=NO_MEMBER_HOOK if one.list_id else NO_BATCH_HOOK,
            )


def note_health(conn: Connection, list_ids: set[str], health: Sequence[HookHealth], at_s: int) -> None:
    """Store the result of a check; an account's batch webhook counts for each of its audiences in *list_ids*."""
    for one in health:
        if one.list_id is not None:
            forget_missing_hooks(conn, one.list_id, one.hook_ids)
        for list_id in sorted(list_ids) if one.list_id is None else [one.list_id]:
            note(conn, list_id, BATCH_HOOK if one.list_id is None else MEMBER_HOOK, found=one.found, at_s=at_s)


def note(conn: Connection, list_id: str, which: str, *, found: bool, at_s: int, by: Author | None = None) -> None:
    """Store whether a webhook of an audience exists; in the timeline where that changed, or *by* somebody's hand."""
    known = getattr(read_hook_state(conn, list_id), which)
    if known is not found and (known is not None or not found or by):
        verb = _HAPPENED[by is not None][found]
        record(conn, WEBHOOK, list_id, f"{_CALLED[which]} {verb}.", by or BY_SYNC)
    row = {"list_id": list_id, which: int(found), "asked_s": at_s}
    upsert(conn, hook_health, [row], key=("list_id",), set_=(which, "asked_s"))


def read_hook_state(conn: Connection, list_id: str) -> HookState:
    """The last check of an audience's webhooks."""
    row = conn.execute(select(hook_health).where(hook_health.c.list_id == list_id)).one_or_none()
    return HookState() if row is None else HookState(_flag(row.member_hook), _flag(row.batch_hook), row.asked_s)


def missing_hooks(known: HookState) -> str:
    """Which webhooks Mailchimp said it does not have, in sentences; empty where none is known to be missing."""
    found = (known.member_hook, NO_MEMBER_HOOK), (known.batch_hook, NO_BATCH_HOOK)
    return " ".join(text for flag, text in found if flag is False)


def show_hooks(conn: Connection, list_id: str, base_url: str, clock: SiteClock) -> Mapping[str, Any]:
    """The key ``webhooks`` of ``getstatus``: *ok* (None: not known), why not, and when it was checked (site time).

    *signed* is there where Mailchimp signs the deliveries.
    """
    if not base_url:
        return {"ok": False, "why": NO_ADDRESS, "asked": ""}
    known = read_hook_state(conn, list_id)
    why = missing_hooks(known)
    ok = False if why else None if None in (known.member_hook, known.batch_hook) else True
    asked = clock.write_epoch(known.asked_s) if known.asked_s else ""
    shown = {"ok": ok, "why": why or ("" if ok else NOT_ASKED), "asked": asked}
    return shown | ({"signed": True} if find_signing_secrets(conn, list_id) else {})


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
