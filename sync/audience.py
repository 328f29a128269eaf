"""One linked audience as the sync sees it: which group it mirrors, which interests have groups, and how to judge.

A value, made from the stored configuration at the start of a piece of work. No SQL, no HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from civiapi.store.clock import SiteClock

MAILCHIMP = "Mailchimp"
CIVICRM = "CiviCRM"
SUBSCRIPTION = "subscription"

RECEIVES_MAIL = frozenset({"subscribed", "pending"})
"""Statuses that count as being in the audience. Pending was asked and has not answered: neither asked again nor out."""


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience and the groups linked with it.

    `interests` maps interest ids to interest groups; `trust` maps `subscription` or an interest id to the side that
    wins every argument in the next run (``trustOverride``). `clock` reads and writes the site's times.
    `brake`: limits of its own (``brake.Limits``). `respect_privacy`: whom CiviMail would not mail is never newly
    subscribed.
    """

    list_id: str
    group_id: int
    clock: SiteClock
    interests: Mapping[str, int] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)
    respect_privacy: bool = True
    brake: Mapping[str, float] = field(default_factory=dict)
    api_key: str = field(default="", repr=False)

    @property
    def group_ids(self) -> tuple[int, ...]:
        """The groups that matter here: the subscription group, then the interest groups, each once."""
        return tuple(dict.fromkeys((self.group_id, *self.interests.values())))

    def compact(self, moment: datetime) -> str:
        """An aware moment as ``mailchimp_data`` has it: site time, ``YYYYMMDDHHMMSS``."""
        return compacted(self.clock.write(moment))

    def read_compact(self, text: object) -> datetime | None:
        """The moment (aware UTC) that a compact site time means; None where it is none."""
        if not isinstance(text, str) or len(text) != 14 or not text.isdecimal():
            return None
        try:
            return self.clock.read(f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]}:{text[12:]}")
        except ValueError:
            return None


def compacted(site_time: str) -> str:
    """A site time as the member's data has times; both are in the site's zone."""
    return site_time[:19].replace("-", "").replace(":", "").replace(" ", "")
