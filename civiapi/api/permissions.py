"""Who may do what: the permission an action needs, and what a caller may see and change (contract 2.6).

What a caller may not see does not exist for them. ``view`` gives each caller the declarations without the fields that
they may not read; ``rows_seen`` is the condition under which they see a row, wherever it is read or joined. What a
contact owns is seen by those who see the contact, and written by those who may edit it: the old owner and the new one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Table, and_, exists, false, or_, select, true

from civiapi.api.call import ALL_PERMISSIONS, Call, Caller
from civiapi.api.declaration.fields import Field
from civiapi.api.declaration.spec import Access, Action, Entity, Permissions, Registry, Request
from civiapi.api.errors import ApiError, Unauthorized
from civiapi.api.parameters.options import is_empty
from civiapi.api.store_errors import no_such_reference
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema import tables

DEFAULT: Permissions = ("administer CiviCRM",)
META: Permissions = ("access CiviCRM",)
META_ACTIONS = frozenset(
    {"getfields", "getfield", "getoptions", "getrefcount", "validate", "getunique", "getlist", "getspec"}
)
OPEN = "anybody"  # an action's ``permission`` that asks for nothing
SEE_ALL = ("view all contacts", "edit all contacts")
SEE_OWN = ("view my contact", "edit my contact")
SEE_TRASH = "access deleted contacts"
CONTACT_TABLE = tables.contact.name
MAX_VIEWS = 256
_DELETED = tables.contact.alias("deleted_contact")
NOT_YOURS = "Permission denied to modify contact record"


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
    if not _holds_all(call.caller, wanted):
        required = " and ".join(one if isinstance(one, str) else f"( {' or '.join(one)} )" for one in wanted)
        raise Unauthorized(
            f"API permission check failed for {entity.name}/{action.name} call; "
            f"insufficient permission: require {required}"
        )


def may_get(registry: Registry, entity: Entity, caller: Caller) -> bool:
    """Whether the caller may read this entity's rows at all."""
    action = registry.actions(entity).get("get")
    return action is not None and _holds_all(caller, needed(entity, action))


def _holds_all(caller: Caller, wanted: Permissions) -> bool:
    return all(_holds_any(caller, (one,) if isinstance(one, str) else one) for one in wanted)


def _holds_any(caller: Caller, wanted: Iterable[str]) -> bool:
    return any(caller.may(one) for one in wanted)


# ---- what a caller sees -----------------------------------------------------------------------------------------


def view(registry: Registry, caller: Caller) -> Registry:
    """The declarations as this caller sees them. Callers with the same rights share one."""
    held = caller.permissions, caller.withholds_secrets
    found = registry.views.get(held)
    if found is None:
        access = _access(registry, caller)
        found = next((one for one in registry.views.values() if one.access == access), None)
        found = found or _make_view(registry, caller, access)
        if len(registry.views) >= MAX_VIEWS:
            registry.views.clear()
        registry.views[held] = found
    return found


def _access(registry: Registry, caller: Caller) -> Access:
    asked: set[str] = {*SEE_ALL, *SEE_OWN, SEE_TRASH}
    private = frozenset(entity.private[2] for entity in registry.entities() if entity.private[2])
    asked |= private
    for entity in registry.entities():
        for one in entity.fields:
            asked |= {*one.guard.read, *one.guard.own} if one.guard is not None else set()
        if (get := registry.actions(entity).get("get")) is not None:
            asked |= set(chain.from_iterable((one,) if isinstance(one, str) else one for one in needed(entity, get)))
    if caller.may(ALL_PERMISSIONS):
        return Access("without secrets") if caller.withholds_secrets else Access()
    held = sorted(asked & caller.permissions)
    return Access(
        key="|".join(["without secrets" if caller.withholds_secrets else "", *held, "."]),
        sees_all=_holds_any(caller, SEE_ALL),
        sees_own=_holds_any(caller, SEE_OWN),
        sees_trash=caller.may(SEE_TRASH),
        sees_private=private & caller.permissions,
    )


