"""Dates as in PHP's ``strtotime``: ``now``, ``-2 hours``, ``last monday``, ``01/02/2026``, ISO, compact forms.

A text is read from left to right: absolute parts (a date, a time, a zone) set fields, names and offsets then move the
result. The result is a naive datetime in the site's zone.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.relativedelta import relativedelta
from dateutil.relativedelta import weekday as on_weekday

from civiapi.store.clock import SiteClock

_MONTH_NAMES = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_ORDINAL_NAMES = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip
_MONTHS = {name[:length]: number for number, name in enumerate(_MONTH_NAMES, 1) for length in (3, len(name))} | {
    "sept": 9
}
_DAYS = {
    name[:length]: number
    for number, name in enumerate(["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"])
    for length in (3, len(name))
} | {"tues": 1, "wednes": 2, "thur": 3, "thurs": 3}
_ORDINALS = {name: number for number, name in enumerate(_ORDINAL_NAMES, 1)}
_ORDINALS |= {"next": 1, "last": -1, "previous": -1, "this": 0}
_UNITS = {
    "sec": "seconds", "second": "seconds", "min": "minutes", "minute": "minutes", "hour": "hours", "day": "days",
    "week": "weeks", "fortnight": "fortnights", "forthnight": "fortnights", "month": "months", "year": "years",
    "weekday": "weekdays",
}  # fmt: skip

_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = "|".join(sorted(_DAYS, key=len, reverse=True))
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_ORDINAL = "|".join(_ORDINALS)


class _NoDateError(Exception):
    """The text is not a date."""


@dataclass(slots=True)
class _Reading:
    """The parts read so far."""

    now: datetime
    day: tuple[int, int, int] | None = None
    time: tuple[int, int, int] | None = None
    usual_time: tuple[int, int, int] | None = None  # the time of a name such as monday, unless one is given
    zone: tzinfo | None = None
    instant: datetime | None = None
    offset: relativedelta = field(default_factory=relativedelta)
    weekdays: int = 0
    weekday: tuple[int, int] | None = None  # day of the week, which one
    edge: str = ""  # first or last day of the month
    nth: tuple[int, int] | None = None  # nth weekday of the month


def parse(value: str | int, clock: SiteClock) -> datetime | None:
    """The datetime for *value*, naive in the site's zone, in whole seconds; ``None`` if it is not a date."""
    text = str(value).strip().lower()
    if not text or len(text) > 100:
        return None
    reading = _Reading(datetime.now(clock.zone).replace(tzinfo=None, microsecond=0))
    try:
        while text:
            text = _read_one(reading, text).lstrip(" \t,")
        return _existing(_result(reading, clock), clock)
    except (_NoDateError, ValueError, OverflowError):
        return None


def is_timestamp(moment: datetime, clock: SiteClock) -> bool:
    """Whether a site time fits into MariaDB's ``timestamp``: from 1970 to January 2038."""
    try:
        return 0 < moment.replace(tzinfo=clock.zone).timestamp() < 2**31
    except OverflowError:
        return False


def _existing(moment: datetime, clock: SiteClock) -> datetime:
    """The hour that is left out in spring is, as in PHP, the one after it: MariaDB refuses to store it."""
    if not 1900 < moment.year < 9999:
        return moment
    return moment.replace(tzinfo=clock.zone).astimezone(UTC).astimezone(clock.zone).replace(tzinfo=None, fold=0)


def _read_one(reading: _Reading, text: str) -> str:
    """Read one part from the beginning of *text*; returns the rest."""
    for pattern, read in _FORMS:
        if found := pattern.match(text):
            read(reading, found)
            return text[found.end() :]
    raise _NoDateError


def _set_day(reading: _Reading, year: int, month: int, day: int) -> None:
    if reading.day is not None:
        raise _NoDateError
    datetime(year, month, day)  # raises for a day that is not in the calendar
    reading.day = year, month, day


def _set_time(reading: _Reading, hour: int, minute: int = 0, second: int = 0, half: str | None = None) -> None:
    if half:
        if not 1 <= hour <= 12:
            raise _NoDateError
        hour = hour % 12 + (12 if half.startswith("p") else 0)
    if reading.time is not None or hour > 24 or minute > 59 or second > 59:
        raise _NoDateError
    reading.time = hour, minute, second


def _compact(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, int(m[1]), int(m[2]), int(m[3]))
    if m[4]:
        _set_time(reading, int(m[4]), int(m[5]), int(m[6]))


def _ymd(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, int(m[1]), int(m[2]), int(m[3]))


def _dmy(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, int(m[3]), int(m[2]), int(m[1]))


def _mdy(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, _year(m[3], reading), int(m[1]), int(m[2]))


def _year(text: str | None, reading: _Reading) -> int:
    if text is None:
        return reading.now.year
    if len(text) <= 2:
        return int(text) + (2000 if int(text) < 70 else 1900)
    return int(text)


def _day_month_name(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, _year(m[3], reading), _MONTHS[m[2]], int(m[1]))


