"""A sync plan as CSV, for the preview page and ``civiapi plan``."""

from collections.abc import Mapping
from typing import Any

COLUMNS = ("contact_id", "name", "email", "kind", "mailchimp_status", "civicrm_status", "reason")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def plan_row(person: Mapping[str, Any]) -> list[str]:
    """A person of a plan under ``COLUMNS``."""
    return [safe_cell(person.get(name)) for name in COLUMNS]


def safe_cell(value: Any) -> str:
    """The value as a cell that no spreadsheet evaluates as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
