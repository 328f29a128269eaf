"""The members of one audience: found by hash, address or contact id, and kept in the orders that listings ask for.

A million members must fit and a page must be cheap, so ids that can be worked out are not stored, and an order
(by last change, by opt-in) is built when first asked for and then kept up to date change by change.
What a newcomer trips over: very old members have an id that is the MD5 of their mixed-case address. They are found
by that id or by address, never by a recomputed hash, and still stand in the way of a second member with the address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b, md5

from sync.mailchimp.emulator.model import STATUSES, Member
from sync.mailchimp.emulator.ordering import OrderedKeys
from sync.mailchimp.wire import subscriber_hash

SERIAL_BITS = 28
SERIAL_MASK = (1 << SERIAL_BITS) - 1
WEB_ID_BASE = 40_000_000
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835
UNSPREAD = pow(SPREAD, -1, 1 << 128)
FULL_MASK = (1 << 128) - 1

Scope = frozenset[str]
EVERYBODY: Scope = frozenset(STATUSES)

SORT_VALUES: dict[str, Callable[[Member], int]] = {
    "serial": lambda member: 0,
    "last_changed": lambda member: member.last_changed,
    "timestamp_opt": lambda member: member.timestamp_opt,
    "timestamp_signup": lambda member: member.timestamp_signup,
}


def sort_key(value: int, serial: int) -> int:
    """Return one integer that orders by *value*, then by *serial*."""
    return value << SERIAL_BITS | serial


class Roster:
    """All members of an audience, archived ones included. Change one only inside ``changing``."""

    def __init__(self, list_id: str) -> None:
        self.rows: list[Member | None] = []
        self.counts: Counter[str] = Counter()
        self.revision = 0
        self.forgotten: set[str] = set()
        self._by_id: dict[str, Member] = {}
        self._legacy: dict[str, Member] = {}
        self._by_contact: dict[str, Member] = {}
        self._orders: dict[tuple[Scope, str], OrderedKeys] = {}
        self._salt = int.from_bytes(md5(list_id.encode(), usedforsecurity=False).digest(), "big")

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Member]:
        return (row for row in self.rows if row is not None)

    def next_serial(self) -> int:
        """Return the serial number for the member to be added next."""
        return len(self.rows)

    def add(self, member: Member) -> None:
        """Take in a member whose serial came from ``next_serial``; raises ValueError if the address is taken."""
        proper = subscriber_hash(member.email)
        if member.id in self._by_id or proper in self._by_id or proper in self._legacy:
            raise ValueError(f"{member.email} is in this audience already")
        self.rows.append(member)
        self._by_id[member.id] = member
        if member.id != proper:
            self._legacy[proper] = member
        if member.rare and "contact_id" in member.rare:
            self._by_contact[member.rare["contact_id"]] = member
        self._index(member)

    def remove(self, member: Member) -> None:
        """Drop a member for good."""
        self._unindex(member)
        self.rows[member.serial] = None
        self._by_id.pop(member.id, None)
        self._legacy.pop(subscriber_hash(member.email), None)
        if member.rare and "contact_id" in member.rare:
            self._by_contact.pop(member.rare["contact_id"], None)

    @contextmanager
    def changing(self, member: Member, now: int) -> Iterator[None]:
        """Let *member* be changed inside the block; afterwards ``last_changed`` is *now* and the orders are right."""
        self._unindex(member)
        try:
            yield
        finally:
            member.last_changed = now
            self._index(member)

    def rename(self, member: Member, email: str) -> None:
        """Give *member* a new address and the id that goes with it; call inside ``changing``."""
        self._by_id.pop(member.id, None)
        self._legacy.pop(subscriber_hash(member.email), None)
        member.email, member.id = email, subscriber_hash(email)
        self._by_id[member.id] = member

    def find(self, key: str) -> Member | None:
        """Return the member with this path segment: id, address or contact id."""
        found = self._by_id.get(key) or self._by_id.get(key.lower())
        if found is None and "@" in key:
            found = self.find_address(key)
        if found is None and len(key) == 32:
            found = self._find_contact(key)
        return found

    def find_address(self, email: str) -> Member | None:
        """Return whoever has this address, in any case, legacy id or not."""
        proper = subscriber_hash(email)
        return self._by_id.get(proper) or self._legacy.get(proper)

    def contact_id(self, member: Member) -> str:
        """Return the member's contact id: given, or spread from the serial number so that it can be found again."""
        if member.rare and "contact_id" in member.rare:
            return str(member.rare["contact_id"])
        return f"{(((member.serial + 1) * SPREAD) ^ self._salt) & FULL_MASK:032x}"

    def web_id(self, member: Member) -> int:
        """Return the member's web id: given, or counted from the serial number."""
        if member.rare and "web_id" in member.rare:
            return int(member.rare["web_id"])
        return WEB_ID_BASE + member.serial

    def order(self, scope: Scope, sort: str) -> OrderedKeys:
        """Return the members with a status in *scope* as ``sort_key``s, ordered by *sort*; kept up to date."""
        known = self._orders.get((scope, sort))
        if known is None:
            value = SORT_VALUES[sort]
            known = OrderedKeys(sort_key(value(row), row.serial) for row in self if row.status in scope)
            self._orders[scope, sort] = known
        return known

    def at(self, key: int) -> Member:
        """Return the member behind a ``sort_key`` or serial number."""
        member = self.rows[key & SERIAL_MASK]
        if member is None:
            raise KeyError(key)
        return member

    def _find_contact(self, key: str) -> Member | None:
        if key in self._by_contact:
            return self._by_contact[key]
        try:
            serial = ((int(key, 16) ^ self._salt) * UNSPREAD & FULL_MASK) - 1
        except ValueError:
            return None
        member = self.rows[serial] if 0 <= serial < len(self.rows) else None
        return member if member is not None and self.contact_id(member) == key else None

    def _index(self, member: Member) -> None:
        self.counts[member.status] += 1
        self.revision += 1
        for (scope, sort), order in self._orders.items():
            if member.status in scope:
                order.add(sort_key(SORT_VALUES[sort](member), member.serial))

    def _unindex(self, member: Member) -> None:
        self.counts[member.status] -= 1
        self.revision += 1
        for (scope, sort), order in self._orders.items():
            if member.status in scope:
                order.remove(sort_key(SORT_VALUES[sort](member), member.serial))


def unique_email_id(member: Member) -> str:
    """Return the id of the address across the account, 10 hex: the one that webhooks send as ``data[id]``."""
    if member.rare and "unique_email_id" in member.rare:
        return str(member.rare["unique_email_id"])
    return email_id(member.email)


def email_id(email: str) -> str:
    """Return the 10 hex digits that stand for an address across the account."""
    return blake2b(email.strip().lower().encode(), digest_size=5).hexdigest()
