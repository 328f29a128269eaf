"""What past imports, and this one so far, made of each row of a file: ``civiapi_import``.

``source`` is one folder's data. Each of its rows is there by its key in the file, with a digest of what identifies
it, so that the row is recognised in a later, longer file as well.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, Select, select

from civiapi.store.bulk import insert_rows
from civiapi.store.tables import imported

Remembered = tuple[str, str, int, int]  # key, digest, id here, whether the import made it


def knows(conn: Connection, source: str) -> bool:
    """Whether exactly this data was imported before."""
    return conn.execute(select(imported.c.new_id).where(imported.c.source == source).limit(1)).first() is not None


def remember(conn: Connection, source: str, entity: str, rows: Sequence[Remembered]) -> None:
    """Write down what became of these rows."""
    columns = ("source", "entity", "old_id", "digest", "new_id", "made")
    insert_rows(conn, imported, columns, [(source, entity, *row) for row in rows])


def keys_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> set[str]:
    """Those of *keys* that this import has met already."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & imported.c.old_id.in_(keys)
    return set(conn.execute(select(imported.c.old_id).where(mine)).scalars())


def ids_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> dict[str, int]:
    """What this import made of *keys*; 0 for a row that was left out."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & imported.c.old_id.in_(keys)
    return {row.old_id: row.new_id for row in conn.execute(select(imported.c.old_id, imported.c.new_id).where(mine))}


def rows_of(conn: Connection, entity: str, keys: Sequence[str]) -> dict[tuple[str, str], int]:
    """What any import made of these keys, by key and digest."""
    columns = (imported.c.old_id, imported.c.digest, imported.c.new_id)
    rows = conn.execute(
        select(*columns).where((imported.c.entity == entity) & imported.c.old_id.in_(keys) & (imported.c.new_id > 0))
    )
    return {(row.old_id, row.digest): row.new_id for row in rows}


def made_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> dict[str, int]:
    """The ids of those of *keys* that this import made."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & (imported.c.made == 1)
    rows = conn.execute(select(imported.c.old_id, imported.c.new_id).where(mine & imported.c.old_id.in_(keys)))
    return {row.old_id: row.new_id for row in rows}


def made(source: str, entity: str) -> Select[tuple[int]]:
    """The ids of the rows that this import made, as a select."""
    return select(imported.c.new_id).where(
        imported.c.source == source, imported.c.entity == entity, imported.c.made == 1
    )
