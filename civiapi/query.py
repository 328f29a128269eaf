"""APIv3 filters, sort, limit and joins as a Core select (contract section 5).

A select is built once for each shape (which filters with which operators, which columns, how sorted) and kept as
compiled text with the places of its values; a call then only fills them in. Names are looked up in declarations, so
nothing a caller sends reaches SQL as text.
"""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    String,
    and_,
    bindparam,
    func,
    or_,
    select,
    type_coerce,
)
from sqlalchemy.exc import DBAPIError

from civiapi import options as lists
from civiapi.access import sees_all, visible
from civiapi.envelope import TextRows, scalar
from civiapi.errors import ApiError
from civiapi.params import MOST_VALUES, NULL_TESTS, OPERATORS, check_filter, too_many
from civiapi.registry import Registry
from civiapi.request import Request
from civiapi.spec import Entity, Field, OptionGroup, OptionTable, Result
from civiapi.store.tables import option_group, option_value

MOST_JOINS = 4
MOST_GROUPS = 100  # of options.or
LONGEST_SORT = 200  # characters of one part
MOST_SHAPES = 2000
KEPT_VALUES = 200  # a select with more is built anew each time: long lists of ids never have the same length twice
_SORT = re.compile(r"\s*([\w.]+)(?:\s+(asc|desc))?\s*", re.I)


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition: the field (dotted where it follows a reference), the operator, its operands."""

    path: str
    operator: str
    values: tuple[Any, ...]

    @property
    def shape(self) -> Hashable:
        """What makes this filter's SQL, without the values."""
        return self.path, self.operator, len(self.values)


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled select: its text, which value goes where, and the names of its columns.

    ``order`` holds places in the list of the call's values followed by the ``constants`` of the statement itself.
    """

    text: str
    order: tuple[int, ...]
    constants: tuple[Any, ...]
    keys: tuple[str, ...]

    def rows(self, conn: Connection, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """The rows as the driver gives them.

        Past Core's result, which takes 40 µs to describe forty columns nobody asks it about (measured). Raises
        ``DBAPIError`` as Core does.
        """
        every = [*values, *self.constants]
        cursor = conn.connection.cursor()
        try:
            cursor.execute(self.text, tuple([every[i] for i in self.order]))
            return cursor.fetchall()
        except conn.dialect.loaded_dbapi.Error as error:
            raise _as_core(conn, self.text, error) from error
        finally:
            cursor.close()


def _as_core(conn: Connection, text: str, error: Exception) -> BaseException:
    """A driver's error as Core would raise it, so that the store can tell what may be tried again."""
    lost = conn.dialect.is_disconnect(error, conn.connection.dbapi_connection, None)  # type: ignore[arg-type]
    base = conn.dialect.loaded_dbapi.Error
    return DBAPIError.instance(
        text, None, error, base, hide_parameters=True, connection_invalidated=lost, dialect=conn.dialect
    )


class Binder:
    """Gives out places for values, p0, p1…, in the order in which the values will be listed."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> BindParameter[Any]:
        self.count += 1
        if self.count > MOST_VALUES:
            raise too_many()
        return bindparam(f"p{self.count - 1}", required=True)


_plans: dict[Hashable, Plan] = {}


def planned(conn: Connection, shape: Hashable, build: Callable[[Binder], tuple[Select[Any], tuple[str, ...]]]) -> Plan:
    """The plan of this shape, built at its first use. *shape* must hold everything *build* depends on."""
    key = conn.dialect.name, shape
    plan = _plans.get(key)
    if plan is None:
        bind = Binder()
        statement, keys = build(bind)
        plan = _compiled(conn, statement, bind, keys)
        if bind.count <= KEPT_VALUES:
            if len(_plans) >= MOST_SHAPES:
                _plans.clear()
            _plans[key] = plan
    return plan


def _compiled(conn: Connection, statement: Select[Any], bind: Binder, keys: tuple[str, ...]) -> Plan:
    compiled = statement.compile(dialect=conn.dialect)
    places = {f"p{n}": n for n in range(bind.count)}
    constants: list[Any] = []
    for name in compiled.positiontup or ():
        if name not in places:
            places[name] = bind.count + len(constants)
            constants.append(compiled.params[name])
    order = tuple(places[name] for name in compiled.positiontup or ())
    return Plan(str(compiled), order, tuple(constants), keys)


def read_filters(conn: Connection, request: Request, skip: frozenset[str] = frozenset()) -> list[Filter]:
    """The filters among the parameters; names that mean nothing here are ignored, as CiviCRM ignores them."""
    entity, found = request.entity, []
    for name, value in request.params.items():
        if name in skip or value is None:
            continue
        if (field := entity.by_name.get(name)) is not None:
            if entity.column(name) is not None:
                found.append(as_filter(field.name, field, value))
        elif "." in name and (target := follow(request.registry, entity, name)) is not None:
            checked = check_filter(conn, request, target[-1].field, value)
            if checked is not None:
                found.append(as_filter(name, target[-1].field, checked))
    return found


def as_filter(path: str, field: Field, value: Any) -> Filter:
    """A checked value, or a map of operator and operand, as a filter."""
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
    """The SQL of one filter, with places for *count* values."""
    values = [bind() for _ in range(count)]
    if operator in _TESTS:
        return _TESTS[operator](column)
    if operator in _PAIRS:
        return _PAIRS[operator](column, values[0])
    if operator == "IN":
        return column.in_(values)
    if operator == "NOT IN":
        return column.not_in(values)
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
    "LIKE": lambda column, value: _as_text(column).like(value),
    "NOT LIKE": lambda column, value: _as_text(column).not_like(value),
}


def _as_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    """A column of any type as LIKE may be asked of it; both databases compare its text."""
    return column if isinstance(column.type, String) else type_coerce(column, String())


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a dotted name: a field, and the entity it leads to (``None``: an option list, or the end)."""

    field: Field
    target: Entity | None = None


