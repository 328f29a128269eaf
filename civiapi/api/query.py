"""APIv3 filters, sort, limit and joins as a Core select (contract section 5).

A select is compiled once for each shape (filters with their operators, columns, order) and cached; a call only supplies
the values. Names are looked up in declarations, so no text of a caller becomes SQL.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from sqlalchemy import (
    Case,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    Table,
    and_,
    case,
    func,
    or_,
    select,
    type_coerce,
)

from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import Field, OptionGroup, OptionTable
from civiapi.api.declaration.spec import Entity, Registry, Request, Result
from civiapi.api.envelope import TextRows, scalar, shown
from civiapi.api.errors import ApiError, InvalidValue
from civiapi.api.parameters.params import CONTROL, MAX_VALUES, NULL_TESTS, OPERATORS, check_filter, too_many
from civiapi.api.permissions import rows_seen, value_seen
from civiapi.runtime.values import call_value
from civiapi.store.databases.compiled_query import ME, Binder, CompiledQuery, compile_query
from civiapi.store.databases.expressions import begins_like
from civiapi.store.databases.text_keys import in_order
from civiapi.store.schema.live_columns import absent_names
from civiapi.store.schema.tables import option_group, option_value
from civiapi.store.text.collation import literal_beginning
from civiapi.store.text.encoded_text import EncodedText, decode, encode

MAX_JOINS = 4
MAX_GROUPS = 100  # of options.or
BEGINS_LIKE = "BEGINS LIKE"
PATTERNS = frozenset({"LIKE", "NOT LIKE", "NAME"})
MAX_PATTERN_BYTES = 512  # comparing a LIKE pattern takes up to the product of its length and the text's
MAX_SORT = 200  # characters of one part
MAX_CACHED_QUERIES = 2000
MAX_CACHED_TEXT = 8_000  # characters of a compiled select that is cached
LISTS = frozenset({"IN", "NOT IN", "GROUP"})  # operators whose operand is a list
_NEVER_IGNORED = ("custom_", "filter.", "filter_", "filters")  # CiviCRM has them on every entity
_SORT = re.compile(r"\s*([\w.]+)(?:\s+(asc|desc))?\s*", re.I)


def check_pattern(name: str, text: str) -> None:
    """Raise ``ApiError`` for a pattern of LIKE that takes too long to compare, or that SQLite does not take."""
    if len(encode(text).encode("utf-8", "surrogatepass")) > MAX_PATTERN_BYTES:
        raise ApiError(f"A pattern has at most {MAX_PATTERN_BYTES} bytes ({name[:MAX_SORT]})", 2100)


@call_value
class Filter:
    """One condition: the field (dotted for a join), the operator, its operands."""

    path: str
    operator: str
    values: tuple[Any, ...]

    @property
    def shape(self) -> Hashable:
        """All that determines the SQL of this filter."""
        return self.path, self.sql_operator

    @property
    def sql_operator(self) -> str:
        """The operator as ``condition`` takes it: a LIKE of a pattern that begins with text is one of its own."""
        is_begun = self.operator == "LIKE" and literal_beginning(str(self.values[0]))
        return BEGINS_LIKE if is_begun else self.operator

    def __post_init__(self) -> None:
        """Raise ``ApiError`` for a pattern that takes too long to compare."""
        if self.operator in PATTERNS:
            for value in self.values:
                check_pattern(self.path, str(value))

    @property
    def operands(self) -> tuple[Any, ...]:
        """The values as ``condition`` places them: a list is one operand, whatever its length.

        Spaces at the end count in patterns alone: CiviCRM's collation ignores them, SQLite's for codes would not.
        """
        values = self.values
        if self.operator not in PATTERNS and any(one.__class__ is str and one.endswith(" ") for one in values):
            values = tuple(one.rstrip(" ") if one.__class__ is str else one for one in values)
        return (values,) if self.operator in LISTS else values


BuildQuery = Callable[[Binder], tuple[Select[Any], tuple[str, ...]]]
_compiled_queries: dict[Hashable, CompiledQuery] = {}


def compiled_query(conn: Connection, shape: Hashable, build: BuildQuery) -> CompiledQuery:
    """The compiled query of this shape, built at its first use. *shape* must hold everything *build* depends on.

    It is kept unless it is long: a caller chooses which names are filtered by, returned and sorted by.
    """
    key = conn.dialect.name, absent_names(conn), shape
    compiled = _compiled_queries.get(key)
    if compiled is None:
        bind = Binder()
        statement, keys = build(bind)
        compiled = compile_query(conn.dialect, statement, bind, keys)
        if len(compiled.text) <= MAX_CACHED_TEXT:
            if len(_compiled_queries) >= MAX_CACHED_QUERIES:
                _compiled_queries.clear()
            _compiled_queries[key] = compiled
    return compiled


def texts(compiled: CompiledQuery, rows: Sequence[Sequence[Any]]) -> list[list[str]]:
    """The values of rows of the driver as texts, decoded; NULL is empty."""
    found = [
        ["" if v is None else v if v.__class__ is str else str(v) if v.__class__ is int else scalar(v) for v in row]
        for row in rows
    ]
    for place in compiled.decoded:
        for row in found:
            if "&" in row[place]:
                row[place] = decode(row[place])
    return found


def read_filters(
    conn: Connection, request: Request, skip: frozenset[str] = frozenset(), *, joins: bool = True
) -> list[Filter]:
    """The filters among the parameters; names that mean nothing to CiviCRM are ignored, as CiviCRM ignores them.

    *skip*: those that the entity's own ``get`` reads. Raises ``ApiError`` for a filter that is not applied although
    CiviCRM or somebody with more rights has it, and for a dotted name that begins with a reference and leads nowhere,
    or anywhere unless *joins*: a filter that is ignored finds everything.
    """
    entity, found = request.entity, []
    for name, value in request.params.items():
        if value is None or name in skip:
            continue
        if (field := entity.by_name.get(name)) is not None:
            if entity.column(name) is not None:
                found.append(as_filter(field.name, field, value))
            elif not field.only or "get" in field.only:
                raise refused_filter(entity, name)
        elif name in entity.withheld_by_name:
            raise refused_filter(entity, name)
        elif name in CONTROL:
            continue
        elif "." in name:
            target = follow(request.registry, entity, name) if joins else None
            if target is not None:
                checked = check_filter(conn, request, target[-1].field, value)
                if checked is not None:
                    found.append(as_filter(name, target[-1].field, checked))
                continue
            first = entity.by_name.get(name.partition(".")[0])
            if (first is not None and (first.fk or first.options or not joins)) or is_refused(entity, name):
                raise refused_filter(entity, name)
        elif is_refused(entity, name):
            raise refused_filter(entity, name)
    if sum(len(one.values) for one in found) > MAX_VALUES:
        raise too_many()
    return found


def is_refused(entity: Entity, name: str) -> bool:
    """Whether a filter on no field of *entity* may not be ignored: CiviCRM or another caller has it."""
    whole, begins = entity.refused_filters
    return name in whole or name.startswith((*_NEVER_IGNORED, *begins))


def refused_filter(entity: Entity, name: str) -> ApiError:
    """The error for a filter that is not applied."""
    return ApiError(f"{entity.name} cannot be filtered by '{name[:MAX_SORT]}'", 2000)


def as_filter(path: str, field: Field, value: Any) -> Filter:
    """A checked value, or a map of operator and operand, as a filter.

    Raises ``ApiError`` for lists and maps within, which the check lets through where ``create`` takes them.
    """
    found = _as_filter(path, value)
    if any(isinstance(one, list | dict) for one in found.values):
        raise InvalidValue(f"{field.name} is not a valid string", 2001, error_field=field.name, type="string")
    return found


def _as_filter(path: str, value: Any) -> Filter:
    if isinstance(value, dict) and value:
        operator, operand = next(iter(value.items()))
        if operator in NULL_TESTS:
            return Filter(path, operator, ())
        if operator in OPERATORS:
            return Filter(path, operator, tuple(operand) if isinstance(operand, list) else (operand,))
    if value == "null":
        return Filter(path, "IS NULL", ())
    if isinstance(value, list):
        return Filter(path, "=", (lists.pack([str(one) for one in value]),))
    return Filter(path, "=", (value,))


def condition(column: ColumnElement[Any], operator: str, bind: Binder, count: int) -> ColumnElement[bool]:
    """The SQL of one filter, with bind parameters for *count* values."""
    if isinstance(column, Case) and operator != "IS NULL":  # ``readable`` hides values: an index finds those compared
        [(seen, value)] = column.whens
        return and_(condition(value, operator, bind, count), seen)
    if operator in ("IN", "NOT IN"):
        return bind.among(column, negated=operator == "NOT IN")
    values = [bind() for _ in range(count)]
    if operator in _TESTS:
        return _TESTS[operator](column)
    if operator in _PAIRS:
        return _PAIRS[operator](column, values[0])
    between = column.between(values[0], values[1])
    return between if operator == "BETWEEN" else ~between


_TESTS: Mapping[str, Callable[[ColumnElement[Any]], ColumnElement[bool]]] = {
    "IS NULL": lambda column: column.is_(None),
    "IS NOT NULL": lambda column: column.is_not(None),
}
_PAIRS: Mapping[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<>": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "LIKE": lambda column, value: _searched(column).like(value),
    BEGINS_LIKE: lambda column, value: begins_like(_searched(column), value),
    "NOT LIKE": lambda column, value: _searched(column).not_like(value),
}


def _searched(column: ColumnElement[Any]) -> ColumnElement[str]:
    """A column of any type for LIKE; both databases compare its text."""
    return column if isinstance(column.type, String | EncodedText) else type_coerce(column, String())


@dataclass(frozen=True, slots=True)
class PathStep:
    """One part of a dotted name: a field, and the entity it refers to (``None``: an option list, or the last part)."""

    field: Field
    target: Entity | None = None


def follow(registry: Registry, entity: Entity, path: str) -> list[PathStep] | None:
    """The fields of a dotted name; ``None`` if there is no such field. Raises ``ApiError`` for too many joins."""
    parts = path.split(".")
    if len(parts) > MAX_JOINS + 1:
        raise ApiError(f"Maximum number of joins exceeded in parameter {path}", 2000)
    steps: list[PathStep] = []
    here: Entity | None = entity
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        field = here.by_name.get(part) if here is not None else None
        if here is None or field is None or here.column(part) is None:
            return None
        if last:
            return [*steps, PathStep(field)]
        target = registry.target(field)
        if target is None or target.table is None:
            return _option_steps(steps, field, parts[position + 1 :])
        steps.append(PathStep(field, target))
        here = target
    return None


def _option_steps(steps: list[PathStep], field: Field, rest: list[str]) -> list[PathStep] | None:
    known = {OptionGroup: ("label", "name", "value", "weight"), OptionTable: ("id", "name", "label", "title")}
    if len(rest) != 1 or rest[0] not in known.get(type(field.options), ()):
        return None
    return [*steps, PathStep(field), PathStep(Field(rest[0]))]


def readable(registry: Registry, entity: Entity, table: FromClause, name: str) -> ColumnElement[Any] | None:
    """The column of a field, in the entity's *table* or an alias of it, as the caller may read it.

    Every select reads through here: what the caller does not see is NULL. ``None``: no such column.
    """
    field = entity.by_name.get(name)
    column = None if field is None or entity.table is None else table.c.get(field.name)
    if field is None or column is None:
        return None
    seen = value_seen(registry, entity, field, table, ME)
    return column if seen is None else case((seen, column))


@lru_cache(maxsize=1000)
def _alias(table: Table, trail: str) -> FromClause:
    """The table as joined along *trail*. Kept: an alias of a wide table takes longer to make than to compile."""
    return table.alias(trail.replace(".", "__"))


class JoinBuilder:
    """The tables of one select: the entity's own, and those joined for dotted names."""

    def __init__(self, registry: Registry, entity: Entity) -> None:
        assert entity.table is not None  # noqa: S101  only entities with a table are queried
        self.registry = registry
        self.entity = entity
        self.table: FromClause = entity.table
        self._joined: dict[str, tuple[FromClause, ColumnElement[bool]]] = {}
        self._inner: set[str] = set()

    def column(self, path: str, *, inner: bool = False) -> ColumnElement[Any] | None:
        """The column for a name, with the joins it needs; ``None`` if there is no such field."""
        if "." not in path:
            return readable(self.registry, self.entity, self.table, path)
        steps = follow(self.registry, self.entity, path)
        if steps is None:
            return None
        here, trail = self.table, ""
        for step in steps[:-1]:
            trail = f"{trail}.{step.field.name}"
            if trail not in self._joined:
                self._joined[trail] = self._link(here, step, trail)
            if inner:
                self._inner.add(trail)
            here = self._joined[trail][0]
        name, entity = steps[-1].field.name, steps[-2].target
        if entity is None:
            return here.c[self._list_column(steps[-2].field, name)]
        return readable(self.registry, entity, here, name)

    def _link(self, here: FromClause, step: PathStep, trail: str) -> tuple[FromClause, ColumnElement[bool]]:
        column, options = here.c[step.field.name], step.field.options
        if step.target is not None and step.target.table is not None:
            there = _alias(step.target.table, trail)
            seen = rows_seen(self.registry, step.target, there, ME)
            return there, there.c.id == column if seen is None else and_(there.c.id == column, seen)
        if isinstance(options, OptionTable):
            there = _alias(options.table, trail)
            return there, there.c.id == column
        assert isinstance(options, OptionGroup)  # noqa: S101  follow() lets nothing else through
        values = _alias(option_value, trail)
        group = select(option_group.c.id).where(option_group.c.name == options.name).scalar_subquery()
        return values, and_(values.c.option_group_id == group, values.c.value == column)

    @staticmethod
    def _list_column(field: Field, name: str) -> str:
        if isinstance(field.options, OptionTable) and name in ("label", "title"):
            return field.options.label
        return name

    @cached_property
    def source(self) -> FromClause:
        """The join of all tables: inner where a filter needs it."""
        source = self.table
        for trail, (there, on) in self._joined.items():
            source = source.join(there, on, isouter=trail not in self._inner)
        return source


