"""The loop that answers callers goes first: other threads at work pause while it has something to do.

Python runs one thread at a time, and one hands over when it waits for something or has had its time. A call is answered
in a dozen short stretches, and before each the loop would wait for whoever works in the background; a page of members
is a tenth of a second's work. So long work in other threads asks now and then whether the loop is at rest, and waits a
moment if it is not. It never waits long: a loop that is never at rest must not keep a sync from coming to its end.
"""

import asyncio
import selectors
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

LONGEST_S = 0.003
"""How long one gives way at a time: a call takes about as long."""

_at_rest = threading.Event()
_at_rest.set()
_this_thread = threading.local()


class _CourteousSelector(selectors.DefaultSelector):
    """What a loop waits with: while it waits it is at rest."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:  # it only looks what else there is
            return super().select(timeout)
        _at_rest.set()
        try:
            return super().select(timeout)
        finally:
            _at_rest.clear()

    def close(self) -> None:
        _at_rest.set()
        super().close()


def courteous_loop() -> asyncio.AbstractEventLoop:
    """A new loop that other threads give way to; one a process."""
    return asyncio.SelectorEventLoop(_CourteousSelector())


@contextmanager
def in_the_background() -> Iterator[None]:
    """What this thread does in the block is nothing that a caller waits for.

    On MariaDB the loop's own thread does it, which has nobody to give way to.
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


def give_way() -> None:
    """In the background, wait while the loop has something to do, `LONGEST_S` at most."""
    if not _at_rest.is_set() and getattr(_this_thread, "in_background", False):
        _at_rest.wait(LONGEST_S)


def giving_way(items: Iterable[T], every: int = 50) -> Iterator[T]:
    """The items; before each so many of them this gives way."""
    for number, item in enumerate(items):
        if number % every == 0:
            give_way()
        yield item
