"""The scheduler: due jobs are run while a process leads, and one process leads at a time."""

import asyncio

import pytest

from civiapi.api.dispatch import Api
from civiapi.server.scheduler import Scheduler
from civiapi.store.engine import Store
from tests.conftest import Ask
from tests.entities.test_job import Slow, a_job, log


@pytest.fixture
async def quiet(call: Ask) -> Ask:
    await call("Job", "create", {"id": 1, "is_active": 0})
    return call


async def test_the_clock_runs_what_is_due(quiet: Ask, store: Store) -> None:
    await a_job(quiet, "slow", api_entity="Slow", api_action="wait")
    slow = Slow()
    scheduler = Scheduler(slow.api(store), store, tick_seconds=0.01)
    await scheduler.start()
    async with asyncio.timeout(10):
        await slow.begun.wait()
    await scheduler.stop()
    assert "Starting execution of slow" in await log(quiet)


async def test_stopping_stops_the_job_at_work(quiet: Ask, store: Store) -> None:
    await a_job(quiet, "slow", api_entity="Slow", api_action="wait")
    slow = Slow()
    scheduler = Scheduler(slow.api(store), store, tick_seconds=0.01)
    await scheduler.start()
    async with asyncio.timeout(10):
        await slow.begun.wait()
        await scheduler.stop()
    assert (await log(quiet))[-1] == "Error while executing slow: the server was stopped"
    assert slow.runs == 1


async def test_a_look_at_which_nothing_is_due_leaves_no_trace(quiet: Ask, api: Api, store: Store) -> None:
    await Scheduler(api, store, tick_seconds=60).tick()
    assert await log(quiet) == []


async def test_one_process_leads_until_it_stops(quiet: Ask, api: Api, store: Store) -> None:
    await a_job(quiet)
    first, second = (Scheduler(api, store, tick_seconds=60) for _ in range(2))
    await first.start()
    await second.start()
    await first.tick()
    await second.tick()
    assert (await log(quiet)).count("Starting execution of count") == 1
    await first.tick()
    assert (await log(quiet)).count("Starting execution of count") == 2
    await first.stop()
    await second.tick()
    assert (await log(quiet)).count("Starting execution of count") == 3
    await second.stop()


async def test_a_look_that_fails_does_not_stop_the_clock(api: Api, store: Store) -> None:
    await store.write(lambda conn: conn.exec_driver_sql("ALTER TABLE civicrm_job RENAME TO away"))
    await Scheduler(api, store, tick_seconds=60).tick()
