"""Rows of CSV files, the same for pages and commands."""

from collections.abc import Mapping, Sequence
from typing import Any

PLAN_COLUMNS = ("contact_id", "name", "email", "kind", "mailchimp_status", "civicrm_status", "reason")
"""Of the people of a plan (``Mailchimpsync.plan``)."""

RUN_COLUMNS = (
    "contact_id", "name", "email", "kind", "group_id", "was", "reason", "answer", "batch_id", "undone_by",
)  # fmt: skip
"""Of what a run did to whom (``Mailchimpsync.getrun``), and of what its undo would do."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_row(one: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """The cells of *one* under *columns*, empty where it has none."""
    return [safe_cell(one.get(name)) for name in columns]


def safe_cell(value: Any) -> str:
    """The value as a cell that no spreadsheet evaluates as a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
