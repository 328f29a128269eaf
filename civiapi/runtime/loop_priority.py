"""Give the event loop priority over background threads.

Python runs one thread at a time. A call is answered in a dozen short steps, and before each of them the loop would wait
for the background thread to release the interpreter. So background work checks now and then whether the loop is idle,
and pauses briefly if it is not; never for long, so that a busy loop cannot stop a sync.
"""

import asyncio
import selectors
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

MAX_WAIT_S = 0.003
"""Longest pause at a time: about the time of one call."""

_idle = threading.Event()
_idle.set()
_this_thread = threading.local()


class _PrioritySelector(selectors.DefaultSelector):
    """The selector of the event loop, which is idle while it waits here."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:  # a poll between two steps
            return super().select(timeout)
        _idle.set()
        try:
            return super().select(timeout)
        finally:
            _idle.clear()

    def close(self) -> None:
        _idle.set()
        super().close()


def priority_loop() -> asyncio.AbstractEventLoop:
    """A new loop with priority over background threads; one per process."""
    return asyncio.SelectorEventLoop(_PrioritySelector())


@contextmanager
def background_work() -> Iterator[None]:
    """Mark this thread's work in the block as work that no caller waits for.

    Has no effect on the loop's own thread, which does this work on MariaDB.
    """
    _this_thread.in_background = not _runs_a_loop()
    try:
        yield
    finally:
        _this_thread.in_background = False


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def yield_to_loop() -> None:
    """In background work, wait while the loop is busy, `MAX_WAIT_S` at most."""
    if not _idle.is_set() and getattr(_this_thread, "in_background", False):
        _idle.wait(MAX_WAIT_S)


def yielding_to_loop(items: Iterable[T], every: int = 50) -> Iterator[T]:
    """The items, with a call of ``yield_to_loop`` before every *every* of them."""
    for number, item in enumerate(items):
        if number % every == 0:
            yield_to_loop()
        yield item