def _month_name_day(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, _year(m[3], reading), _MONTHS[m[1]], int(m[2]))


def _month_name(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, _year(m[2], reading), _MONTHS[m[1]], 1 if m[2] else min(reading.now.day, 28))


def _year_month(reading: _Reading, m: re.Match[str]) -> None:
    _set_day(reading, int(m[1]), int(m[2]), 1)


def _iso_week(reading: _Reading, m: re.Match[str]) -> None:
    found = datetime.fromisocalendar(int(m[1]), int(m[2]), int(m[3] or 1))
    _set_day(reading, found.year, found.month, found.day)


def _clock_time(reading: _Reading, m: re.Match[str]) -> None:
    _set_time(reading, int(m[1]), int(m[2]), int(m[3] or 0), m[4])


def _hour_only(reading: _Reading, m: re.Match[str]) -> None:
    _set_time(reading, int(m[1]), half=m[2])


def _four_digits(reading: _Reading, m: re.Match[str]) -> None:
    """``1530`` is a time; after a time, or if it is not a valid one, it is a year."""
    hour, minute = int(m[1][:2]), int(m[1][2:])
    if reading.time is None and hour <= 24 and minute <= 59:
        _set_time(reading, hour, minute)
    else:
        _set_day(reading, int(m[1]), reading.now.month, min(reading.now.day, 28))


def _offset_zone(reading: _Reading, m: re.Match[str]) -> None:
    if reading.time is None or reading.zone is not None:
        raise _NoDateError
    shift = timedelta(hours=int(m[2]), minutes=int(m[3] or 0))
    reading.zone = timezone(-shift if m[1] == "-" else shift)


_ABBREVIATIONS = {"z": 0, "utc": 0, "gmt": 0, "wet": 0, "bst": 1, "cet": 1, "cest": 2, "eet": 2, "eest": 3, "msk": 3}
_ABBREVIATIONS |= {"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7}


def _named_zone(reading: _Reading, m: re.Match[str]) -> None:
    if reading.zone is not None:
        raise _NoDateError
    if m[0] in _ABBREVIATIONS:
        reading.zone = timezone(timedelta(hours=_ABBREVIATIONS[m[0]]))
        return
    try:
        reading.zone = ZoneInfo("/".join(part.title() for part in m[0].split("/")))
    except (ZoneInfoNotFoundError, ValueError):
        raise _NoDateError from None


def _instant(reading: _Reading, m: re.Match[str]) -> None:
    reading.instant = datetime.fromtimestamp(int(m[1]), UTC)


def _named_day(reading: _Reading, m: re.Match[str]) -> None:
    days = {"yesterday": -1, "tomorrow": 1}.get(m[0], 0)
    if m[0] == "noon":
        _set_time(reading, 12)
    elif m[0] != "now":
        reading.usual_time = 0, 0, 0
    reading.offset += relativedelta(days=days)


def _edge_of(reading: _Reading, m: re.Match[str]) -> None:
    reading.edge = m[1]


def _nth_weekday_of(reading: _Reading, m: re.Match[str]) -> None:
    reading.nth = _ORDINALS[m[1]], _DAYS[m[2]]
    reading.usual_time = 0, 0, 0


def _ordinal_weekday(reading: _Reading, m: re.Match[str]) -> None:
    which = _ORDINALS[m[1]]
    reading.weekday = _DAYS[m[2]], 1 if which == 0 else which + (which > 0)
    reading.usual_time = 0, 0, 0


def _weekday(reading: _Reading, m: re.Match[str]) -> None:
    reading.weekday = _DAYS[m[1]], 1
    reading.usual_time = 0, 0, 0


def _ordinal_unit(reading: _Reading, m: re.Match[str]) -> None:
    _move(reading, _ORDINALS[m[1]], m[2])


def _signed_unit(reading: _Reading, m: re.Match[str]) -> None:
    _move(reading, int(m[1].replace(" ", "").replace("--", "").replace("+", "")), m[2], ago=bool(m[3]))


def _move(reading: _Reading, amount: int, unit: str, *, ago: bool = False) -> None:
    amount = -amount if ago else amount
    if abs(amount) > 10**9:
        raise _NoDateError
    if unit in _DAYS:
        reading.weekday = _DAYS[unit], amount + (amount > 0)
        reading.usual_time = 0, 0, 0
        return
    name = _UNITS[unit]
    if name == "weekdays":
        reading.weekdays += amount
    elif name == "fortnights":
        reading.offset += relativedelta(weeks=2 * amount)
    else:
        reading.offset += relativedelta(**{name: amount})  # type: ignore[arg-type]


_Read = Callable[[_Reading, re.Match[str]], None]
_FORMS: tuple[tuple[re.Pattern[str], _Read], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (r"@(-?\d{1,12})\b", _instant),
        (r"(\d{4})(\d\d)(\d\d)(?:t?(\d\d):?(\d\d):?(\d\d))?(?!\d)", _compact),
        (r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)t?", _ymd),
        (r"(\d{4})/(\d{1,2})/(\d{1,2})(?!\d)", _ymd),
        (r"(\d{4})-?w(\d\d)(?:-?([1-7]))?\b", _iso_week),
        (r"(\d{1,2})/(\d{1,2})/(\d{4}|\d\d)(?!\d)", _mdy),
        (r"(\d{1,2})[-.](\d{1,2})[-.](\d{4})(?!\d)", _dmy),
        (r"(\d{1,2})/(\d{1,2})(?![/\d])()", lambda r, m: _set_day(r, r.now.year, int(m[1]), int(m[2]))),
        (rf"(\d{{1,2}})(?:st|nd|rd|th)?[ \-.]*({_MONTH})\b[ \-.,]*(\d{{4}}(?!\d|:))?", _day_month_name),
        (rf"({_MONTH})\b[ \-.]*(\d{{1,2}})(?:st|nd|rd|th)?(?![\d:])(?:[ ,\-.]+(\d{{4}}(?![\d:])))?", _month_name_day),
        (rf"({_MONTH})\b(?:[ \-.]*(\d{{4}}))?", _month_name),
        (r"t?(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?(?!\d)(?: ?([ap])\.?m\.?\b)?", _clock_time),
        (r"(\d{1,2}) ?([ap])\.?m\.?\b", _hour_only),
        (r"(\d{4})-(\d\d)(?![\d-])", _year_month),
        (rf"([+-](?: ?[+-])*? ?\d+|\d+) ?({_UNIT}|{_DAY})s?\b( ago\b)?", _signed_unit),
        (r"t?(\d{4})(?!\d)", _four_digits),
        (r"(?:gmt|utc)?([+-])(\d{1,2}):?(\d\d)?(?!\d)", _offset_zone),
        (r"(?:now|today|midnight|noon|yesterday|tomorrow)\b", _named_day),
        (r"(first|last) day of\b", _edge_of),
        (rf"({_ORDINAL}) ({_DAY}) of\b", _nth_weekday_of),
        (rf"({_ORDINAL}) ({_UNIT})s?\b", _ordinal_unit),
        (rf"({_ORDINAL}) ({_DAY})\b", _ordinal_weekday),
        (rf"({_DAY})\b", _weekday),
        (r"[a-z]+(?:/[a-z_]+)*\b", _named_zone),
    )
)


