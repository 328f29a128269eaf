"""What of members' data the next run with data looks at: how far the last one got, and rows that changed since.

An audience that no run has sent data of has no marks, and nothing is noted for it: its first run with data looks at
everybody.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, Select, delete, insert, select

from civiapi.store.databases.bulk import upsert_rows
from civiapi.store.databases.dialect import upsert
from civiapi.store.databases.expressions import in_list
from sync.model import DATA_KINDS
from sync.store.tables import cache, data_due, data_marks, retry


def read_marks(conn: Connection, list_id: str) -> dict[str, Any] | None:
    """How far the last run with data got in each table (``data.changes``); None where there was none."""
    stored = conn.execute(select(data_marks.c.marks).where(data_marks.c.list_id == list_id)).scalar_one_or_none()
    found = orjson.loads(stored) if stored else None
    return found if isinstance(found, dict) else None


def write_marks(conn: Connection, list_id: str, marks: Mapping[str, Any]) -> None:
    """Store how far a run with data got."""
    row = {"list_id": list_id, "marks": orjson.dumps(dict(marks)).decode()}
    upsert(conn, data_marks, [row], key=("list_id",), set_=("marks",))


def note_due(conn: Connection, list_id: str, cache_ids: Sequence[int]) -> None:
    """Have the next run with data look at these rows."""
    if not cache_ids:
        return
    if conn.execute(select(data_marks.c.list_id).where(data_marks.c.list_id == list_id)).first() is None:
        return
    rows = [(cache_id, list_id) for cache_id in dict.fromkeys(cache_ids)]
    upsert_rows(conn, data_due, ("cache_id", "list_id"), rows, key=("cache_id",), set_=("list_id",))


def note_cancelled(conn: Connection, rows: Select[Any]) -> None:
    """Have the next run with data look at these *rows* (a select of cache ids): what was to be sent of them is not.

    One set statement, for an abort cancels any number of updates.
    """
    known = select(data_due.c.cache_id).where(data_due.c.cache_id == cache.c.id).correlate(cache)
    sends = select(data_marks.c.list_id).where(data_marks.c.list_id == cache.c.mailchimp_list_id).correlate(cache)
    wanted = select(cache.c.id, cache.c.mailchimp_list_id).where(cache.c.id.in_(rows), ~known.exists(), sends.exists())
    conn.execute(insert(data_due).from_select(["cache_id", "list_id"], wanted))


def note_retries(conn: Connection, list_id: str, at_s: int) -> None:
    """Have the next run with data look at members whose data Mailchimp refused for now, and whose time has come."""
    due = (
        select(cache.c.id)
        .join(retry, retry.c.cache_id == cache.c.id)
        .where(retry.c.next_s <= at_s, retry.c.kind.in_(sorted(DATA_KINDS)), cache.c.mailchimp_list_id == list_id)
    )
    note_due(conn, list_id, list(conn.execute(due).scalars()))


def forget_marks(conn: Connection) -> None:
    """The next run with data of each audience looks at everybody: others may have sent data meanwhile."""
    conn.execute(delete(data_marks))
    conn.execute(delete(data_due))


def next_due(conn: Connection, list_id: str, after: int, size: int) -> list[int]:
    """The next of the noted rows, in order of ids."""
    wanted = select(data_due.c.cache_id).where(data_due.c.list_id == list_id, data_due.c.cache_id > after)
    return list(conn.execute(wanted.order_by(data_due.c.cache_id).limit(size)).scalars())


def forget_due(conn: Connection, cache_ids: Sequence[int]) -> None:
    """These rows were looked at."""
    if cache_ids:
        conn.execute(delete(data_due).where(in_list(data_due.c.cache_id, cache_ids)))
