"""Contact.get: its own columns, pseudo columns from other tables, and filters no other entity has (contract 5.4).

Rows hold every column asked for, empty ones as ``""``. What has to be joined (the primary address, the employer) is
joined only where a column, a filter or the order needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, func, or_, select

from civiapi import options as lists
from civiapi import query
from civiapi.access import sees_all, visible
from civiapi.call import Caller
from civiapi.envelope import TextRows, scalar
from civiapi.errors import ApiError
from civiapi.params import check_filter
from civiapi.request import Request, integer, is_empty
from civiapi.spec import OptionGroup, Result
from civiapi.store import tables
from entities.contact_fields import BLANKS, COMPANIONS, DEFAULT_COLUMNS, FIELDS, LABELS

_primary = tables.email.alias("primary_email")
_employer = tables.contact.alias("employer")
_ELSEWHERE: Mapping[str, ColumnElement[Any]] = {
    "email": _primary.c.email,
    "email_id": _primary.c.id,
    "on_hold": _primary.c.on_hold,
    "current_employer": _employer.c.display_name,
}
_BY_NAME = {name: f for f in FIELDS for name in (f.name, f.unique_name, *f.aliases) if name}
_COLUMNS = frozenset(f.name for f in FIELDS if f.name in tables.contact.c)
_NAMES = frozenset({"sort_name", "display_name"})
_OWN_FILTERS = frozenset({"group", "filter.group_id", "showAll", "birth_date_low", "birth_date_high"})
_TRASH = {"active": (0,), "trash": (1,), "all": ()}


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a row holds: columns by source name, what each goes by outside, coded columns in words, empty columns."""

    sources: tuple[str, ...]
    labels: tuple[tuple[str, str, OptionGroup], ...]
    several: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # another name for a source
    hidden: tuple[str, ...]  # fetched for a label only
    blank: Mapping[str, str]


@lru_cache(maxsize=512)
def _shown(asked: tuple[str, ...], with_key: bool) -> _Shown:
    names = list(asked or (*DEFAULT_COLUMNS, *BLANKS))
    names += [more for name in names for more in COMPANIONS.get(name, ())]
    sources, labels, renamed, hidden = ["id"], [], [], []
    for name in dict.fromkeys(names):
        if name in LABELS:
            labels.append((name, *LABELS[name]))
        elif name in _ELSEWHERE:
            sources.append(name)
        elif (field := _BY_NAME.get(name)) is not None and field.name in _COLUMNS and field.name != "id":
            if field.name == "api_key" and not with_key:
                continue
            sources.append(field.name)
            outside = {name if asked else field.unique_name or field.name, field.unique_name or field.name}
            renamed += [(field.name, one) for one in outside if one != field.name]
            if field.name not in outside and field.name not in names:
                hidden.append(field.name)
    for _, source, _group in labels:
        if source not in sources:
            sources.append(source)
            hidden.append(source)
    sources = list(dict.fromkeys(sources))
    several = tuple(s for s in sources if s in _BY_NAME and _BY_NAME[s].multiple)
    blank = dict.fromkeys((name for name in names if name in BLANKS), "")
    return _Shown(tuple(sources), tuple(labels), several, tuple(renamed), tuple(hidden), blank)


def get(conn: Connection, request: Request) -> Result:
    """The contacts that meet the filters."""
    filters = [*_own_filters(conn, request), *_filters(conn, request)]
    options = request.options
    shown = _shown(request.returns, sees_keys(request))
    restricted = not sees_all(request.caller)
    shape = (
        "Contact",
        tuple([one.shape for one in filters]),
        shown.sources,
        options.sort,
        options.is_count,
        bool(options.limit or options.offset),
        request.caller if restricted else None,
    )
    plan = query.planned(conn, shape, lambda bind: _build(request, filters, shown.sources, bind))
    values = [value for one in filters for value in one.values] + query.paging(request)
    rows = plan.rows(conn, values)
    if options.is_count:
        return Result(int(rows[0][0]), bare=True)
    return Result(_texts(conn, shown, rows))


def sees_keys(request: Request) -> bool:
    """Whether API keys are shown: to those who may edit them, and one's own to those who may edit that."""
    caller: Caller = request.caller
    own = caller.contact_id is not None and request.id == caller.contact_id
    return caller.may("edit api keys") or (own and caller.may("edit own api keys"))


def _filters(conn: Connection, request: Request) -> list[query.Filter]:
    """The ordinary filters, and those on names and address, which match in their own way."""
    show = str(request.sent.get("showAll"))
    skip = _OWN_FILTERS | {"is_deleted"} if show in _TRASH else _OWN_FILTERS
    out = [_loosened(one) for one in query.read_filters(conn, request, skip)]
    out += [query.Filter("is_deleted", "=", (flag,)) for flag in _TRASH.get(show, ())]
    if (address := request.params.get("email")) not in (None, ""):
        out.append(_loosened(query.as_filter("email", _BY_NAME["email"], address)))
    return out


def _loosened(one: query.Filter) -> query.Filter:
    """A plain text with ``%`` is a pattern; a plain name is found anywhere, in the primary address too."""
    if one.operator == "=" and isinstance(one.values[0], str):
        text = one.values[0]
        if one.path in _NAMES:
            pattern = text if "%" in text else f"%{text}%"
            return query.Filter(one.path, "NAME", (pattern, pattern))
        if "%" in text:
            return query.Filter(one.path, "LIKE", (text,))
    return one


