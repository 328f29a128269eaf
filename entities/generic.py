"""The generic actions made of get, create and delete: getsingle, getvalue, getcount, update, setvalue, replace.

They call back into dispatch, so an entity's own rules, filters and permissions hold for them too (contract 4.4).
"""

from typing import Any

from civiapi.dispatch import Context
from civiapi.errors import ApiError, MandatoryMissing, ReturnedError
from civiapi.request import Request, is_empty
from civiapi.spec import BOOLEAN, DATES, INT, STRING, Action, Field, Result
from entities.getlist import GETLIST
from entities.meta import META

_FRAME = frozenset({"sequential", "return", "options", "debug", "values", "version", "check_permissions"})
_LIMITS = frozenset(
    {
        "options", "option_limit", "option.limit", "rowCount", "option_offset", "option.offset", "offset",
        "option_sort", "option.sort", "sort", "debug",
    }
)  # fmt: skip


def _unchained(params: Any) -> dict[str, Any]:
    return {key: value for key, value in params.items() if not key.startswith(("api.", "api_", "format."))}


async def getsingle(request: Request, ctx: Context) -> Result:
    """The one record that matches. Returned error: none, or several."""
    asked = {key: value for key, value in request.sent.items() if not key.startswith("format.")}
    return Result(await _single(request, ctx, asked), bare=True)


async def _single(request: Request, ctx: Context, asked: dict[str, Any]) -> dict[str, Any]:
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
    record = await _single(request, ctx, _unchained(request.sent))
    if name not in record:
        raise ReturnedError(f"field {name} unset or not existing", invalid_field=name)
    return Result(record[name], bare=True)


async def getcount(request: Request, ctx: Context) -> Result:
    """How many records match, whatever the limit."""
    asked = {k: v for k, v in _unchained(request.sent).items() if k not in _LIMITS}
    options = {k: v for k, v in request.options.raw.items() if k not in ("limit", "offset", "sort")}
    asked["options"] = {**options, "limit": 0, "is_count": 1}
    found = await ctx.call(request.entity.name, "get", asked)
    if isinstance(found, dict):
        found = found.get("count", 0)
    return Result(int(found), bare=True)


async def update(request: Request, ctx: Context) -> Result:
    """``create`` for a row that must be there."""
    row_id = _own_id(request)
    if is_empty(row_id):
        raise ApiError("Mandatory parameter missing id", "mandatory_missing")
    found = await ctx.call(request.entity.name, "getcount", {"id": row_id})
    if not found:
        raise ApiError(f"No {request.entity.name} with id {row_id}", "not-found")
    saved = await ctx.call(request.entity.name, "create", _unchained(request.sent) | {"sequential": 1})
    return Result(saved["values"])


def _own_id(request: Request) -> Any:
    return request.sent.get("id") or request.sent.get(f"{request.entity.snake}_id")


async def setvalue(request: Request, ctx: Context) -> Result:
    """Set one field of one record."""
    row_id = request.params["id"]
    name, value = str(request.params["field"]), request.params.get("value")
    field = request.entity.by_name.get(name)
    if field is None:
        raise ReturnedError(
            f"Param 'field' ({name}) is invalid. must be an existing field",
            error_code="invalid_field",
            fields=[one.name for one in request.entity.fields],
        )
    title = field.label
    if field.type not in DATES and "create" in field.required_by and is_empty(value):
        raise ReturnedError(f"{title} is a required field.", error_code="required")
    if field.type == INT and not _is_number(value) and field.options is None:
        raise ReturnedError(f"{title} must be a number." if value else "Please enter a number", error_code="NaN")
    saved = await ctx.call(request.entity.name, "create", {"id": row_id, field.name: value, "sequential": 1})
    shown = saved["values"][0].get(field.name, value)
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
    keys = {k: v for k, v in _unchained(request.sent).items() if k not in _FRAME}
    if not any(key in request.entity.by_name for key in keys):
        raise ApiError("replace needs at least one field that says which rows are meant", "mandatory_missing")
    name = request.entity.name
    found = await ctx.call(name, "get", {**keys, "return": ["id"], "options": {"limit": 0}, "sequential": 1})
    rows: list[dict[str, Any]] = []
    for one in values:
        saved = await ctx.call(name, "create", {**keys, **one, "sequential": 1})
        rows += saved["values"]
    kept = {str(row["id"]) for row in rows}
    for row in found["values"]:
        if row["id"] not in kept:
            await ctx.call(name, "delete", {"id": row["id"]})
    return Result(rows)


_ID = Field("id", INT, required_by={"setvalue"})
MADE_OF_OTHERS: tuple[Action, ...] = (
    Action("getsingle", arun=getsingle, via=("get",), needs=("get",), generic=True, params=(), permission="get"),
    Action("getvalue", arun=getvalue, via=("get",), needs=("get",), generic=True, params=(), permission="get"),
    Action("getcount", arun=getcount, via=("get",), needs=("get",), generic=True, params=(), permission="get"),
    Action("update", arun=update, via=("get", "create"), needs=("get", "create"), generic=True, params=()),
    Action(
        "setvalue", arun=setvalue, via=("create",), needs=("create",), generic=True, permission="update",
        params=(_ID, Field("field", STRING, required_by={"setvalue"})),
    ),
    Action(
        "replace", arun=replace, via=("get", "create", "delete"), needs=("get", "create", "delete"), generic=True,
        params=(), permission="update",
    ),
)  # fmt: skip

GENERIC: tuple[Action, ...] = (*MADE_OF_OTHERS, GETLIST, *META)