def follow(registry: Registry, entity: Entity, path: str) -> list[Step] | None:
    """The fields along a dotted name; ``None`` if it leads nowhere. Raises ``ApiError`` for one too deep."""
    parts = path.split(".")
    if len(parts) > MOST_JOINS + 1:
        raise ApiError(f"Maximum number of joins exceeded in parameter {path}", 2000)
    steps: list[Step] = []
    here: Entity | None = entity
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        field = here.by_name.get(part) if here is not None else None
        if here is None or field is None or here.column(part) is None:
            return None
        if last:
            return [*steps, Step(field)]
        target = registry.find_entity(field.fk) if field.fk else None
        if target is None or target.table is None:
            return _option_steps(steps, field, parts[position + 1 :])
        steps.append(Step(field, target))
        here = target
    return None


def _option_steps(steps: list[Step], field: Field, rest: list[str]) -> list[Step] | None:
    known = {OptionGroup: ("label", "name", "value", "weight"), OptionTable: ("id", "name", "label", "title")}
    if len(rest) != 1 or rest[0] not in known.get(type(field.options), ()):
        return None
    return [*steps, Step(field), Step(Field(rest[0]))]


class Scope:
    """The tables of one select: the entity's own, and those its dotted names lead to."""

    def __init__(self, registry: Registry, entity: Entity) -> None:
        assert entity.table is not None  # noqa: S101  only entities with a table are queried
        self.registry = registry
        self.entity = entity
        self.table: FromClause = entity.table
        self._joined: dict[str, tuple[FromClause, ColumnElement[bool]]] = {}
        self._inner: set[str] = set()

    def column(self, path: str, *, inner: bool = False) -> ColumnElement[Any] | None:
        """The column behind a name, joining what lies between; ``None`` for a name that leads nowhere."""
        if "." not in path:
            own = self.entity.column(path)
            return None if own is None else self.table.c[own.key]
        steps = follow(self.registry, self.entity, path)
        if steps is None:
            return None
        here, trail = self.table, ""
        for step in steps[:-1]:
            trail = f"{trail}.{step.field.name}"
            if trail not in self._joined:
                self._joined[trail] = self._link(here, step)
            if inner:
                self._inner.add(trail)
            here = self._joined[trail][0]
        name = steps[-1].field.name
        return here.c[self._list_column(steps[-2].field, name) if steps[-2].target is None else name]

    def _link(self, here: FromClause, step: Step) -> tuple[FromClause, ColumnElement[bool]]:
        column, options = here.c[step.field.name], step.field.options
        if step.target is not None and step.target.table is not None:
            there = step.target.table.alias()
            return there, there.c.id == column
        if isinstance(options, OptionTable):
            there = options.table.alias()
            return there, there.c.id == column
        assert isinstance(options, OptionGroup)  # noqa: S101  follow() lets nothing else through
        values = option_value.alias()
        group = select(option_group.c.id).where(option_group.c.name == options.name).scalar_subquery()
        return values, and_(values.c.option_group_id == group, values.c.value == column)

    @staticmethod
    def _list_column(field: Field, name: str) -> str:
        if isinstance(field.options, OptionTable) and name in ("label", "title"):
            return field.options.label
        return name

    @cached_property
    def source(self) -> FromClause:
        """Everything joined: inner where a filter asks for it."""
        source = self.table
        for trail, (there, on) in self._joined.items():
            source = source.join(there, on, isouter=trail not in self._inner)
        return source


