"""Site times: CiviCRM stores times without a zone, which are in the zone ``[database] timezone``.

Every time in a table that CiviCRM or the extension may read is text, ``YYYY-MM-DD HH:MM:SS``, in that zone. Times are
compared as aware UTC datetimes in whole seconds. All conversions between the two are here.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SITE_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class SiteClock:
    """Reads and writes the times of one site."""

    zone: ZoneInfo

    def now(self) -> str:
        """The current site time."""
        return self.write(datetime.now(UTC))

    def write(self, moment: datetime) -> str:
        """An aware datetime as a site time, in whole seconds."""
        return moment.astimezone(self.zone).isoformat(" ", "seconds")[:19]  # a third of what strftime takes

    def write_epoch(self, seconds: float) -> str:
        """UTC seconds since 1970 as a site time."""
        return self.write(datetime.fromtimestamp(seconds, UTC))

    def read(self, text: str | None) -> datetime | None:
        """A site time as an aware UTC datetime. A date alone means its midnight.

        ``None`` for no time and for what is none: old databases have ``0000-00-00 00:00:00`` where a time is not known.
        """
        if not text:
            return None
        try:
            naive = datetime.fromisoformat(text)
            return naive.replace(tzinfo=self.zone).astimezone(UTC).replace(microsecond=0)
        except (ValueError, OverflowError):
            return None


def site_clock(name: str) -> SiteClock:
    """The clock of a zone by its IANA name or as ``+02:00``, UTC where *name* is empty.

    Raises ``ValueError`` for an unknown zone.
    """
    hours = re.fullmatch(r"([+-])(\d\d):00", name)
    known = f"Etc/GMT{'-' if hours[1] == '+' else '+'}{int(hours[2])}" if hours else name  # signs as POSIX has them
    try:
        return SiteClock(ZoneInfo(known or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is not a time zone; use an IANA name such as Europe/London, or +02:00") from error