def or_groups(request: Request, present: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """``options.or`` as groups of filters that are ORed. Raises ``ApiError`` for a field that is no filter."""
    groups = or_options(request)
    out = []
    for group in groups:
        names = [part.strip() for part in group.split(",")] if isinstance(group, str) else list(group)
        for name in names:
            if name not in present:
                raise ApiError(f"'{shown(name)}' specified in OR group but not added to params", 2000)
        out.append(tuple(dict.fromkeys(names)))
    if len(out) > MAX_GROUPS:
        raise ApiError(f"At most {MAX_GROUPS} OR groups can be given", 2000)
    return tuple(out)


def or_options(request: Request) -> list[Any]:
    """``options.or`` as a list of groups, each as it was sent."""
    raw = request.options.raw.get("or")
    if not raw:
        return []
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",")]
    groups = [raw] if isinstance(raw, list) and all(isinstance(one, str) for one in raw) else raw
    return groups if isinstance(groups, list) else []


def combined(
    conditions: Mapping[str, ColumnElement[bool]], groups: Sequence[Sequence[str]]
) -> list[ColumnElement[bool]]:
    """The conditions for WHERE: one OR for each group, and all others."""
    grouped = {name for group in groups for name in group}
    out = [or_(*(conditions[name] for name in group)) for group in groups]
    return out + [one for name, one in conditions.items() if name not in grouped]


