"""Rows of CSV files: those of a plan, as the preview page and ``civiapi plan`` write them."""

import pytest

from civiapi.http.csv_rows import PLAN_COLUMNS, csv_row, safe_cell


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@here", "\tx", "\rx", "\nx"])
def test_a_cell_that_would_be_a_formula_is_text(cell: str) -> None:
    assert safe_cell(cell) == f"'{cell}"


def test_a_row_has_every_column_and_no_formula() -> None:
    person = {"name": "=1+1", "contact_id": 7, "other": "x"}
    assert csv_row(person, PLAN_COLUMNS) == ["7", "'=1+1", "", "", "", "", ""]
