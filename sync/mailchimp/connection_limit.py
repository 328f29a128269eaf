"""How many requests of one account are in flight at once in this process.

Mailchimp counts connections per user, so the limit belongs to the account rather than to a client. Other processes
count as well: `ConnectionLimit.set_share` narrows it to this process's part (`sync.connections.connection_share`).
"""

import asyncio
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter

AccountKey = tuple[str, str]
"""The API's address, and the API key."""


class ConnectionLimit:
    """The limit of one account in one event loop. Hold a connection by ``async with limit.limiter``."""

    def __init__(self, maximum: int) -> None:
        self._maximum = self._share = maximum
        self.limiter = CapacityLimiter(maximum)

    @property
    def is_idle(self) -> bool:
        """True while no connection is held."""
        return self.limiter.borrowed_tokens == 0

    def set_share(self, share: int) -> None:
        """Allow at most *share* connections from now on, one at least; those in use stay."""
        self._share = max(1, share)
        self._apply()

    def set_maximum(self, maximum: int) -> None:
        """Allow at most *maximum* connections, within the share."""
        self._maximum = maximum
        self._apply()

    def _apply(self) -> None:
        self.limiter.total_tokens = min(self._maximum, self._share)


_limits: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[AccountKey, ConnectionLimit]] = WeakKeyDictionary()


def limit_for(account: AccountKey, maximum: int) -> ConnectionLimit:
    """Return the account's limit in this event loop; *maximum* applies unless connections are in use."""
    limits = _limits.setdefault(asyncio.get_running_loop(), {})
    limit = limits.get(account)
    if limit is None:
        limit = limits[account] = ConnectionLimit(maximum)
    elif limit.is_idle:
        limit.set_maximum(maximum)
    return limit
