"""The changes that people made at either side, with times, from which the oracle computes who must win.

Nothing of the sync is used. Contacts and addresses at Mailchimp that were ever connected by an address are *related*. A
set of related things is clear while it is one contact with one member at a time; of *ambiguous* ones less is checked.

An event at Mailchimp has a time range: Mailchimp dates the last change of a member, not of its status, so any other
change before a sync reads the member makes the event look later.
"""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

IN, OUT = True, False


@dataclass(slots=True)
class PersonEvent:
    """A person joined or left; times in true seconds since 1970. *until*: how late it may look (Mailchimp only).

    *echoes*: an update of ours that asks for the same was open. Mailchimp does not tell which of both caused the
    change, and as ours it has the time of the CiviCRM change behind it, so the order is unknown.
    """

    side: str
    is_in: bool
    at: float
    until: float
    seen: bool = False
    echoes: bool = False


@dataclass(slots=True)
class MemberState:
    """The last observed state of a member at Mailchimp."""

    email: str
    is_in: bool
    last_changed: int
    chosen: frozenset[str]
    status: str = ""


@dataclass
class Ledger:
    """All events, and which contacts and addresses are related."""

    events: dict[tuple[Hashable, str], list[PersonEvent]] = field(default_factory=lambda: defaultdict(list))
    members: dict[int, MemberState] = field(default_factory=dict)
    departed: set[int] = field(default_factory=set)
    ambiguous: set[Hashable] = field(default_factory=set)
    reads: list[float] = field(default_factory=list)
    """When finished syncs began, which read everything that was changed before."""
    _parents: dict[Hashable, Hashable] = field(default_factory=dict)

    def root(self, thing: Hashable) -> Hashable:
        """The representative of all that is related to a contact id or an address."""
        while (above := self._parents.get(thing, thing)) != thing:
            thing = above
        return thing

    def connect(self, one: Hashable, other: Hashable) -> None:
        """Mark these as related."""
        first, second = self.root(one), self.root(other)
        if first != second:
            self._parents[second] = first

    def related(self, thing: Hashable) -> set[Hashable]:
        """Everything related to *thing*, itself included."""
        root = self.root(thing)
        return {one for one in [*self._parents, root, thing] if self.root(one) == root}

    def record(
        self,
        thing: Hashable,
        field_: str,
        side: str,
        is_in: bool,
        at: float,
        *,
        until: float | None = None,
        echoes: bool = False,
    ) -> None:
        """Record an event of a person."""
        self.events[thing, field_].append(PersonEvent(side, is_in, at, at if until is None else until, echoes=echoes))

    def missed(self, at: float) -> None:
        """A full fetch at *at* noticed the members deleted before: their events cannot look later."""
        for events in self.events.values():
            for event in events:
                event.until = min(event.until, max(at, event.at))

    def events_of(self, thing: Hashable, field_: str) -> list[PersonEvent]:
        """All events about a field of everything related, by time."""
        root = self.root(thing)
        lists = [found for (one, name), found in self.events.items() if name == field_ and self.root(one) == root]
        return sorted((event for found in lists for event in found), key=lambda event: event.at)

    def last_there(self, thing: Hashable, field_: str) -> bool | None:
        """The last event at Mailchimp about a field; None for none."""
        there = [event.is_in for event in self.events_of(thing, field_) if event.side == "mailchimp"]
        return there[-1] if there else None

    def seen(self, before: float) -> None:
        """A sync has read everything: events before *before* cannot look later any more."""
        for events in self.events.values():
            for event in events:
                if event.at < before:
                    event.seen = True

    def winner(self, thing: Hashable, field_: str, slack: float) -> bool | None:
        """Whether the person must be in, by the last event; None where the order is unknown."""
        events = self.events_of(thing, field_)
        last = {event.side: event for event in events}
        if not last:
            return None
        here, there = last.get("civicrm"), last.get("mailchimp")
        if here is None or there is None or here.is_in == there.is_in:
            found = here or there
            return found.is_in if found is not None else None
        if here.at > there.until + slack:
            return here.is_in
        if here.at < there.at - slack and not there.echoes:
            return there.is_in
        return None
