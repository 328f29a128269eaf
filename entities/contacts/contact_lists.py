"""Groups and tags of contacts: filters of Contact.get, and the titles and names that it answers.

The members of a smart group are those that CiviCRM found last (``civicrm_group_contact_cache``), as long as CiviCRM
would use them itself; after that the filter is refused, since only CiviCRM can run the search.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, or_, select

from civiapi.api import query
from civiapi.api.declaration.spec import Request
from civiapi.api.envelope import shown
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer, is_empty
from civiapi.api.parameters.params import MAX_VALUES, NULL_TESTS, OPERATORS, too_many
from civiapi.api.permissions import CONTACT_TABLE
from civiapi.store.civicrm.group_membership import GroupStatus
from civiapi.store.civicrm.settings import read_setting
from civiapi.store.databases.compiled_query import Binder
from civiapi.store.databases.expressions import in_list, in_values
from civiapi.store.schema import tables
from civiapi.store.schema.live_columns import live_columns
from entities.contacts.contact_fields import GROUPS, TAGS

FILTERS = ("group", "filter.group_id", "tag")
CACHE_MINUTES = 5  # CiviCRM's default for smartGroupCacheTimeout
_POSITIVE, _NEGATED = frozenset({"=", "IN"}), frozenset({"!=", "<>", "NOT IN"})
_MEMBER, _CACHED, _TAGGED = tables.group_contact, tables.group_contact_cache, tables.entity_tag


def filters(conn: Connection, request: Request) -> list[query.Filter]:
    """The filters on groups and tags among the parameters. Raises ``ApiError`` for one that cannot be applied."""
    out = []
    for name in FILTERS:
        given = request.params.get(name)
        if given is None or given == "":
            continue
        operator, values = _operator(request, name, given)
        if operator in NULL_TESTS:
            out.append(query.Filter(name, operator, ()))
            continue
        kind, no = (tables.tag, "tag") if name == "tag" else (tables.group, "group")
        found = [_id(conn, kind, one) for one in values]
        if operator in _NEGATED and 0 in found:
            raise ApiError(f"There is no {no} '{shown(values[found.index(0)])}'", 2000)
        smart = [] if name == "tag" else _smart(conn, request, found)
        both = (tuple(found), tuple(smart)) if smart else (tuple(found),)
        out.append(query.Filter(name, f"{'NOT ' * (operator in _NEGATED)}{'CACHED' if smart else 'LISTED'}", both))
    return out


def _operator(request: Request, name: str, given: Any) -> tuple[str, list[Any]]:
    """The operator and the groups or tags meant: one, a list, comma text, or a map of ids as in ``{"5": 1}``."""
    operator = "IN"
    if isinstance(given, dict) and given:
        first = str(next(iter(given))).upper()
        if first in OPERATORS:
            operator, given = first, next(iter(given.values()))
        else:
            given = [key for key, value in given.items() if not is_empty(value)]
    if operator not in _POSITIVE | _NEGATED | NULL_TESTS:
        raise ApiError(f"{request.entity.name} cannot be filtered by '{name}' with {operator}", 2000)
    if isinstance(given, str):
        given = given.split(",") if given.replace(",", "").replace(" ", "").isdigit() else [given]
    values = given if isinstance(given, list) else [given]
    if not values and operator not in NULL_TESTS:
        raise ApiError(f"invalid criteria for {operator}", 2000)
    if len(values) > MAX_VALUES:
        raise too_many()
    return operator, values


def _id(conn: Connection, table: Table, value: Any) -> int:
    """The id for an id, a name or a title; 0, which nothing has, for an unknown one."""
    number = integer(value)
    if number is not None:
        return number
    titles = [column for column in live_columns(conn, table) if column.name in ("name", "title", "label")]
    named = or_(*(column == str(value) for column in titles))
    return conn.execute(select(table.c.id).where(named).order_by(table.c.id)).scalar() or 0


def _smart(conn: Connection, request: Request, ids: Sequence[int]) -> list[int]:
    """Which of these groups are smart. Raises ``ApiError`` for one whose members CiviCRM would have to search."""
    c = tables.group.c
    rows = conn.execute(
        select(c.id, c.title, c.cache_date).where(in_list(c.id, ids), c.saved_search_id.is_not(None))
    ).all()
    if not rows:
        return []
    minutes = integer(read_setting(conn, "smartGroupCacheTimeout"))
    oldest = datetime.now(UTC) - timedelta(minutes=CACHE_MINUTES if minutes is None else min(minutes, 10**6))
    for row in rows:
        searched = request.clock.read(row.cache_date)
        if searched is None or searched < oldest:
            when = (
                f"CiviCRM looked for its members last at {row.cache_date}" if searched else "its members are not known"
            )
            raise ApiError(
                f"Contact cannot be filtered by '{row.title}': it is a smart group, and {when}. "
                "Only CiviCRM can search for them; open the group there and repeat the call.",
                2000,
            )
    return [row.id for row in rows]


def condition(one: query.Filter, bind: Binder) -> ColumnElement[bool]:
    """The SQL of one of ``filters``."""
    contact_id = tables.contact.c.id
    if one.path == "tag":
        listed: Select[Any] = select(_TAGGED.c.entity_id).where(_TAGGED.c.entity_table == CONTACT_TABLE)
        column = _TAGGED.c.tag_id
    else:
        listed = select(_MEMBER.c.contact_id).where(_MEMBER.c.status == GroupStatus.ADDED)
        column = _MEMBER.c.group_id
    if one.operator in NULL_TESTS:
        return contact_id.in_(listed) if one.operator == "IS NOT NULL" else contact_id.not_in(listed)
    found: ColumnElement[bool] = contact_id.in_(listed.where(in_values(column, bind())))
    if one.operator.endswith("CACHED"):
        found = or_(found, contact_id.in_(select(_CACHED.c.contact_id).where(in_values(_CACHED.c.group_id, bind()))))
    return ~found if one.operator.startswith("NOT") else found


def add_lists(conn: Connection, request: Request, rows: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Set the names of *names* in each row: titles of groups, names of tags, as far as the caller may read those."""
    for keys, field, read in ((GROUPS, "group", _titles), (TAGS, "tag", _tag_names)):
        wanted = [name for name in names if name in keys]
        if not wanted:
            continue
        known: dict[int, list[str]] = defaultdict(list)
        if request.registry.target(request.entity.by_name[field]) is not None:
            for contact_id, text in conn.execute(read([int(row["id"]) for row in rows])):
                known[contact_id].append(text)
        for row in rows:
            row |= dict.fromkeys(wanted, ",".join(known[int(row["id"])]))


def _titles(ids: Sequence[int]) -> Select[Any]:
    group = tables.group
    return (
        select(_MEMBER.c.contact_id, group.c.title)
        .join(group, group.c.id == _MEMBER.c.group_id)
        .where(in_list(_MEMBER.c.contact_id, ids), _MEMBER.c.status == GroupStatus.ADDED, group.c.is_hidden == 0)
        .order_by(group.c.title)
    )


def _tag_names(ids: Sequence[int]) -> Select[Any]:
    tag = tables.tag
    theirs = in_list(_TAGGED.c.entity_id, ids), _TAGGED.c.entity_table == CONTACT_TABLE
    return (
        select(_TAGGED.c.entity_id, tag.c.name)
        .join(tag, tag.c.id == _TAGGED.c.tag_id)
        .where(*theirs)
        .order_by(tag.c.name)
    )
