"""Whoever works in another thread gives way to the loop that answers calls, but not for ever."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy.util import await_, greenlet_spawn

from civiapi.runtime import loop_priority

PATIENCE = 20.0


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_priority, "MAX_WAIT_S", 1000.0)


def on_a_courteous_loop(work: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=loop_priority.priority_loop) as runner:
        runner.run(work())


class Worker:
    """A thread that gives way once, in the background or for a caller."""

    def __init__(self, *, in_background: bool = True) -> None:
        self.asks, self.is_past = threading.Event(), threading.Event()
        self._in_background = in_background
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self.asks.set()
        with loop_priority.background_work() if self._in_background else nullcontext():
            loop_priority.yield_to_loop()
        self.is_past.set()


@pytest.mark.usefixtures("_patient")
def test_a_worker_waits_until_the_loop_is_at_rest() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)  # the loop has waited once, and is busy now
        worker = Worker()
        assert worker.asks.wait(PATIENCE)
        assert not worker.is_past.wait(0.05)
        assert await asyncio.to_thread(worker.is_past.wait, PATIENCE)

    on_a_courteous_loop(work)


def test_a_worker_waits_for_a_busy_loop_no_longer_than_it_must() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        assert Worker().is_past.wait(PATIENCE)  # the loop never rests

    on_a_courteous_loop(work)


@pytest.mark.usefixtures("_patient")
def test_work_in_the_loop_s_own_thread_waits_for_nobody() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        with loop_priority.background_work():
            loop_priority.yield_to_loop()

    on_a_courteous_loop(work)


@pytest.mark.parametrize("in_background", [True, False])
def test_background_work_between_two_answers_of_a_database_lets_the_loop_run(in_background: bool) -> None:
    ran = []

    def unit() -> list[str]:
        with loop_priority.background_work() if in_background else nullcontext():
            for _ in loop_priority.yielding_to_loop(range(3), every=1):
                pass
        return list(ran)

    async def work() -> list[str]:
        asyncio.get_running_loop().call_soon(ran.append, "a call")
        return await greenlet_spawn(unit)

    assert asyncio.run(work()) == (["a call"] if in_background else [])


def test_work_that_waits_for_a_database_is_in_the_background_alone() -> None:
    async def work() -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        def unit() -> None:
            with loop_priority.background_work():
                reached.set()
                await_(go_on.wait())

        task = asyncio.create_task(greenlet_spawn(unit))
        await reached.wait()
        loop_priority.yield_to_loop()  # as background work it would raise: there is no greenlet to await in
        go_on.set()
        await task

    asyncio.run(work())


@pytest.mark.usefixtures("_patient")
def test_what_a_caller_waits_for_gives_way_to_nobody() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        assert Worker(in_background=False).is_past.wait(PATIENCE)  # the loop never rests

    on_a_courteous_loop(work)


@pytest.mark.usefixtures("_patient")
def test_nobody_waits_where_no_loop_is_running_any_more() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)

    on_a_courteous_loop(work)
    assert Worker().is_past.wait(PATIENCE)


@pytest.mark.usefixtures("_patient")
def test_a_loop_that_has_more_to_do_at_once_is_not_at_rest() -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        worker = Worker()
        assert worker.asks.wait(PATIENCE)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not worker.is_past.is_set()

    on_a_courteous_loop(work)


def test_all_items_come_in_their_order() -> None:
    def source() -> Iterator[int]:
        yield from range(173)

    assert list(loop_priority.yielding_to_loop(source())) == list(range(173))