def _result(reading: _Reading, clock: SiteClock) -> datetime:
    if reading.instant is not None:
        return reading.instant.astimezone(clock.zone).replace(tzinfo=None) + reading.offset
    moment = reading.now
    if reading.day is not None:
        year, month, day = reading.day
        moment = moment.replace(year=year, month=month, day=day)
    present = moment.hour, moment.minute, moment.second
    hour, minute, second = reading.time or reading.usual_time or ((0, 0, 0) if reading.day else present)
    moment = moment.replace(hour=0, minute=minute, second=second) + timedelta(hours=hour)
    moment = _apply_day(_moved(moment, reading.offset, reading), reading)
    if reading.zone is not None:
        moment = moment.replace(tzinfo=reading.zone).astimezone(clock.zone).replace(tzinfo=None)
    return moment


def _moved(moment: datetime, offset: relativedelta, reading: _Reading) -> datetime:
    """Months overflow as in PHP: January 31 plus one month is March 3, except for first or last day of."""
    months = offset.years * 12 + offset.months
    rest = relativedelta(days=offset.days, hours=offset.hours, minutes=offset.minutes, seconds=offset.seconds)
    if months:
        day = 1 if reading.edge or reading.nth else moment.day
        moment = moment.replace(day=1) + relativedelta(months=months) + timedelta(days=day - 1)
    return moment + rest


def _apply_day(moment: datetime, reading: _Reading) -> datetime:
    """Apply the parts that choose a day: first or last of the month, days of the week, working days."""
    if reading.edge == "first":
        moment = moment.replace(day=1)
    elif reading.edge == "last":
        moment += relativedelta(day=31)
    if reading.nth is not None:
        which, day = reading.nth
        start = moment + relativedelta(day=31 if which < 0 else 1)
        moment = start + relativedelta(weekday=on_weekday(day)(which or 1))
    if reading.weekday is not None:
        moment = _nearby(moment, *reading.weekday)
    step = 1 if reading.weekdays > 0 else -1
    for _ in range(min(abs(reading.weekdays), 10_000)):
        moment += timedelta(days=step)
        while moment.weekday() > 4:
            moment += timedelta(days=step)
    return moment


def _nearby(moment: datetime, day: int, which: int) -> datetime:
    """``which`` 1: that day, today counts; 2: the next, today does not count; -1: the last, likewise."""
    ahead = (day - moment.weekday()) % 7
    if which == 1:
        return moment + timedelta(days=ahead)
    if which > 1:
        return moment + timedelta(days=(ahead or 7) + 7 * (which - 2))
    return moment - timedelta(days=((moment.weekday() - day) % 7 or 7) + 7 * (-which - 1))
