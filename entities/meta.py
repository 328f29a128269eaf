"""The actions by which declarations describe themselves: getfields, getoptions, getactions, validate and kin.

They need ``access CiviCRM`` (getactions: nothing), keep native JSON types, and change nothing (contract 4.4).
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, func, select

from civiapi import describe, params
from civiapi import options as lists
from civiapi.access import OPEN
from civiapi.envelope import as_key
from civiapi.errors import ApiError, NotFound, ReturnedError
from civiapi.registry import action_name
from civiapi.request import Request
from civiapi.spec import INT, STRING, Action, Entity, Field, Option, Result
from civiapi.store.tables import METADATA

RETIRED = {
    name: f'The "{name}" action is deprecated. Use "create" with an id instead.' for name in ("setvalue", "update")
}
CONTEXTS = frozenset({"get", "create", "search", "match", "validate", "abbreviate", "edit", "full", ""})


def getfields(conn: Connection, request: Request) -> Result:
    """The fields of an action (``api_action``, default get) by name."""
    action = action_name(str(request.params.get("api_action") or "get"))
    found = describe.fields(request.registry, request.entity, action)
    wanted = request.options.raw.get("get_options")
    for name, one in found.items():
        field = request.entity.by_name.get(name)
        if field is not None and field.options is not None and (wanted == "all" or name in _names(wanted)):
            one["options"] = _listed(request, lists.load(conn, field.options), _context(request.options.raw))
    return Result(found)


def _names(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _context(raw: Any) -> str:
    return str(raw.get("get_options_context") or "")


def getfield(conn: Connection, request: Request) -> Result:
    """One field of an action."""
    name, action = str(request.params["name"]), action_name(str(request.params.get("action") or "get"))
    known = describe.action_of(request.registry, request.entity, action)
    field = _field(request.entity, known, name)
    if known is None or field is None:
        raise ApiError(f"The field '{name}' doesn't exist.", "invalid_field")
    return Result(describe.field(request.entity, known, field))


def _field(entity: Entity, action: Action | None, name: str) -> Field | None:
    if action is None:
        return None
    if action.params is None:
        return entity.by_name.get(name)
    return next((one for one in action.params if name in (one.name, one.unique_name, *one.aliases)), None)


def getoptions(conn: Connection, request: Request) -> Result:
    """The choices of a coded field: stored value to label, or as ``context`` says."""
    name, context = str(request.params["field"]), str(request.params.get("context") or "")
    field = request.entity.by_name.get(name)
    if field is None:
        raise ReturnedError(f"The field '{name}' doesn't exist.")
    if field.options is None:
        raise ReturnedError(f"The field '{name}' has no associated option list.")
    if context not in CONTEXTS:
        raise ReturnedError(f"'{context}' is not a valid context for buildOptions.")
    return Result(_listed(request, lists.load(conn, field.options), context), key=None)


def _listed(request: Request, choices: tuple[Option, ...], context: str) -> Any:
    """Choices as PHP would answer them: a map, a list where the keys count up from 0, pairs if asked for a list."""
    if context == "match":
        pairs = {one.name: one.label for one in choices}
    else:
        pairs = {one.value: one.name if context == "validate" else one.label for one in choices}
    if request.sequential:
        return [{"key": as_key(key), "value": value} for key, value in pairs.items()]
    if list(pairs) == [str(n) for n in range(len(pairs))]:
        return list(pairs.values())
    return pairs


def getactions(conn: Connection, request: Request) -> Result:
    """The names of what an entity can do; an unknown entity can do nothing."""
    return Result(sorted(request.registry.actions(request.entity)), key=None, extra={"deprecated": dict(RETIRED)})


def validate(conn: Connection, request: Request) -> Result:
    """What would be wrong with these parameters for ``action``; nothing is done."""
    name = action_name(str(request.params["action"]))
    action = request.registry.actions(request.entity).get(name)
    if action is None:
        raise NotFound(request.entity.name, name)
    sent = {key: value for key, value in request.sent.items() if key != "action"}
    return Result([params.problems(conn, replace(request, action=action, params=sent)) or []], key=None)


def getunique(conn: Connection, request: Request) -> Result:
    """The unique keys of the entity's table."""
    return Result({name: list(fields) for name, fields in request.entity.unique.items()})


def getrefcount(conn: Connection, request: Request) -> Result:
    """How many rows of which tables point at a row."""
    own = request.entity.table
    if own is None:
        raise ApiError(f"{request.entity.name} has no table to count references to", "getrefcount_unsupported")
    found = []
    for table in METADATA.sorted_tables:
        for key in table.foreign_keys:
            if key.column.table is not own or (table.name.startswith("civiapi_")):
                continue
            count = conn.execute(select(func.count()).where(key.parent == request.params["id"])).scalar()
            if count:
                name, owner = key.parent.name, request.registry.of_table(table.name)
                found.append(
                    {
                        "name": f"sql:{table.name}:{name}",
                        "type": owner.name if owner else table.name,
                        "table": table.name,
                        "key": name,
                        "count": count,
                    }
                )
    return Result(found, key=None)


_ACTION = Field("api_action", STRING, aliases=("action",), title="Action")
META: tuple[Action, ...] = (
    Action("getfields", run=getfields, params=(_ACTION,), generic=True),
    Action(
        "getfield",
        run=getfield,
        params=(Field("name", required_by={"getfield"}), Field("action", aliases=("api_action",))),
        generic=True,
    ),
    Action(
        "getoptions",
        run=getoptions,
        params=(Field("field", required_by={"getoptions"}), Field("context")),
        generic=True,
    ),
    Action("getactions", run=getactions, params=(), generic=True, permission=OPEN, for_any_entity=True),
    Action("validate", run=validate, params=(Field("action", required_by={"validate"}),), generic=True),
    Action("getunique", run=getunique, params=(), generic=True),
    Action("getrefcount", run=getrefcount, params=(Field("id", INT, required_by={"getrefcount"}),)),
)
