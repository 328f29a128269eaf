"""The time limit of the call that a task is answering.

``Api`` sets it, and the store interrupts the call's units at it. Background work has none.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Deadline:
    """*at*: monotonic seconds, on the clock of this process; *seconds*: the limit that was set."""

    seconds: float
    at: float

    @property
    def left(self) -> float:
        """Seconds left, not below 0."""
        return max(0.0, self.at - time.monotonic())

    @property
    def has_passed(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self.at


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)
_exempt: ContextVar[bool] = ContextVar("exempt", default=False)


def current_deadline() -> Deadline | None:
    """The deadline of the call in progress; None outside of calls, and in a call without a limit."""
    return _current.get()


@contextmanager
def call_deadline(seconds: float) -> Iterator[Deadline | None]:
    """In the block, limit store units of this task and those it starts; infinite *seconds*: no limit.

    Tasks that outlive the block are not limited any more. Within ``no_deadline`` there is no limit either.
    """
    deadline = None if math.isinf(seconds) or _exempt.get() else Deadline(seconds, time.monotonic() + seconds)
    token = _current.set(deadline)
    try:
        yield deadline
    finally:
        _current.reset(token)
        if deadline is not None:
            deadline.at = math.inf


@contextmanager
def no_deadline() -> Iterator[None]:
    """In the block, no call has a deadline: for a sync or a job and the calls it makes."""
    tokens = _exempt.set(True), _current.set(None)
    try:
        yield
    finally:
        _exempt.reset(tokens[0])
        _current.reset(tokens[1])
