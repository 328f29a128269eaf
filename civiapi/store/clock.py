"""The site's clock: CiviCRM keeps times without a zone, and this says which zone they are in.

Every date and time in a table that CiviCRM or the extension may read is text, ``YYYY-MM-DD HH:MM:SS`` in the
site's zone (setting ``[database] timezone``). Everything that compares moments does so on aware UTC datetimes in
whole seconds. These are the only two conversions between the two.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

SITE_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class SiteClock:
    """Reads and writes the zone-less times of one site."""

    zone: ZoneInfo

    def now(self) -> str:
        """The present moment as the site writes it."""
        return self.write(datetime.now(UTC))

    def write(self, moment: datetime) -> str:
        """An aware moment as the site writes it, whole seconds."""
        return moment.astimezone(self.zone).isoformat(" ", "seconds")[:19]  # a third of what strftime takes

    def read(self, text: str | None) -> datetime | None:
        """The moment (aware UTC) that a site time means; ``None`` for no time. A date alone is its midnight."""
        if not text:
            return None
        naive = datetime.fromisoformat(text)
        return naive.replace(tzinfo=self.zone).astimezone(UTC).replace(microsecond=0)


def site_clock(name: str) -> SiteClock:
    """The clock of a zone by its IANA name, UTC where *name* is empty. Raises ``ValueError`` for an unknown zone."""
    try:
        return SiteClock(ZoneInfo(name or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"'{name}' is not a time zone; use an IANA name such as Europe/London") from error
