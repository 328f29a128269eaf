"""Generated members, from a seed: by shares of each status, with odd cases, missing and non-ASCII names.

They are added without checks or webhooks. Names come from small pools.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from random import Random
from typing import Any

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import (
    ADMIN,
    API,
    ARCHIVED,
    CLEANED,
    PENDING,
    SUBSCRIBED,
    TRANSACTIONAL,
    UNSUBSCRIBED,
    USER,
    Member,
)
from sync.mailchimp.wire import subscriber_hash

FIRST = [
    "Ada",
    "Grace",
    "Linus",
    "Alan",
    "Edsger",
    "Barbara",
    "Tim",
    "Radia",
    "Frances",
    "Ken",
    "Łucja",
    "Søren",
    "Zoë",
    "Наталья",
    "明美",
    "Jürgen",
    "Aïcha",
    "Ngọc",
]
LAST = [
    "Byron",
    "Hopper",
    "Pauling",
    "Turing",
    "Dijkstra",
    "Liskov",
    "Lee",
    "Perlman",
    "Allen",
    "Łąchowski",
    "Müller",
    "O'Brien",
    "Ó",
    "Néill",
    "山田",
    "Çelik",
]
DOMAINS = ["example.org", "example.net", "mail.example.com", "charity.example", "post.example.eu"]
THREE_YEARS = 3 * 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Shares:
    """How many of a thousand have a status; the rest is subscribed. Odd cases are per thousand as well."""

    unsubscribed: int = 150
    cleaned: int = 30
    pending: int = 10
    transactional: int = 5
    archived: int = 25
    mixed_case: int = 20
    nameless: int = 80
    long_values: int = 5
    non_ascii_address: int = 2


def generate(audience: EmulatedAudience, count: int, *, now: int, seed: int = 0, shares: Shares | None = None) -> None:
    """Add *count* members whose last change lies in the three years before *now* (seconds since 1970)."""
    maker = _Maker(audience, now, Random(seed), shares or Shares())  # noqa: S311 - repeatable on purpose
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(count):
            audience.members.add(maker.member(number))
    finally:
        if collecting:
            gc.enable()
    if count >= 100_000:
        gc.freeze()  # so many lasting objects would make every later collection slow


class _Maker:
    def __init__(self, audience: EmulatedAudience, now: int, rng: Random, shares: Shares) -> None:
        self._start = audience.members.next_serial()
        self._now = now
        self._rng = rng
        self._shares = shares
        self._statuses = _status_table(shares)
        self._names = [{"FNAME": first, "LNAME": last} for first in FIRST for last in LAST]
        self._nobody: dict[str, Any] = {}

    def member(self, number: int) -> Member:
        serial, draw = self._start + number, self._rng.random
        status = self._statuses[int(draw() * 1000)]
        names = self._names[int(draw() * len(self._names))]
        odd = int(draw() * 1000)
        email = self._email(names, serial, odd)
        changed = self._now - int(draw() * THREE_YEARS)
        member = Member(serial, subscriber_hash(email), email, status, changed, changed)
        member.merges = self._merges(names, odd)
        if status == UNSUBSCRIBED:
            member.unsubscribed_by = (USER, USER, USER, ADMIN, API)[int(draw() * 5)]
        elif status == ARCHIVED:
            member.archived_from = SUBSCRIBED
        return member

    def _email(self, names: dict[str, str], serial: int, odd: int) -> str:
        domain = DOMAINS[serial % len(DOMAINS)]
        first = names["FNAME"]
        local = first.lower() if first.isascii() else "person"
        if odd < self._shares.mixed_case:
            return f"{local.title()}.{serial}@{domain.upper()}"
        if odd < self._shares.mixed_case + self._shares.non_ascii_address:
            return f"größe.{serial}@{domain}"
        return f"{local}.{serial}@{domain}"

    def _merges(self, names: dict[str, str], odd: int) -> dict[str, Any]:
        from_end = 999 - odd
        if from_end < self._shares.nameless:
            return {}
        if from_end < self._shares.nameless + self._shares.long_values:
            return names | {"LNAME": (names["LNAME"] + " ") * 30}
        return names.copy()


def _status_table(shares: Shares) -> list[str]:
    """Return a thousand statuses in the shares asked for."""
    dealt = {
        UNSUBSCRIBED: shares.unsubscribed,
        CLEANED: shares.cleaned,
        PENDING: shares.pending,
        TRANSACTIONAL: shares.transactional,
        ARCHIVED: shares.archived,
    }
    deck = [status for status, share in dealt.items() for _ in range(share)]
    if len(deck) > 1000:
        raise ValueError("Shares are of a thousand and sum to more")
    return deck + [SUBSCRIBED] * (1000 - len(deck))
