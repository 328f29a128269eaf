"""Stop within the ten seconds that a service manager allows.

Work in progress checks ``Stop`` between its units. Tasks that wait for something else are cancelled a little later.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import structlog

GRACE = 2.5
"""Seconds for a running unit of work to finish after a stop was requested."""

TASK_SECONDS = 2.0
"""Seconds for a cancelled task to end."""

RETRY_SECONDS = 0.25
"""Interval between cancellations: Python 3.11 may lose one that coincides with a time-out."""

STOPPING = "The server is stopping; the next run continues where the last one stopped."

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Stop:
    """Whether this process has been asked to stop."""

    is_asked: bool = False


async def end_task(task: asyncio.Task[Any], wait_seconds: float = TASK_SECONDS) -> None:
    """Cancel a task and wait until it has ended, for *wait_seconds* at most."""
    until = time.monotonic() + wait_seconds
    while not task.done() and time.monotonic() < until:
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_SECONDS)
    if not task.done():
        log.warning("a task did not end in time", task=task.get_name())
