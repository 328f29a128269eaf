"""The table ``civiapi_import``: the id here of each row that was imported.

``source`` identifies the data of one folder. A row is stored by its key in the file with a digest of its identity, so
that it is recognized in later, longer files too.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, Select, select

from civiapi.store.databases.bulk import insert_rows
from civiapi.store.schema.tables import imported

Imported = tuple[str, str, int, int]  # key, digest, id here, 1 if the import created it


def is_imported(conn: Connection, source: str) -> bool:
    """Whether exactly this data was imported before."""
    return conn.execute(select(imported.c.new_id).where(imported.c.source == source).limit(1)).first() is not None


def remember(conn: Connection, source: str, entity: str, rows: Sequence[Imported]) -> None:
    """Store the ids of these rows."""
    columns = ("source", "entity", "old_id", "digest", "new_id", "made")
    insert_rows(conn, imported, columns, [(source, entity, *row) for row in rows])


def keys_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> set[str]:
    """Those of *keys* that this import has stored."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & imported.c.old_id.in_(keys)
    return set(conn.execute(select(imported.c.old_id).where(mine)).scalars())


def ids_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> dict[str, int]:
    """The ids of *keys* in this import; 0 for a row that was left out."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & imported.c.old_id.in_(keys)
    return {row.old_id: row.new_id for row in conn.execute(select(imported.c.old_id, imported.c.new_id).where(mine))}


def rows_of(conn: Connection, entity: str, keys: Sequence[str]) -> dict[tuple[str, str], int]:
    """The ids of *keys* in any import, by key and digest."""
    columns = (imported.c.old_id, imported.c.digest, imported.c.new_id)
    rows = conn.execute(
        select(*columns).where((imported.c.entity == entity) & imported.c.old_id.in_(keys) & (imported.c.new_id > 0))
    )
    return {(row.old_id, row.digest): row.new_id for row in rows}


def made_of(conn: Connection, source: str, entity: str, keys: Sequence[str]) -> dict[str, int]:
    """The ids of those of *keys* that this import created."""
    mine = (imported.c.source == source) & (imported.c.entity == entity) & (imported.c.made == 1)
    rows = conn.execute(select(imported.c.old_id, imported.c.new_id).where(mine & imported.c.old_id.in_(keys)))
    return {row.old_id: row.new_id for row in rows}


def made(source: str, entity: str) -> Select[tuple[int]]:
    """The ids of the rows that this import created, as a select."""
    return select(imported.c.new_id).where(
        imported.c.source == source, imported.c.entity == entity, imported.c.made == 1
    )
