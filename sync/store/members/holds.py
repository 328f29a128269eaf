"""Holds: what an undo made differ on both sides is left as it is, until one of the sides changes again.

A hold is of one *field* of a cache row: ``status`` (its subscription group and the audience), ``interest-ID``, or a
kind of data that is not sent again. ``reconcile/facts.py`` says whether it still applies; those that do not are lifted
in the unit that carries out the plan of the row.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import ColumnElement, Connection, delete, select, tuple_

from civiapi.store.databases.bulk import upsert_rows
from civiapi.store.databases.expressions import in_list
from sync.store.tables import cache, hold

STATUS = "status"
COLUMNS = ("cache_id", "field", "run_id", "at_s", "contact_id", "history_id", "inside", "objects", "value")


class Hold(NamedTuple):
    """A hold of a cache row, as it was placed by the undo *run_id* at *at_s* (UTC seconds since 1970).

    *contact_id*: the row's contact. *history_id*: that contact's latest history row in the group of the field, or its
    version in a source (`sources.version_of`); 0: none.
    *inside*: whether the member is in the audience, or has chosen the interest, once the undo is carried out.
    *objects*: whether the contact objected to mail. *value*: of data, what is not sent again.
    """

    cache_id: int
    field: str
    run_id: int
    at_s: int
    contact_id: int | None = None
    history_id: int = 0
    inside: bool = False
    objects: bool = False
    value: Mapping[str, Any] | None = None


def place_holds(conn: Connection, holds: Iterable[Hold]) -> None:
    """Store these holds, each in place of an earlier one of its row and field."""
    rows = [
        (*one[:6], int(one.inside), int(one.objects), orjson.dumps(one.value).decode() if one.value else None)
        for one in holds
    ]
    upsert_rows(conn, hold, COLUMNS, rows, key=COLUMNS[:2], set_=COLUMNS[2:])


def read_holds(conn: Connection, cache_ids: Sequence[int]) -> dict[int, list[Hold]]:
    """The holds of these rows by cache id; rows without one are left out."""
    found: dict[int, list[Hold]] = defaultdict(list)
    for row in conn.execute(select(*(hold.c[name] for name in COLUMNS)).where(in_list(hold.c.cache_id, cache_ids))):
        value = orjson.loads(row.value) if row.value else None
        found[row.cache_id].append(
            Hold(
                row.cache_id,
                row.field,
                row.run_id,
                row.at_s,
                row.contact_id,
                row.history_id,
                bool(row.inside),
                bool(row.objects),
                value,
            )
        )
    return dict(found)


def read_data_holds(conn: Connection, cache_ids: Sequence[int]) -> dict[int, dict[str, Hold]]:
    """The holds of data of these rows: cache id → kind of operation → what is not sent again."""
    found = {i: {one.field: one for one in holds if one.value} for i, holds in read_holds(conn, cache_ids).items()}
    return {cache_id: holds for cache_id, holds in found.items() if holds}


def keep_data_holds(conn: Connection, kept: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> None:
    """Let the holds of data of these rows hold no more than this (cache id → kind → values): CiviCRM has changed."""
    stored = read_data_holds(conn, list(kept)) if kept else {}
    changed = [
        one._replace(value=kept[cache_id].get(kind) or None)
        for cache_id, holds in stored.items()
        for kind, one in holds.items()
        if kept[cache_id].get(kind, {}) != one.value
    ]
    place_holds(conn, [one for one in changed if one.value])
    lift_holds(conn, [(one.cache_id, one.field) for one in changed if not one.value])


def move_holds(conn: Connection, from_id: int, to_id: int) -> None:
    """Let the holds of one cache row be those of another of the same person, except where that has its own."""
    own = select(hold.c.field).where(hold.c.cache_id == to_id)
    fields = set(conn.execute(own).scalars())
    moved = [one for one in read_holds(conn, [from_id]).get(from_id, ()) if one.field not in fields]
    place_holds(conn, [one._replace(cache_id=to_id) for one in moved])


def lift_holds(conn: Connection, lapsed: Sequence[tuple[int, str]]) -> None:
    """Delete the holds of these rows and fields: a side changed."""
    if lapsed:
        conn.execute(delete(hold).where(tuple_(hold.c.cache_id, hold.c.field).in_(lapsed)))


def lift_all_holds(conn: Connection, rows: ColumnElement[bool], *fields: str) -> None:
    """Delete the holds of the cache *rows*, of these fields where any are named: a person wants them to be synced."""
    named = [hold.c.field.in_(fields)] if fields else []
    theirs = select(hold.c.cache_id).join(cache, cache.c.id == hold.c.cache_id).where(rows, *named)
    ids = list(conn.execute(theirs).scalars())
    if ids:
        conn.execute(delete(hold).where(in_list(hold.c.cache_id, ids), *named))


def has_hold(*fields: str) -> ColumnElement[bool]:
    """The cache row has a hold, of one of these fields where any are named; a condition for set statements."""
    of_row = select(hold.c.cache_id).where(hold.c.cache_id == cache.c.id)
    return (of_row.where(hold.c.field.in_(fields)) if fields else of_row).correlate(cache).exists()
