"""The API reference as data, from the declarations: every entity with its actions and their parameters. Pure.

``civiapi/ui`` displays it. Only what all entities have in common is written here (``COMMON``, ``VERBS``).
"""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from civiapi.api.declaration.fields import Field, FixedOptions, OptionGroup, Options, Type
from civiapi.api.declaration.spec import Action, Entity, Registry
from civiapi.api.parameters.params import fields_of
from civiapi.api.permissions import needed

TYPE_NAMES = {
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

# Parameters that generic actions read themselves, in addition to those they pass on.
GENERIC_PARAMETERS: Mapping[str, tuple[Field, ...]] = {
    "getvalue": (Field("return", title="Field wanted", required_by={"getvalue"}),),
    "setvalue": (Field("value", title="New value", required_by={"setvalue"}),),
    "replace": (Field("values", Type.TEXT, title="Records", description="A list.", required_by={"replace"}),),
}


@dataclass(frozen=True, slots=True)
class ReferenceChoice:
    """One value of a fixed option list."""

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of an action. ``default`` None: there is none; ``passed_on``: it is a parameter of another action."""

    name: str
    type: str
    title: str
    description: str
    required: bool
    default: Any
    max_length: int | None
    choices: tuple[ReferenceChoice, ...]
    choices_from: str  # where the option list of the site is stored; "": no such list
    several: bool
    aliases: tuple[str, ...]
    refers_to: str
    passed_on: bool


@dataclass(frozen=True, slots=True)
class ActionPage:
    """An action: its description, permissions and parameters."""

    name: str
    title: str
    description: str
    permission: tuple[str, ...]  # all of these; "a or b": one of those
    changes: bool  # it may change data here or at Mailchimp
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class EntityPage:
    """An entity with all its actions, its own first."""

    name: str
    title: str
    description: str
    actions: tuple[ActionPage, ...]

    def find_action(self, name: str) -> ActionPage | None:
        """The action of this name."""
        return next((action for action in self.actions if action.name == name), None)


@dataclass(frozen=True, slots=True)
class CommonParameter:
    """A parameter of all entities."""

    name: str
    taken_by: str
    description: str


COMMON = (
    CommonParameter("sequential", "all", "1: values is a list; otherwise it is a map by id."),
    CommonParameter("return", "get, getsingle, getvalue", "The fields wanted: a list, or names separated by commas."),
    CommonParameter("options.limit", "get", "Maximum number of records: 25 by default, 0 for all."),
    CommonParameter("options.offset", "get", "How many records to skip."),
    CommonParameter("options.sort", "get", 'Order, such as "sort_name ASC, id DESC".'),
    CommonParameter(
        "options.or", "get", 'Lists of fields of which one filter need match, such as [["first_name", "last_name"]].'
    ),
    CommonParameter("options.match", "create", "Fields by which an existing record is found and changed instead."),
    CommonParameter(
        "api.ENTITY.ACTION",
        "all",
        "A further call for each record found or saved; $value.FIELD is replaced by its values.",
    ),
    CommonParameter("debug", "all", "1: undefined_fields lists the parameters that are not known."),
)


def make_reference(registry: Registry) -> tuple[EntityPage, ...]:
    """Every entity of the catalogue in alphabetical order."""
    return tuple(_entity(registry, entity) for entity in registry.entities())


def as_data(reference: tuple[EntityPage, ...]) -> list[dict[str, Any]]:
    """The reference as maps and lists, ready for JSON."""
    return [asdict(page) for page in reference]


def permission_table(reference: tuple[EntityPage, ...]) -> str:
    """The permissions of every action as a Markdown table; what all entities have in common is one row each."""
    required = [{action.name: action.permission for action in page.actions} for page in reference]
    common = {
        name: permissions
        for name, permissions in required[0].items()
        if all(one.get(name) == permissions for one in required)
    }
    rows = [("*each entity*", common)]
    for page, own in zip(reference, required, strict=True):
        rows.append((page.name, {name: permissions for name, permissions in own.items() if name not in common}))
    lines = ["| Entity | Actions | All of these permissions |", "|---|---|---|"]
    for entity, actions in rows:
        by_permission: dict[tuple[str, ...], list[str]] = {}
        for name, permissions in actions.items():
            by_permission.setdefault(permissions, []).append(name)
        for permissions, names in by_permission.items():
            shown = ", ".join(f"`{one}`" for one in permissions) or "none"
            lines.append(f"| {entity} | {', '.join(f'`{name}`' for name in names)} | {shown} |")
    return "\n".join(lines) + "\n"


def _entity(registry: Registry, entity: Entity) -> EntityPage:
    actions = registry.actions(entity)
    pages = tuple(_action(entity, action, actions) for action in actions.values())
    return EntityPage(entity.name, entity.title or entity.name, entity.description, pages)


def _action(entity: Entity, action: Action, actions: dict[str, Action]) -> ActionPage:
    permissions = needed(entity, action)
    return ActionPage(
        name=action.name,
        title=action.title,
        description=VERBS.get(action.name) or _description(action),
        permission=tuple(one if isinstance(one, str) else " or ".join(one) for one in permissions),
        changes=_changes(action, actions),
        parameters=tuple(_parameters(entity, action, actions)),
    )


def _description(action: Action) -> str:
    """The first paragraph of the docstring of the action's function."""
    text = inspect.getdoc(action.run or action.run_async) or ""
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "")


