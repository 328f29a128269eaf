"""Who may do what: the permission an action needs, and what a caller may see and change (contract 2.6).

What a caller may not see does not exist for them. ``view`` gives each caller the declarations without the fields that
they may not read; ``rows_seen`` is the condition under which they see a row, wherever it is read or joined. What a
contact owns is seen by those who see the contact, and written by those who may edit it: the old owner and the new one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Table, and_, case, exists, false, or_, select

from civiapi.api.call import ALL_PERMISSIONS, Call, Caller
from civiapi.api.declaration.fields import Field, FixedOptions
from civiapi.api.declaration.spec import Access, Action, Entity, Permissions, Registry, Request
from civiapi.api.errors import ApiError, Unauthorized
from civiapi.api.parameters.options import is_empty
from civiapi.api.store_errors import no_such_reference
from civiapi.store.databases.expressions import in_list, unindexed
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


def rows_seen(
    registry: Registry, entity: Entity, table: FromClause, me: Any, *, nested: bool = False
) -> ColumnElement[bool] | None:
    """The condition under which a row of *table* (the entity's, or an alias of it) is seen; ``None``: always.

    *nested*: the row is looked at for another one that is about it.
    """
    access = registry.access
    if entity.contact_link is not None:
        return _linked_rows_seen(access, *entity.contact_link, table, me)
    if not entity.contact_field:
        return None
    if entity.table is tables.contact:
        if access.sees_all:
            return None if access.sees_trash else unindexed(table.c.is_deleted) == 0
        return contact_seen(access, table.c.id, me)
    conditions = [contact_seen(access, table.c[entity.contact_field], me)]
    if entity.other_contact_field:
        conditions.append(contact_seen(access, table.c[entity.other_contact_field], me))
    if entity.contact_table_field:
        conditions[0] = _subject_seen(registry, entity, table, me, conditions[0], nested=nested)
    mark, author, permission = entity.private
    if mark and access.sees_private is not None and permission not in access.sees_private:
        conditions.append(or_(table.c[mark] == "0", table.c[mark] == "", table.c[author] == me))
    found = [one for one in conditions if one is not None]
    return and_(*found) if found else None


def _subject_seen(
    registry: Registry, entity: Entity, table: FromClause, me: Any, contact: ColumnElement[bool] | None, *, nested: bool
) -> ColumnElement[bool] | None:
    """The condition under which the row is seen that a row of *table* is about; *contact*: where it is a contact."""
    kind, row_id = table.c[entity.contact_table_field], table.c[entity.contact_field]
    if not registry.access.sees_all:
        return contact if contact is None else and_(kind == CONTACT_TABLE, contact)
    found = [] if contact is None else [or_(kind != CONTACT_TABLE, contact)]
    for target in [] if nested else _subjects(registry, entity):
        assert target.table is not None  # noqa: S101  it was found by its table
        there = target.table.alias("subject")
        condition = rows_seen(registry, target, there, me, nested=True)
        if condition is not None:
            found.append(or_(kind != target.table.name, exists().where(there.c.id == row_id, condition)))
    return and_(*found) if found else None


def _subjects(registry: Registry, entity: Entity) -> list[Entity]:
    """The entities, besides contacts, that rows of *entity* may be about."""
    options = entity.by_name[entity.contact_table_field].options
    if isinstance(options, FixedOptions):
        found = [registry.of_table(one.value) for one in options.choices]
    else:
        found = [one for one in registry.entities() if one.table is not None]
    return [one for one in found if one is not None and one.table is not tables.contact]


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


def reference_seen(
    registry: Registry, entity: Entity, field: Field, column: ColumnElement[Any], me: Any
) -> ColumnElement[bool] | None:
    """The condition under which the row is seen that *column*, a *field* of *entity*, refers to; ``None``: always."""
    target = registry.find_entity(field.fk)
    if target is None or target.table is None or field.name in (entity.contact_field, entity.other_contact_field):
        return None  # rows are seen with their contacts
    if target.table is tables.contact:
        return contact_seen(registry.access, column, me)
    if target.contact_link == (entity.table, field.name):
        return None  # seen through this very row
    referred = target.table.alias("referred")
    condition = rows_seen(registry, target, referred, me)
    return None if condition is None else exists().where(referred.c.id == column, condition)


def value_seen(
    registry: Registry, entity: Entity, field: Field, table: FromClause, me: Any
) -> ColumnElement[bool] | None:
    """The condition under which a field with a column is read in a row of *table*; ``None``: always.

    Hidden are, of others, what is read on one's own contact alone; references to rows that are not seen; and what is
    copied from contacts that are not seen.
    """
    if field.own_only:
        own: ColumnElement[bool] = table.c[entity.contact_field] == me
        return own
    if field.fk:
        return reference_seen(registry, entity, field, table.c[field.name], me)
    if field.copied_from:
        source = table.c[field.copied_from]
        condition = contact_seen(registry.access, source, me)
        return None if condition is None else or_(source.is_(None), condition)
    return None


def seen(request: Request, table: FromClause, entity: Entity | None = None) -> list[ColumnElement[bool]]:
    """The conditions (none or one) under which the caller sees a row, for statements that are not kept."""
    found = rows_seen(request.registry, entity or request.entity, table, request.caller.contact_id)
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


def check_subject(conn: Connection, request: Request, field: str, table: str, row_id: int) -> None:
    """Raise ``ApiError`` unless the caller may write about this row of a *table* that is not of contacts."""
    check_edit(request.caller, None)
    if (target := request.registry.of_table(table.lower())) is not None:
        check_reference(conn, request, field, row_id, target.name)


def check_reference(conn: Connection, request: Request, field: str, row_id: int, to: str = "Contact") -> None:
    """Raise the error of a reference to nothing for a row, of the entity *to*, that the caller does not see."""
    target = request.registry.find_entity(to)
    if target is None or target.table is None:
        return
    wanted = select(target.table.c.id).where(target.table.c.id == row_id, *seen(request, target.table, target))
    if conn.execute(wanted).first() is None:
        raise no_such_reference(field, row_id)


def unseen_contacts(conn: Connection, request: Request, ids: Sequence[int]) -> list[int]:
    """Which of these contacts do not exist for the caller, in the order given."""
    contact_id = tables.contact.c.id
    wanted = select(contact_id).where(in_list(contact_id, ids), *contacts_seen(request, contact_id))
    found = set(conn.execute(wanted).scalars())
    return [one for one in ids if one not in found]


def check_fields(conn: Connection, request: Request) -> None:
    """Raise ``ApiError`` for a field in the checked parameters of a ``create`` that the caller may not write,
    or that refers to a row that the caller does not see."""
    caller, entity, params = request.caller, request.entity, request.params
    for _, text in denied_fields(request):
        raise Unauthorized(text)
    if request.registry.access.sees_everybody:
        return
    for one in entity.references:
        value = params.get(one.name)
        is_own = one.fk == "Contact" and value == caller.contact_id
        if isinstance(value, int) and not is_own and one.name != entity.contact_field:
            check_reference(conn, request, one.name, value, one.fk)


def emptied_unseen(conn: Connection, request: Request) -> set[str]:
    """The fields that an update empties although the caller does not see the value: they send back what they read."""
    entity, table, me = request.entity, request.entity.table, request.caller.contact_id
    if request.id is None or table is None:
        return set()
    emptied = [one for one in entity.fields if request.params.get(one.name, "") is None and one.name in table.c]
    conditions = {one.name: value_seen(request.registry, entity, one, table, me) for one in emptied}
    hidden = [case((one, None), else_=name) for name, one in conditions.items() if one is not None]
    row = conn.execute(select(*hidden).where(table.c.id == request.id)).first() if hidden else None
    return set(row or ()) - {None}


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
