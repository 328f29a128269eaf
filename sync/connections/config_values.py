"""Values of the configuration as PHP, scripts and people write them."""

from collections.abc import Mapping
from typing import Any

from sync.audience import is_permission
from sync.mailchimp.wire import PERMISSION

SIDES = {"mailchimp": "Mailchimp", "civicrm": "CiviCRM"}
"""The sides that a trust override can name, in any case."""


INTEREST_PARTS = ("interests", "permissions")
"""Where lists and audiences keep their interests."""


def as_map(value: Any) -> dict[str, Any]:
    """*value* if it is a map, else an empty one: PHP writes an empty map as ``[]``."""
    return value if isinstance(value, dict) else {}


def interests_in(part: Any) -> dict[str, Any]:
    """The interests in a list, which are linked with groups, or in an audience, which have names; its marketing
    permissions are among them (`PERMISSION`). They are stored apart: the extension reads ``interests`` and would send
    what it finds there as such, and leaves ``permissions`` alone."""
    kept = as_map(part)
    permissions = {PERMISSION + key: value for key, value in as_map(kept.get("permissions")).items()}
    return as_map(kept.get("interests")) | permissions


def interests_apart(interests: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The reverse of `interests_in`: both parts (`INTEREST_PARTS`)."""
    permissions = {key.removeprefix(PERMISSION): one for key, one in interests.items() if is_permission(key)}
    return {
        "interests": {key: one for key, one in interests.items() if not is_permission(key)},
        "permissions": permissions,
    }


def as_group_id(value: Any) -> int | None:
    """A group id from text or a number; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 11 and int(text) > 0 else None


def as_limit(value: Any) -> float | None:
    """A limit of the brake from text or a number; None for anything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < 1e9 else None


def as_flag(value: Any, *, default: bool) -> bool:
    """Yes or no from a JSON value or a form; *default* for anything else."""
    return default if value is None or str(value) == "" else str(value).lower() not in ("0", "false", "no")
