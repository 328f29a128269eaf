"""Give calls priority over background work.

Python runs one thread at a time. A call is answered in a dozen short steps, and before each of them the loop would wait
for the background thread to release the interpreter. So background work checks now and then whether the loop is idle,
and pauses briefly if it is not; never for long, so that a busy loop cannot stop a sync. On MariaDB background work runs
on the loop itself, between two answers of the server: there it lets the loop do what is due.
"""

import asyncio
import selectors
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

MAX_WAIT_S = 0.003
"""Longest pause at a time: about the time of one call."""

_idle = threading.Event()
_idle.set()
_pause: ContextVar[Callable[[], None] | None] = ContextVar("pause", default=None)
"""How background work gives way; None: this is none, or it can not."""


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
    """Mark the work in the block as work that no caller waits for."""
    token = _pause.set(_way_to_pause())
    try:
        yield
    finally:
        _pause.reset(token)


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _way_to_pause() -> Callable[[], None] | None:
    if not _runs_a_loop():
        return _wait_for_loop
    from sqlalchemy.util import await_  # here: it takes longer to load than all else of a command without a database
    from sqlalchemy.util.concurrency import in_greenlet

    return (lambda: await_(asyncio.sleep(0))) if in_greenlet() else None


def _wait_for_loop() -> None:
    if not _idle.is_set():
        _idle.wait(MAX_WAIT_S)


def yield_to_loop() -> None:
    """In background work, let the loop do what is due; a thread waits for that `MAX_WAIT_S` at most."""
    pause = _pause.get()
    if pause is not None:
        pause()


def yielding_to_loop(items: Iterable[T], every: int = 50) -> Iterator[T]:
    """The items, with a call of ``yield_to_loop`` before every *every* of them."""
    for number, item in enumerate(items):
        if number % every == 0:
            yield_to_loop()
        yield item
