"""Turns a value of CiviCRM into one that a merge field of Mailchimp takes, or says why it does not fit. Pure.

Values come as `sources` reads them: text, whole numbers, `Decimal` amounts, True and False, lists of texts, and an
address as a map of Mailchimp's parts. Source: Mailchimp Marketing API, merge field types; text of more than 255 bytes
is cut or refused there, so it is not sent.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from sync.field_rules import MergeField

MAX_BYTES = 255
SHOWN = 60
ADDRESS_PARTS = {"addr1": "street", "city": "city", "state": "state", "zip": "postal code"}
"""The parts without which Mailchimp refuses an address."""
YES, NO = "Yes", "No"
_YES_NO = {True: ("yes", "1", "true", "y"), False: ("no", "0", "false", "n")}
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:[ T].*)?", re.ASCII)
_BIRTHDAY = re.compile(r"(\d{1,2})/(\d{1,2})", re.ASCII)
_ZIP = re.compile(r"(\d{5})(?:[- ]?(\d{4}))?", re.ASCII)
_URL = re.compile(r"https?://[^\s/]+\S*", re.IGNORECASE)
LEAP_YEAR = 2000


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that a merge field does not take, and why; it is not sent."""

    tag: str
    value: str
    why: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= SHOWN else f"{self.value[:SHOWN]}…"
        return f"{self.tag} is left out: “{shown}” {self.why}"


_Converter = Callable[[MergeField, Any], Any]


class _Unfit(Exception):
    """Why a value does not fit."""


def is_empty(value: Any) -> bool:
    """Whether CiviCRM has no value: 0 and "no" are values."""
    if isinstance(value, str):
        return not value.strip() or value.startswith("0000-00-00")
    return value is None or (isinstance(value, list | dict) and not any(not is_empty(one) for one in _parts(value)))


def convert(field: MergeField, value: Any) -> Any:
    """The value as the merge field takes it: text, a number, or a map for an address. Misfit where there is none.

    *value* is not empty (`is_empty`).
    """
    try:
        convert_to: _Converter = _CONVERTERS.get(field.type, _as_text)
        return convert_to(field, value)
    except _Unfit as unfit:
        return Misfit(field.tag, as_text(value), str(unfit))


def as_text(value: Any) -> str:
    """A value of CiviCRM as people read it."""
    if isinstance(value, bool):
        return YES if value else NO
    if isinstance(value, list | dict):
        return ", ".join(as_text(one) for one in _parts(value) if not is_empty(one))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).strip()


def _parts(value: list[Any] | dict[str, Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _as_text(field: MergeField, value: Any) -> str:
    text = as_text(value)
    found = _DATE.fullmatch(text)
    if found and text.endswith("00:00:00"):
        text = text[:10]
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise _Unfit(f"is longer than {MAX_BYTES} bytes.")
    return text


def _as_number(field: MergeField, value: Any) -> int | float:
    try:
        number = Decimal(int(value) if isinstance(value, bool) else as_text(value))
    except InvalidOperation:
        raise _Unfit("is not a number.") from None
    if not number.is_finite() or math.isinf(float(number)):
        raise _Unfit("is not a number.")
    return int(number) if number == number.to_integral_value() and abs(number) < 2**53 else float(number)


def _day(text: str) -> date | None:
    found = _DATE.fullmatch(text)
    try:
        return date(int(found[1]), int(found[2]), int(found[3])) if found else None
    except ValueError:
        return None


def _as_date(field: MergeField, value: Any) -> str:
    day = _day(as_text(value))
    if day is None:
        raise _Unfit("is not a date.")
    return day.isoformat()


def _as_birthday(field: MergeField, value: Any) -> str:
    text = as_text(value)
    day, found = _day(text), _BIRTHDAY.fullmatch(text)
    try:
        day = day or (date(LEAP_YEAR, int(found[1]), int(found[2])) if found else None)
    except ValueError:
        day = None
    if day is None:
        raise _Unfit("is not a date, nor a month and day (MM/DD).")
    return f"{day.month:02d}/{day.day:02d}"


def _as_phone(field: MergeField, value: Any) -> str:
    text = _as_text(field, value)
    digits = re.sub(r"\D", "", text, flags=re.ASCII)
    if field.phone_format.upper() == "US":
        digits = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
        if len(digits) != 10:
            raise _Unfit("is not a phone number of the USA, which this field takes.")
        return f"{digits[:3]}-{digits[3:6]}-{digits[6:]}"
    if not digits:
        raise _Unfit("is not a phone number.")
    return text


def _as_zip(field: MergeField, value: Any) -> str:
    found = _ZIP.fullmatch(as_text(value))
    if found is None:
        raise _Unfit("is not a zip code of five digits.")
    return f"{found[1]}-{found[2]}" if found[2] else found[1]


def _as_url(field: MergeField, value: Any) -> str:
    text = _as_text(field, value)
    if not _URL.fullmatch(text):
        raise _Unfit("is not a web address that begins with http:// or https://.")
    return text


def _as_choice(field: MergeField, value: Any) -> str:
    text = as_text(value)
    if not field.choices or text in field.choices:
        return _as_text(field, value)
    forms = _YES_NO[value] if isinstance(value, bool) else (text.casefold(),)
    chosen = next((one for form in forms for one in field.choices if one.casefold() == form), None)
    if chosen is None:
        raise _Unfit("is none of the field's choices.")
    return chosen


def _as_address(field: MergeField, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _Unfit("is not a whole address, which this field takes.")
    parts = {name: as_text(one) for name, one in value.items() if not is_empty(one)}
    missing = [title for name, title in ADDRESS_PARTS.items() if name not in parts]
    if missing:
        raise _Unfit(f"has no {' and no '.join(missing)}, without which Mailchimp takes no address.")
    return parts


_CONVERTERS: Mapping[str, _Converter] = {
    "number": _as_number,
    "date": _as_date,
    "birthday": _as_birthday,
    "phone": _as_phone,
    "zip": _as_zip,
    "url": _as_url,
    "imageurl": _as_url,
    "radio": _as_choice,
    "dropdown": _as_choice,
    "address": _as_address,
}
