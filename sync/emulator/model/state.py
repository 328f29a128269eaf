"""What one emulated Mailchimp holds: accounts, the clock, ids and random numbers, the queue of webhooks.

No requests here: `world.World` adds the handlers. The same seed and the same calls give the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any
from uuid import UUID

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import Clock
from sync.emulator.model.records import Delivery, EmulatedAccount, User

DEFAULT_KEY = "0123456789abcdef0123456789abcdef-us1"
MAX_DELIVERIES = 100_000


class EmulatorState:
    """Every account of one emulated Mailchimp. A new one has one account, without audiences."""

    def __init__(self, *, seed: int = 0, clock: Clock | None = None, key: str = DEFAULT_KEY) -> None:
        self.seed = seed
        self.clock = clock or Clock()
        self.base_url = "http://127.0.0.1"
        self.reset(key)

    def reset(self, key: str | None = None) -> None:
        """Start again with one empty account that has *key* (default: the current key)."""
        key = key or self.key
        self.rng = Random(self.seed)  # noqa: S311 - repeatable on purpose
        self._ids = Random(self.seed + 1)  # noqa: S311
        self.secret = self._ids.randbytes(16)
        self.accounts: dict[str, EmulatedAccount] = {}
        self.queued: dict[int, Delivery] = {}
        self.deliveries: deque[Delivery] = deque(maxlen=MAX_DELIVERIES)
        self._last_number = 0
        self.add_account("Demo", key=key)

    @property
    def api_root(self) -> str:
        """The URL of the API itself."""
        return f"{self.base_url}/3.0"

    @property
    def default_account(self) -> EmulatedAccount:
        """The first account."""
        return next(iter(self.accounts.values()))

    @property
    def key(self) -> str:
        """An API key of the first account."""
        return self.default_account.users[0].keys[0]

    def add_account(self, name: str, *, key: str | None = None, account_id: str | None = None) -> EmulatedAccount:
        """Add an account with one user. The key's suffix is its data centre; without *key*, one is generated."""
        key = key or f"{self.new_id(32)}-us1"
        dc = key.rpartition("-")[2] if "-" in key else ""
        if not dc:
            raise ValueError("An API key ends in its data centre, such as -us1")
        account = EmulatedAccount(account_id or self.new_id(25), name, [User(self.new_id(6), [key])], dc)
        self.accounts[account.id] = account
        return account

    def add_audience(
        self, name: str = "Newsletter", *, list_id: str | None = None, account: EmulatedAccount | None = None
    ) -> EmulatedAudience:
        """Add an audience with Mailchimp's four default merge fields. *list_id* is 10 hex digits (default: random)."""
        owner = account or self.default_account
        audience = EmulatedAudience(list_id or self.new_id(), name, self.clock.seconds(), 90_001 + len(owner.audiences))
        audience.add_default_merge_fields()
        owner.audiences[audience.id] = audience
        return audience

    def account(self, account_id: str) -> EmulatedAccount:
        """Return an account. Raises KeyError."""
        return self.accounts[account_id]

    def find_audience(self, list_id: str | None = None) -> tuple[EmulatedAccount, EmulatedAudience]:
        """Return an audience and its account; without an id, the first audience. Raises KeyError."""
        for account in self.accounts.values():
            for audience in account.audiences.values():
                if list_id in (None, audience.id):
                    return account, audience
        raise KeyError(f"There is no audience {list_id or 'at all'}")

    def enqueue(self, delivery: Delivery) -> None:
        """Queue a webhook delivery."""
        self._last_number = max(self._last_number, delivery.id)
        self.queued[delivery.id] = delivery
        self.deliveries.append(delivery)

    def replace_with(self, other: EmulatorState) -> None:
        """Take over everything that *other* holds, its clock included; *other* must not be used afterwards."""
        self.accounts, self.clock = other.accounts, other.clock
        self.queued, self.deliveries = other.queued, other.deliveries
        self._last_number = max(self._last_number, other._last_number)

    def configure(self, values: Mapping[str, Any], account: EmulatedAccount | None = None) -> None:
        """Set options of one account (default: of all) and of the clock. Raises ValueError naming the option."""
        own = {name: value for name, value in values.items() if not name.startswith("clock_")}
        for one in [account] if account else list(self.accounts.values()):
            one.options.configure(own)
        for name in values.keys() - own.keys():
            self.clock.configure(name, values[name])

    def new_id(self, digits: int = 10) -> str:
        """Return this many random hex digits."""
        return f"{self._ids.getrandbits(digits * 4):0{digits}x}"

    def new_uuid(self) -> str:
        """Return a random UUID."""
        return str(UUID(int=self._ids.getrandbits(128), version=4))

    def next_number(self) -> int:
        """Return 1, 2, 3 and so on."""
        self._last_number += 1
        return self._last_number