def _make_view(registry: Registry, caller: Caller, access: Access) -> Registry:
    if access == registry.access:
        return registry
    unreadable = frozenset(one.name for one in registry.entities() if not may_get(registry, one, caller))
    entities = [_seen_entity(entity, caller) for entity in registry.entities()]
    return Registry(entities, registry.generic, access, unreadable)


def _seen_entity(entity: Entity, caller: Caller) -> Entity:
    shown, withheld = [], []
    for one in entity.fields:
        guard = one.guard
        if guard is None or not guard.read or (_holds_any(caller, guard.read) and not caller.withholds_secrets):
            shown.append(one)
        elif _holds_any(caller, guard.own) and not caller.withholds_secrets:
            shown.append(replace(one, own_only=True))
        else:
            withheld.append(one)
    if shown == list(entity.fields):
        return entity
    return replace(entity, fields=tuple(shown), withheld=tuple(withheld))


def contact_seen(access: Access, contact_id: ColumnElement[Any], me: Any) -> ColumnElement[bool] | None:
    """The condition under which the contact in this column is seen by the contact *me*; ``None``: always."""
    if not access.sees_all:
        return contact_id == me if access.sees_own else false()
    if access.sees_trash:
        return None
    return ~exists().where(_DELETED.c.id == contact_id, _DELETED.c.is_deleted != 0)


def rows_seen(access: Access, entity: Entity, table: FromClause, me: Any) -> ColumnElement[bool] | None:
    """The condition under which a row of *table* (the entity's, or an alias of it) is seen; ``None``: always."""
    if entity.contact_link is not None:
        return _linked_rows_seen(access, *entity.contact_link, table, me)
    if not entity.contact_field:
        return None
    if entity.table is tables.contact:
        if access.sees_all:
            return None if access.sees_trash else table.c.is_deleted == 0
        return contact_seen(access, table.c.id, me)
    conditions = [contact_seen(access, table.c[entity.contact_field], me)]
    if entity.other_contact_field:
        conditions.append(contact_seen(access, table.c[entity.other_contact_field], me))
    if entity.contact_table_field and conditions[0] is not None:
        of_contact = table.c[entity.contact_table_field] == CONTACT_TABLE
        conditions = [or_(and_(~of_contact, true() if access.sees_all else false()), and_(of_contact, conditions[0]))]
    mark, author, permission = entity.private
    if mark and access.sees_private is not None and permission not in access.sees_private:
        conditions.append(or_(table.c[mark] == "0", table.c[mark] == "", table.c[author] == me))
    found = [one for one in conditions if one is not None]
    return and_(*found) if found else None


def _linked_rows_seen(
    access: Access, link: Table, row_id: str, table: FromClause, me: Any
) -> ColumnElement[bool] | None:
    """The condition under which a row is seen that has contacts in *link*: one of them is seen.

    One without contacts is seen by those who see all.
    """
    linked = link.alias("seen_through")
    condition = contact_seen(access, linked.c.contact_id, me)
    if condition is None:
        return None
    of_row = linked.c[row_id] == table.c.id
    through = exists().where(of_row, condition)
    return or_(~exists().where(of_row), through) if access.sees_all else through


def seen(request: Request, table: FromClause, entity: Entity | None = None) -> list[ColumnElement[bool]]:
    """The conditions (none or one) under which the caller sees a row, for statements that are not kept."""
    found = rows_seen(request.registry.access, entity or request.entity, table, request.caller.contact_id)
    return [] if found is None else [found]


def contacts_seen(request: Request, contact_id: ColumnElement[Any]) -> list[ColumnElement[bool]]:
    """``seen`` for the contact in a column."""
    found = contact_seen(request.registry.access, contact_id, request.caller.contact_id)
    return [] if found is None else [found]


# ---- what a caller changes --------------------------------------------------------------------------------------


def may_edit(caller: Caller, contact_id: int | None) -> bool:
    """Whether the caller may change this contact and what belongs to it, if they see it."""
    if caller.may("edit all contacts"):
        return True
    return contact_id is not None and caller.contact_id == contact_id and caller.may("edit my contact")


