"""Contact.get: columns of the contact and of other tables, and filters of its own (contract 5.4).

Rows contain every column asked for, empty ones as ``""``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from civiapi.api import query
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import OptionGroup
from civiapi.api.declaration.spec import Entity, Request, Result
from civiapi.api.envelope import TextRows
from civiapi.api.parameters import custom_fields
from civiapi.api.parameters.custom_fields import CustomField
from civiapi.api.parameters.options import integer, is_empty
from civiapi.api.parameters.params import OPERATORS, check_filter, check_value
from civiapi.api.permissions import may_get, unseen_contacts
from civiapi.store.databases.compiled_query import CompiledQuery
from civiapi.store.schema import tables
from entities.contacts import contact_lists
from entities.contacts.contact_fields import BLANKS, COMPANIONS, DEFAULT_COLUMNS, FIELDS, GROUPS, LABELS, TAGS
from entities.contacts.contact_select import ALSO, COLUMNS, JOINED, ContactSelect

_BY_NAME = {name: f for f in FIELDS for name in (f.name, f.unique_name, *f.aliases) if name}
_NOT_FIELDS = frozenset({*JOINED, *LABELS, *BLANKS, *COMPANIONS, *GROUPS, *TAGS})
_NAMES = frozenset({"sort_name", "display_name"})
OWN_FILTERS = frozenset({*JOINED, *contact_lists.FILTERS, "uf_user", "showAll", "birth_date_low", "birth_date_high"})
_TRASH = {"active": (0,), "trash": (1,), "all": ()}


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of an answer: those selected, labels of coded ones, and the names under which they appear."""

    sources: tuple[str, ...]
    labels: tuple[tuple[str, str, OptionGroup], ...]
    several: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]  # source and additional name
    hidden: tuple[str, ...]  # selected only for a label
    blank: Mapping[str, str]
    lists: tuple[str, ...]  # of groups and of tags, which are read after the rows


@lru_cache(maxsize=512)
def _columns(entity: Entity, asked: tuple[str, ...], custom: tuple[tuple[str, bool], ...] = ()) -> _Columns:
    names = list(asked or (*DEFAULT_COLUMNS, *BLANKS))
    names += [more for name in names for more in COMPANIONS.get(name, ())]
    sources, labels, renamed, hidden = ["id"], [], [], []
    for name in dict.fromkeys(names):
        if name in LABELS:
            labels.append((name, *LABELS[name]))
        elif name in JOINED:
            sources.append(name)
        elif (field := entity.by_name.get(name)) is not None and field.name in COLUMNS and field.name != "id":
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
    several = [s for s in sources if s in entity.by_name and entity.by_name[s].multiple]
    sources += [name for name, _ in custom]
    several += [name for name, is_multiple in custom if is_multiple]
    blank = dict.fromkeys((name for name in names if name in BLANKS), "")
    listed = tuple(name for both in (GROUPS, TAGS) if {*both} & {*names} for name in dict.fromkeys((*both,)))
    return _Columns(tuple(sources), tuple(labels), tuple(several), tuple(renamed), tuple(hidden), blank, listed)


def get(conn: Connection, request: Request) -> Result:
    """The contacts that meet the filters."""
    custom = _custom(conn, request)
    filters = [*_own_filters(conn, request, custom), *_filters(conn, request, custom)]
    options = request.options
    known = tuple([name for name in request.returns if name in _NOT_FIELDS or name in request.entity.by_name])
    returned = tuple([(name, custom[name].field.multiple) for name in request.returns if name in custom])
    columns = _columns(request.entity, known or (request.returns and ("id",)), returned)  # a cache is keyed by them
    shape = (
        "Contact",
        tuple([one.shape for one in filters]),
        columns.sources,
        tuple([query.sort_part(part) for part in options.sort]),
        options.is_count,
        bool(options.limit or options.offset),
        request.registry.access.key,
        tuple([one.shape for one in custom.values()]),
    )
    compiled = query.compiled_query(
        conn, shape, lambda bind: ContactSelect(request, custom).statement(filters, columns.sources, bind)
    )
    values = [value for one in filters for value in one.operands] + query.paging(request)
    rows = compiled.rows(conn, values, request.caller.contact_id)
    if options.is_count:
        return Result(int(rows[0][0]), unwrapped=True)
    found = _texts(conn, columns, compiled, rows)
    for name in (name for name, _ in returned if custom[name].hides_contacts(request)):
        seen = set(_seen_of(conn, request, [one for row in found for one in row[name]]))
        for row in found:
            row[name] = [one for one in row[name] if one in seen] or ""
    if columns.lists:
        contact_lists.add_lists(conn, request, found, columns.lists)
    return Result(found)


_NO_CUSTOM: dict[str, CustomField] = {}


def _custom(conn: Connection, request: Request) -> dict[str, CustomField]:
    """The custom fields that the call names."""
    names = [*request.params, *request.returns]
    if request.options.sort:
        names += [query.sort_part(part)[0] for part in request.options.sort]
    wanted = [name for name in names if name.startswith(custom_fields.PREFIX)]
    return custom_fields.load(conn, request, wanted) if wanted else _NO_CUSTOM


