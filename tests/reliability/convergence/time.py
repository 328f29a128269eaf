"""Virtual time: one clock for both sides that advances only when a task waits, and an event loop that never sleeps.

The loop's timers, ``time.monotonic``, ``time.time`` and ``datetime.now`` all show the same time. It stands still while
anything can be done; when every task waits, it jumps to the first timer. So a back-off of minutes, a lease that lapses
or a request that hangs for two takes no time at all, and everything comes out the same for the same history.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from unittest import mock

import time_machine

T = TypeVar("T")

START = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)


class VirtualClock:
    """Seconds since the history began, shown as wall-clock time from `START` on."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self._traveller: time_machine.Traveller | None = None

    def monotonic(self) -> float:
        """Seconds, as ``time.monotonic`` gives them."""
        return 1000.0 + self.elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds
        self._show()

    def move_to(self, elapsed: float) -> None:
        """Set the time to so many seconds after the start."""
        self.elapsed = elapsed
        self._show()

    def _show(self) -> None:
        if self._traveller is not None:
            self._traveller.move_to(START + timedelta(seconds=self.elapsed), tick=False)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show this time everywhere while the block lasts."""
        with time_machine.travel(START, tick=False) as traveller, mock.patch.object(time, "monotonic", self.monotonic):
            self._traveller = traveller
            self._show()
            try:
                yield
            finally:
                self._traveller = None


class _Selector(selectors.SelectSelector):
    """Selects nothing: when the loop would wait, the time jumps."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        if timeout > 0:
            self._clock.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. What would run in another thread runs at once."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.monotonic()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* to its end, and cancel the tasks it left running."""
        try:
            return self.run_until_complete(work)
        finally:
            left = asyncio.all_tasks(self)
            for task in left:
                task.cancel()
            if left:
                self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
