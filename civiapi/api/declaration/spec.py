"""How an entity is declared: fields, permissions and actions; and the registry of all entities.

``getfields``, validation, filters, ``create``, chaining and the reference page all read these declarations. ``Action``,
``Entity``, ``Registry`` and ``Request`` refer to each other, so they share this module. A declaration
(``entities/contacts/locations/email.py`` is a complete one)::

    EMAIL = Entity(
        "Email",
        table=tables.email,                       # columns are found by field name; None: no table
        fields=(
            Field("id", INT, title="Email ID"),    # `email_id` is always an alias of `id`
            Field("contact_id", INT, required_by={"create"}, fk="Contact"),
            Field("email", STRING, required_by={"create"}, max_length=254),
            Field("on_hold", INT, options=FixedOptions.of("No", "On Hold Bounce")),   # values 0, 1
            Field("is_primary", BOOLEAN, default=0, default_by={"create": 0}),
        ),
        actions=crud.actions(save=...),            # or Action(...) rows
        permissions={"get": ("access CiviCRM",), "create": ("access CiviCRM", ("a", "b"))},  # inner tuple: a or b
    )

An action is a function over a connection, or a coroutine that may await other services::

    Action("execute", run=execute, writes=True)                # def execute(conn, request) -> Result
    Action("abortsync", run_async=abort, params=(Field(...),)) # async def abort(request, ctx) -> Result; no transaction

An action that ``permissions`` does not name needs ``administer CiviCRM``; ``update`` (create with an id) falls back to
``create``. The generic actions (getsingle, getcount, getfields…, ``entities/actions/generic.py``) are added to every
entity.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Connection, Table

from civiapi.api.call import Caller
from civiapi.api.context import Context
from civiapi.api.declaration.fields import Field
from civiapi.api.declaration.names import action_name, entity_name
from civiapi.api.errors import NoSuchAction
from civiapi.api.parameters.options import PLAIN_OPTIONS, Options, integer
from civiapi.runtime.values import call_value
from civiapi.store.clock import SiteClock

Permissions = Sequence[str | tuple[str, ...]]  # all of these; an inner tuple: any of those


@dataclass(slots=True)
class Result:
    """What an action returns, before the envelope.

    ``values``: a list of rows (maps; keyed by ``key`` unless the caller wants a list, ``key=None``: always a list), a
    map, or a scalar. ``extra``: further top-level keys. ``unwrapped``: the value itself is the answer (getsingle,
    getcount). ``id``: the top-level id, where it is not the id of ``values``.
    """

    values: Any
    key: str | None = "id"
    extra: dict[str, Any] = field(default_factory=dict)
    unwrapped: bool = False
    id: Any = None


@call_value
class Request:
    """One call as an action receives it: resolved, with canonical parameters and options read.

    ``params`` are checked once ``params.prepare`` has run; ``sent`` are the parameters as the caller sent them;
    ``privacy`` is how the sync treats contacts that CiviMail would not mail (``sync.audience.Privacy``).
    """

    registry: "Registry"
    entity: "Entity"
    action: "Action"
    params: Mapping[str, Any]
    caller: Caller
    clock: SiteClock
    options: Options = PLAIN_OPTIONS
    returns: tuple[str, ...] = ()
    sequential: bool = False
    sent: Mapping[str, Any] = field(default_factory=dict)
    privacy: str = "keep"

    @property
    def id(self) -> int | None:
        """The row id given, or ``None``."""
        return integer(self.params.get("id")) or None

    def now(self) -> str:
        """The current site time."""
        return self.clock.write(datetime.now(UTC))

    def with_params(self, **more: Any) -> "Request":
        """The same request with these parameters set."""
        return self.with_only({**self.params, **more})

    def with_only(self, params: Mapping[str, Any]) -> "Request":
        """The same request with other parameters. Every call is prepared so; ``dataclasses.replace`` takes 3 µs."""
        return Request(
            self.registry,
            self.entity,
            self.action,
            params,
            self.caller,
            self.clock,
            self.options,
            self.returns,
            self.sequential,
            self.sent,
            self.privacy,
        )


Run = Callable[[Connection, Request], Result]
RunAsync = Callable[[Request, Context], Awaitable[Result]]


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """Something an entity can do: ``run`` inside a store unit, or ``run_async`` outside of one.

    ``params``: the parameters; ``None``: the entity's fields. ``delegates_to``: the actions of the same entity that a
    ``run_async`` calls and besides which it awaits nothing, so that it can run inside one store unit. ``generic``:
    parameters are not validated, only aliases are
    resolved; an entity gets a generic action if it has all the actions that it delegates to.
    """

    name: str
    run: Run | None = None
    run_async: RunAsync | None = None
    writes: bool = False
    params: tuple[Field, ...] | None = None
    delegates_to: tuple[str, ...] | None = None
    generic: bool = False
    validated: bool = True
    permission: str = ""  # the action whose permission is required; "": its own
    for_any_entity: bool = False  # generic: also answers for entities that do not exist
    short: bool = False  # does little where little is asked for; may then run on the event loop (``short_calls.py``)
    single: bool = False  # short, and asks the database one statement as a rule (``Store.read_single``)
    long_running: bool = False  # a sync, a job or an export, without the deadline of calls
    native: bool = False  # values keep their JSON types although actions of this name answer with text
    title: str = ""


@dataclass(frozen=True, eq=False)
class Entity:
    """An entity of the API."""

    name: str
    fields: tuple[Field, ...] = ()
    actions: tuple[Action, ...] = ()
    table: Table | None = None
    permissions: Mapping[str, Permissions] = field(default_factory=dict)
    title: str = ""
    description: str = ""
    label_field: str = ""  # the field that getlist shows and searches
    description_fields: tuple[str, ...] = ()
    list_sort: str = ""  # the order of getlist; "": by label
    matched_loosely: frozenset[str] = frozenset()  # fields whose filter by a plain text is a pattern
    own_filters: frozenset[str] = frozenset()  # filters besides its columns that its ``get`` applies
    known_elsewhere: frozenset[str] = (
        frozenset()
    )  # filters of CiviCRM that are refused; ``activity_*``: all that begin so
    extended_by: frozenset[str] = frozenset()  # whose custom fields it has, as ``civicrm_custom_group.extends`` says
    contact_field: str = ""  # the field with the contact that the row belongs to, whose visibility applies to the row
    contact_table_field: str = ""  # the field that must say civicrm_contact for contact_field to hold a contact
    other_contact_field: str = ""  # a second contact who must be seen for the row to be seen
    contact_link: tuple[Table, str] | None = None  # a table with contacts of a row, and its column with the row's id: a
    # row is seen by those who see one of these contacts
    private: tuple[str, str, str] = ("", "", "")  # a field not 0 makes a row its author's (field); and a permission's
    withheld: tuple[Field, ...] = ()  # set in a caller's view: fields that do not exist for the caller

    @cached_property
    def snake(self) -> str:
        """``GroupContact`` → ``group_contact``."""
        out = "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(self.name))
        return out.replace("u_f_", "uf_")

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Fields by name, unique name and alias."""
        found: dict[str, Field] = {}
        for one in self.fields:
            for name in (one.unique_name, *one.aliases):
                if name:
                    found.setdefault(name, one)
        found.update({one.name: one for one in self.fields})
        if "id" in found:
            found.setdefault(f"{self.snake}_id", found["id"])
        return found

    @cached_property
    def withheld_by_name(self) -> Mapping[str, Field]:
        """Fields that do not exist for the caller, by every name."""
        return {name: one for one in self.withheld for name in (one.name, one.unique_name, *one.aliases) if name}

    @cached_property
    def refused_filters(self) -> tuple[frozenset[str], tuple[str, ...]]:
        """``known_elsewhere`` as whole names, and as beginnings of names."""
        begins = tuple(name[:-1] for name in self.known_elsewhere if name.endswith("*"))
        return frozenset(name for name in self.known_elsewhere if not name.endswith("*")), begins

    @cached_property
    def guarded(self) -> tuple[Field, ...]:
        """Fields that ask for a permission of their own to be written, withheld ones included."""
        return tuple(one for one in (*self.fields, *self.withheld) if one.guard is not None and one.guard.write)

    @cached_property
    def change_guarded(self) -> tuple[Field, ...]:
        """Fields that ask for a permission of their own to be changed."""
        return tuple(one for one in self.fields if one.guard is not None and one.guard.change)

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Names of the fields that a list of maps is taken for."""
        return tuple(one.name for one in self.fields if one.accepts_nested)

    @cached_property
    def written(self) -> tuple[Field, ...]:
        """Fields with a column that a ``create`` writes; withheld ones too, as who may not write them is refused."""
        every = (*self.fields, *self.withheld)
        return tuple(one for one in every if one.writable and one.name != "id" and self._has_column(one))

    @cached_property
    def several(self) -> tuple[str, ...]:
        """Names of the fields that hold several values."""
        return tuple(one.name for one in self.fields if one.multiple)

    def _has_column(self, one: Field) -> bool:
        return self.table is not None and one.name in self.table.c

    @cached_property
    def references(self) -> tuple[Field, ...]:
        """The columns that hold the id of a row of an entity."""
        return tuple(one for one in self.fields if one.fk and self.column(one.name) is not None)

    def column(self, name: str) -> "Column[Any] | None":
        """The column behind a field, if it has one."""
        return None if self.table is None or name not in self.by_name else self.table.c.get(self.by_name[name].name)

    def action(self, name: str) -> Action | None:
        """The entity's own action of this name."""
        return next((a for a in self.actions if a.name == name), None)


