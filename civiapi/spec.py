"""How an entity is declared: fields, options, permissions, actions. Everything else is read from these declarations.

``getfields``, validation, filters, ``create``, chaining, the reference page: all of them read an ``Entity``. Nothing
here runs SQL or knows HTTP. An entity looks like this (see ``entities/email.py`` for a whole one)::

    EMAIL = Entity(
        "Email",
        table=tables.email,                       # columns are found by field name; None: no table
        fields=(
            Field("id", INT, title="Email ID"),    # `email_id` is an alias of `id` by itself
            Field("contact_id", INT, required_by={"create"}, fk="Contact"),
            Field("email", STRING, required_by={"create"}, max_length=254),
            Field("on_hold", INT, options=FixedOptions.of("No", "On Hold Bounce")),   # values 0, 1
            Field("is_primary", BOOLEAN, default=0, default_by={"create": 0}),
        ),
        actions=crud.actions(before_save=..., save=...),    # or plain Action(...) rows, below
        permissions={"get": ("access CiviCRM",), "create": ("access CiviCRM", ("a", "b"))},  # inner tuple: a or b
    )

An action is a function over a connection, or one that waits for others::

    Action("execute", run=execute, writes=True)                # def execute(conn, request) -> Result
    Action("abortsync", arun=abort, params=(Field(...),))      # async def abort(request, ctx) -> Result; no transaction

Actions not named in ``permissions`` need ``administer CiviCRM``; ``update`` (create with an id) falls back to
``create``. Generic actions (getsingle, getcount, getfields…) come by themselves, see ``entities/generic.py``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Table

if TYPE_CHECKING:
    from civiapi.dispatch import Context
    from civiapi.request import Request


class Type(IntEnum):
    """Field types by the numbers that ``getfields`` gives."""

    INT = 1
    STRING = 2
    DATE = 4
    DATETIME = 12
    BOOLEAN = 16
    TEXT = 32
    TIMESTAMP = 256
    FLOAT = 512
    MONEY = 1024


INT, STRING, DATE, DATETIME, BOOLEAN, TEXT, TIMESTAMP, FLOAT, MONEY = Type
DATES = frozenset({DATE, DATETIME, TIMESTAMP})


@dataclass(frozen=True, slots=True)
class Option:
    """One choice of an option list: what is stored, its machine name, what people see."""

    value: str
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class FixedOptions:
    """A list that never changes."""

    choices: tuple[Option, ...]

    @classmethod
    def of(cls, *labels: str) -> "FixedOptions":
        """Choices stored as 0, 1, 2…"""
        return cls(tuple(Option(str(n), label, label) for n, label in enumerate(labels)))

    @classmethod
    def words(cls, *words: str) -> "FixedOptions":
        """Choices stored as the word itself."""
        return cls(tuple(Option(word, word, word) for word in words))


@dataclass(frozen=True, slots=True)
class OptionGroup:
    """A list kept in ``civicrm_option_value`` under this group's name; ``key``: the column that is stored."""

    name: str
    key: str = "value"


@dataclass(frozen=True, slots=True)
class OptionTable:
    """The rows of a table as choices: id, name column, label column."""

    table: Table
    name: str = "name"
    label: str = "title"


Options = FixedOptions | OptionGroup | OptionTable


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of an action; a column too if the entity's table has one of this name."""

    name: str
    type: Type = STRING
    _: KW_ONLY
    title: str = ""
    description: str = ""
    required_by: frozenset[str] | set[str] = frozenset()  # names of actions
    default: Any = None  # what the database puts in, shown by getfields
    default_by: Mapping[str, Any] = field(default_factory=dict)  # action: value put in when absent and no id is given
    max_length: int | None = None
    options: Options | None = None
    multiple: bool = False  # several option values, 0x01-separated in the column, a list outside
    aliases: tuple[str, ...] = ()
    unique_name: str = ""  # another name it goes by, both ways
    fk: str = ""  # the entity it points to
    blocks: bool = False  # create takes a list of maps as well
    keeps: bool = True  # False: a column that create does not write (ids, dates the server sets)

    @property
    def label(self) -> str:
        """A title for people."""
        return self.title or self.name.replace("_", " ").title()


Permissions = Sequence[str | tuple[str, ...]]  # all of these; an inner tuple: any of those


@dataclass(slots=True)
class Result:
    """What an action hands to the envelope.

    ``values``: a list of rows (maps; keyed by ``key`` unless the caller wants a list, ``key=None``: always a list), a
    map, or a scalar. ``extra``: further top-level keys. ``bare``: the value itself is the answer (getsingle, getcount).
    ``id``: the top-level id, if it is not what ``values`` says.
    """

    values: Any
    key: str | None = "id"
    extra: dict[str, Any] = field(default_factory=dict)
    bare: bool = False
    id: Any = None


Run = Callable[[Connection, "Request"], Result]
Arun = Callable[["Request", "Context"], Awaitable[Result]]


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """Something an entity can do: ``run`` inside a store unit, or ``arun`` around one.

    ``params``: what it takes; ``None``: the entity's fields. ``via``: an ``arun`` made only of these other actions
    of the entity, so that it can run inside one unit as they can. ``generic``: parameters reach it as sent, aliases
    apart.
    """

    name: str
    run: Run | None = None
    arun: Arun | None = None
    writes: bool = False
    params: tuple[Field, ...] | None = None
    via: tuple[str, ...] | None = None
    generic: bool = False
    validated: bool = True
    permission: str = ""  # the action whose permission it needs; "": its own
    needs: tuple[str, ...] = ()  # generic: actions an entity must have for this one to exist
    for_any_entity: bool = False  # generic: answers for entities that do not exist, too
    native: bool = False  # values keep their JSON types even where the name says text
    title: str = ""


@dataclass(frozen=True, eq=False)
class Entity:
    """An entity of the API: declared once, read by everything."""

    name: str
    fields: tuple[Field, ...] = ()
    actions: tuple[Action, ...] = ()
    table: Table | None = None
    permissions: Mapping[str, Permissions] = field(default_factory=dict)
    title: str = ""
    description: str = ""
    label_field: str = ""  # what getlist shows and searches
    description_fields: tuple[str, ...] = ()
    list_sort: str = ""  # how getlist orders; "": by label
    unique: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contact_field: str = ""  # field naming the contact whose visibility decides who sees a row

    @cached_property
    def snake(self) -> str:
        """``GroupContact`` → ``group_contact``."""
        out = "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(self.name))
        return out.replace("u_f_", "uf_")

    @cached_property
    def by_name(self) -> Mapping[str, Field]:
        """Fields by every name they go by."""
        found: dict[str, Field] = {}
        for one in self.fields:
            for name in (one.unique_name, *one.aliases):
                if name:
                    found.setdefault(name, one)
        found.update({one.name: one for one in self.fields})
        if "id" in found:
            found.setdefault(f"{self.snake}_id", found["id"])
        return found

    def column(self, name: str) -> "Column[Any] | None":
        """The column behind a field, if it has one."""
        return None if self.table is None or name not in self.by_name else self.table.c.get(self.by_name[name].name)

    def action(self, name: str) -> Action | None:
        """Its own action of this name."""
        return next((a for a in self.actions if a.name == name), None)
