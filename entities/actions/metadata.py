"""The actions that describe declarations: getfields, getoptions, getactions, validate and others (contract 4.4).

They need ``access CiviCRM`` (getactions: no permission) and answer with native JSON types.
"""

from dataclasses import replace
from typing import Any

from sqlalchemy import Column, Connection, UniqueConstraint, func, select

from civiapi.api.declaration import describe
from civiapi.api.declaration import option_lists as lists
from civiapi.api.declaration.fields import INT, STRING, Field, Option
from civiapi.api.declaration.names import action_name
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.envelope import as_key, shown
from civiapi.api.errors import ApiError, NoSuchAction, ReturnedError
from civiapi.api.parameters import custom_fields, params
from civiapi.api.permissions import DEFAULT, OPEN, may_get, seen
from civiapi.store.schema.tables import METADATA

RETIRED = {
    name: f'The "{name}" action is deprecated. Use "create" with an id instead.' for name in ("setvalue", "update")
}
CONTEXTS = frozenset({"get", "create", "search", "match", "validate", "abbreviate", "edit", "full", ""})


def getfields(conn: Connection, request: Request) -> Result:
    """The fields of an action (``api_action``, default get) by name."""
    action = action_name(str(request.params.get("api_action") or "get"))
    found = describe.fields(request.registry, request.entity, action)
    known = describe.action_of(request.registry, request.entity, action)
    custom = _custom(conn, request) if known is not None and known.params is None else {}
    found |= {name: describe.field(request.entity, known, one) for name, one in custom.items() if known is not None}
    wanted = request.options.raw.get("get_options")
    for name, one in found.items():
        field = request.entity.by_name.get(name) or custom.get(name)
        if field is not None and field.options is not None and (wanted == "all" or name in _names(wanted)):
            one["options"] = _listed(request, lists.load(conn, field.options), _context(request.options.raw))
    return Result(found)


def _custom(conn: Connection, request: Request, *names: str) -> dict[str, Field]:
    """The custom fields (of these names) that the caller may use."""
    return {name: one.field for name, one in custom_fields.load(conn, request, names or None).items()}


def _names(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _context(raw: Any) -> str:
    return str(raw.get("get_options_context") or "")


def getfield(conn: Connection, request: Request) -> Result:
    """One field of an action."""
    name, action = shown(request.params["name"]), action_name(str(request.params.get("action") or "get"))
    known = describe.action_of(request.registry, request.entity, action)
    field = _field(request.entity, known, name) or _custom(conn, request, name).get(name)
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
    name, context = shown(request.params["field"]), shown(request.params.get("context") or "")
    field = request.entity.by_name.get(name) or _custom(conn, request, name).get(name)
    if field is None:
        raise ReturnedError(f"The field '{name}' doesn't exist.")
    if field.options is None:
        raise ReturnedError(f"The field '{name}' has no associated option list.")
    if context not in CONTEXTS:
        raise ReturnedError(f"'{context}' is not a valid context for buildOptions.")
    return Result(_listed(request, lists.load(conn, field.options), context), key=None)


def _listed(request: Request, choices: tuple[Option, ...], context: str) -> Any:
    """Choices as in PHP: a map, or a list if the keys are 0, 1, 2…; with ``sequential`` a list of pairs."""
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
    """The names of an entity's actions; none for an unknown entity."""
    return Result(sorted(request.registry.actions(request.entity)), key=None, extra={"deprecated": dict(RETIRED)})


def validate(conn: Connection, request: Request) -> Result:
    """The errors in these parameters for ``action``, which is not run."""
    name = action_name(str(request.params["action"]))
    action = request.registry.actions(request.entity).get(name)
    if action is None:
        raise NoSuchAction(request.entity.name, name)
    sent = {key: value for key, value in request.sent.items() if key != "action"}
    return Result([params.problems(conn, replace(request, action=action, params=sent)) or []], key=None)


def getunique(conn: Connection, request: Request) -> Result:
    """The unique keys of the entity's table; one of a single column that has no name is named as CiviCRM names it."""
    table = request.entity.table
    keys = [] if table is None else [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    found = {str(one.name or f"UI_{one.columns[0].name}"): [column.name for column in one.columns] for one in keys}
    return Result({name: found[name] for name in sorted(found)})


def getrefcount(conn: Connection, request: Request) -> Result:
    """The number of references to a row that the caller sees, by table, from rows that the caller sees."""
    own, registry, caller = request.entity.table, request.registry, request.caller
    if own is None:
        raise ApiError(f"{request.entity.name} has no table to count references to", "getrefcount_unsupported")
    row_id, found = request.params["id"], []
    row = select(own.c.id).where(own.c.id == row_id, *seen(request, own))
    if not may_get(registry, request.entity, caller) or conn.execute(row).first() is None:
        return Result([], key=None)
    for table in METADATA.sorted_tables:
        for key in table.foreign_keys:
            if key.column.table is not own or (table.name.startswith("civiapi_")):
                continue
            count = _count_references(conn, request, key.parent, row_id)
            if count:
                name, owner = key.parent.name, registry.of_table(table.name)
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


def _count_references(conn: Connection, request: Request, column: Column[Any], row_id: int) -> int:
    """How many rows in which *column* holds this id the caller sees. Tables without an entity are administrators'."""
    table, owner = column.table, request.registry.of_table(column.table.name)
    allowed = (
        all(request.caller.may(str(one)) for one in DEFAULT)
        if owner is None
        else may_get(request.registry, owner, request.caller)
    )
    if not allowed:
        return 0
    conditions = seen(request, table, owner) if owner is not None else []
    return conn.execute(select(func.count()).where(column == row_id, *conditions)).scalar() or 0


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
