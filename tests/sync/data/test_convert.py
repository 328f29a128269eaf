"""Values of CiviCRM as merge fields take them: one row a rule."""

from decimal import Decimal
from typing import Any

import pytest

from sync.data.convert import Misfit, convert, is_empty
from sync.field_rules import FieldRule, MergeField, Source, canonical, find_source, read_rules, write_rule

COMPLETE = {"addr1": "1 Elm St", "addr2": "", "city": "Troy", "state": "NY", "zip": "12180", "country": "US"}
SENT = {key: value for key, value in COMPLETE.items() if value}
US = {"phone_format": "US"}
COLOURS = {"choices": ["Red", "Dark blue"]}
LONG = "ü" * 128

FITS: list[tuple[str, str, dict[str, Any], Any, Any]] = [
    ("Text is trimmed.", "text", {}, "  Ada ", "Ada"),
    ("A number is text where text is wanted.", "text", {}, 7, "7"),
    ("An amount keeps its cents.", "text", {}, Decimal("12.50"), "12.50"),
    ("A yes is Yes.", "text", {}, True, "Yes"),
    ("A no is No.", "text", {}, False, "No"),
    ("A time at midnight is a day.", "text", {}, "2026-03-01 00:00:00", "2026-03-01"),
    ("A time of day stays.", "text", {}, "2026-03-01 12:30:00", "2026-03-01 12:30:00"),
    ("Several choices are listed.", "text", {}, ["Red", "Blue"], "Red, Blue"),
    ("255 bytes fit.", "text", {}, "a" * 255, "a" * 255),
    ("A type that is not known is text.", "colour", {}, "x", "x"),
    ("A number from text.", "number", {}, " 12.5 ", 12.5),
    ("A whole amount is a whole number.", "number", {}, Decimal("12.00"), 12),
    ("A yes is 1 as a number.", "number", {}, True, 1),
    ("A count of none is a number.", "number", {}, 0, 0),
    ("A day.", "date", {}, "2026-03-01", "2026-03-01"),
    ("The day of a time.", "date", {}, "2026-03-01 23:59:59", "2026-03-01"),
    ("A birthday from a day.", "birthday", {}, "1815-12-10", "12/10"),
    ("A birthday from month and day.", "birthday", {}, "2/9", "02/09"),
    ("A birthday in a leap year.", "birthday", {}, "2/29", "02/29"),
    ("A phone number as it is.", "phone", {}, "+49 (30) 1234", "+49 (30) 1234"),
    ("A number of the USA in its form.", "phone", US, "(518) 555 0100", "518-555-0100"),
    ("A number of the USA with its country.", "phone", US, "+1 518 555 0100", "518-555-0100"),
    ("A zip code.", "zip", {}, "12180", "12180"),
    ("A zip code and four digits.", "zip", {}, "121801234", "12180-1234"),
    ("A web address.", "url", {}, "https://example.org/a", "https://example.org/a"),
    ("A choice.", "radio", COLOURS, "Red", "Red"),
    ("A choice in other letters.", "dropdown", COLOURS, "dark BLUE", "Dark blue"),
    ("A yes among choices.", "radio", {"choices": ["No", "yes"]}, True, "yes"),
    ("A no among choices of numbers.", "dropdown", {"choices": ["1", "0"]}, False, "0"),
    ("A whole address.", "address", {}, COMPLETE, SENT),
    ("An address as text.", "text", {}, COMPLETE, "1 Elm St, Troy, NY, 12180, US"),
]

UNFIT: list[tuple[str, str, dict[str, Any], Any, str]] = [
    ("256 bytes do not fit, fewer characters though they be.", "text", {}, LONG, "longer than 255 bytes"),
    ("No number.", "number", {}, "seven", "not a number"),
    ("Infinity is no number.", "number", {}, "Infinity", "not a number"),
    ("NaN is no number.", "number", {}, "nan", "not a number"),
    ("A day that there is not.", "date", {}, "2026-02-30", "not a date"),
    ("Another form of day.", "date", {}, "01.03.2026", "not a date"),
    ("A birthday that there is not.", "birthday", {}, "13/01", "not a date"),
    ("No digits, no phone.", "phone", {}, "ask her", "not a phone number"),
    ("Not of the USA.", "phone", US, "+49 30 1234", "phone number of the USA"),
    ("Letters are no zip code.", "zip", {}, "D-10115", "five digits"),
    ("No web address.", "url", {}, "example.org", "http://"),
    ("A script is none.", "imageurl", {}, "javascript:alert(1)", "http://"),
    ("None of the choices.", "radio", COLOURS, "Green", "none of the field's choices"),
    ("Half an address.", "address", {}, {**COMPLETE, "zip": None, "state": ""}, "no state and no postal code"),
    ("A text is no address.", "address", {}, "Troy", "not a whole address"),
]


def a_field(kind: str, options: dict[str, Any]) -> MergeField:
    found = MergeField.from_wire({"tag": "x", "type": kind, "options": options})
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "options", "value", "sent"), [one[1:] for one in FITS], ids=[one[0] for one in FITS])
def test_what_fits(kind: str, options: dict[str, Any], value: Any, sent: Any) -> None:
    found = convert(a_field(kind, options), value)
    assert (found, type(found)) == (sent, type(sent))


@pytest.mark.parametrize(("kind", "options", "value", "why"), [one[1:] for one in UNFIT], ids=[one[0] for one in UNFIT])
def test_what_does_not_fit_is_said(kind: str, options: dict[str, Any], value: Any, why: str) -> None:
    found = convert(a_field(kind, options), value)
    assert isinstance(found, Misfit)
    assert why in str(found)
    assert str(found).startswith("X is left out: ")


@pytest.mark.parametrize("value", [None, "", "  ", "0000-00-00", "0000-00-00 00:00:00", [], [""], {"addr1": None}])
def test_what_is_empty(value: Any) -> None:
    assert is_empty(value)


@pytest.mark.parametrize("value", [0, False, "0", Decimal(0), ["x"], {"city": "Troy"}])
def test_what_is_not_empty(value: Any) -> None:
    assert not is_empty(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (5, "5"),
        (5.0, 5),
        (" a", "a "),
        (None, ""),
        ({"city": "A", "zip": ""}, {"city": "A"}),
        (1.5, "1.5"),
    ],
)
def test_equal_values_have_one_form(one: Any, other: Any) -> None:
    assert canonical(one) == canonical(other) == canonical(canonical(one))


@pytest.mark.parametrize("text", ["contact:job_title", "address:all", "custom:7", "group:3", "tag:1", "text:A b: c"])
def test_a_source_is_read_and_written(text: str) -> None:
    assert str(find_source(text)) == text


@pytest.mark.parametrize(
    "text", ["", "x", None, 7, "contact:api_key", "contact:", "custom:x", "custom:0", "group:-1", "text: ", "sql:1"]
)
def test_what_names_no_source(text: Any) -> None:
    assert find_source(text) is None


def test_rules_are_read_as_they_are_written_and_what_is_none_is_left_out() -> None:
    rule = FieldRule(MergeField("COLOUR", "Colour", "radio", True, ("Red",)), Source("custom", "7"), clear=True)
    stored = {"COLOUR": write_rule(rule), "PHONE": "phone:phone", "X": {"source": "nowhere"}, "EMAIL": "email:email"}
    found = read_rules({**stored, "GONE": {**write_rule(rule), "gone": True}})
    assert found == {"COLOUR": rule, "PHONE": FieldRule(MergeField("PHONE"), Source("phone", "phone"))}
    for odd in (None, [], "x", {"A": None}, {"A": {"source": 1}}):
        assert read_rules(odd) == {}
