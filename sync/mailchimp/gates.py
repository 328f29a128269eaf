"""How many requests of one account are on their way at once, whoever in this process sends them.

Mailchimp counts connections by user: two audiences of one account, a visitor who tries a key that is in use already,
two services in one process, all share what it allows. So the limit belongs to the account and not to a client. A gate
lives as long as somebody goes through it or waits there; nothing is held here beyond that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakValueDictionary

Account = tuple[str, str]  # where its API lives, and its key
_Gates = WeakValueDictionary[Account, asyncio.Semaphore]

_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gates] = WeakKeyDictionary()


@asynccontextmanager
async def gate_for(account: Account, most: int) -> AsyncIterator[None]:
    """Wait for a place among the *most* requests of an account, and keep it while the block lasts.

    Who comes while others are there goes by the limit they brought.
    """
    gates = _of_loops.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    gate = gates.get(account)
    if gate is None:
        gate = gates[account] = asyncio.Semaphore(most)
    async with gate:
        yield