@dataclass(frozen=True, slots=True)
class Access:
    """Which contacts the permissions of a caller show: all, one's own or none, and those in the trash or not.

    ``key`` is a name for everything in which a caller's view differs from another's; empty: everything is shown.
    """

    key: str = ""
    sees_all: bool = True
    sees_own: bool = True
    sees_trash: bool = True
    sees_private: frozenset[str] | None = None  # the permissions held to see what is private; None: all of them

    @property
    def sees_everybody(self) -> bool:
        """Whether all contacts are shown, those in the trash as well."""
        return self.sees_all and self.sees_trash


@dataclass(frozen=True, slots=True)
class Traits:
    """What an action does together with those it delegates to. ``remote``: it needs more than the store."""

    writes: bool
    remote: bool
    short: bool
    single: bool


class Registry:
    """All entities with all their actions; or the view of them that a caller has (``civiapi/api/permissions.py``)."""

    def __init__(
        self,
        entities: Iterable[Entity],
        generic: Sequence[Action] = (),
        access: Access | None = None,
        unreadable: frozenset[str] = frozenset(),
    ) -> None:
        self.access = access or Access()
        self.generic = tuple(generic)
        self.views: dict[Any, Registry] = {}
        """By the permissions held, those that make no difference included; filled and bounded by ``permissions``."""
        self._unreadable = unreadable  # names of entities whose rows the caller may not get
        self._entities = {entity.name: entity for entity in entities}
        self._forgiving = {name.lower(): entity for name, entity in self._entities.items()}
        self._by_table = {e.table.name: e for e in self._entities.values() if e.table is not None}
        self._actions: dict[str, dict[str, Action]] = {}
        self._answers_for_any = {a.name: a for a in generic if a.for_any_entity}
        for entity in self._entities.values():
            own = {action.name: action for action in entity.actions}
            more = {a.name: a for a in generic if a.name not in own and own.keys() >= set(a.delegates_to or ())}
            self._actions[entity.name] = own | more
        self._found: dict[tuple[str, str], tuple[Entity, Action]] = {}
        self._traits: dict[tuple[str, str], Traits] = {}

    def find_entity(self, name: str) -> Entity | None:
        """The entity of this name in any accepted spelling."""
        normal = entity_name(name)
        return self._entities.get(normal) or self._forgiving.get(normal.lower())

    def resolve(self, entity: str, action: str) -> tuple[Entity, Action]:
        """The declaration behind a call. Raises ``NoSuchAction``."""
        if found := self._found.get((entity, action)):
            return found
        one = self.find_entity(entity)
        name = action_name(action)
        known = self._actions[one.name].get(name) if one is not None else self._answers_for_any.get(name)
        if known is None:
            raise NoSuchAction(*self.names(entity, action))
        if one is None:
            return Entity(entity_name(entity)), known
        if entity in (one.name, one.snake, one.name.lower()) and action in (name, known.name):  # never as spelled
            self._found[entity, action] = one, known
        return one, known

    def names(self, entity: str, action: str) -> tuple[str, str]:
        """Both names as an answer repeats them."""
        one = self.find_entity(entity)
        return (one.name if one else entity_name(entity)), action_name(action)

    def actions(self, entity: Entity) -> dict[str, Action]:
        """All actions of an entity by name, generic ones included."""
        return self._actions.get(entity.name, {})

    def traits(self, entity: Entity, action: Action) -> Traits:
        """What *action* of *entity* does."""
        found = self._traits.get((entity.name, action.name))
        if found is None:
            parts = self._parts(entity, action)
            found = Traits(
                writes=any(part.writes for part in parts),
                remote=any(part.run is None and part.delegates_to is None for part in parts),
                short=all(part.short for part in parts),
                single=all(part.single for part in parts),
            )
            if entity.name in self._entities:  # not for any name that somebody sends
                self._traits[entity.name, action.name] = found
        return found

    def _parts(self, entity: Entity, action: Action) -> list[Action]:
        """The action and those it delegates to."""
        own = self.actions(entity)
        names = [name for name in action.delegates_to or () if name in own]
        return [action, *(part for name in names for part in self._parts(entity, own[name]))]

    def entities(self) -> list[Entity]:
        """The catalogue in alphabetical order."""
        return [self._entities[name] for name in sorted(self._entities)]

    def target(self, field: Field) -> Entity | None:
        """The entity that a field refers to, if the caller may get its rows."""
        found = self.find_entity(field.fk) if field.fk else None
        return None if found is None or found.name in self._unreadable else found

    def of_table(self, table: str) -> Entity | None:
        """The entity that lives in this table."""
        return self._by_table.get(table)
