"""What people said at either end, and when: kept beside the two ends, from which the oracle says who was to win.

Nothing of the sync is asked. Words are about a *soul*: contacts, and addresses at Mailchimp, that were ever connected
by an address. A soul is *simple* while it is one contact with one member at a time; of others we know less, and ask
less.

A word at Mailchimp has a beginning and an end: Mailchimp says when a member last changed, not when it changed its
status, so whatever else moved the member before a sync looked makes the word look younger than it is.
"""

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field

IN, OUT = True, False


@dataclass(slots=True)
class Word:
    """Somebody said in or out; times in true seconds since 1970. *until*: how young it may look (Mailchimp only).

    *echoes*: an update of ours that asked for the same was owed or under way. Mailchimp does not tell who of both did
    it, and taken for ours, it is as old as the word of CiviCRM that it carried: nobody can tell which was last.
    """

    side: str
    is_in: bool
    at: float
    until: float
    seen: bool = False
    echoes: bool = False


@dataclass(slots=True)
class Known:
    """What the ledger saw last of a member at Mailchimp."""

    email: str
    is_in: bool
    last_changed: int
    interests: frozenset[str]
    status: str = ""


@dataclass
class Ledger:
    """All words, and which contacts and addresses belong together."""

    words: dict[tuple[Hashable, str], list[Word]] = field(default_factory=lambda: defaultdict(list))
    members: dict[int, Known] = field(default_factory=dict)
    departed: set[int] = field(default_factory=set)
    tangled: set[Hashable] = field(default_factory=set)
    _parents: dict[Hashable, Hashable] = field(default_factory=dict)

    def root(self, thing: Hashable) -> Hashable:
        """What stands for the soul that a contact id or an address belongs to."""
        while (above := self._parents.get(thing, thing)) != thing:
            thing = above
        return thing

    def connect(self, one: Hashable, other: Hashable) -> None:
        """These belong to one soul."""
        first, second = self.root(one), self.root(other)
        if first != second:
            self._parents[second] = first

    def soul(self, thing: Hashable) -> set[Hashable]:
        """Everything that belongs together with *thing*, itself included."""
        root = self.root(thing)
        return {one for one in [*self._parents, root, thing] if self.root(one) == root}

    def say(
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
        """A person said this now."""
        self.words[thing, field_].append(Word(side, is_in, at, at if until is None else until, echoes=echoes))

    def missed(self, at: float) -> None:
        """A full fetch has missed whoever was deleted before *at*, if nothing else had told."""
        for words in self.words.values():
            for word in words:
                word.until = min(word.until, max(at, word.at))

    def spoken(self, thing: Hashable, field_: str) -> list[Word]:
        """All words of a soul about a field, in the order they were said."""
        root = self.root(thing)
        found = [w for (whom, f), words in self.words.items() if f == field_ and self.root(whom) == root for w in words]
        return sorted(found, key=lambda word: word.at)

    def last_there(self, thing: Hashable, field_: str) -> bool | None:
        """What a soul said last at Mailchimp about a field; None for nothing."""
        there = [word.is_in for word in self.spoken(thing, field_) if word.side == "mailchimp"]
        return there[-1] if there else None

    def seen(self, before: float) -> None:
        """A sync has looked at everything: words from before cannot look younger any more."""
        for words in self.words.values():
            for word in words:
                if word.at < before:
                    word.seen = True

    def winner(self, thing: Hashable, field_: str, slack: float) -> bool | None:
        """Whether the soul is in, by the last word; None where nobody could tell."""
        words = self.spoken(thing, field_)
        last = {word.side: word for word in words}
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
