"""Amounts and decimal numbers as people and programs write them."""

import math
import re
from functools import lru_cache

NOTATION = {"monetaryDecimalPoint": ".", "monetaryThousandSeparator": ","}
"""CiviCRM's settings of a site's notation, with their defaults."""
PROGRAMS = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def parse(text: str, *, point: str = ".", thousands: str = "") -> float | None:
    """The number that *text* is in the site's notation (decimal *point*, separator of *thousands*), else in that of
    programs; None for any other text.

    Thousands come in groups of three: another notation is refused, rather than read as a number a hundred times larger.
    """
    text = text.strip()
    if point != thousands and _sites(point, thousands).fullmatch(text):
        text = (text.replace(thousands, "") if thousands else text).replace(point, ".")
    elif not PROGRAMS.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


@lru_cache(maxsize=16)
def _sites(point: str, thousands: str) -> re.Pattern[str]:
    groups = rf"\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+|" if thousands else ""
    fraction = rf"(?:{re.escape(point)}\d*)?" if point else ""
    return re.compile(rf"[-+]?(?:{groups}\d+){fraction}", re.ASCII)