def _own_filters(conn: Connection, request: Request) -> list[query.Filter]:
    """Group membership and the two old spellings of a range of birth dates."""
    out = []
    for name in ("group", "filter.group_id"):
        if not is_empty(given := request.sent.get(name)):
            ids = _group_ids(conn, given)
            out.append(query.Filter(name, "GROUP", tuple(ids)))
    for name, operator in (("birth_date_low", ">="), ("birth_date_high", "<=")):
        if not is_empty(given := request.sent.get(name)):
            checked = check_filter(conn, request, _BY_NAME["birth_date"], {operator: given})
            out.append(query.as_filter("birth_date", _BY_NAME["birth_date"], checked))
    return out


def _group_ids(conn: Connection, given: Any) -> list[int]:
    """Groups by id, name or title, however they are listed; an unknown one is group 0, which nobody is in."""
    if isinstance(given, dict):
        operator = str(next(iter(given))).upper()
        given = (
            given[next(iter(given))] if operator in ("IN", "=") else [k for k, v in given.items() if not is_empty(v)]
        )
    if isinstance(given, str):
        given = given.split(",") if given.replace(",", "").replace(" ", "").isdigit() else [given]
    ids = []
    for one in given if isinstance(given, list) else [given]:
        number = integer(one)
        if number is None:
            c = tables.group.c
            found = conn.execute(
                select(c.id).where(or_(c.name == str(one), c.title == str(one))).order_by(c.id)
            ).first()
            number = found[0] if found else 0
        ids.append(number)
    return ids or [0]


def _build(
    request: Request, filters: Sequence[query.Filter], sources: tuple[str, ...], bind: query.Binder
) -> tuple[Select[Any], tuple[str, ...]]:
    contact = tables.contact
    joins: set[str] = {name for name in sources if name in _ELSEWHERE}
    where = []
    for one in filters:
        if one.operator == "GROUP":
            where.append(_in_groups([bind() for _ in one.values]))
        elif one.operator == "NAME":
            joins.add("email")
            where.append(or_(contact.c[one.path].like(bind()), _primary.c.email.like(bind())))
        else:
            if one.path in _ELSEWHERE:
                joins.add(one.path)
            column = _ELSEWHERE[one.path] if one.path in _ELSEWHERE else contact.c[one.path]
            where.append(query.condition(column, one.operator, bind, len(one.values)))
    seen = visible(request.caller, contact.c.id)
    where += [] if seen is None else [seen]
    order = _order(request, joins)
    source = _source(joins)
    if request.options.is_count:
        return select(func.count(contact.c.id.distinct())).select_from(source).where(*where), ("count",)
    columns = [_ELSEWHERE[name] if name in _ELSEWHERE else contact.c[name] for name in sources]
    statement = select(*columns).select_from(source).where(*where).order_by(*order)
    return query.limited(statement, request, bind), sources


def _source(joins: set[str]) -> FromClause:
    source: FromClause = tables.contact
    if joins & {"email", "email_id", "on_hold"}:
        source = source.outerjoin(
            _primary, and_(_primary.c.contact_id == tables.contact.c.id, _primary.c.is_primary == 1)
        )
    if "current_employer" in joins:
        source = source.outerjoin(_employer, _employer.c.id == tables.contact.c.employer_id)
    return source


def _in_groups(group_ids: list[Any]) -> ColumnElement[bool]:
    membership = tables.group_contact.c
    members = select(membership.contact_id).where(membership.status == "Added", membership.group_id.in_(group_ids))
    return tables.contact.c.id.in_(members)


def _order(request: Request, joins: set[str]) -> list[ColumnElement[Any]]:
    out: list[ColumnElement[Any]] = []
    for part in request.options.sort:
        name, descending = query.sort_part(part)
        field = _BY_NAME.get(name) or (_BY_NAME["id"] if name == "contact_id" else None)
        if name in _ELSEWHERE:
            joins.add(name)
            column = _ELSEWHERE[name]
        elif field is not None and field.name in _COLUMNS:
            column = tables.contact.c[field.name]
        else:
            raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
        out.append(column.desc() if descending else column.asc())
    return [*out, tables.contact.c.id.asc()]


def _texts(conn: Connection, shown: _Shown, rows: Sequence[Sequence[Any]]) -> TextRows:
    words = [(name, source, lists.labels(conn, group)) for name, source, group in shown.labels]
    out = TextRows()
    last = None
    for raw in rows:
        if raw[0] == last:
            continue  # a contact with two primary addresses
        last = raw[0]
        row: dict[str, Any] = dict(shown.blank)
        row.update(
            zip(
                shown.sources,
                ["" if v is None else v if v.__class__ is str else scalar(v) for v in raw],
                strict=True,
            )
        )
        row["contact_id"] = row["id"]
        for name, source, labels in words:
            row[name] = labels.get(row[source], "")
        for name in shown.several:
            if row[name]:
                row[name] = lists.unpack(row[name])
        for source, name in shown.renamed:
            row[name] = row[source]
        for name in shown.hidden:
            del row[name]
        out.append(row)
    return out