def or_groups(request: Request, present: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """``options.or`` as groups of filters that are ORed. Raises ``ApiError`` for a field that is no filter."""
    raw = request.options.raw.get("or")
    if not raw:
        return ()
    if isinstance(raw, str):
        raw = [part.strip() for part in raw.split(",")]
    groups = [raw] if isinstance(raw, list) and all(isinstance(one, str) for one in raw) else raw
    out = []
    for group in groups if isinstance(groups, list) else []:
        names = [part.strip() for part in group.split(",")] if isinstance(group, str) else list(group)
        for name in names:
            if name not in present:
                raise ApiError(f"'{name}' specified in OR group but not added to params", 2000)
        out.append(tuple(dict.fromkeys(names)))
    if len(out) > MOST_GROUPS:
        raise ApiError(f"At most {MOST_GROUPS} OR groups can be given", 2000)
    return tuple(out)


def combined(
    conditions: Mapping[str, ColumnElement[bool]], groups: Sequence[Sequence[str]]
) -> list[ColumnElement[bool]]:
    """All conditions to be met: those in a group as one OR, the others one by one."""
    grouped = {name for group in groups for name in group}
    out = [or_(*(conditions[name] for name in group)) for group in groups]
    return out + [one for name, one in conditions.items() if name not in grouped]


def sort_part(part: str) -> tuple[str, bool]:
    """One part of ``options.sort``: the field's name, and whether it goes down. Raises ``ApiError``."""
    if "select" in part[:LONGEST_SORT].lower():
        raise ApiError("invalid string in sort options", 2000)
    found = _SORT.fullmatch(part) if len(part) <= LONGEST_SORT else None
    if found is None:
        raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
    return found[1], (found[2] or "").lower() == "desc"


def ordering(scope: Scope, parts: Sequence[str]) -> list[ColumnElement[Any]]:
    """The ORDER BY: as asked, then by id. Raises ``ApiError`` for what is no field."""
    out: list[ColumnElement[Any]] = []
    for part in parts:
        name, descending = sort_part(part)
        column = scope.column(name)
        if column is None:
            raise ApiError(f"Unknown field specified for sort. Cannot order by '{part.strip()}'")
        out.append(column.desc() if descending else column.asc())
    return [*out, scope.table.c.id.asc()]


def get(conn: Connection, request: Request) -> Result:
    """The rows of a declared entity that meet the request: empty columns left out, everything as text."""
    filters = read_filters(conn, request)
    groups = or_groups(request, [one.path for one in filters])
    names = _asked(request)
    options = request.options
    restricted = bool(request.entity.contact_field) and not sees_all(request.caller)
    shape = (
        request.entity.name,
        tuple([one.shape for one in filters]),
        groups,
        names,
        options.sort,
        options.is_count,
        bool(options.limit),
        bool(options.offset),
        request.caller if restricted else None,
    )
    plan = planned(conn, shape, lambda bind: _build(request, filters, groups, names, bind))
    values: list[Any] = [value for one in filters for value in one.values]
    values += paging(request)
    rows = plan.rows(conn, values)
    if options.is_count:
        return Result(int(rows[0][0]), bare=True)
    return Result(_texts(request.entity, plan.keys, rows))


def paging(request: Request) -> list[int]:
    """The values of LIMIT and OFFSET, as ``limited`` placed them."""
    options = request.options
    if options.is_count or not (options.limit or options.offset):
        return []
    return [options.limit or 2**62, options.offset]


def limited(statement: Select[Any], request: Request, bind: Binder) -> Select[Any]:
    """*statement* with places for LIMIT and OFFSET, where the request has them."""
    if request.options.is_count or not (request.options.limit or request.options.offset):
        return statement
    return statement.limit(bind()).offset(bind())


def _asked(request: Request) -> tuple[str, ...]:
    """The columns to give: those asked for that exist, with id; all of them where nothing was asked for."""
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
    scope = Scope(request.registry, request.entity)
    conditions: dict[str, ColumnElement[bool]] = {}
    for one in filters:
        column = scope.column(one.path, inner=True)
        assert column is not None  # noqa: S101  read_filters has looked it up
        conditions[one.path] = condition(column, one.operator, bind, len(one.values))
    where = combined(conditions, groups)
    if request.entity.contact_field:
        owner = scope.column(request.entity.contact_field)
        seen = None if owner is None else visible(request.caller, owner)
        where += [] if seen is None else [seen]
    order = ordering(scope, request.options.sort)
    if request.options.is_count:
        return select(func.count()).select_from(scope.source).where(*where), ("count",)
    columns = [column for name in names if (column := scope.column(name)) is not None]
    statement = select(*columns).select_from(scope.source).where(*where).order_by(*order)
    return limited(statement, request, bind), names


def _texts(entity: Entity, keys: tuple[str, ...], rows: Sequence[Sequence[Any]]) -> TextRows:
    several = frozenset(k for k in keys if (f := entity.by_name.get(k)) is not None and f.multiple)
    out = TextRows()
    for row in rows:
        out.append(
            {
                key: lists.unpack(value) if key in several else value if value.__class__ is str else scalar(value)
                for key, value in zip(keys, row, strict=True)
                if value is not None and value != ""
            }
        )
    return out
