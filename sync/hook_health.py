"""Whether Mailchimp still tells us of changes: looked at after runs, kept, and shown without asking anybody.

Mailchimp takes a webhook away that failed for long and says nothing of it. So after a run (every hour at the latest,
where the job is on) the hooks of the audience and of its account are looked up and what was found is written down;
``getstatus`` shows that. Whoever adds or removes a hook, or has the doctor look, writes it down as well. A site
without a public address has no hooks, and none are looked for.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Connection, select

from civiapi.store.clock import SiteClock
from civiapi.store.dialect import upsert
from sync.config import Link, read_config
from sync.context import SyncContext
from sync.errors import SyncError
from sync.mailchimp.errors import MailchimpError
from sync.tables import hook_health
from sync.webhooks import HookHealth, HookUrls, check_hooks

LOOK_AGAIN_S = 900
"""Seconds for which a look holds: runs may follow each other closely, hooks disappear rarely."""

PATIENCE_S = 20.0
MEMBER_HOOK, BATCH_HOOK = "member_hook", "batch_hook"

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
class Known:
    """What was last heard of an audience's hooks; None: never asked. *asked_s*: UTC seconds since 1970."""

    member_hook: bool | None = None
    batch_hook: bool | None = None
    asked_s: int = 0


async def look_after_hooks(ctx: SyncContext, link: Link, base_url: str) -> None:
    """Ask Mailchimp about the hooks of an audience, if that was not done lately, and write it down.

    What goes wrong is logged only: a sync that went well is not spoilt by it.
    """
    if not base_url:
        return
    known = await ctx.store.read(read_known, link.list_id)
    if time.time() - known.asked_s < LOOK_AGAIN_S and known.member_hook is not None and known.batch_hook is not None:
        return
    try:
        async with asyncio.timeout(PATIENCE_S):
            config = await ctx.store.read(read_config)
            account = config.account(link.api_key)
            client = ctx.clients.client_for(link.api_key)
            health = await check_hooks(client, [link], account, HookUrls(base_url, account.secret))
    except (MailchimpError, SyncError, TimeoutError) as error:
        log.warning("webhooks could not be looked at", list_id=link.list_id, error=str(error) or "it took too long")
        return
    await ctx.store.write(note_health, {link.list_id}, health, int(time.time()))
    for one in health:
        if not one.found:
            log.warning(
                "a webhook is missing", list_id=link.list_id, advice=NO_MEMBER_HOOK if one.list_id else NO_BATCH_HOOK
            )


def note_health(conn: Connection, list_ids: set[str], health: Sequence[HookHealth], at_s: int) -> None:
    """Write down what was found; an account's batch hook counts for each of its audiences in *list_ids*."""
    for one in health:
        for list_id in sorted(list_ids) if one.list_id is None else [one.list_id]:
            note(conn, list_id, BATCH_HOOK if one.list_id is None else MEMBER_HOOK, found=one.found, at_s=at_s)


def note(conn: Connection, list_id: str, which: str, *, found: bool, at_s: int) -> None:
    """Write down whether a hook of an audience is there."""
    row = {"list_id": list_id, which: int(found), "asked_s": at_s}
    upsert(conn, hook_health, [row], key=("list_id",), set_=(which, "asked_s"))


def read_known(conn: Connection, list_id: str) -> Known:
    """What was last heard of an audience's hooks."""
    row = conn.execute(select(hook_health).where(hook_health.c.list_id == list_id)).one_or_none()
    return Known() if row is None else Known(_flag(row.member_hook), _flag(row.batch_hook), row.asked_s)


def show_hooks(conn: Connection, list_id: str, base_url: str, clock: SiteClock) -> Mapping[str, Any]:
    """The key ``webhooks`` of ``getstatus``: *ok* (None: not known), why not, and when that was asked (site time)."""
    if not base_url:
        return {"ok": False, "why": NO_ADDRESS, "asked": ""}
    known = read_known(conn, list_id)
    found = (known.member_hook, known.batch_hook)
    why = [text for flag, text in zip(found, (NO_MEMBER_HOOK, NO_BATCH_HOOK), strict=True) if flag is False]
    ok = False if why else None if None in found else True
    asked = clock.write(datetime.fromtimestamp(known.asked_s, UTC)) if known.asked_s else ""
    return {"ok": ok, "why": " ".join(why) or ("" if ok else NOT_ASKED), "asked": asked}


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
