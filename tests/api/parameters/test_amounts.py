"""Amounts in the notation of the site or of programs; what is neither is refused, not read as another amount."""

import pytest

from civiapi.api.parameters.amounts import parse
from tests.conftest import Ask

ENGLISH, GERMAN, FRENCH, SWISS, NONE = (".", ","), (",", "."), (",", " "), (".", "'"), (".", "")
READ: tuple[tuple[tuple[str, str], str, float | None], ...] = (
    (ENGLISH, "1234.5", 1234.5),
    (ENGLISH, "1,234.50", 1234.5),
    (ENGLISH, "1,234,567", 1234567),
    (ENGLISH, " -12.00 ", -12),
    (ENGLISH, ".5", 0.5),
    (ENGLISH, "1e3", 1000),
    (ENGLISH, "1.234,56", None),
    (ENGLISH, "1,5", None),
    (ENGLISH, "12,34", None),
    (ENGLISH, "1,2345", None),
    (ENGLISH, "1_000", None),
    (ENGLISH, "nan", None),
    (ENGLISH, "inf", None),
    (ENGLISH, "1e999", None),
    (ENGLISH, "", None),
    (ENGLISH, "-", None),
    (ENGLISH, "٣", None),
    (ENGLISH, "12 EUR", None),
    (GERMAN, "1.234,56", 1234.56),
    (GERMAN, "1,5", 1.5),
    (GERMAN, "1.234", 1234),
    (GERMAN, "1234.5", 1234.5),
    (GERMAN, "1,234.50", None),
    (FRENCH, "1 234,50", 1234.5),
    (FRENCH, "1234.5", 1234.5),
    (SWISS, "1'234.50", 1234.5),
    (SWISS, "1,5", None),
    (NONE, "1234.5", 1234.5),
    (NONE, "1,234", None),
    ((",", ","), "1234.5", 1234.5),
    ((",", ","), "1,5", None),
)


@pytest.mark.parametrize(("notation", "text", "number"), READ)
def test_an_amount_is_read(notation: tuple[str, str], text: str, number: float | None) -> None:
    point, thousands = notation
    assert parse(text, point=point, thousands=thousands) == number


@pytest.mark.parametrize("value", ["51,5", "1_000", "nan", "1e400", "fifty", [1], {"a": 1}, True])
async def test_a_decimal_number_in_another_notation_is_refused(call: Ask, value: object) -> None:
    answer = await call("Address", "create", {"contact_id": 1, "location_type_id": 1, "geo_code_1": value})
    assert answer["error_message"].startswith("geo_code_1 is  not a valid amount: ")
