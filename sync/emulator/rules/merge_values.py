"""Validation of merge values by type, and required fields. Errors name the bare tag, as Mailchimp's do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import Json, MergeField
from sync.emulator.protocol.problems import field_error, merge_fields_invalid

MAX_TEXT_BYTES = 255
EXACT = 2**53
"""Up to here a number sent as text is stored as an integer."""
ADDRESS_PARTS = ("addr1", "city", "state", "zip")


def merge_values(
    audience: EmulatedAudience, held: Mapping[str, Any], sent: Mapping[str, Any], *, skip_required: bool, is_new: bool
) -> Json:
    """Return *held* updated with *sent*; unknown tags are ignored, ``""`` clears a value.

    Raises 400 Invalid Resource listing every missing or malformed value.
    """
    errors: list[dict[str, str]] = []
    result = dict(held)
    if is_new:
        result |= {m.tag: m.default_value for m in audience.merge_fields.values() if m.default_value}
    for tag, value in sent.items():
        merge = audience.merge_field(tag)
        if merge is None:
            continue
        accepted, complaint = _accept(merge, value)
        if complaint:
            errors.append(field_error(merge.tag, complaint))
        elif accepted == "":
            result.pop(merge.tag, None)
        else:
            result[merge.tag] = accepted
    if not skip_required:
        errors += _missing(audience, result, {error["field"] for error in errors})
    if errors:
        raise merge_fields_invalid(errors)
    return result


def _missing(audience: EmulatedAudience, values: Json, complained: set[str]) -> list[dict[str, str]]:
    return [
        field_error(merge.tag, "Please enter a value")
        for merge in audience.merge_fields.values()
        if merge.required and merge.tag not in values and merge.tag not in complained
    ]


def _accept(merge: MergeField, value: Any) -> tuple[Any, str]:
    """Return (stored value, "") or ("", complaint)."""
    if value == "" or value == {}:
        return "", ""
    return CHECKS.get(merge.type, _text)(merge, value)


def _text(merge: MergeField, value: Any) -> tuple[Any, str]:
    if isinstance(value, dict):
        return "", "Please enter a value"
    return _cut(str(value)), ""


def _cut(text: str) -> str:
    """Cut to 255 bytes without breaking a character."""
    raw = text.encode("utf-8", "surrogatepass")  # half an emoji is kept as it was sent
    return text if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore")


def _number(merge: MergeField, value: Any) -> tuple[Any, str]:
    if isinstance(value, int | float):
        return value, ""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "", "This value should be of type numeric."
    if not math.isfinite(number):
        return "", "This value should be of type numeric."
    return (int(number) if number.is_integer() and abs(number) < EXACT else number), ""


def _date(merge: MergeField, value: Any) -> tuple[Any, str]:
    try:
        return date.fromisoformat(str(value)[:10]).isoformat(), ""
    except ValueError:
        return "", "Please enter the date"


def _pattern(pattern: str, complaint: str) -> Callable[[MergeField, Any], tuple[Any, str]]:
    compiled = re.compile(pattern)

    def check(merge: MergeField, value: Any) -> tuple[Any, str]:
        return (str(value), "") if compiled.fullmatch(str(value)) else ("", complaint)

    return check


def _choice(merge: MergeField, value: Any) -> tuple[Any, str]:
    choices = merge.options.get("choices") or []
    return (value, "") if not choices or value in choices else ("", "Value must be one of the choices")


def _address(merge: MergeField, value: Any) -> tuple[Any, str]:
    if not isinstance(value, dict) or not all(str(value.get(part) or "").strip() for part in ADDRESS_PARTS):
        return "", "Please enter a complete address"
    return {"addr2": "", "country": "US", **value}, ""


CHECKS: dict[str, Callable[[MergeField, Any], tuple[Any, str]]] = {
    "number": _number,
    "date": _date,
    "birthday": _pattern(r"(0?[1-9]|1[0-2])/(0?[1-9]|[12]\d|3[01])", "Please enter a month (01-12) and a day (01-31)"),
    "zip": _pattern(r"\d{5}(-\d{4})?", "Please enter a zip code (5 digits)"),
    "url": _pattern(r"https?://\S+", "Please enter a valid URL"),
    "imageurl": _pattern(r"https?://\S+", "Please enter a valid URL"),
    "radio": _choice,
    "dropdown": _choice,
    "address": _address,
}
