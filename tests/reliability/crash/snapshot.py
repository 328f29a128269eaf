"""Both sides and our tables as plain values, to compare two histories.

People are told by address, since row numbers differ; what is written about a run (its log, its claim) is left out.
Times stay in unless asked otherwise: where the clock stands still they must agree as well.
"""

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store.engine import open_store
from civiapi.store.schema.tables import contact, email, group_contact, subscription_history
from sync.emulator.server.running import Emulator
from sync.store.members.blobs import load_data
from sync.store.members.member_codec import decode
from sync.store.runs import checkpoints
from sync.store.tables import batch, cache, hold, run_change, update, update_detail, webhook_event
from sync.undo.planning import KINDS as UNDO_KINDS

Snapshot = dict[str, Any]
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\+00:00|Z)?|\b20\d{12}\b")
INSTANCE = re.compile(r',"instance":"[^"]*"')


async def take_snapshot(url: str, emulator: Emulator, *, with_times: bool = True) -> Snapshot:
    """The present state of both sides."""
    store = await open_store(url)
    try:
        seen = {**await store.read(read_ours), **read_mailchimp(emulator)}
    finally:
        await store.close()
    found: Snapshot = seen if with_times else _without_times(seen)
    return found


def read_mailchimp(emulator: Emulator) -> Snapshot:
    """The members of the audience, and its unfinished batches."""
    audience = emulator.audience()
    tags = {one.id: one.name for one in audience.tags.values()}
    members = {
        one.email: (
            one.status,
            str(sorted(one.interests)),
            str(sorted(tags[tag] for tag in one.tags or ())),
            str(sorted(one.merges.items())),
            str(datetime.fromtimestamp(one.last_changed, UTC)),
        )
        for one in audience.members
    }
    batches = emulator.world.default_account.batches.values()
    return {"at Mailchimp": members, "unfinished at Mailchimp": sum(one.status != "finished" for one in batches)}


def read_ours(conn: Connection) -> Snapshot:
    """Contacts, groups, cache, updates, batches, webhooks, and the audience's checkpoint."""
    names = _names(conn)
    rows = {one.id: names.get(one.civicrm_contact_id) or one.mailchimp_email for one in conn.execute(select(cache))}
    checkpoint = checkpoints.load(conn, conn.execute(select(cache.c.mailchimp_list_id)).scalar() or "")
    return {
        "contacts": _sorted((names[row.id], row.display_name, row.is_deleted) for row in conn.execute(select(contact))),
        "addresses": _sorted(
            (names[row.contact_id], row.email, row.is_primary, row.on_hold) for row in conn.execute(select(email))
        ),
        "groups": _sorted(
            (names[row.contact_id], row.group_id, row.status) for row in conn.execute(select(group_contact))
        ),
        "history": _sorted(
            (names[row.contact_id], row.group_id, row.status, row.method, row.date)
            for row in conn.execute(select(subscription_history))
        ),
        "cache": _sorted(
            (
                rows[row.id],
                row.mailchimp_email,
                row.mailchimp_status,
                row.mailchimp_updated,
                row.sync_status,
                row.civicrm_groups,
                sorted(decode(row.mailchimp_data).items()),
                sorted(load_data(row.civicrm_data).items()),
            )
            for row in conn.execute(select(cache))
        ),
        "updates": _sorted(
            (
                rows.get(row.mailchimpsync_cache_id),
                row.kind,
                row.method,
                row.path_tail,
                row.data,
                INSTANCE.sub("", row.error_response or ""),
            )
            for row in conn.execute(select(update, update_detail).outerjoin(update_detail))
        ),
        "open updates": len(conn.execute(select(update.c.id).where(update.c.completed == 0)).all()),
        "batches": _sorted({(row.status, row.response_processed) for row in conn.execute(select(batch))}),
        "undone": _sorted(
            (names.get(row.contact_id), row.kind, row.reason)
            for row in conn.execute(select(run_change).where(run_change.c.kind.in_(UNDO_KINDS)))
        ),
        "held": _sorted((rows[row.cache_id], row.field, row.inside) for row in conn.execute(select(hold))),
        "webhooks": _sorted((row.type, row.status) for row in conn.execute(select(webhook_event))),
        "place": (
            checkpoint.stage,
            checkpoint.parameters,
            checkpoint.cursor,
            bool(checkpoint.last_sync_time),
            checkpoint.interests,
        ),
    }


def differences(expected: Snapshot, found: Snapshot) -> list[str]:
    """What is not as expected, a sentence each."""
    output = []
    for name, wanted in expected.items():
        if found[name] == wanted:
            continue
        if isinstance(wanted, list):
            missing, extra = (
                [one for one in wanted if one not in found[name]],
                [one for one in found[name] if one not in wanted],
            )
            output.append(f"{name}: missing {missing}, instead {extra}, {len(wanted)} rows and {len(found[name])}")
        elif isinstance(wanted, dict):
            both = {key for key in {*wanted, *found[name]} if wanted.get(key) != found[name].get(key)}
            output += [f"{name}: {key} {found[name].get(key)}, not {wanted.get(key)}" for key in sorted(both)]
        else:
            output.append(f"{name}: {found[name]}, not {wanted}")
    return output


def _names(conn: Connection) -> dict[int, str]:
    """Contacts by their first address and, where several share it, in the order they were made."""
    found: dict[int, str] = {}
    known: dict[str, int] = {}
    for row in conn.execute(
        select(contact.c.id, contact.c.display_name, email.c.email)
        .outerjoin(email, (email.c.contact_id == contact.c.id) & (email.c.is_primary == 1))
        .order_by(contact.c.id)
    ):
        name = row.email or row.display_name or ""
        known[name] = known.get(name, 0) + 1
        found.setdefault(row.id, f"{name} {known[name]}")
    return found


def _sorted(rows: Any) -> list[str]:
    return sorted(str(row) for row in rows)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_without_times(one) for one in value)
    return TIME.sub("(time)", value) if isinstance(value, str) else value
