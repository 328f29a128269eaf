"""What a run did to whom as CSV, for its page and ``civiapi run``."""

from collections.abc import Mapping
from typing import Any

from civiapi.http.plan_csv import safe_cell

COLUMNS = ("contact_id", "name", "email", "kind", "group_id", "was", "reason", "answer", "batch_id", "undone_by")


def run_row(one: Mapping[str, Any]) -> list[str]:
    """A change of a run, or one that its undo would make, under ``COLUMNS``."""
    return [safe_cell(one.get(name)) for name in COLUMNS]