def _changes(action: Action, actions: dict[str, Action]) -> bool:
    if action.run is not None:
        return action.writes
    if action.delegates_to is not None:
        return any(
            _changes(actions[name], actions) for name in action.delegates_to if name in actions and name != action.name
        )
    return action.writes or not action.name.startswith("get")


def _parameters(entity: Entity, action: Action, actions: dict[str, Action]) -> Iterator[Parameter]:
    """Its own parameters, then those that it passes on to another action."""
    own = (*fields_of(entity, action), *(GENERIC_PARAMETERS.get(action.name, ()) if action.generic else ()))
    for field in own:
        yield _parameter(entity, action, field, passed_on=False)
    seen = {field.name for field in own}
    target = _passes_on_to(action, actions)
    if target is None:
        return
    for field in fields_of(entity, target):
        if field.name not in seen:
            yield _parameter(entity, action, field, passed_on=True)


def _passes_on_to(action: Action, actions: dict[str, Action]) -> Action | None:
    """The action that a generic one passes its other parameters on to: the one that writes, else the one that reads."""
    if not action.generic or action.delegates_to is None or action.params:
        return None
    return actions.get("create" if "create" in action.delegates_to else action.delegates_to[0])


def _parameter(entity: Entity, action: Action, field: Field, *, passed_on: bool) -> Parameter:
    options = field.options
    aliases = [*field.aliases, *([field.unique_name] if field.unique_name else [])]
    if field.name == "id" and action.params is None and f"{entity.snake}_id" not in aliases:
        aliases.append(f"{entity.snake}_id")
    return Parameter(
        name=field.name,
        type=TYPE_NAMES[field.type],
        title=field.label,
        description=field.description,
        required=action.name in field.required_by or (action.name == "update" and field.name == "id"),
        default=field.default_by.get(action.name, field.default if action.name == "create" else None),
        max_length=field.max_length,
        choices=tuple(ReferenceChoice(one.value, one.label) for one in options.choices)
        if isinstance(options, FixedOptions)
        else (),
        choices_from=_stored_in(options),
        several=field.multiple,
        aliases=tuple(name for name in dict.fromkeys(aliases) if name != field.name),
        refers_to=field.fk,
        passed_on=passed_on,
    )


def _stored_in(options: Options | None) -> str:
    if options is None or isinstance(options, FixedOptions):
        return ""
    return f"option group {options.name}" if isinstance(options, OptionGroup) else f"table {options.table.name}"
