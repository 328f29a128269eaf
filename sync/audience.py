"""One linked audience as the sync sees it: which group it mirrors, which interests have groups, and how to judge.

A value, made from the stored configuration at the start of a piece of work. No SQL, no HTTP.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from civiapi.store.clock import SiteClock
from sync.field_rules import FieldRule
from sync.mailchimp.wire import PERMISSION

MAILCHIMP = "Mailchimp"
CIVICRM = "CiviCRM"
SUBSCRIPTION = "subscription"


class Privacy(StrEnum):
    """What becomes of a contact that CiviMail would not mail (deceased, opted out, do not email)."""

    IGNORE = "ignore"
    """It is treated as any other (``[sync] respect_privacy = no``)."""
    KEEP = "keep"
    """It is not newly subscribed; a member stays subscribed (``on_opt_out = keep``)."""
    UNSUBSCRIBE = "unsubscribe"
    """It is not newly subscribed; a member is unsubscribed."""


def is_permission(interest_id: str) -> bool:
    """Whether an interest of the sync is a marketing permission at Mailchimp."""
    return interest_id.startswith(PERMISSION)


def interest_kind(interest_id: str) -> str:
    """What Mailchimp calls that which is an interest to the sync: ``interest`` or ``marketing permission``."""
    return "marketing permission" if is_permission(interest_id) else "interest"


def interest_kinds(interest_ids: Iterable[str]) -> str:
    """The kinds of these interests, in the plural: ``interests and marketing permissions``."""
    return " and ".join(sorted({f"{interest_kind(one)}s" for one in interest_ids}))


def interest_name(interest_id: str) -> str:
    """An interest in a sentence: its kind, and its id at Mailchimp."""
    return f"{interest_kind(interest_id)} {interest_id.removeprefix(PERMISSION)}"


class GroupLink(NamedTuple):
    """What mirrors a group: the *field* of the members of an audience, ``status`` or ``interest-ID``."""

    list_id: str
    field: str

    def __str__(self) -> str:
        interest = self.field.removeprefix("interest-")
        return f"audience {self.list_id}" if interest == self.field else f"{interest_name(interest)} of {self.list_id}"


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience and the groups linked with it.

    `interests` maps interest ids, those of marketing permissions included (`PERMISSION`), to their groups; those that
    Mailchimp no longer has are `gone`. `trust` maps `subscription` or an interest id to the side that
    takes precedence in the next run (``trustOverride``). `clock` reads and writes the site's times.
    `run_id`: the entry of the run log under which changes are recorded; 0: no run, but a single member.
    `brake`: limits of its own (``brake.Limits``). `privacy`: what becomes of contacts that CiviMail would not mail.
    """

    list_id: str
    group_id: int
    clock: SiteClock
    interests: Mapping[str, int] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    trust: Mapping[str, str] = field(default_factory=dict)
    privacy: Privacy = Privacy.KEEP
    brake: Mapping[str, float] = field(default_factory=dict)
    also_linked: Mapping[int, tuple["GroupLink", ...]] = field(default_factory=dict)
    """All links of groups that have several: updateconfig refuses a second, but an older configuration may have it."""
    run_id: int = 0
    api_key: str = field(default="", repr=False)
    one_way: bool = False
    """The group is a smart group, a source: its members are subscribed, and nothing is written to it."""
    archives_leavers: bool = False
    """Who leaves a one-way group is archived instead of unsubscribed."""
    sends_names: bool = True
    """Whether a run with data sends first and last names."""
    merge_fields: Mapping[str, FieldRule] = field(default_factory=dict)
    """What fills merge fields, by tag."""

    @property
    def group_ids(self) -> tuple[int, ...]:
        """The groups that matter here: the subscription group, then the interest groups, each once."""
        return tuple(dict.fromkeys(self.linked.values()))

    @property
    def linked(self) -> Mapping[str, int]:
        """The linked groups by interest id; the subscription group has an empty one."""
        return {"": self.group_id, **self.interests}

    def with_rules(self, rules: Mapping[str, FieldRule]) -> "Audience":
        """The same with other rules for merge fields."""
        return replace(self, merge_fields=rules)

    def compact(self, moment: datetime) -> str:
        """An aware moment as ``mailchimp_data`` has it: site time, ``YYYYMMDDHHMMSS``."""
        return compacted(self.clock.write(moment))

    def read_compact(self, text: object) -> datetime | None:
        """The moment (aware UTC) that a compact site time means; None where it is none."""
        if not isinstance(text, str) or len(text) != 14 or not text.isdecimal():
            return None
        return self.clock.read(f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]}:{text[12:]}")


def compacted(site_time: str) -> str:
    """A site time as the member's data has times; both are in the site's zone."""
    return site_time[:19].replace("-", "").replace(":", "").replace(" ", "")
