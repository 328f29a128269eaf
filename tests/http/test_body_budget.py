"""Room for request bodies: given in order, taken back from clients that send slowly, bounded over all requests."""

import asyncio

import pytest

from civiapi.http import body_budget
from civiapi.http.body_budget import BUDGET, SMALL, BodyBudget, HeldBody, NoRoom

LARGEST = 4_000_000
FITTING = BUDGET // LARGEST


async def full(budget: BodyBudget) -> list[HeldBody]:
    """Fill the budget of large bodies."""
    held = []
    for _ in range(FITTING):
        body = budget.hold()
        await body.make_room(LARGEST)
        held.append(body)
    return held


async def test_what_is_released_makes_room_for_others_in_their_order() -> None:
    budget = BodyBudget(LARGEST)
    held = await full(budget)
    first, second = budget.hold(), budget.hold()
    waiting = [asyncio.ensure_future(one.make_room(LARGEST)) for one in (first, second)]
    await asyncio.sleep(0.01)
    assert not any(one.done() for one in waiting)
    held[0].release()
    held[0].release()  # twice is once
    await asyncio.sleep(0.01)
    assert [one.done() for one in waiting] == [True, False]
    held[1].release()
    await asyncio.gather(*waiting)
    assert sum(one.room for one in (*held[2:], first, second)) == FITTING * LARGEST


async def test_a_small_one_of_the_large_does_not_overtake() -> None:
    budget = BodyBudget(LARGEST)
    held = await full(budget)
    large = asyncio.ensure_future(budget.hold().make_room(LARGEST))
    await asyncio.sleep(0.01)
    little = asyncio.ensure_future(budget.hold().make_room(SMALL + 1))
    await asyncio.sleep(0.01)
    assert not little.done()
    held[0].release()
    await asyncio.gather(large, little)


async def test_a_body_without_room_is_refused_after_a_while() -> None:
    budget = BodyBudget(LARGEST, wait_seconds=0.05)
    held = await full(budget)
    with pytest.raises(NoRoom):
        await budget.hold().make_room(LARGEST)
    held[0].release()
    await budget.hold().make_room(LARGEST)


async def test_a_client_that_leaves_while_it_waits_takes_no_room() -> None:
    budget = BodyBudget(LARGEST)
    held = await full(budget)
    waiting = asyncio.ensure_future(budget.hold().make_room(LARGEST))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for one in held:
        one.release()
    await full(budget)


async def test_small_bodies_need_not_wait_for_large_ones() -> None:
    budget = BodyBudget(LARGEST, wait_seconds=0.05)
    held = await full(budget)
    small = budget.hold()
    await small.make_room(SMALL)
    with pytest.raises(NoRoom):  # it turns out to be a large one
        await small.make_room(LARGEST)
    small.release()
    assert sum(one.room for one in (*held, small)) == FITTING * LARGEST


async def test_a_body_that_comes_slowly_makes_room_for_another_and_a_fast_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(body_budget, "FAIR_SECONDS", 0.05)
    budget = BodyBudget(LARGEST)
    given_up = []

    async def read(arrived: int) -> None:
        body = budget.hold()
        try:
            await body.make_room(LARGEST)
            async with asyncio.timeout(0.3 if arrived else 60) as body.reading:
                body.arrived = arrived
                await asyncio.sleep(60)
        except TimeoutError:
            given_up.append(arrived)
        finally:
            body.release()

    reading = [asyncio.ensure_future(read(LARGEST)) for _ in range(FITTING - 1)]
    reading.append(asyncio.ensure_future(read(0)))
    await asyncio.sleep(0.1)
    await budget.hold().make_room(LARGEST)
    assert given_up[0] == 0
    await asyncio.gather(*reading)
