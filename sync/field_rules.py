"""The rules that fill Mailchimp's merge fields, as the configuration of a connection has them. Pure.

A rule names its source as ``KIND:NAME``: ``contact:job_title``, ``address:city``, ``address:all``, ``phone:phone``,
``email:email``, ``custom:12``, ``membership:end_date``, ``contribution:last_amount``, ``group:7``, ``tag:3``,
``text:A fixed text``. It is stored with Mailchimp's latest description of the field (name, type, choices), so that
values can be checked without a request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONTACT, ADDRESS, PHONE, EMAIL, CUSTOM = "contact", "address", "phone", "email", "custom"
MEMBERSHIP, CONTRIBUTION, GROUP, TAG, FIXED = "membership", "contribution", "group", "tag", "text"
WHOLE = "all"
TAG_NAME = re.compile(r"[A-Z0-9_]{1,20}", re.ASCII)
FIXED_LENGTH = 255

SOURCES: Mapping[str, Mapping[str, str]] = {
    CONTACT: {
        "id": "Contact ID", "first_name": "First name", "middle_name": "Middle name", "last_name": "Last name",
        "nick_name": "Nickname", "display_name": "Display name", "sort_name": "Sort name",
        "organization_name": "Organization", "household_name": "Household", "legal_name": "Legal name",
        "job_title": "Job title", "formal_title": "Formal title", "prefix_id": "Prefix", "suffix_id": "Suffix",
        "gender_id": "Gender", "birth_date": "Date of birth", "preferred_language": "Preferred language",
        "email_greeting_display": "Email greeting", "postal_greeting_display": "Postal greeting",
        "addressee_display": "Addressee", "external_identifier": "External identifier", "contact_type": "Contact type",
        "source": "Source", "hash": "Hash", "created_date": "Created",
    },
    ADDRESS: {
        WHOLE: "Primary address, as Mailchimp's address", "street_address": "Street",
        "supplemental_address_1": "Address line 2", "supplemental_address_2": "Address line 3", "city": "City",
        "postal_code": "Postal code", "state_province": "State or province", "state_province_code": "State, short",
        "country": "Country", "country_code": "Country, short",
    },
    PHONE: {"phone": "Primary phone", "phone_ext": "Extension", "phone_numeric": "Primary phone, digits only"},
    EMAIL: {"email": "Primary email address", "location_type": "Its location type", "is_bulkmail": "Is for bulk mail",
            "on_hold": "Is on hold"},
    MEMBERSHIP: {"end_date": "Latest end date", "start_date": "Its start date", "join_date": "Its first date"},
    CONTRIBUTION: {
        "last_date": "Date of the last", "last_amount": "Amount of the last", "largest_date": "Date of the largest",
        "largest_amount": "Amount of the largest", "count": "How many",
    },
    CUSTOM: {}, GROUP: {}, TAG: {}, FIXED: {},
}  # fmt: skip
"""What each kind of source can give: name → title. Custom fields, groups and tags are named by their ids."""

NUMBERED = (CUSTOM, GROUP, TAG)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def id(self) -> int:
        """The id of the custom field, group or tag that it names."""
        return int(self.name)


def find_source(text: Any) -> Source | None:
    """The source that a text names; None for a text that names none."""
    kind, colon, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or kind not in SOURCES:
        return None
    if kind == FIXED:
        return Source(kind, name.strip()) if 0 < len(name.strip()) <= FIXED_LENGTH else None
    if kind in NUMBERED:
        return Source(kind, str(int(name))) if re.fullmatch(r"[0-9]{1,9}", name) and int(name) else None
    return Source(kind, name) if name in SOURCES[kind] else None


@dataclass(frozen=True, slots=True)
class MergeField:
    """A merge field as Mailchimp last described it. Source: Mailchimp Marketing API, list merge fields."""

    tag: str
    name: str = ""
    type: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()
    phone_format: str = ""
    """``US`` or ``none``."""

    @classmethod
    def from_wire(cls, body: Any) -> "MergeField | None":
        """Read a merge field from its JSON, or from a stored rule; None for what has no usable tag."""
        if not isinstance(body, Mapping) or not isinstance(body.get("tag"), str):
            return None
        tag = body["tag"].upper()
        if not TAG_NAME.fullmatch(tag) or tag == "EMAIL":
            return None
        shape = body.get("options")
        options: Mapping[str, Any] = shape if isinstance(shape, Mapping) else {}
        choices = options.get("choices")
        return cls(
            tag,
            name=str(body.get("name") or ""),
            type=str(body.get("type") or "text"),
            required=bool(body.get("required")),
            choices=tuple(str(one) for one in choices) if isinstance(choices, list) else (),
            phone_format=str(options.get("phone_format") or ""),
        )

    def as_dict(self) -> dict[str, Any]:
        """The field as it is stored with its rule, and shown."""
        options: dict[str, Any] = {"choices": list(self.choices)} if self.choices else {}
        options |= {"phone_format": self.phone_format} if self.phone_format else {}
        shown: dict[str, Any] = {"tag": self.tag, "name": self.name, "type": self.type, "required": self.required}
        return shown | ({"options": options} if options else {})


@dataclass(frozen=True, slots=True)
class FieldRule:
    """A merge field and what fills it. *clear*: an empty value empties it at Mailchimp; otherwise it sends nothing."""

    field: MergeField
    source: Source
    clear: bool = False

    @property
    def tag(self) -> str:
        """The merge field's tag."""
        return self.field.tag


def read_rules(stored: Any) -> dict[str, FieldRule]:
    """The rules of a connection (``mergeFields`` of its list) by tag; what is no rule is left out."""
    found: dict[str, FieldRule] = {}
    for tag, one in stored.items() if isinstance(stored, dict) else ():
        given = one if isinstance(one, dict) else {"source": one}
        field, source = MergeField.from_wire({**given, "tag": tag}), find_source(given.get("source"))
        if field is not None and source is not None and not given.get("gone"):
            found[field.tag] = FieldRule(field, source, _is_yes(given.get("clear")))
    return found


def write_rule(rule: FieldRule) -> dict[str, Any]:
    """A rule as the configuration stores it, under its tag."""
    described = {name: value for name, value in rule.field.as_dict().items() if name != "tag"}
    return {"source": str(rule.source), "clear": rule.clear, **described}


def _is_yes(value: Any) -> bool:
    return value is True or str(value) == "1"


def canonical(value: Any) -> str:
    """A merge value in a form that equal values share, whether Mailchimp answers ``5``, ``5.0`` or ``"5"``."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(int(value))
    if isinstance(value, int | float):
        return f"{int(value)}" if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))
    if isinstance(value, Mapping):
        parts = sorted((str(key), str(one).strip()) for key, one in value.items() if str(one or "").strip())
        return "\n".join(f"{key}: {one}" for key, one in parts)
    return str(value).strip()
