"""Stopping in time: whoever works looks here whether to begin another bit, and tasks are ended even if they resist.

A service manager gives a process ten seconds. So what runs is asked first (``Stop``), and stops after its present bit
of work; what waits for somebody else, and so does not look, is cancelled a little later.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import structlog

GRACE = 2.5
"""Seconds that work has to come to the end of a bit, once asked to stop."""

PATIENCE = 2.0
AGAIN = 0.25
"""Seconds that a cancelled task may take, and after which it is cancelled again: in Python 3.11 one cancellation may
get lost where a time-out falls into the same moment."""

STOPPING = "The server is stopping; the next run continues where the last one stopped."

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stop:
    """Whether this process has been asked to stop."""

    is_asked: bool = False


async def end_task(task: asyncio.Task[Any], patience: float = PATIENCE) -> None:
    """Cancel a task and wait until it has ended, for *patience* seconds at most."""
    until = time.monotonic() + patience
    while not task.done() and time.monotonic() < until:
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN)
    if not task.done():
        log.warning("a task did not end in time", task=task.get_name())
