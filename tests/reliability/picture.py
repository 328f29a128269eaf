"""Both ends and our tables as plain values that two histories can be compared by.

People are told by address, since row numbers differ; what is written about a run (its log, its claim) is left out.
Times stay in unless asked otherwise: where the clock stands still they must agree as well.
"""

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store.engine import open_store
from civiapi.store.tables import contact, email, group_contact, subscription_history
from sync import positions
from sync.mailchimp.emulator.running import Emulator
from sync.member_data import decode
from sync.stored import load_data
from sync.tables import batch, cache, update, update_detail, webhook_event

Picture = dict[str, Any]
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\+00:00|Z)?|\b20\d{12}\b")
INSTANCE = re.compile(r',"instance":"[^"]*"')


async def picture(url: str, emulator: Emulator, *, with_times: bool = True) -> Picture:
    """What there is now, at both ends."""
    store = await open_store(url)
    try:
        seen = {**await store.read(read_ours), **read_mailchimp(emulator)}
    finally:
        await store.close()
    found: Picture = seen if with_times else _without_times(seen)
    return found


def read_mailchimp(emulator: Emulator) -> Picture:
    """Everybody in the audience, and what is still to be done there."""
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


def read_ours(conn: Connection) -> Picture:
    """Contacts, groups, cache, updates, batches, webhooks, and where the audience stands."""
    names = _names(conn)
    rows = {one.id: names.get(one.civicrm_contact_id) or one.mailchimp_email for one in conn.execute(select(cache))}
    position = positions.load(conn, conn.execute(select(cache.c.mailchimp_list_id)).scalar() or "")
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
        "webhooks": _sorted((row.type, row.status) for row in conn.execute(select(webhook_event))),
        "place": (
            position.stage,
            position.question,
            position.cursor,
            bool(position.last_sync_time),
            position.interests,
        ),
    }


def differences(expected: Picture, found: Picture) -> list[str]:
    """What is not as expected, a sentence each."""
    told = []
    for name, wanted in expected.items():
        if found[name] == wanted:
            continue
        if isinstance(wanted, list):
            missing, extra = (
                [one for one in wanted if one not in found[name]],
                [one for one in found[name] if one not in wanted],
            )
            told.append(f"{name}: missing {missing}, instead {extra}, {len(wanted)} rows and {len(found[name])}")
        elif isinstance(wanted, dict):
            both = {key for key in {*wanted, *found[name]} if wanted.get(key) != found[name].get(key)}
            told += [f"{name}: {key} {found[name].get(key)}, not {wanted.get(key)}" for key in sorted(both)]
        else:
            told.append(f"{name}: {found[name]}, not {wanted}")
    return told


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
