"""Prepare the parameters of a call: aliases, defaults, mandatory keys, types (contract 3.3, 3.4), in CiviCRM's order.

With an ``id``, defaults and mandatory keys do not apply. The result has integers as ``int``, dates as stored, coded
fields as the stored value, and several of those as a list of texts. Undeclared names are passed on unchanged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, select

from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import BOOLEAN, DATE, DATES, FLOAT, INT, MONEY, STRING, TEXT, TIMESTAMP, Field
from civiapi.api.declaration.spec import Action, Entity, Request
from civiapi.api.envelope import shown
from civiapi.api.errors import ApiError, InvalidValue, MandatoryMissing
from civiapi.api.parameters import amounts, dates
from civiapi.api.parameters.options import is_empty
from civiapi.api.permissions import check_fields, contacts_seen, denied_fields, emptied_unseen
from civiapi.store.civicrm.settings import read_setting
from civiapi.store.databases.column_types import bounds, signed
from civiapi.store.schema.tables import uf_match
from civiapi.store.text.encoded_text import encode, is_encoded

OPERATORS = frozenset(
    {
        "=", "<=", ">=", ">", "<", "LIKE", "<>", "!=", "IN", "BETWEEN", "NOT LIKE", "NOT IN", "NOT BETWEEN",
        "IS NULL", "IS NOT NULL",
    }
)  # fmt: skip
NULL_TESTS = frozenset({"IS NULL", "IS NOT NULL"})
CONTROL = frozenset(
    {
        "action", "entity", "debug", "version", "check_permissions", "return", "sequential", "rowCount",
        "option_offset", "option_limit", "option_sort", "options", "custom", "prettyprint", "json", "key", "api_key",
        "offset", "sort",
    }
)  # fmt: skip
MAX_INTEGER = 2**63
MAX_AMOUNT = 10**18
"""The columns of amounts have 20 digits, two of them behind the point."""
MAX_VALUES = 10_000
"""Values that a call may filter by; the limit of SQLite is little higher."""


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """The declared parameters of one action."""

    names: Mapping[str, Field]  # names and aliases
    defaults: Mapping[str, Any]
    mandatory: tuple[str, ...]
    checked_with_id: bool  # mandatory keys are required also with an id
    mode: str  # filter, write or plain


def fields_of(entity: Entity, action: Action) -> tuple[Field, ...]:
    """The fields that are an action's parameters."""
    if action.params is not None:
        return action.params
    return tuple(one for one in entity.fields if not one.only or action.name in one.only)


def _spec(entity: Entity, action: Action) -> ParameterSpec:
    """The parameters of an action; kept for the entities that there are, not for any name that somebody sends."""
    return _known_spec(entity, action) if entity.actions else _known_spec.__wrapped__(entity, action)


@lru_cache(maxsize=1024)
def _known_spec(entity: Entity, action: Action) -> ParameterSpec:
    fields = fields_of(entity, action)
    if action.name == "create":
        fields = (*fields, *entity.withheld)  # a caller who may not write them is refused, not ignored
    names = {name: f for f in fields for name in (*f.aliases, f.unique_name) if name}
    names |= {f.name: f for f in fields}
    if "id" in names:
        names.setdefault(f"{entity.snake}_id", names["id"])
    return ParameterSpec(
        names,
        {f.name: f.default_by[action.name] for f in fields if action.name in f.default_by},
        tuple(f.name for f in fields if action.name in f.required_by),
        action.params is not None,
        "filter" if action.name == "get" else "write" if action.name == "create" else "plain",
    )


