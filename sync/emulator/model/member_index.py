"""The members of one audience by hash, address and contact id, and sorted as listings need them.

A million members fit in memory and every page costs the same: ids that can be computed are not stored, and a sort order
is built at its first use and then updated with every change. Very old members have the MD5 of their mixed-case address
as id: they are found by that id or by address, and a second member with the address is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b, md5

from sortedcontainers import SortedList

from sync.emulator.model.records import STATUSES, Member
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


class MemberIndex:
    """All members of an audience, archived ones included. Change a member only inside `changing`."""

    def __init__(self, list_id: str) -> None:
        self.rows: list[Member | None] = []
        self.counts: Counter[str] = Counter()
        self.revision = 0
        self.forgotten: set[str] = set()
        self._by_id: dict[str, Member] = {}
        self._legacy: dict[str, Member] = {}
        self._by_contact: dict[str, Member] = {}
        self._orders: dict[tuple[Scope, str], SortedList[int]] = {}
        self._salt = int.from_bytes(md5(list_id.encode(), usedforsecurity=False).digest(), "big")

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Member]:
        return (row for row in self.rows if row is not None)

    def next_serial(self) -> int:
        """Return the serial number for the member to be added next."""
        return len(self.rows)

    def add(self, member: Member) -> None:
        """Add a member whose serial came from `next_serial`. Raises ValueError if the address is taken."""
        proper = subscriber_hash(member.email)
        if member.id in self._by_id or proper in self._by_id or proper in self._legacy:
            raise ValueError(f"{member.email} is in this audience already")
        self.rows.append(member)
        self._by_id[member.id] = member
        if member.id != proper:
            self._legacy[proper] = member
        if member.extra and "contact_id" in member.extra:
            self._by_contact[member.extra["contact_id"]] = member
        self._index(member)

    def remove(self, member: Member) -> None:
        """Remove a member for good."""
        self._unindex(member)
        self.rows[member.serial] = None
        self._by_id.pop(member.id, None)
        self._legacy.pop(subscriber_hash(member.email), None)
        if member.extra and "contact_id" in member.extra:
            self._by_contact.pop(member.extra["contact_id"], None)

    @contextmanager
    def changing(self, member: Member, now: int) -> Iterator[None]:
        """Change *member* inside the block; afterwards its ``last_changed`` is *now* and the orders are updated."""
        self._unindex(member)
        try:
            yield
        finally:
            member.last_changed = now
            self._index(member)

    def rename(self, member: Member, email: str) -> None:
        """Set the address of *member*, and its id; call inside `changing`."""
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
        """Return the member with this address, in any case, legacy id or not."""
        proper = subscriber_hash(email)
        return self._by_id.get(proper) or self._legacy.get(proper)

    def contact_id(self, member: Member) -> str:
        """Return the member's contact id: given, or computed from the serial number, reversibly."""
        if member.extra and "contact_id" in member.extra:
            return str(member.extra["contact_id"])
        return f"{(((member.serial + 1) * SPREAD) ^ self._salt) & FULL_MASK:032x}"

    def web_id(self, member: Member) -> int:
        """Return the member's web id: given, or computed from the serial number."""
        if member.extra and "web_id" in member.extra:
            return int(member.extra["web_id"])
        return WEB_ID_BASE + member.serial

    def order(self, scope: Scope, sort: str) -> SortedList[int]:
        """Return the members with a status in *scope* as ``sort_key``s, ordered by *sort*; later changes update it."""
        known = self._orders.get((scope, sort))
        if known is None:
            value = SORT_VALUES[sort]
            known = SortedList(sort_key(value(row), row.serial) for row in self if row.status in scope)
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
    """Return the account-wide id of the address, 10 hex digits, which webhooks send as ``data[id]``."""
    if member.extra and "unique_email_id" in member.extra:
        return str(member.extra["unique_email_id"])
    return email_id(member.email)


def email_id(email: str) -> str:
    """Return the account-wide id of an address, 10 hex digits."""
    return blake2b(email.strip().lower().encode(), digest_size=5).hexdigest()