def _filters(conn: Connection, request: Request, custom: Mapping[str, CustomField]) -> list[query.Filter]:
    """The filters on fields; those on names and the address match more loosely."""
    show = str(request.sent.get("showAll"))
    skip = OWN_FILTERS | {"is_deleted"} if show in _TRASH else OWN_FILTERS
    skip = skip | custom.keys() if custom else skip
    out = [_loosened(one) for one in query.read_filters(conn, request, skip, joins=False)]
    if not request.options.sort and not request.options.is_count:
        out = [_by_id_order(one) for one in out]
    out += [query.Filter("is_deleted", "=", (flag,)) for flag in _TRASH.get(show, ())]
    for name, value in request.params.items():
        if name in JOINED and value is not None and (name, value) != ("email", ""):  # which CiviCRM ignores
            out.append(_either(_loosened(query.as_filter(name, _BY_NAME[name], value))))
    return out


def _by_id_order(one: query.Filter) -> query.Filter:
    """Contacts that are not in the trash are most of them: no reason for SQLite to leave the order of the ids."""
    is_usual = one.path == "is_deleted" and one.operator == "=" and one.values == (0,)
    return query.Filter(one.path, "NOT TRASHED", one.values) if is_usual else one


def _loosened(one: query.Filter) -> query.Filter:
    """A text with ``%`` is a pattern; a name matches any part of the name or the primary address."""
    if one.operator == "=" and isinstance(one.values[0], str):
        text = one.values[0]
        if one.path in _NAMES:
            pattern = text if "%" in text else f"%{text}%"
            return query.Filter(one.path, "NAME", (pattern, pattern))
        if "%" in text:
            return query.Filter(one.path, "LIKE", (text,))
    return one


def _either(one: query.Filter) -> query.Filter:
    """A country or state is found by its name, its code and its id."""
    if one.path not in ALSO or one.operator != "=":
        return one
    text = str(one.values[0])
    if text.isascii() and text.isdigit() and len(text) < 10:
        return query.Filter(f"{one.path}_id", "=", (int(text),))
    return query.Filter(one.path, "EITHER", (text, text))


def _own_filters(conn: Connection, request: Request, custom: Mapping[str, CustomField]) -> list[query.Filter]:
    """Filters on groups, tags, accounts, custom fields, and two older parameters for a range of birth dates."""
    if not custom and request.params.keys().isdisjoint(OWN_FILTERS):
        return []
    out = contact_lists.filters(conn, request)
    if request.params.get("uf_user") is not None:
        out.append(_has_account(request))
    for name, one in custom.items():
        if request.params.get(name) is not None:
            out.append(_custom_filter(conn, request, one))
    for name, operator in (("birth_date_low", ">="), ("birth_date_high", "<=")):
        if not is_empty(given := request.sent.get(name)):
            checked = check_filter(conn, request, _BY_NAME["birth_date"], {operator: given})
            out.append(query.as_filter("birth_date", _BY_NAME["birth_date"], checked))
    return out


def _has_account(request: Request) -> query.Filter:
    """Contacts with or without a user account, for those who may read accounts."""
    account = request.registry.of_table(tables.uf_match.name)
    wanted = request.params["uf_user"]
    if account is None or wanted not in (0, 1) or not may_get(request.registry, account, request.caller):
        raise query.refused_filter(request.entity, "uf_user")
    return query.Filter("uf_user", "ACCOUNT" if wanted else "NO ACCOUNT", ())


def _custom_filter(conn: Connection, request: Request, one: CustomField) -> query.Filter:
    if one.has_several_rows:
        raise query.refused_filter(request.entity, one.name)
    given = request.params[one.name]
    if one.field.multiple:
        operator = str(next(iter(given), "")).upper() if isinstance(given, dict) else "IN"
        if operator in ("IN", "=") or operator not in OPERATORS:
            values = next(iter(given.values())) if isinstance(given, dict) and operator in OPERATORS else given
            wanted = check_value(conn, request, "write", one.field, values) or []
            if one.hides_contacts(request):
                wanted = _seen_of(conn, request, wanted)
            return query.Filter(one.name, f"HOLDS {len(wanted)}", tuple(lists.pack([value]) for value in wanted))
    if one.hides_contacts(request):
        raise query.refused_filter(request.entity, one.name)
    checked = check_filter(conn, request, one.field, given)
    return _loosened(query.as_filter(one.name, one.field, checked))


def _seen_of(conn: Connection, request: Request, ids: Sequence[str]) -> list[str]:
    """Those of a list of contacts that exist for the caller."""
    unseen = set(unseen_contacts(conn, request, [integer(one) or 0 for one in ids]))
    return [one for one in ids if (integer(one) or 0) not in unseen]


def _texts(conn: Connection, columns: _Columns, compiled: CompiledQuery, rows: Sequence[Sequence[Any]]) -> TextRows:
    labelled = [(name, source, lists.labels(conn, group)) for name, source, group in columns.labels]
    out = TextRows()
    last = None
    for texts in query.texts(compiled, rows):
        if texts[0] == last:
            continue  # a contact with two primary addresses
        last = texts[0]
        row: dict[str, Any] = dict(columns.blank)
        row.update(zip(columns.sources, texts, strict=True))
        row["contact_id"] = row["id"]
        for name, source, labels in labelled:
            row[name] = labels.get(row[source], "")
        for name in columns.several:
            if row[name]:
                row[name] = lists.unpack(row[name])
        for source, name in columns.renamed:
            row[name] = row[source]
        for name in columns.hidden:
            del row[name]
        out.append(row)
    return out