def sort_part(part: str) -> tuple[str, bool]:
    """One part of ``options.sort``: the field's name, and whether it is descending. Raises ``ApiError``."""
    if "select" in part[:MAX_SORT].lower():
        raise ApiError("invalid string in sort options", 2000)
    found = _SORT.fullmatch(part) if len(part) <= MAX_SORT else None
    if found is None:
        raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
    return found[1], (found[2] or "").lower() == "desc"


def ordering(joins: JoinBuilder, parts: Sequence[str]) -> list[ColumnElement[Any]]:
    """The ORDER BY: the parts given, then id. Raises ``ApiError`` for an unknown field."""
    out: list[ColumnElement[Any]] = []
    for part in parts:
        name, descending = sort_part(part)
        column = joins.column(name)
        if column is None:
            raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
        out.append(in_order(column).desc() if descending else in_order(column).asc())
    return [*out, joins.table.c.id.asc()]


def get(conn: Connection, request: Request) -> Result:
    """The rows of an entity that meet the filters: all values as text, empty columns left out."""
    filters = read_filters(conn, request, request.entity.own_filters)
    groups = or_groups(request, [one.path for one in filters])
    names = _asked(request)
    options = request.options
    sort = tuple(sort_part(part) for part in options.sort)
    shape = (
        request.entity.name,
        tuple([one.shape for one in filters]),
        groups,
        names,
        sort,
        options.is_count,
        bool(options.limit or options.offset),
        request.registry.access.key,
    )
    compiled = compiled_query(conn, shape, lambda bind: _build(request, filters, groups, names, bind))
    values: list[Any] = [value for one in filters for value in one.operands]
    values += paging(request)
    rows = compiled.rows(conn, values, request.caller.contact_id)
    if options.is_count:
        return Result(int(rows[0][0]), unwrapped=True)
    return Result(_rows(request.entity, compiled, rows))


