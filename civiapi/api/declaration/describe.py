"""The description of fields that ``getfields`` answers."""

from typing import Any

from civiapi.api.declaration.fields import BOOLEAN, DATES, STRING, TEXT, Field, OptionGroup, OptionTable
from civiapi.api.declaration.spec import Action, Entity, Registry
from civiapi.api.parameters.params import fields_of

_SAME_FIELDS = {"getsingle": "get", "getvalue": "get", "getcount": "get", "getlist": "get", "update": "create"}
_WIDGETS = {BOOLEAN: "CheckBox", STRING: "Text", TEXT: "TextArea", **dict.fromkeys(DATES, "Select Date")}


def action_of(registry: Registry, entity: Entity, name: str) -> Action | None:
    """The action whose fields *name* has."""
    known = registry.actions(entity)
    found = known.get(_SAME_FIELDS.get(name, name))
    return found if found is not None else known.get(name)


def fields(registry: Registry, entity: Entity, action: str) -> dict[str, dict[str, Any]]:
    """The fields of an action by name; none for an action that does not exist."""
    known = action_of(registry, entity, action)
    if known is None:
        return {}
    return {one.name: field(entity, known, one) for one in fields_of(entity, known)}


def field(entity: Entity, action: Action, one: Field) -> dict[str, Any]:
    """One field of an action (contract 4.4, getfields)."""
    out: dict[str, Any] = {"name": one.name, "type": int(one.type), "title": one.label}
    if one.description:
        out["description"] = one.description
    if entity.table is not None and one.name in entity.table.c:
        table = entity.table
        out |= {"where": f"{table.name}.{one.name}", "table_name": table.name, "entity": entity.name}
        if not table.c[one.name].nullable:
            out["required"] = True
    if one.max_length:
        out["maxlength"] = one.max_length
    if one.default is not None:
        out["default"] = str(one.default)
    if one.unique_name:
        out["uniqueName"] = one.unique_name
    if one.fk:
        out["FKApiName"] = one.fk
    if isinstance(one.options, OptionGroup):
        out["pseudoconstant"] = {"optionGroupName": one.options.name}
    elif isinstance(one.options, OptionTable):
        out["pseudoconstant"] = {"table": one.options.table.name, "keyColumn": "id", "labelColumn": one.options.label}
    elif one.options is not None:
        out["pseudoconstant"] = {"callback": "options"}
    if entity.table is not None:
        out["is_core_field"] = True
    out["html"] = {"type": "Select" if one.options is not None else _WIDGETS.get(one.type, "Text"), "label": one.label}
    return out | _for_action(entity, action, one)


def _for_action(entity: Entity, action: Action, one: Field) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if action.name in one.required_by:
        out["api.required"] = 1
    if action.name in one.default_by:
        out["api.default"] = one.default_by[action.name]
    aliases = [*one.aliases, *([f"{entity.snake}_id"] if one.name == "id" else [])]
    if aliases:
        out["api.aliases"] = aliases
    return out
