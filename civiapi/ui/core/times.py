"""Site times as people read them: how long ago, or a date; the whole time and its zone on hover. Pure but for `now`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from civiapi.store.clock import SiteClock

MINUTE = 60
UNITS = ((86_400, "day"), (3600, "hour"), (MINUTE, "minute"))
LONG = timedelta(days=7)

Words = Callable[[datetime], str]


class Times:
    """Renders site times (``2026-01-31 10:00:00``) as ``time`` elements; text that is no time stays as it is."""

    def __init__(self, clock: SiteClock) -> None:
        self._clock = clock

    def ago(self, text: object, now: datetime | None = None) -> Markup:
        """``8 minutes ago``, ``in 2 hours``; a date where that is more than a week away."""
        return self._render(text, lambda moment: relative(moment, now or datetime.now(UTC)))

    def when(self, text: object) -> Markup:
        """``29 Nov 2026, 13:05``."""
        return self._render(text, lambda _: "")

    def _render(self, text: object, words: Words) -> Markup:
        moment = self._clock.read(str(text or ""))
        if moment is None:
            return escape(text or "")
        local = moment.astimezone(self._clock.zone)
        date = f"{local.day} {local:%b %Y, %H:%M}"
        zone = f"{self._clock.zone} (UTC{local:%z})" if str(self._clock.zone) != "UTC" else "UTC"
        hover = f"{local.day} {local:%B %Y, %H:%M:%S} {zone}"
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            local.isoformat(), hover, words(moment) or date
        )


def relative(moment: datetime, now: datetime) -> str:
    """How far away a moment is, in one unit; ``""`` beyond a week."""
    seconds = (now - moment).total_seconds()
    distance = abs(seconds)
    if distance < MINUTE:
        return "just now" if seconds >= 0 else "in less than a minute"
    if distance >= LONG.total_seconds():
        return ""
    size, unit = next((size, unit) for size, unit in UNITS if distance >= size)
    count = int(distance // size)
    words = f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{words} ago" if seconds > 0 else f"in {words}"