def prepare(conn: Connection, request: Request) -> Request:
    """The request with canonical and checked parameters. Raises ``ApiError``."""
    spec = _spec(request.entity, request.action)
    values = _aliased(spec, request.params)
    has_id = not is_empty(values.get("id"))
    if not has_id:
        for name, value in spec.defaults.items():
            if values.get(name) is None:
                values[name] = value
    if not has_id or spec.checked_with_id:
        missing = [name for name in spec.mandatory if is_missing(values.get(name))]
        if missing:
            raise MandatoryMissing(missing)
    if not request.action.generic and request.action.validated:
        for name in list(values):
            if (field := spec.names.get(name)) is not None:
                _check(conn, request, spec.mode, field, values)
    ready = request.with_only(values)
    if request.action.name == "create":
        if has_id and request.action.validated and ready.id is None:  # would insert, with the permission to update
            raise InvalidValue("id is not a valid integer", 2001, error_field="id", type="integer")
        check_fields(conn, ready)
        if kept := emptied_unseen(conn, ready):
            ready = ready.with_only({name: value for name, value in values.items() if name not in kept})
    return ready


def _aliased(spec: ParameterSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in params.items():
        field = spec.names.get(name)
        if field is None or field.name == name:
            values[name] = value
        elif field.name not in params:
            values.setdefault(field.name, value)
    return values


def is_missing(value: Any) -> bool:
    """Whether a mandatory parameter counts as missing: 0, as a number or a text, is there (contract 3.3)."""
    return not value and (isinstance(value, bool) or value not in (0, 0.0))


def _check(conn: Connection, request: Request, mode: str, field: Field, values: dict[str, Any]) -> None:
    """Replace one value by its checked form, or remove it if it has no meaning."""
    value = values[field.name]
    if value is None:
        del values[field.name]
    elif mode == "filter" and (isinstance(value, list) or _is_operator(value)):
        values[field.name] = _check_filter(conn, request, field, value)
    elif mode == "write" and (value in ("", "null") or (value in (0, "0") and field.type in DATES)):
        if field.options is not None and "create" in field.required_by and value == "null":
            raise no_option(field.name, value)
        values[field.name] = None
    elif value == "" and field.type not in (STRING, TEXT):
        if mode == "filter":
            del values[field.name]
    elif not (mode == "filter" and value == "null"):
        values[field.name] = _checked(conn, request, mode, field, value)


def check_filter(conn: Connection, request: Request, field: Field, value: Any) -> Any:
    """The checked form of a filter on a joined field; ``None``: no filter."""
    return check_value(conn, request, "filter", field, value)


def check_value(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    """The checked form of a value of a field that no declaration has; *mode*: filter or write. Raises ``ApiError``."""
    values = {field.name: value}
    _check(conn, request, mode, field, values)
    return values.get(field.name)


def too_many() -> ApiError:
    """The error for a filter with too many values."""
    return ApiError(f"A call filters by at most {MAX_VALUES} values; ask in several calls", 2000)


def _is_operator(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and str(next(iter(value))).upper() in OPERATORS


def _check_filter(conn: Connection, request: Request, field: Field, value: Any) -> dict[str, Any]:
    """A filter as ``{OPERATOR: operand}`` with the operand checked element by element."""
    if isinstance(value, list):
        value = {"IN": value}
    operator, operand = next(iter(value.items()))
    operator = str(operator).upper()
    if operator in NULL_TESTS:
        return {operator: 1}
    if operator.endswith("IN"):
        operand = operand.split(",") if isinstance(operand, str) and operand.count(",") < MAX_VALUES else operand
        if isinstance(operand, list | dict | str) and len(operand) > MAX_VALUES:
            raise too_many()
        if not isinstance(operand, list | dict) or not operand:
            raise ApiError(f"invalid criteria for {operator}", 2000)
    if isinstance(operand, dict):
        operand = list(operand.values())
    if operator.endswith("BETWEEN") and (not isinstance(operand, list) or len(operand) != 2):
        raise ApiError(f"invalid criteria for {operator}", 2000)
    if isinstance(operand, list) and len(operand) != 1 and not operator.endswith(("IN", "BETWEEN")):
        raise ApiError(f"invalid criteria for {operator}", 2000)
    loose = operator.endswith("LIKE") and field.type not in DATES
    if isinstance(operand, list):
        checked = [_checked(conn, request, "filter", field, one) for one in operand]
        return {operator: [lists.pack(one) for one in checked] if field.multiple else checked}
    if loose:
        return {operator: operand}
    checked = _checked(conn, request, "filter", field, operand)
    return {operator: lists.pack(checked) if field.multiple else checked}


def _checked(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    if field.multiple:
        return _several(conn, field, mode, value)
    if field.comma_separated and mode == "write":
        found = _several(conn, field, "plain", value.split(",") if isinstance(value, str) else value)
        check_length(field, ",".join(found))
        return ",".join(found)
    return _CHECKS.get(field.type, _text)(conn, request, mode, field, value)


def _integer(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    if value.__class__ is int and field.options is None and 0 <= value < 2**31:
        return value
    if value == "user_contact_id":
        return request.caller.contact_id if request.caller.contact_id is not None else -1
    if isinstance(value, str) and value.startswith("@user:"):
        return _user_contact(conn, request, field, value)
    if field.options is not None and mode != "plain" and not isinstance(value, list | dict):
        found = lists.match(conn, field.options, value)
        if found is None:
            raise no_option(field.name, value)
        return int(found) if found.lstrip("-").isdigit() else found
    number = _whole(value)
    least, most = -MAX_INTEGER, MAX_INTEGER - 1
    if mode == "write" and field.writable:
        column = request.entity.column(field.name)
        least, most = bounds(signed() if column is None else column.type)  # a custom field is of another table
    if number is None or not least <= number <= most:
        raise InvalidValue(f"{field.name} is not a valid integer", 2001, error_field=field.name, type="integer")
    return number


def _whole(value: Any) -> int | None:
    """A number without its fraction, as PHP casts it; ``None`` for anything else, such as Python's ``1_0``."""
    if isinstance(value, str) and not amounts.PROGRAMS.fullmatch(value.strip()):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _user_contact(conn: Connection, request: Request, field: Field, value: str) -> int:
    name = value.removeprefix("@user:")
    known = uf_match.c.uf_name == name, *contacts_seen(request, uf_match.c.contact_id)
    found = conn.execute(select(uf_match.c.contact_id).where(*known)).scalar()
    if found is None:
        raise InvalidValue(
            f'"{field.name}" "{value}" cannot be resolved to a contact ID', 2002, error_field=field.name, type="integer"
        )
    return int(found)


def _text(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    if isinstance(value, list | dict):
        if mode == "plain" or field.accepts_nested:
            return value
        raise InvalidValue(f"{field.name} is not a valid string", 2001, error_field=field.name, type="string")
    text = "1" if value is True else "" if value is False else str(value)
    if field.options is not None and mode != "plain":
        found = lists.match(conn, field.options, text)
        if found is None and mode == "write":
            raise no_option(field.name, value)
        return text if found is None else found
    if mode != "filter":
        is_column = mode == "write" and request.entity.table is not None
        check_length(field, _as_stored(request.entity, field, text), is_column=is_column)
    return text


def _as_stored(entity: Entity, field: Field, text: str) -> str:
    """A text as its column has it; a field without one is for a column of another table of CiviCRM."""
    column = entity.column(field.name)
    encoded = entity.table is not None if column is None else is_encoded(column.type)
    return encode(text) if encoded else text


def check_length(field: Field, text: str, *, is_column: bool = True) -> None:
    """Raise ``InvalidValue`` for a text, as stored, that is too long; *is_column*: it is stored in a column."""
    size, most, unit = len(text), field.max_length, "characters"
    if is_column and field.byte_limit:
        size, most, unit = len(text.encode("utf-8", "surrogatepass")), field.byte_limit, "bytes"
    if most and size > most:
        raise InvalidValue(
            f"Value for {field.name} is {size} {unit}  - This field has a maxlength of {most} {unit}.",
            2100,
            field=field.name,
        )


def _several(conn: Connection, field: Field, mode: str, value: Any) -> list[str]:
    """Values of a field that holds several: a list, ``{"1": 1}``, one value, or 0x01-separated text."""
    if isinstance(value, dict):
        value = [key for key, chosen in value.items() if not is_empty(chosen)]
    elif isinstance(value, str) and lists.SEPARATOR in value:
        value = lists.unpack(value)
    elif not isinstance(value, list):
        value = [value]
    out = []
    for one in value:
        found = lists.match(conn, field.options, one) if field.options is not None else str(one)
        if found is None:
            raise no_option(field.name, one)
        out.append(found)
    if mode == "write":
        check_length(field, encode(lists.pack(out) or ""))
    return out


def _date(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    moment = dates.parse(value, request.clock) if isinstance(value, str | int) else None
    if moment is None:
        raise InvalidValue(f"{field.name} is not a valid date: {shown(value)}")
    if field.type == TIMESTAMP and mode == "write" and not dates.is_timestamp(moment, request.clock):
        raise InvalidValue(f"{field.name} is not a valid date: {value} (it is stored from 1970 to January 2038)")
    return moment.date().isoformat() if field.type == DATE else moment.isoformat(" ", "seconds")


_BOOLEANS = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0, "": 0}


def _boolean(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    if isinstance(value, bool | int):
        return int(bool(value))
    known = _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, str | float) else None
    if known is None:
        raise InvalidValue(f"{field.name} is not a valid boolean", 2001, error_field=field.name, type="boolean")
    return known


def _number(conn: Connection, request: Request, mode: str, field: Field, value: Any) -> Any:
    number = None
    if isinstance(value, str) and field.type == MONEY:
        point, thousands = (read_setting(conn, name) or default for name, default in amounts.NOTATION.items())
        number = amounts.parse(value, point=str(point), thousands=str(thousands))
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        number = amounts.parse(str(value))
    if number is None or (mode == "write" and field.type == MONEY and abs(number) >= MAX_AMOUNT):
        raise InvalidValue(f"{field.name} is  not a valid amount: {shown(value)}", 2001, error_field=field.name)
    return number


def no_option(name: str, value: Any) -> InvalidValue:
    """The error for a value that is no choice of the field *name*."""
    return InvalidValue(f"'{shown(value)}' is not a valid option for field {name}", 2001, error_field=name)


_CHECKS: dict[int, Callable[[Connection, Request, str, Field, Any], Any]] = {
    INT: _integer,
    BOOLEAN: _boolean,
    FLOAT: _number,
    MONEY: _number,
    **dict.fromkeys(DATES, _date),
}


def unknown_names(request: Request) -> list[str]:
    """Names that were sent and are not declared (``undefined_fields``)."""
    known = _spec(request.entity, request.action).names
    return [
        name
        for name in request.sent
        if name not in known
        and name not in CONTROL
        and not name.startswith(("api.", "api_", "return.", "option.", "format."))
        and not ("." in name and name.partition(".")[0] in known)
    ]


def problems(conn: Connection, request: Request) -> dict[str, dict[str, str]]:
    """Errors in the parameters of *request*, by field, for the action ``validate``."""
    spec = _spec(request.entity, request.action)
    values = _aliased(spec, request.params)
    found: dict[str, dict[str, str]] = {}
    if is_empty(values.get("id")):
        values = {**spec.defaults, **values}
        for name in spec.mandatory:
            if is_missing(values.get(name)):
                text = f"Mandatory key(s) missing from params array: {name}"
                found[name] = {"message": text, "code": "mandatory_missing"}
    for name in list(values):
        if (field := spec.names.get(name)) is not None:
            try:
                _check(conn, request, spec.mode, field, values)
            except ApiError as problem:
                found[name] = {"message": problem.message, "code": "incorrect_value"}
    if request.action.name == "create":
        denied = denied_fields(request.with_only(values))
        found |= {name: {"message": text, "code": "unauthorized"} for name, text in denied}
    return found
