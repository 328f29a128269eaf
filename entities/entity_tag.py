"""EntityTag: who carries which tag. Created for several contacts and tags at once, and answered with counts.

As CiviCRM has it, ``create`` and ``delete`` take ``contact_id`` (or ``entity_id`` with ``entity_table``) and
``tag_id``, each one or several, also as ``contact_id.1``, ``contact_id.2``… What somebody carries already is counted as
``not_added`` and left alone.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from civiapi.errors import ApiError, MandatoryMissing
from civiapi.request import Request, integer
from civiapi.spec import INT, Action, Entity, Field, FixedOptions, Result
from civiapi.store import tables
from entities import crud

CONTACT_TABLE = "civicrm_contact"
TABLES = FixedOptions.words(CONTACT_TABLE, "civicrm_activity", "civicrm_case", "civicrm_file")
entity_tag = tables.entity_tag


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters; ``contact_id`` means the tags of a contact."""
    contact_id = request.sent.get("contact_id")
    if contact_id is not None:
        request = request.with_params(entity_id=contact_id, entity_table=CONTACT_TABLE)
    return crud.get(conn, request)


def create(conn: Connection, request: Request) -> Result:
    """Tag everyone named with every tag named."""
    ids, tags, table = _named(conn, request)
    carried = {(row.entity_id, row.tag_id) for row in _standing(conn, ids, tags, table)}
    new = [(one, tag) for one in ids for tag in tags if (one, tag) not in carried]
    if new:
        conn.execute(insert(entity_tag), [{"entity_table": table, "entity_id": one, "tag_id": tag} for one, tag in new])
    return _counts(len(ids) * len(tags), len(new), "added")


def remove(conn: Connection, request: Request) -> Result:
    """Take every tag named from everyone named, or one row by its id."""
    if request.id is not None:
        gone = conn.execute(delete(entity_tag).where(entity_tag.c.id == request.id)).rowcount
        if not gone:
            raise ApiError(f"Could not delete entity id {request.id}")
        return _counts(1, gone, "removed")
    ids, tags, table = _named(conn, request)
    gone = conn.execute(delete(entity_tag).where(_theirs(ids, tags, table))).rowcount
    return _counts(len(ids) * len(tags), gone, "removed")


def _counts(total: int, done: int, word: str) -> Result:
    return Result(1, extra={"total_count": total, word: done, f"not_{word}": total - done})


def _named(conn: Connection, request: Request) -> tuple[list[int], list[int], str]:
    sent, params = request.sent, request.params
    ids = _ids(sent, "contact_id") or _ids(sent, "entity_id")
    tags = _ids({**sent, "tag_id": params.get("tag_id") or sent.get("tag_id")}, "tag_id")
    missing = [name for name, found in (("contact_id", ids), ("tag_id", tags)) if not found]
    if missing:
        raise MandatoryMissing(missing)
    table = CONTACT_TABLE if "contact_id" in sent else str(params.get("entity_table") or CONTACT_TABLE)
    if table == CONTACT_TABLE:
        _must_exist(conn, tables.contact, ids, "contact_id")
    _must_exist(conn, tables.tag, tags, "tag_id")
    return ids, tags, table


def _ids(sent: Any, name: str) -> list[int]:
    """Every number under *name*, ``name.1``, ``name.2``…; each once, in the order sent."""
    values: list[Any] = []
    for key, value in sent.items():
        if key == name or key.startswith(f"{name}."):
            values += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    numbers = (integer(part) for value in values for part in str(value).split(","))
    return list(dict.fromkeys(number for number in numbers if number))


def _must_exist(conn: Connection, table: Any, ids: Iterable[int], field: str) -> None:
    known = set(conn.execute(select(table.c.id).where(table.c.id.in_(list(ids)))).scalars())
    for one in ids:
        if one not in known:
            raise ApiError(f"{field} is not valid : {one}")


def _standing(conn: Connection, ids: list[int], tags: list[int], table: str) -> Iterable[Row[Any]]:
    return conn.execute(select(entity_tag.c.entity_id, entity_tag.c.tag_id).where(_theirs(ids, tags, table)))


def _theirs(ids: list[int], tags: list[int], table: str) -> ColumnElement[bool]:
    return and_(entity_tag.c.entity_table == table, entity_tag.c.entity_id.in_(ids), entity_tag.c.tag_id.in_(tags))


_WHO = (
    Field("id", INT, title="Entity Tag ID", keeps=False),
    Field("entity_table", title="Entity Table", max_length=64, options=TABLES, default_by={"get": CONTACT_TABLE}),
    Field("entity_id", INT, title="Entity ID"),
    Field("tag_id", INT, title="Tag ID", fk="Tag"),
)

ENTITY_TAG = Entity(
    "EntityTag",
    table=entity_tag,
    title="Entity Tag",
    description="Who carries which tag.",
    fields=_WHO,
    actions=(
        Action("get", run=get),
        Action("create", run=create, writes=True, validated=False),
        Action("delete", run=remove, writes=True, validated=False),
    ),
    permissions={
        "get": ("access CiviCRM",),
        "create": ("access CiviCRM", "edit all contacts"),
        "delete": ("access CiviCRM", "edit all contacts"),
    },
)
