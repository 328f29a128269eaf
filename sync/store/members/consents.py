"""Marketing permissions of members, of audiences with GDPR fields: which they gave, and since when that is so.

Kept of all permissions, to be shown and searched. The sync decides about those that are linked with groups, as
interests (`sync.mailchimp.wire.PERMISSION`), and never about others. Times are site times.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from civiapi.store.clock import SiteClock
from civiapi.store.databases.dialect import upsert
from civiapi.store.databases.expressions import as_code, in_list
from sync.mailchimp.wire import Member, find_instant, read_permissions
from sync.store.tables import cache, consent, permission


def note_consents(
    conn: Connection, list_id: str, clock: SiteClock, members: Iterable[Member], cache_ids: Mapping[str, int]
) -> None:
    """Store the permissions of these members as Mailchimp returned them; *cache_ids* are their rows by member id.

    A permission that changed has the time of the member's last change.
    """
    found: dict[tuple[int, str], tuple[bool, str | None]] = {}
    texts: dict[str, str] = {}
    for one in members:
        if not one.get("marketing_permissions"):  # an audience without GDPR fields has none
            continue
        cache_id = cache_ids.get(one.get("id", ""))
        changed = find_instant(one.get("last_changed"))
        since = clock.write(changed) if changed is not None else None
        for key, text, granted in read_permissions(one):
            texts[key] = text
            if cache_id is not None:
                found[cache_id, key] = (granted, since)
    if not texts:
        return
    _note_texts(conn, list_id, texts)
    known_rows = select(consent.c.cache_id, consent.c.permission_id, consent.c.granted).where(
        in_list(consent.c.cache_id, sorted({cache_id for cache_id, _ in found}))
    )
    known = {(row.cache_id, row.permission_id): row.granted for row in conn.execute(known_rows)}
    rows = [
        {"cache_id": cache_id, "permission_id": key, "granted": int(granted), "since": since}
        for (cache_id, key), (granted, since) in found.items()
        if known.get((cache_id, key)) != granted
    ]
    upsert(conn, consent, rows, key=("cache_id", "permission_id"), set_=("granted", "since"))


def _note_texts(conn: Connection, list_id: str, texts: Mapping[str, str]) -> None:
    known = select(permission.c.permission_id, permission.c.text).where(permission.c.list_id == list_id)
    stored = {row.permission_id: row.text for row in conn.execute(known)}
    rows = [{"list_id": list_id, "permission_id": key, "text": text} for key, text in texts.items()]
    changed = [row for row in rows if stored.get(row["permission_id"]) != row["text"]]
    upsert(conn, permission, changed, key=("list_id", "permission_id"), set_=("text",))


def read_consents(conn: Connection, list_id: str, cache_id: int) -> list[dict[str, Any]]:
    """The permissions of one member: ``permission_id``, ``text``, ``granted``, ``since``."""
    known = (permission.c.permission_id == consent.c.permission_id) & (permission.c.list_id == list_id)
    wanted = (
        select(consent.c.permission_id, consent.c.granted, consent.c.since, permission.c.text)
        .join(permission, known)
        .where(consent.c.cache_id == cache_id)
        .order_by(permission.c.text)
    )
    return [
        {
            "permission_id": row.permission_id,
            "text": row.text or "",
            "granted": bool(row.granted),
            "since": row.since or "",
        }
        for row in conn.execute(wanted)
    ]


def known_permissions(conn: Connection, list_id: str) -> list[dict[str, str]]:
    """The permissions that members of an audience may give, as last fetched: ``permission_id`` and ``text``."""
    rows = conn.execute(
        select(permission.c.permission_id, permission.c.text)
        .where(permission.c.list_id == list_id)
        .order_by(permission.c.permission_id)
    )
    return [{"permission_id": row.permission_id, "text": row.text or ""} for row in rows]


def given_permissions() -> ColumnElement[Any]:
    """The ids of the permissions that a row's member gave, with commas."""
    given = select(func.group_concat(consent.c.permission_id)).where(
        consent.c.cache_id == cache.c.id, consent.c.granted == 1
    )
    return as_code(func.coalesce(given.correlate(cache).scalar_subquery(), ""))
