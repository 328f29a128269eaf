"""EntityTag: the tags of contacts, set for several contacts and tags at once and answered with counts.

As in CiviCRM, ``create`` and ``delete`` take ``contact_id`` (or ``entity_id`` with ``entity_table``) and
``tag_id`` (or its name), each one or several, also as ``contact_id.1``, ``contact_id.2``… An existing tag is
counted as ``not_added``.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from civiapi.api import query
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import INT, Field, FixedOptions, OptionTable
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.envelope import shown
from civiapi.api.errors import ApiError, MandatoryMissing
from civiapi.api.parameters.options import integer
from civiapi.api.parameters.params import check_filter, no_option
from civiapi.api.permissions import CONTACT_TABLE, check_edit, check_old_owner, check_subject, unseen_contacts
from civiapi.store.schema import tables

TABLES = FixedOptions.named(CONTACT_TABLE, "civicrm_activity", "civicrm_case", "civicrm_file")
TAGS = OptionTable(tables.tag, label="name")
entity_tag = tables.entity_tag


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters; ``contact_id`` means the tags of a contact."""
    contact_id = request.sent.get("contact_id")
    if contact_id is not None:
        checked = check_filter(conn, request, ENTITY_ID, contact_id)
        request = request.with_params(entity_id=checked, entity_table=CONTACT_TABLE)
    return query.get(conn, request)


def create(conn: Connection, request: Request) -> Result:
    """Add every given tag to every given contact."""
    ids, tags, table = _named(conn, request)
    existing = {(row.entity_id, row.tag_id) for row in _existing(conn, ids, tags, table)}
    new = [(one, tag) for one in ids for tag in tags if (one, tag) not in existing]
    if new:
        conn.execute(insert(entity_tag), [{"entity_table": table, "entity_id": one, "tag_id": tag} for one, tag in new])
    return _counts(len(ids) * len(tags), len(new), "added")


def remove(conn: Connection, request: Request) -> Result:
    """Remove every given tag from every given contact, or one row by its id."""
    if request.id is not None:
        check_old_owner(conn, request, request.id, f"Could not delete entity id {request.id}")
        conn.execute(delete(entity_tag).where(entity_tag.c.id == request.id))
        return _counts(1, 1, "removed")
    ids, tags, table = _named(conn, request)
    gone = conn.execute(delete(entity_tag).where(_theirs(ids, tags, table))).rowcount
    return _counts(len(ids) * len(tags), gone, "removed")


def _counts(total: int, done: int, done_key: str) -> Result:
    return Result(1, extra={"total_count": total, done_key: done, f"not_{done_key}": total - done})


def _named(conn: Connection, request: Request) -> tuple[list[int], list[int], str]:
    sent, params = request.sent, request.params
    ids = _ids(sent, "contact_id") or _ids(sent, "entity_id")
    tags = _tags(conn, {**sent, "tag_id": params.get("tag_id") or sent.get("tag_id")})
    missing = [name for name, found in (("contact_id", ids), ("tag_id", tags)) if not found]
    if missing:
        raise MandatoryMissing(missing)
    table = CONTACT_TABLE if "contact_id" in sent else _table(conn, params.get("entity_table") or CONTACT_TABLE)
    if table == CONTACT_TABLE:
        for one in ids:
            check_edit(request.caller, one)
        for one in unseen_contacts(conn, request, ids):
            raise ApiError(f"contact_id is not valid : {one}")
    else:
        for one in ids:
            check_subject(conn, request, "entity_id", table, one)
    return ids, tags, table


def _table(conn: Connection, given: Any) -> str:
    """The table that is meant, as it is stored."""
    found = lists.match(conn, TABLES, given) if isinstance(given, str) else None
    if found is None:
        raise no_option("entity_table", given)
    return found


def _tags(conn: Connection, sent: Any) -> list[int]:
    """The tags that are meant, by their ids or names. Raises ApiError where there is no such tag."""
    tags: dict[int, None] = {}
    for part in _parts(sent, "tag_id"):
        if (found := lists.match(conn, TAGS, part)) is not None:
            tags[int(found)] = None
        elif integer(part) is not None:
            raise ApiError(f"tag_id is not valid : {part}")
        else:
            raise no_option("tag_id", part)
    return list(tags)


def _ids(sent: Any, name: str) -> list[int]:
    """Every number under *name*, ``name.1``, ``name.2``…; each once, in the order sent."""
    numbers = (integer(part) for part in _parts(sent, name))
    return list(dict.fromkeys(number for number in numbers if number))


def _parts(sent: Any, name: str) -> list[str]:
    """Every value under *name*, ``name.1``, ``name.2``…"""
    values: list[Any] = []
    for key, value in sent.items():
        if key == name or key.startswith(f"{name}."):
            values += value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    parts = (part.strip() for value in values if value is not None for part in shown(value).split(","))
    return [part for part in parts if part]


def _existing(conn: Connection, ids: list[int], tags: list[int], table: str) -> Iterable[Row[Any]]:
    return conn.execute(select(entity_tag.c.entity_id, entity_tag.c.tag_id).where(_theirs(ids, tags, table)))


def _theirs(ids: list[int], tags: list[int], table: str) -> ColumnElement[bool]:
    return and_(entity_tag.c.entity_table == table, entity_tag.c.entity_id.in_(ids), entity_tag.c.tag_id.in_(tags))


ENTITY_ID = Field("entity_id", INT, title="Entity ID")
_FIELDS = (
    Field("id", INT, title="Entity Tag ID", writable=False),
    Field("entity_table", title="Entity Table", max_length=64, options=TABLES, default_by={"get": CONTACT_TABLE}),
    ENTITY_ID,
    Field("tag_id", INT, title="Tag ID", fk="Tag", options=TAGS),
)

ENTITY_TAG = Entity(
    "EntityTag",
    table=entity_tag,
    title="Entity Tag",
    description="The tags of contacts.",
    fields=_FIELDS,
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
    contact_field="entity_id",
    contact_table_field="entity_table",
)
