"""Readers of CSV cells: from text to a value, or ``ValueError`` with the reason. Pure."""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from civiapi.store.clock import SITE_FORMAT
from civiapi.store.text.encoded_text import decode, encode

SEPARATOR = "\x01"  # CiviCRM's separator in list columns, also at both ends
MAX_ID = 4_294_967_295

Reader = Callable[[str], Any]


def text(length: int) -> Reader:
    """Text of at most *length* characters once it is stored; an export of CiviCRM's tables has it encoded."""

    def read(cell: str) -> str:
        _check_length(encode(cell), length)
        return decode(cell)

    return read


def html(length: int) -> Reader:
    """HTML of at most *length* characters, which is stored as it is."""

    def read(cell: str) -> str:
        _check_length(cell, length)
        return cell

    return read


def _check_length(stored: str, length: int) -> None:
    if len(stored) > length:
        raise ValueError(f"has {len(stored)} characters, at most {length} fit")


def number(cell: str) -> int:
    """An id: a whole number above zero."""
    if not re.fullmatch(r"[0-9]{1,10}", cell) or not 0 < int(cell) <= MAX_ID:
        raise ValueError(f"'{cell}' is not a whole number above zero")
    return int(cell)


_FLAGS = {"0": 0, "1": 1, "no": 0, "yes": 1, "false": 0, "true": 1}


def flag(cell: str) -> int:
    """Yes or no, as 1 or 0."""
    if cell.lower() not in _FLAGS:
        raise ValueError(f"'{cell}' is neither 0 nor 1")
    return _FLAGS[cell.lower()]


def choice(*options: str) -> Reader:
    """One of these options, in any case."""
    known = {option.lower(): option for option in options}

    def read(cell: str) -> str:
        if cell.lower() not in known:
            raise ValueError(f"'{cell}' is none of {', '.join(options)}")
        return known[cell.lower()]

    return read


def several(length: int, names: Mapping[str, str] | None = None) -> Reader:
    """A list, separated by commas or CiviCRM's separator; *names* maps labels to values."""
    values = {name.lower(): value for name, value in (names or {}).items()}

    def read(cell: str) -> str | None:
        parts = [part.strip() for part in re.split(f"[{SEPARATOR},]", cell) if part.strip()]
        parts = [values.get(part.lower(), part) for part in parts]
        if names and (unknown := [part for part in parts if part not in names.values()]):
            raise ValueError(f"'{unknown[0]}' is none of {', '.join(names)}")
        stored = "".join(f"{SEPARATOR}{part}" for part in dict.fromkeys(parts)) + SEPARATOR
        _check_length(encode(stored), length)
        return stored if parts else None

    return read


_ADDRESS = re.compile(r"[^\s@<>,;\"\x00-\x1f]+@[^\s@<>,;\"\x00-\x1f.]+(\.[^\s@<>,;\"\x00-\x1f.]+)+")


def address(cell: str) -> str:
    """An e-mail address, in lower case."""
    if len(cell) > 254:
        raise ValueError(f"has {len(cell)} characters, at most 254 fit")
    if not _ADDRESS.fullmatch(cell):
        raise ValueError(f"'{cell}' is not an e-mail address")
    return cell.lower()


def day(cell: str) -> str:
    """A date, ``YYYY-MM-DD``."""
    try:
        return date.fromisoformat(cell).isoformat()
    except ValueError as error:
        raise ValueError(f"'{cell}' is not a date such as 2024-01-31") from error


def moment(cell: str) -> datetime:
    """A date and time; without an offset it stays naive until ``site_time``."""
    try:
        return datetime.fromisoformat(cell)
    except ValueError as error:
        raise ValueError(f"'{cell}' is not a date and time such as 2024-01-31 15:30:00") from error


def site_time(when: datetime, *, read_in: ZoneInfo, site: ZoneInfo) -> str:
    """A time in the format and zone of the site. Raises ``ValueError`` beyond the range of CiviCRM's columns."""
    if when.tzinfo is None and read_in == site:
        local = when
    else:
        local = (when if when.tzinfo else when.replace(tzinfo=read_in)).astimezone(site)
    if not 1970 < local.year < 2038:
        raise ValueError(f"the year {local.year} is out of range")
    return local.strftime(SITE_FORMAT)
