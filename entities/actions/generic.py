"""The generic actions that use get, create and delete: getsingle, getvalue, getcount, update, setvalue, replace.

They make API calls, so an entity's own rules, filters and permissions apply (contract 4.4).
"""

from collections.abc import Mapping
from typing import Any

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, DATES, INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError, MandatoryMissing, ReturnedError
from civiapi.api.parameters.options import is_empty
from civiapi.api.resolution import is_chained
from entities.actions.getlist import GETLIST
from entities.actions.metadata import META

_NOT_FILTERS = frozenset({"sequential", "return", "options", "debug", "values", "version", "check_permissions"})
_LIMITS = frozenset(
    {
        "options", "option_limit", "option.limit", "rowCount", "option_offset", "option.offset", "offset",
        "option_sort", "option.sort", "sort", "debug",
    }
)  # fmt: skip


def _unchained(request: Request) -> dict[str, Any]:
    """The parameters as sent, without chained calls."""
    entity, action = request.entity, request.action
    return {key: value for key, value in request.sent.items() if not is_chained(entity, action, key)}


async def getsingle(request: Request, ctx: Context) -> Result:
    """The one record that matches. Returned error: none, or several."""
    return Result(await _single(request, ctx, request.sent), unwrapped=True)


async def _single(request: Request, ctx: Context, asked: Mapping[str, Any]) -> dict[str, Any]:
    found = await ctx.call(request.entity.name, "get", {**asked, "sequential": 1})
    rows = found.get("values")
    if not isinstance(rows, list) or len(rows) != 1:
        count = len(rows) if isinstance(rows, list) else 0
        raise ReturnedError(f"Expected one {request.entity.name} but found {count}", count=count)
    record: dict[str, Any] = rows[0]
    return record


async def getvalue(request: Request, ctx: Context) -> Result:
    """One field of the one record that matches."""
    if not request.returns:
        raise ReturnedError(
            "missing param return=field you want to read the value of",
            error_type="mandatory_missing",
            missing_param="return",
        )
    name = request.returns[0]
    record = await _single(request, ctx, _unchained(request))
    if name not in record:
        raise ReturnedError(f"field {name} unset or not existing", invalid_field=name)
    return Result(record[name], unwrapped=True)


async def getcount(request: Request, ctx: Context) -> Result:
    """How many records match, whatever the limit."""
    asked = {k: v for k, v in _unchained(request).items() if k not in _LIMITS}
    options = {k: v for k, v in request.options.raw.items() if k not in ("limit", "offset", "sort")}
    asked["options"] = {**options, "limit": 0, "is_count": 1}
    found = await ctx.call(request.entity.name, "get", asked)
    if isinstance(found, dict):
        found = found.get("count", 0)
    return Result(int(found), unwrapped=True)


async def update(request: Request, ctx: Context) -> Result:
    """``create`` for an existing row."""
    row_id = _own_id(request)
    if is_empty(row_id):
        raise ApiError("Mandatory parameter missing id", "mandatory_missing")
    found = await ctx.call(request.entity.name, "getcount", {"id": row_id})
    if not found:
        raise ApiError(f"No {request.entity.name} with id {row_id}", "not-found")
    saved = await ctx.call(request.entity.name, "create", _unchained(request) | {"sequential": 1})
    values = saved["values"]  # GroupContact's is a count, and settings have no ids
    has_no_ids = isinstance(values, list) and any("id" not in row for row in values)
    return Result(values, key=None if has_no_ids else "id")


def _own_id(request: Request) -> Any:
    return request.sent.get("id") or request.sent.get(f"{request.entity.snake}_id")


async def setvalue(request: Request, ctx: Context) -> Result:
    """Set one field of one record."""
    row_id = request.params["id"]
    name, value = str(request.params["field"]), request.params.get("value")
    entity = request.entity
    field = entity.by_name.get(name) or entity.withheld_by_name.get(name)
    if field is None or (field.only and "create" not in field.only):
        raise ReturnedError(
            f"Param 'field' ({name}) is invalid. must be an existing field",
            error_code="invalid_field",
            fields=[one.name for one in request.entity.fields if not one.only or "create" in one.only],
        )
    title = field.label
    if field.type not in DATES and "create" in field.required_by and is_empty(value):
        raise ReturnedError(f"{title} is a required field.", error_code="required")
    if field.type == INT and not _is_number(value) and field.options is None:
        raise ReturnedError(f"{title} must be a number." if value else "Please enter a number", error_code="NaN")
    saved = await ctx.call(request.entity.name, "create", {"id": row_id, field.name: value, "sequential": 1})
    if field in entity.withheld:  # written, by somebody who is not to read it
        return Result({"id": row_id, name: ""})
    rows = saved["values"]
    shown = rows[0].get(field.name, value) if isinstance(rows, list) else value  # some answer counts
    return Result({"id": row_id, name: value if field.type == BOOLEAN else shown})


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


async def replace(request: Request, ctx: Context) -> Result:
    """Make the rows that match be exactly ``values``: update, insert, delete the rest."""
    values = request.sent.get("values")
    if not isinstance(values, list):
        raise MandatoryMissing(["values"])
    keys = {k: v for k, v in _unchained(request).items() if k not in _NOT_FILTERS}
    _check_selection(request, keys)
    name = request.entity.name
    ctx.budget.check_writes(len(values))
    found = await ctx.call(name, "get", {**keys, "return": ["id"], "options": {"limit": 0}, "sequential": 1})
    given = {str(one.get("id")) for one in values if isinstance(one, dict)}
    ctx.budget.check_writes(len(values) + sum(row["id"] not in given for row in found["values"]))
    rows: list[dict[str, Any]] = []
    for one in values:
        saved = await ctx.call(name, "create", {**keys, **one, "sequential": 1})
        if not isinstance(saved["values"], list):  # it answers counts, and which rows they are of is not known
            raise ApiError(f"{name} rows cannot be replaced; use create and delete")
        rows += saved["values"]
    kept = {str(row["id"]) for row in rows}
    for row in found["values"]:
        if row["id"] not in kept:
            await ctx.call(name, "delete", {"id": row["id"]})
    return Result(rows)


def _check_selection(request: Request, keys: dict[str, Any]) -> None:
    """Raise ``ApiError`` unless *keys* select rows: ``get`` finds everything where a filter is empty."""
    known = request.entity.by_name
    fields = [key for key in keys if key in known and (not known[key].only or "get" in known[key].only)]
    empty = [key for key in fields if keys[key] is None or keys[key] == ""]
    if empty:
        raise ApiError(f"replace does not select rows by '{empty[0]}', which is empty", "mandatory_missing")
    if not fields:
        raise ApiError("replace needs at least one field that selects the rows", "mandatory_missing")


DELEGATING: tuple[Action, ...] = (
    *(
        Action(
            one.__name__,
            run_async=one,
            delegates_to=("get",),
            generic=True,
            short=True,
            single=True,
            params=(),
            permission="get",
        )
        for one in (getsingle, getvalue, getcount)
    ),
    Action("update", run_async=update, delegates_to=("get", "create"), generic=True, params=()),
    Action(
        "setvalue",
        run_async=setvalue,
        delegates_to=("create",),
        generic=True,
        permission="update",
        params=(Field("id", INT, required_by={"setvalue"}), Field("field", required_by={"setvalue"})),
    ),
    Action(
        "replace",
        run_async=replace,
        delegates_to=("get", "create", "delete"),
        generic=True,
        params=(),
        permission="update",
    ),
)

GENERIC: tuple[Action, ...] = (*DELEGATING, GETLIST, *META)
