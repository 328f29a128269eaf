"""The emulator's clock, which can be set, stopped, sped up or skewed.

Instants are whole or fractional seconds since 1970 in UTC; text appears only on the wire.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LATEST = 2**34
"""The last second we can order by, in the year 2514."""


class Clock:
    """A settable clock over a source of seconds (``time.time`` by default)."""

    def __init__(self, source: Callable[[], float] = time.time, *, frozen: bool = False) -> None:
        self._source = source
        self._origin = source()
        self._base = self._origin
        self._frozen = frozen
        self._rate = 1.0
        self.skew = 0.0

    @classmethod
    def frozen_at(cls, instant: datetime) -> Clock:
        """Return a clock stopped at *instant* (aware)."""
        clock = cls(frozen=True)
        clock.set(instant.timestamp())
        return clock

    @property
    def is_frozen(self) -> bool:
        """True while the clock moves only by calls."""
        return self._frozen

    @property
    def rate(self) -> float:
        """Emulator seconds that pass in one real second."""
        return self._rate

    def now(self) -> float:
        """Return the time in seconds since 1970, skew included."""
        return self._unskewed() + self.skew

    def seconds(self) -> int:
        """Return the time cut to whole seconds, as Mailchimp stores it."""
        return _within_reach(self.now())

    def set(self, seconds: float) -> None:
        """Set the time to *seconds* since 1970 (before skew)."""
        self._base = seconds
        self._origin = self._source()

    def advance(self, seconds: float) -> None:
        """Advance by *seconds*, frozen or not. Raises ValueError for a step back: use ``set``."""
        if seconds < 0:
            raise ValueError("the clock advances by zero or more seconds; set it to go back")
        self.set(self._unskewed() + seconds)

    def freeze(self, on: bool = True) -> None:
        """Stop the clock, or start it again."""
        self.set(self._unskewed())
        self._frozen = on

    def run_at(self, rate: float) -> None:
        """Let *rate* emulator seconds pass in one real second. Raises ValueError below zero."""
        if rate < 0:
            raise ValueError("clock_rate is zero or more")
        self.set(self._unskewed())
        self._rate = rate

    def configure(self, name: str, value: Any) -> None:
        """Set one of the clock's options by its public name. Raises ValueError for another name."""
        if name == "clock_skew_s":
            self.skew = float(value)
        elif name == "clock_freeze":
            self.freeze(bool(value))
        elif name == "clock_rate":
            self.run_at(float(value))
        else:
            raise ValueError(f"There is no option {name!r}")

    def _unskewed(self) -> float:
        return self._base if self._frozen else self._base + (self._source() - self._origin) * self._rate


def to_wire(seconds: float) -> str:
    """Return an instant as Mailchimp writes it (``2026-01-09T10:00:00+00:00``); 0 is "no value", ``""``."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat() if seconds else ""


def from_text(text: str, *, ignore_offset: bool = False) -> int:
    """Return an ISO 8601 time in whole seconds since 1970; without a zone it is UTC, ``""`` is 0.

    *ignore_offset* takes the digits as UTC whatever zone follows them, as Mailchimp's filters are reported to.
    Times outside 1970 to 2514 are moved to the nearer end. Raises ValueError for anything else.
    """
    if not text.strip():
        return 0
    instant = datetime.fromisoformat(text.strip().replace(" ", "T", 1))
    if ignore_offset or instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return _within_reach(instant.timestamp())


def _within_reach(seconds: float) -> int:
    return min(max(0, int(seconds)), LATEST)
