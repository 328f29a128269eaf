"""Threads for work whose length a caller chooses, so that it does not stop the event loop.

They are few and of their own: asyncio's are needed for looking up names.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="civiapi-work")


async def in_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run *fn* in one of the threads, after what was given to them before."""
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: fn(*args, **kwargs))
