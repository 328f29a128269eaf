"""Values of the configuration as PHP, scripts and people write them."""

from typing import Any

SIDES = {"mailchimp": "Mailchimp", "civicrm": "CiviCRM"}
"""The sides that a trust override can name, in any case."""


def as_map(value: Any) -> dict[str, Any]:
    """*value* if it is a map, else an empty one: PHP writes an empty map as ``[]``."""
    return value if isinstance(value, dict) else {}


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