def paging(request: Request) -> list[int]:
    """The values of LIMIT and OFFSET, for ``limited``."""
    options = request.options
    if options.is_count or not (options.limit or options.offset):
        return []
    return [options.limit or 2**62, options.offset]


def limited(statement: Select[Any], request: Request, bind: Binder) -> Select[Any]:
    """*statement* with LIMIT and OFFSET, if the request has them."""
    if request.options.is_count or not (request.options.limit or request.options.offset):
        return statement
    return statement.limit(bind()).offset(bind())


def _asked(request: Request) -> tuple[str, ...]:
    """The columns of the answer: id and those asked for, as far as they exist; without a list, all."""
    entity = request.entity
    if not request.returns:
        return tuple(one.name for one in entity.fields if entity.column(one.name) is not None)
    known = [
        name
        for name in request.returns
        if (entity.column(name) is not None if "." not in name else follow(request.registry, entity, name))
    ]
    return tuple(dict.fromkeys(["id", *known]))


def _build(
    request: Request, filters: Sequence[Filter], groups: Sequence[Sequence[str]], names: tuple[str, ...], bind: Binder
) -> tuple[Select[Any], tuple[str, ...]]:
    joins = JoinBuilder(request.registry, request.entity)
    conditions: dict[str, ColumnElement[bool]] = {}
    for one in filters:
        column = joins.column(one.path, inner=True)
        assert column is not None  # noqa: S101  read_filters has looked it up
        conditions[one.path] = condition(column, one.sql_operator, bind, len(one.operands))
    where = combined(conditions, groups)
    if (seen := rows_seen(request.registry, request.entity, joins.table, ME)) is not None:
        where.append(seen)
    order = ordering(joins, request.options.sort)
    if request.options.is_count:
        return select(func.count()).select_from(joins.source).where(*where), ("count",)
    columns = [column for name in names if (column := joins.column(name)) is not None]
    statement = select(*columns).select_from(joins.source).where(*where).order_by(*order)
    return limited(statement, request, bind), names


def _rows(entity: Entity, compiled: CompiledQuery, rows: Sequence[Sequence[Any]]) -> TextRows:
    keys = compiled.keys
    several = [k for k in keys if (f := entity.by_name.get(k)) is not None and f.multiple]
    out = TextRows()
    for row in texts(compiled, rows):
        found: dict[str, Any] = {k: text for k, text in zip(keys, row, strict=True) if text != ""}
        for key in several:
            if key in found:
                found[key] = lists.unpack(found[key])
        out.append(found)
    return out
