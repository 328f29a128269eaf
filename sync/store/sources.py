"""Smart groups as sources: who is in them, as the last sync read it from CiviCRM's cache of their members.

CiviCRM's own tables say of a smart group neither who left it nor when. So each sync compares CiviCRM's cache
(``civicrm_group_contact_cache``) with what the sync before read, and keeps the difference in a table of ours, which has
the columns of ``civicrm_group_contact`` and those of a history that are read. Nothing is written to the group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Table, func, select
from sqlalchemy import update as change

from civiapi.store.clock import SiteClock
from civiapi.store.databases.bulk import insert_rows
from civiapi.store.databases.dialect import upsert
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact, group, group_contact, group_contact_cache, subscription_history
from sync.audience import Audience
from sync.model import GroupStatus
from sync.store.tables import source_contact, source_group

FRESH = timedelta(hours=24)
"""How old CiviCRM's cache of a smart group may be."""


def tables_of(audience: Audience) -> tuple[Table, Table]:
    """The tables with the statuses and the history of the subscription group: CiviCRM's, or ours of a source."""
    return (source_contact, source_contact) if audience.one_way else (group_contact, subscription_history)


def members_of(conn: Connection, group_id: int) -> Table:
    """The table with the statuses of contacts in this group."""
    is_smart = select(group.c.saved_search_id).where(group.c.id == group_id)
    return source_contact if conn.execute(is_smart).scalar() else group_contact


def who_is_in(conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> set[int]:
    """Those of these contacts that are in the subscription group."""
    members = tables_of(audience)[0].c
    inside = select(members.contact_id).where(
        in_list(members.contact_id, contact_ids),
        unindexed(members.group_id) == audience.group_id,
        members.status == GroupStatus.ADDED,
    )
    return set(conn.execute(inside).scalars())


def why_not_fresh(computed: datetime | None, now: datetime, clock: SiteClock) -> str:
    """What is missing of CiviCRM's cache of a smart group, computed at *computed* (aware); empty where it is fresh."""
    if computed is None:
        return "a smart group whose members CiviCRM has not computed, or has discarded"
    if now - computed > FRESH:
        return f"a smart group whose members CiviCRM last computed on {clock.write(computed)}, more than a day ago"
    return ""


def read_computed(conn: Connection, group_id: int) -> str | None:
    """When CiviCRM computed the members of a smart group (site time); None where it did not, or discarded them."""
    return conn.execute(select(group.c.cache_date).where(group.c.id == group_id)).scalar()


def is_known(conn: Connection, group_id: int, computed: str) -> bool:
    """Whether the members were read that CiviCRM computed then."""
    known = select(source_group.c.computed).where(source_group.c.group_id == group_id)
    return conn.execute(known).scalar() == computed


def note_known(conn: Connection, group_id: int, computed: str) -> None:
    """Note that the members were read that CiviCRM computed then."""
    row = {"group_id": group_id, "computed": computed}
    upsert(conn, source_group, [row], key=("group_id",), set_=("computed",))


def highest_contact(conn: Connection) -> int:
    """The highest contact id."""
    return conn.execute(select(func.max(contact.c.id))).scalar() or 0


@dataclass(frozen=True, slots=True)
class Difference:
    """The contacts who joined and left among those up to the id *upto*."""

    joined: list[int]
    left: list[int]
    upto: int


def compare(conn: Connection, group_id: int, after: int, rows: int, ids: int) -> Difference:
    """Compare CiviCRM's cache with what is known of contacts above *after*: at most *rows* of each, and *ids* ids."""
    cached, known = group_contact_cache.c, source_contact.c
    upto = after + ids
    now = _next_ids(conn, cached, group_id, after, upto, rows)
    before = _next_ids(conn, known, group_id, after, upto, rows)
    upto = min([upto, *(found[-1] for found in (now, before) if len(found) == rows)])
    there = {one for one in now if one <= upto}
    added = select(known.contact_id).where(
        known.contact_id > after,
        known.contact_id <= upto,
        unindexed(known.group_id) == group_id,
        unindexed(known.status) == GroupStatus.ADDED,
    )
    were = set(conn.execute(added).scalars())
    return Difference(sorted(there - were), sorted(were - there), upto)


def _next_ids(conn: Connection, columns: object, group_id: int, after: int, upto: int, rows: int) -> list[int]:
    contact_id, of_group = columns.contact_id, columns.group_id  # type: ignore[attr-defined]
    wanted = select(contact_id).where(contact_id > after, contact_id <= upto, unindexed(of_group) == group_id)
    return list(conn.execute(wanted.order_by(contact_id).limit(rows)).scalars())


def store(conn: Connection, group_id: int, found: Difference, since: str) -> None:
    """Store who joined and who left, at *since* (site time)."""
    known = source_contact.c
    returned = select(known.contact_id).where(in_list(known.contact_id, found.joined), known.group_id == group_id)
    back = set(conn.execute(returned).scalars())
    mine = unindexed(known.group_id) == group_id
    rejoin = change(source_contact).where(in_list(known.contact_id, sorted(back)), mine)
    conn.execute(rejoin.values(status=GroupStatus.ADDED, since=since))
    fresh = [(group_id, one, GroupStatus.ADDED, since) for one in found.joined if one not in back]
    insert_rows(conn, source_contact, ("group_id", "contact_id", "status", "since"), fresh)
    leave = change(source_contact).where(in_list(known.contact_id, found.left), mine)
    conn.execute(leave.values(status=GroupStatus.REMOVED, since=since, left_at=since))


def version_of(since: str, clock: SiteClock) -> int:
    """What changes with each change of a contact in a source, as there is no history: since when it is (site time), in
    UTC seconds since 1970."""
    moment = clock.read(since)
    return int(moment.timestamp()) if moment is not None else 0


class InSource(NamedTuple):
    """The *status* of a contact in a source, *since* when, and when it last left (site times; None: it never did)."""

    status: str
    since: str
    left_at: str | None


def read_sources(conn: Connection, group_id: int, contact_ids: Sequence[int]) -> dict[int, InSource]:
    """What is known in a source of these contacts; those who were never in it are left out."""
    known = source_contact.c
    wanted = select(known.contact_id, known.status, known.since, known.left_at).where(
        in_list(known.contact_id, contact_ids), unindexed(known.group_id) == group_id
    )
    return {row.contact_id: InSource(row.status, row.since, row.left_at) for row in conn.execute(wanted)}


def show_source(conn: Connection, group_id: int, clock: SiteClock) -> dict[str, object]:
    """What is known of a source: when CiviCRM computed its members, and what is missing for a sync to read them."""
    computed = read_computed(conn, group_id)
    read = conn.execute(select(source_group.c.computed).where(source_group.c.group_id == group_id)).scalar()
    missing = why_not_fresh(clock.read(computed), datetime.now(UTC), clock)
    return {"computed": computed or "", "read": read or "", "missing": missing}
