"""The limit on those who keep guessing."""

import asyncio

import pytest

from civiapi.auth.login_throttle import (
    ADDRESSES,
    FREE,
    MAX_DELAY,
    MAX_UNDECIDED,
    MAX_WAITING,
    MAX_WAITING_EACH,
    Throttle,
    TooManyAttempts,
    network_of,
)


class Clock:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock.sleep, clock.now)


async def _guess(throttle: Throttle, address: str, *, right: bool = False) -> int:
    async with throttle.attempt(address) as attempt:
        return 0 if right else attempt.fail()


async def test_a_few_slips_cost_nothing_and_each_further_one_more(throttle: Throttle, clock: Clock) -> None:
    assert [await _guess(throttle, "a") for _ in range(FREE + 5)] == list(range(1, FREE + 6))
    assert len(clock.slept) == 5
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[0] < clock.slept[-1]


async def test_a_right_guess_waits_like_a_wrong_one(throttle: Throttle, clock: Clock) -> None:
    for _ in range(FREE + 5):
        await _guess(throttle, "a")
    clock.slept.clear()
    await _guess(throttle, "a", right=True)
    await _guess(throttle, "a", right=True)
    await _guess(throttle, "a")
    assert len(set(clock.slept)) == 1, "nor does being right shorten the wait"
    assert len(clock.slept) == 3


async def test_who_is_always_right_never_waits(throttle: Throttle, clock: Clock) -> None:
    for _ in range(100):
        await _guess(throttle, "a", right=True)
    assert clock.slept == []


async def test_no_gap_is_longer_than_the_longest(throttle: Throttle, clock: Clock) -> None:
    for _ in range(100):
        await _guess(throttle, "a")
    assert max(clock.slept) == pytest.approx(MAX_DELAY)


async def test_guesses_side_by_side_are_decided_one_by_one_and_few_of_them_wait() -> None:
    decided, refused = [], []
    waits = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await waits.wait()

    throttle = Throttle(sleep, lambda: 0.0)

    async def guess(number: int) -> None:
        try:
            async with throttle.attempt("a") as attempt:
                await asyncio.sleep(0)  # as a look into the database
                decided.append(number)
                attempt.fail()
        except TooManyAttempts as error:
            refused.append(error.retry_after)

    async with asyncio.TaskGroup() as tasks:
        for number in range(200):
            tasks.create_task(guess(number))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(decided) == FREE, "as soon as they were wrong, nothing more is compared"
        assert len(refused) == 200 - FREE - MAX_WAITING_EACH
        assert min(refused) > 0
        waits.set()
    assert len(decided) == FREE + MAX_WAITING_EACH


async def test_right_guesses_side_by_side_are_all_decided() -> None:
    throttle = Throttle()

    async def call() -> None:
        async with throttle.attempt("a"):
            await asyncio.sleep(0)

    await asyncio.gather(*(call() for _ in range(MAX_UNDECIDED)))
    outcomes = await asyncio.gather(*(call() for _ in range(MAX_UNDECIDED + 10)), return_exceptions=True)
    assert sum(isinstance(one, TooManyAttempts) for one in outcomes) == 10


async def test_all_addresses_together_hold_few_that_wait_and_a_new_one_is_let_in() -> None:
    waits = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        await waits.wait()

    throttle = Throttle(sleep, lambda: 0.0)
    for number in range(20):
        for _ in range(FREE):
            await _guess(throttle, f"198.51.100.{number}")
    guesses = [
        asyncio.create_task(_guess(throttle, f"198.51.100.{number}")) for number in range(20) for _ in range(200)
    ]
    await asyncio.sleep(0.01)
    assert sum(not one.done() for one in guesses) == MAX_WAITING
    assert await _guess(throttle, "203.0.113.9", right=True) == 0
    waits.set()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert throttle._waiting == 0


async def test_who_holds_much_does_not_wait(throttle: Throttle, clock: Clock) -> None:
    async with throttle.attempt("a", may_wait=False):
        pass
    for _ in range(FREE):
        await _guess(throttle, "a")
    with pytest.raises(TooManyAttempts):
        async with throttle.attempt("a", may_wait=False):
            pytest.fail("it was decided")
    assert clock.slept == []


async def test_one_that_is_broken_off_while_it_waits_leaves_nothing_behind() -> None:
    throttle = Throttle(lambda _seconds: asyncio.Event().wait(), lambda: 0.0)  # type: ignore[arg-type,return-value]
    for _ in range(FREE):
        await _guess(throttle, "a")
    waiting = [asyncio.create_task(_guess(throttle, "a")) for _ in range(3)]
    await asyncio.sleep(0.01)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert throttle._waiting == 0
    assert throttle._records["a"].undecided == 0
    assert not throttle._records["a"].turn.locked()


async def test_one_address_does_not_slow_another(throttle: Throttle, clock: Clock) -> None:
    for _ in range(50):
        await _guess(throttle, "a")
    clock.slept.clear()
    await _guess(throttle, "b")
    assert clock.slept == []


async def test_a_quiet_address_starts_anew(throttle: Throttle, clock: Clock) -> None:
    for _ in range(FREE + 3):
        await _guess(throttle, "a")
    clock.time += 3600
    assert await _guess(throttle, "a") == 1


async def test_memory_is_bounded(throttle: Throttle) -> None:
    for number in range(ADDRESSES + 10):
        await _guess(throttle, str(number))
    assert len(throttle._records) == ADDRESSES
    for number in range(10):
        await _guess(throttle, f"right {number}", right=True)
    assert len(throttle._records) == ADDRESSES, "who is right leaves no trace"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("", "", True),
        ("x" * 100, "x" * 64, True),
    ],
)
def test_one_address_is_what_one_subscriber_has(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same
