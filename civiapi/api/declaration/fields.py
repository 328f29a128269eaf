"""The fields of an entity: types, option lists, and what each action requires of a field. No SQL is run here."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import IntEnum
from typing import Any

from sqlalchemy import Table


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
TEXT_BYTES = 65_535
"""What a TEXT column holds on MariaDB."""
LONGTEXT_BYTES = 2**32 - 1
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
    def named(cls, *names: str) -> "FixedOptions":
        """Choices stored under their own names."""
        return cls(tuple(Option(name, name, name) for name in names))


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
class Guard:
    """The permissions that a field asks for beyond its action's; of each tuple any one does, an empty one asks nothing.

    ``read``: without it the field does not exist for the caller. ``write``: to send it to ``create`` at all.
    ``own``: in place of either on the caller's own contact. ``change``: to change the stored value, or to insert
    another than the default.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    change: tuple[str, ...] = ()


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
    max_length: int | None = None  # characters
    max_bytes: int | None = None  # of a long text; None: those of a TEXT column
    options: Options | None = None
    multiple: bool = False  # several option values, 0x01-separated in the column, a list outside
    comma_separated: bool = False  # several option values, comma-separated in the column and outside
    aliases: tuple[str, ...] = ()
    unique_name: str = ""  # another name, in parameters and answers
    fk: str = ""  # the entity it points to
    copied_from: str = ""  # a field that refers to a contact, if set: this one copies from there, and is seen with it
    accepts_nested: bool = False  # a list of maps is taken as well (create), or any map (get)
    writable: bool = True  # False: a column that create does not write (ids, dates that the server sets)
    guard: Guard | None = None
    only: frozenset[str] | set[str] = frozenset()  # the actions that have it; empty: all
    own_only: bool = False  # set in a caller's view: readable on the caller's own contact and nowhere else

    @property
    def byte_limit(self) -> int | None:
        """How many bytes of UTF-8 a long text may have; ``None``: its length is counted in characters."""
        return (self.max_bytes or TEXT_BYTES) if self.type == Type.TEXT and not self.max_length else None

    @property
    def label(self) -> str:
        """A title for people."""
        return self.title or self.name.replace("_", " ").title()
