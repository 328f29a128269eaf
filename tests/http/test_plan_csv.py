"""A plan as CSV: the preview page and ``civiapi plan`` write the same rows."""

import pytest

from civiapi.http.plan_csv import COLUMNS, plan_row, safe_cell


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@here", "\tx", "\rx", "\nx"])
def test_a_cell_that_would_be_a_formula_is_text(cell: str) -> None:
    assert safe_cell(cell) == f"'{cell}"


def test_a_row_has_every_column_and_no_formula() -> None:
    assert plan_row({"name": "=1+1", "contact_id": 7, "other": "x"}) == ["7", "'=1+1", "", "", "", "", ""]
    assert len(plan_row({})) == len(COLUMNS)
