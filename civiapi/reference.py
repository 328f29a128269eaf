"""The reference of the API, read from the declarations: what every entity offers and what each action takes. Pure.

Plain data comes out (frozen dataclasses, ``as_data`` for JSON); how it looks is for ``civiapi/ui``. Nothing is written
down here that a declaration says; only what every entity has in common (``COMMON``, words for the plain verbs) is.
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from civiapi.access import needed
from civiapi.params import fields_of
from civiapi.registry import Registry
from civiapi.spec import Action, Entity, Field, FixedOptions, OptionGroup, Options, Type

TYPE_WORDS = {
    Type.INT: "integer",
    Type.STRING: "text",
    Type.DATE: "date",
    Type.DATETIME: "date and time",
    Type.BOOLEAN: "yes or no",
    Type.TEXT: "long text",
    Type.TIMESTAMP: "date and time",
    Type.FLOAT: "number",
    Type.MONEY: "amount",
}

VERBS = {
    "get": 'Find records. Each parameter is a filter: a value, or an operator such as {"LIKE": "a%"}.',
    "create": "Add a record, or change the one whose id is given.",
    "update": "Change the record with this id.",
    "delete": "Remove the record with this id.",
    "getsingle": "The one record that matches; an error where there are none or several.",
    "getvalue": "One field (named by return) of the one record that matches.",
    "getcount": "How many records match.",
    "setvalue": "Set one field of the record with this id.",
    "replace": "Make the records that match be exactly those in values: the rest of them is removed.",
}

# What actions made of others read themselves, beside what they hand on.
READ_BY_HAND: Mapping[str, tuple[Field, ...]] = {
    "getvalue": (Field("return", title="Field wanted", required_by={"getvalue"}),),
    "setvalue": (Field("value", title="New value", required_by={"setvalue"}),),
    "replace": (Field("values", Type.TEXT, title="Records", description="A list.", required_by={"replace"}),),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a fixed option list."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """What an action takes. ``default`` is None where there is none; ``passed_on``: it is another action's filter."""

    name: str
    type: str
    title: str
    description: str
    required: bool
    default: Any
    max_length: int | None
    choices: tuple[Choice, ...]
    choices_from: str  # where a list that differs from site to site is kept; "": no such list
    several: bool
    aliases: tuple[str, ...]
    refers_to: str
    passed_on: bool


@dataclass(frozen=True, slots=True)
class ActionPage:
    """An action: what it does, who may call it, what it takes."""

    name: str
    title: str
    description: str
    permission: tuple[str, ...]  # all of these; "a or b": one of those
    changes: bool  # it may change data, here or at Mailchimp
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class EntityPage:
    """An entity with all its actions, those of its own first."""

    name: str
    title: str
    description: str
    actions: tuple[ActionPage, ...]

    def find_action(self, name: str) -> ActionPage | None:
        """The action of this name, as the reference spells it."""
        return next((action for action in self.actions if action.name == name), None)


@dataclass(frozen=True, slots=True)
class Common:
    """A parameter that actions of every entity take."""

    name: str
    taken_by: str
    description: str


COMMON = (
    Common("sequential", "all", "1: values is a list; otherwise it is a map by id."),
    Common("return", "get, getsingle, getvalue", "The fields wanted: a list, or names separated by commas."),
    Common("options.limit", "get", "How many records at most: 25 unless said otherwise, 0 for all."),
    Common("options.offset", "get", "How many records to skip."),
    Common("options.sort", "get", 'Order, such as "sort_name ASC, id DESC".'),
    Common(
        "options.or", "get", 'Lists of fields of which one filter need match, such as [["first_name", "last_name"]].'
    ),
    Common("options.match", "create", "Fields by which an existing record is found and changed instead."),
    Common(
        "api.ENTITY.ACTION", "all", "A further call for each record found or saved; $value.FIELD stands for its values."
    ),
    Common("debug", "all", "1: undefined_fields lists the parameters that are not known."),
)


def make_reference(registry: Registry) -> tuple[EntityPage, ...]:
    """Every entity of the catalogue in alphabetical order."""
    return tuple(_entity(registry, entity) for entity in registry.entities())


def as_data(reference: tuple[EntityPage, ...]) -> list[dict[str, Any]]:
    """The reference as maps and lists, ready for JSON."""
    return [asdict(page) for page in reference]


def _entity(registry: Registry, entity: Entity) -> EntityPage:
    actions = registry.actions(entity)
    pages = tuple(_action(entity, action, actions) for action in actions.values())
    return EntityPage(entity.name, entity.title or entity.name, entity.description, pages)


def _action(entity: Entity, action: Action, actions: dict[str, Action]) -> ActionPage:
    permissions = needed(entity, action)
    return ActionPage(
        name=action.name,
        title=action.title,
        description=VERBS.get(action.name) or _what_it_does(action),
        permission=tuple(one if isinstance(one, str) else " or ".join(one) for one in permissions),
        changes=_changes(action, actions),
        parameters=tuple(_parameters(entity, action, actions)),
    )


def _what_it_does(action: Action) -> str:
    """The first paragraph of the docstring behind the action, in plain words."""
    text = inspect.getdoc(action.run or action.arun) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "")


def _changes(action: Action, actions: dict[str, Action]) -> bool:
    if action.run is not None:
        return action.writes
    if action.via is not None:
        return any(_changes(actions[name], actions) for name in action.via if name in actions and name != action.name)
    return action.writes or not action.name.startswith("get")


def _parameters(entity: Entity, action: Action, actions: dict[str, Action]) -> Iterator[Parameter]:
    """Its own parameters, then those it hands on to the action it is made of."""
    own = (*fields_of(entity, action), *(READ_BY_HAND.get(action.name, ()) if action.generic else ()))
    for field in own:
        yield _parameter(entity, action, field, passed_on=False)
    seen = {field.name for field in own}
    target = _handed_on_to(action, actions)
    if target is None:
        return
    for field in fields_of(entity, target):
        if field.name not in seen:
            yield _parameter(entity, action, field, passed_on=True)


def _handed_on_to(action: Action, actions: dict[str, Action]) -> Action | None:
    """The action that gets what this generic one does not name itself: what it writes by, else what it reads by."""
    if not action.generic or action.via is None or action.params:
        return None
    return actions.get("create" if "create" in action.via else action.via[0])


def _parameter(entity: Entity, action: Action, field: Field, *, passed_on: bool) -> Parameter:
    options = field.options
    aliases = [*field.aliases, *([field.unique_name] if field.unique_name else [])]
    if field.name == "id" and action.params is None and f"{entity.snake}_id" not in aliases:
        aliases.append(f"{entity.snake}_id")
    return Parameter(
        name=field.name,
        type=TYPE_WORDS[field.type],
        title=field.label,
        description=field.description,
        required=action.name in field.required_by or (action.name == "update" and field.name == "id"),
        default=field.default_by.get(action.name, field.default if action.name == "create" else None),
        max_length=field.max_length,
        choices=tuple(Choice(one.value, one.label) for one in options.choices)
        if isinstance(options, FixedOptions)
        else (),
        choices_from=_kept_at(options),
        several=field.multiple,
        aliases=tuple(name for name in dict.fromkeys(aliases) if name != field.name),
        refers_to=field.fk,
        passed_on=passed_on,
    )


def _kept_at(options: Options | None) -> str:
    if options is None or isinstance(options, FixedOptions):
        return ""
    return f"option group {options.name}" if isinstance(options, OptionGroup) else f"table {options.table.name}"