def check_edit(caller: Caller, contact_id: int | None) -> None:
    """Raise ``Unauthorized`` unless the caller may change this contact."""
    if not may_edit(caller, contact_id):
        raise Unauthorized(NOT_YOURS)


def check_old_owner(conn: Connection, request: Request, row_id: int, absent: str) -> None:
    """Raise ``ApiError`` *absent* for a row that the caller does not see, ``Unauthorized`` for one they may not change.

    For an entity whose rows belong to contacts.
    """
    entity, table = request.entity, request.entity.table
    assert table is not None  # noqa: S101  a declaration's mistake
    row = conn.execute(select(table).where(table.c.id == row_id, *seen(request, table))).mappings().first()
    if row is None:  # may exist for another caller, which this one must not learn
        check_edit(request.caller, None)
        raise ApiError(absent)
    if entity.contact_table_field and str(row[entity.contact_table_field]).lower() != CONTACT_TABLE:
        check_edit(request.caller, None)
    else:
        check_edit(request.caller, row[entity.contact_field])


def check_new_owner(conn: Connection, request: Request, field: str, contact_id: int | None) -> None:
    """Raise ``ApiError`` unless the caller sees this contact and may change what belongs to it."""
    check_edit(request.caller, contact_id)
    if contact_id is not None:
        check_reference(conn, request, field, contact_id)


def check_reference(conn: Connection, request: Request, field: str, contact_id: int) -> None:
    """Raise the error of a reference to nobody for a contact that the caller does not see."""
    if unseen_contacts(conn, request, [contact_id]):
        raise no_such_reference(field, contact_id)


def unseen_contacts(conn: Connection, request: Request, ids: Sequence[int]) -> list[int]:
    """Which of these contacts do not exist for the caller, in the order given."""
    contact_id = tables.contact.c.id
    wanted = select(contact_id).where(in_list(contact_id, ids), *contacts_seen(request, contact_id))
    found = set(conn.execute(wanted).scalars())
    return [one for one in ids if one not in found]


def check_fields(conn: Connection, request: Request) -> None:
    """Raise ``ApiError`` for a field in the checked parameters of a ``create`` that the caller may not write,
    or that refers to a contact that the caller does not see."""
    caller, entity, params = request.caller, request.entity, request.params
    for _, text in denied_fields(request):
        raise Unauthorized(text)
    access = request.registry.access
    if access.sees_all and access.sees_trash:
        return
    for one in entity.contact_references:
        value = params.get(one.name)
        if isinstance(value, int) and value != caller.contact_id and one.name != entity.contact_field:
            check_reference(conn, request, one.name, value)


def denied_fields(request: Request) -> Iterator[tuple[str, str]]:
    """The fields in the parameters that the caller may not write, each with the text of its refusal."""
    for one in request.entity.guarded:
        if one.name in request.params and one.guard is not None and not _may_write(one, request):
            yield one.name, denial(one.name, one.guard.write)


def _may_write(one: Field, request: Request) -> bool:
    guard, caller = one.guard, request.caller
    if guard is None or _holds_any(caller, guard.write):
        return True
    own = caller.contact_id is not None and request.id == caller.contact_id
    return own and _holds_any(caller, guard.own)


def check_change(caller: Caller, one: Field, value: Any, stored: Any, *, is_new: bool) -> None:
    """Raise ``Unauthorized`` for a value that differs from what is stored, or for a new row from the default."""
    if one.guard is None or not one.guard.change or (is_new and one.default is None):
        return
    before = one.default if is_new else stored
    changes = str("" if value is None else value) != str("" if before is None else before)
    if changes and not _holds_any(caller, one.guard.change):
        raise Unauthorized(denial(one.name, one.guard.change))


def denial(name: str, wanted: tuple[str, ...]) -> str:
    """The text of a refusal to write a field."""
    return f"Permission denied to modify {name}; insufficient permission: require {' or '.join(wanted)}"
