"""Who may do what: the permission an action needs, and whose contacts a caller may see (contract 2.6)."""

from typing import Any

from sqlalchemy import ColumnElement, false

from civiapi.call import Call, Caller
from civiapi.errors import Unauthorized
from civiapi.request import is_empty
from civiapi.spec import Action, Entity, Permissions

DEFAULT: Permissions = ("administer CiviCRM",)
META: Permissions = ("access CiviCRM",)
META_ACTIONS = frozenset(
    {"getfields", "getfield", "getoptions", "getrefcount", "validate", "getunique", "getlist", "getspec"}
)
OPEN = "anybody"  # an action's ``permission`` that asks for nothing
SEE_ALL = ("view all contacts", "edit all contacts")
SEE_OWN = ("view my contact", "edit my contact")


def needed(entity: Entity, action: Action, *, updates: bool = False) -> Permissions:
    """The permissions that *action* asks for; ``updates``: a create that names an existing row."""
    name = action.permission or action.name
    if name == OPEN:
        return ()
    if name in META_ACTIONS and name not in entity.permissions:
        return META
    if name in ("create", "update") and (updates or name == "update") and "update" in entity.permissions:
        return entity.permissions["update"]
    if name == "update":
        name = "create"
    return entity.permissions.get(name, entity.permissions.get("default", DEFAULT))


def authorize(entity: Entity, action: Action, call: Call) -> None:
    """Raise ``Unauthorized``, naming what is required, unless the caller may call this action."""
    if call.caller.may("*"):
        return
    wanted = needed(entity, action, updates=not is_empty(call.params.get("id")))
    if not all(_holds(call.caller, one) for one in wanted):
        words = " and ".join(one if isinstance(one, str) else f"( {' or '.join(one)} )" for one in wanted)
        raise Unauthorized(
            f"API permission check failed for {entity.name}/{action.name} call; "
            f"insufficient permission: require {words}"
        )


def _holds(caller: Caller, wanted: str | tuple[str, ...]) -> bool:
    return caller.may(wanted) if isinstance(wanted, str) else any(caller.may(one) for one in wanted)


def sees_all(caller: Caller) -> bool:
    """Whether every contact is visible to the caller."""
    return any(caller.may(permission) for permission in SEE_ALL)


def visible(caller: Caller, contact_id: ColumnElement[Any]) -> ColumnElement[bool] | None:
    """The condition under which the caller may see the contact in this column; ``None``: always."""
    if sees_all(caller):
        return None
    if caller.contact_id is not None and any(caller.may(permission) for permission in SEE_OWN):
        return contact_id == caller.contact_id
    return false()


def may_edit(caller: Caller, contact_id: int | None) -> bool:
    """Whether the caller may change this contact and what belongs to it."""
    if caller.may("edit all contacts"):
        return True
    return contact_id is not None and caller.contact_id == contact_id and caller.may("edit my contact")


def check_edit(caller: Caller, contact_id: int | None) -> None:
    """Raise ``Unauthorized`` unless the caller may change this contact."""
    if not may_edit(caller, contact_id):
        raise Unauthorized("Permission denied to modify contact record")
