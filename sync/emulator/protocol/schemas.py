"""JSON schemas of request bodies, and validation errors in Mailchimp's wording and field paths.

The schemas are written from the contract. ``jsonschema`` is imported at the first body, for a fast start.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sync.emulator.model.records import CLEANED, PENDING, SUBSCRIBED, TRANSACTIONAL, UNSUBSCRIBED
from sync.emulator.protocol.problems import field_error, schema_failed

Schema = dict[str, Any]
STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
ISO_8601 = r"^$|^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$"
INSTANT: Schema = {"type": "string", "pattern": ISO_8601}
FIELD_TYPES = ["text", "number", "address", "phone", "date", "url", "imageurl", "radio", "dropdown", "birthday", "zip"]
CATEGORY_TYPES = ["checkboxes", "dropdown", "radio", "hidden"]


def record(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object; other properties are allowed."""
    return {"type": "object", "required": list(required), "properties": properties}


def flags(*names: str) -> Schema:
    """Return the schema of an object of booleans."""
    return record(**dict.fromkeys(names, BOOLEAN))


STATUS: Schema = {"type": "string", "enum": [SUBSCRIBED, UNSUBSCRIBED, CLEANED, PENDING, TRANSACTIONAL]}
MEMBER: dict[str, Schema] = {
    "email_address": STRING,
    "email_type": {"type": "string", "enum": ["html", "text", ""]},
    "status": STATUS,
    "status_if_new": STATUS,
    "merge_fields": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "object"}]},
    },
    "interests": {"type": "object", "additionalProperties": BOOLEAN},
    "language": STRING,
    "vip": BOOLEAN,
    "location": record(latitude={"type": "number"}, longitude={"type": "number"}),
    "marketing_permissions": {
        "type": "array",
        "items": record("marketing_permission_id", marketing_permission_id=STRING, enabled=BOOLEAN),
    },
    "ip_signup": STRING,
    "timestamp_signup": INSTANT,
    "ip_opt": STRING,
    "timestamp_opt": INSTANT,
    "tags": {"type": "array", "items": STRING},
}
MERGE_FIELD: dict[str, Schema] = {
    "tag": {"type": "string", "maxLength": 10},
    "name": STRING,
    "required": BOOLEAN,
    "default_value": STRING,
    "public": BOOLEAN,
    "display_order": INTEGER,
    "options": record(choices={"type": "array", "items": STRING}),
    "help_text": STRING,
}
CATEGORY: dict[str, Schema] = {
    "title": STRING,
    "display_order": INTEGER,
    "type": {"type": "string", "enum": CATEGORY_TYPES},
}
HOOK: dict[str, Schema] = {
    "url": STRING,
    "events": flags("subscribe", "unsubscribe", "profile", "cleaned", "upemail", "campaign"),
    "sources": flags("user", "admin", "api"),
}
TAG_CHANGE = record("name", "status", name=STRING, status={"type": "string", "enum": ["inactive", "active"]})
OPERATION = record(
    "method", "path", method=STRING, path=STRING, params={"type": "object"}, body=STRING, operation_id=STRING
)

SCHEMAS: dict[str, Schema] = {
    "member_create": record("email_address", "status", **MEMBER),
    "member_change": record(**MEMBER),
    "bulk": record(
        "members",
        members={"type": "array", "items": record(**MEMBER)},
        sync_tags=BOOLEAN,
        update_existing=BOOLEAN,
    ),
    "tags": record("tags", tags={"type": "array", "items": TAG_CHANGE}, is_syncing=BOOLEAN),
    "segment": record("name", name=STRING, static_segment={"type": "array", "items": STRING}),
    "merge_field_create": record("name", "type", **MERGE_FIELD, type={"type": "string", "enum": FIELD_TYPES}),
    "merge_field_change": record(**MERGE_FIELD),
    "category_create": record("title", "type", **CATEGORY),
    "category_change": record(**CATEGORY),
    "interest_create": record("name", name=STRING, display_order=INTEGER),
    "interest_change": record(name=STRING, display_order=INTEGER),
    "hook_create": record("url", **HOOK),
    "hook_change": record(**HOOK),
    "batch_hook_create": record("url", url=STRING, enabled=BOOLEAN),
    "batch_hook_change": record(url=STRING, enabled=BOOLEAN),
    "batch": record("operations", operations={"type": "array", "items": OPERATION}),
}

PHP_TYPES: dict[type, str] = {
    type(None): "NULL",
    bool: "boolean",
    str: "string",
    int: "integer",
    float: "double",
    list: "array",
    dict: "object",
}


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft7Validator

    return Draft7Validator(SCHEMAS[name])


def check(name: str, body: Any) -> None:
    """Raise 400 Invalid Resource, listing the errors, unless *body* fits the schema *name*."""
    found = [_reworded(error) for error in _validator(name).iter_errors(body)]
    if found:
        missing = [text for path, text in found if text.startswith("+")]
        errors = [field_error(path, text) for path, text in found if not text.startswith("+")]
        if missing:
            errors.insert(0, field_error("", "Required fields were not provided: " + ", ".join(m[1:] for m in missing)))
        raise schema_failed(errors)


def _reworded(error: Any) -> tuple[str, str]:
    """Return (dotted path, Mailchimp's message); a missing field gives ``+name``, which `check` collects."""
    path = ".".join(str(step) for step in error.absolute_path)
    if error.validator == "required":
        absent = [name for name in error.validator_value if name not in error.instance]
        quoted = next(name for name in absent if f"'{name}'" in error.message)
        return path, "+" + (f"{path}.{quoted}" if path else quoted)
    if error.validator == "type":
        seen = PHP_TYPES.get(type(error.instance), "unknown")
        return path, f"Schema describes {error.validator_value}, {seen} found instead"
    if error.validator == "anyOf":
        return path, "Data did not match any of the schemas described in anyOf."
    if error.validator == "enum":
        return path, "Value must be one of: " + ", ".join(map(str, error.validator_value))
    if error.validator == "maxLength":
        return path, f"Value may have at most {error.validator_value} characters"
    return path, "This value is not valid."
