"""How many requests of one account are on their way at once, whoever in this process sends them.

Mailchimp counts connections by user: two audiences of one account, a visitor who tries a key that is in use already,
two services in one process, all share what it allows. So the limit belongs to the account and not to a client. Other
processes count as well: a gate can be narrowed to this process's share (``sync/shares.py`` says how much that is).
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

Account = tuple[str, str]  # where its API lives, and its key


class Gate:
    """Lets so many through at once, in the order of their coming. Of one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = most
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        """True while nobody is inside or waits."""
        return not self._inside and not self._waiting

    def narrow(self, share: int) -> None:
        """Let at most *share* through from now on, one at least; those inside stay."""
        self._share = max(1, share)
        self._let_in()

    def limit(self, most: int) -> None:
        """Let at most *most* through, and no more than the share."""
        self._most = most
        self._let_in()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place inside, and keep it while the block lasts."""
        await self._enter()
        try:
            yield
        finally:
            self._inside -= 1
            self._let_in()

    async def _enter(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # let in at the very moment
                self._inside -= 1
                self._let_in()
            raise

    def _let_in(self) -> None:
        while self._waiting and self._inside < min(self._most, self._share):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._inside += 1


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Account, Gate]] = WeakKeyDictionary()


def gate_for(account: Account, most: int) -> Gate:
    """The gate of an account in this event loop; who comes while others are there goes by the limit they brought."""
    gates = _of_loops.setdefault(asyncio.get_running_loop(), {})
    gate = gates.get(account)
    if gate is None:
        gate = gates[account] = Gate(most)
    elif gate.is_idle:
        gate.limit(most)
    return gate
