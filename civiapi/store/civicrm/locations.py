"""What a contact has several of, of which one is primary: e-mail addresses, postal addresses and phone numbers.

The API and the sync share these rules. All functions take an open connection and do not commit; times are site times.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, select, update

from civiapi.store.databases.compiled_query import CompiledQuery
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import contact

_DEFAULT = CompiledQuery(
    "SELECT id FROM civicrm_location_type ORDER BY is_default DESC, id LIMIT 1", (), (), ("id",), (), ()
)


def default_location_type(conn: Connection) -> int | None:
    """The id of the location type of new addresses."""
    found = _DEFAULT.rows(conn, ())
    return found[0][0] if found else None


def primary_flag(conn: Connection, table: Table, contact_id: int, row_id: int | None, wanted: Any) -> int:
    """Whether a row of *table* will be primary: an only one always is."""
    if wanted:
        return 1
    others = select(table.c.id).where(table.c.contact_id == contact_id)
    others = others if row_id is None else others.where(table.c.id != row_id)
    return 0 if conn.execute(others.limit(1)).first() is not None else 1


def apply_location_rules(
    conn: Connection, table: Table, contact_id: int, saved: int | None, given: Mapping[str, Any], now: str
) -> None:
    """Apply the rules of *table* after a row was stored (*saved*, with *given*) or removed.

    A contact has one primary row (the saved one if so requested); the contact is marked as modified at site time *now*.
    """
    if saved is not None and given.get("is_primary"):
        clear_others(conn, table, contact_id, saved, "is_primary")
    promote_primary(conn, table, contact_id, not_this=saved)
    touch(conn, [contact_id], now)


def clear_others(conn: Connection, table: Table, contact_id: int, saved: int, flag: str) -> None:
    """Clear a flag on all rows of a contact but the saved one."""
    theirs = table.c.contact_id == contact_id, table.c.id != saved, table.c[flag] != 0
    conn.execute(update(table).where(*theirs).values({flag: 0}))


def promote_primary(conn: Connection, table: Table, contact_id: int, *, not_this: int | None = None) -> None:
    """Make the oldest row primary if none is; *not_this* only if there is no other."""
    theirs = select(table.c.id).where(table.c.contact_id == contact_id)  # a few rows each, however many there are
    if conn.execute(theirs.where(table.c.is_primary != 0).limit(1)).first() is not None:
        return
    oldest = list(conn.execute(theirs.order_by(table.c.id).limit(2)).scalars())
    if oldest:
        chosen = next((one for one in oldest if one != not_this), oldest[0])
        conn.execute(update(table).where(table.c.id == chosen).values(is_primary=1))


def touch(conn: Connection, contact_ids: Sequence[int], now: str) -> None:
    """Mark these contacts as modified at site time *now*."""
    conn.execute(update(contact).where(in_list(contact.c.id, contact_ids)).values(modified_date=now))
