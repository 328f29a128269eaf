"""Tokens that say who calls, and the brake on those who keep guessing."""

import asyncio
from datetime import timedelta

import jwt
import pytest
import time_machine

from civiapi.throttle import ADDRESSES, FREE, LONGEST, PATIENCE, Throttle
from civiapi.tokens import SESSION, TokenError, Tokens, looks_like_token

SITE_KEY = "site-key-of-tests"


def test_a_token_says_for_whom_it_speaks() -> None:
    tokens = Tokens(SITE_KEY)
    assert tokens.read(tokens.issue(203, 60)).contact_id == 203


def test_another_process_with_the_same_site_key_reads_it() -> None:
    assert Tokens(SITE_KEY).read(Tokens(SITE_KEY).issue(7, 60)).contact_id == 7


def test_two_tokens_for_one_contact_differ() -> None:
    tokens = Tokens(SITE_KEY)
    assert tokens.issue(7, 60) != tokens.issue(7, 60)


def test_a_token_that_is_over_says_so() -> None:
    tokens = Tokens(SITE_KEY)
    token = tokens.issue(7, 60)
    with time_machine.travel(timedelta(seconds=120)), pytest.raises(TokenError, match="Expired token"):
        tokens.read(token)


def _sign(claims: dict[str, object], tokens: Tokens) -> str:
    return jwt.encode({"exp": 4_000_000_000, "scope": "authx", "sub": "cid:7"} | claims, tokens._key, "HS256")


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        pytest.param({"sub": "7"}, "Malformed JWT. Must specify the contact ID.", id="The subject is no contact"),
        pytest.param({"sub": "cid:x"}, "Malformed JWT. Must specify the contact ID.", id="Nor is this"),
        pytest.param({"scope": "other"}, "Invalid credential", id="The scope lacks authx"),
        pytest.param({"scope": ""}, "Invalid credential", id="There is no scope"),
        pytest.param({"exp": None}, "Invalid credential", id="It never ends"),
    ],
)
def test_a_signed_token_must_say_the_right_things(claims: dict[str, object], message: str) -> None:
    tokens = Tokens(SITE_KEY)
    with pytest.raises(TokenError) as error:
        tokens.read(_sign(claims, tokens))
    assert str(error.value) == message


def test_authx_may_be_one_of_several_scopes() -> None:
    tokens = Tokens(SITE_KEY)
    assert tokens.read(_sign({"scope": "read authx write"}, tokens)).contact_id == 7


@pytest.mark.parametrize(
    "token",
    [
        Tokens("another-site-key").issue(7, 60),
        jwt.encode({"exp": 4_000_000_000, "scope": "authx", "sub": "cid:7"}, "", "none"),
        Tokens(SITE_KEY).issue(7, 60)[:-3],
        "eyJ.eyJ.x",
        "",
    ],
    ids=["signed elsewhere", "not signed", "cut short", "nonsense", "nothing"],
)
def test_what_we_did_not_sign_proves_nothing(token: str) -> None:
    with pytest.raises(TokenError, match="Invalid credential"):
        Tokens(SITE_KEY).read(token)


def test_a_session_cookie_is_no_credential_and_a_credential_no_session() -> None:
    tokens = Tokens(SITE_KEY)
    with pytest.raises(TokenError):
        tokens.read(tokens.issue(7, 60, SESSION))
    with pytest.raises(TokenError):
        tokens.read(tokens.issue(7, 60), SESSION)


def test_without_a_site_key_no_other_process_signs_for_us() -> None:
    with pytest.raises(TokenError):
        Tokens("").read(Tokens("").issue(7, 60))


def test_an_api_key_does_not_look_like_a_token() -> None:
    assert looks_like_token(Tokens(SITE_KEY).issue(7, 60))
    assert not looks_like_token("eyJabc")
    assert not looks_like_token("a.b.c")


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


async def test_a_few_slips_cost_nothing_and_each_further_one_more() -> None:
    clock = Clock()
    throttle = Throttle(clock.sleep, clock.now)
    for _ in range(FREE + 5):
        await throttle.failed("a")
    assert len(clock.slept) == 5
    assert clock.slept == sorted(clock.slept)
    assert clock.slept[0] < clock.slept[-1]


async def test_no_gap_is_longer_than_the_longest() -> None:
    clock = Clock()
    throttle = Throttle(clock.sleep, clock.now)
    for _ in range(100):
        await throttle.failed("a")
    assert max(clock.slept) == pytest.approx(LONGEST)


async def test_failures_side_by_side_queue_up_but_nobody_waits_for_ever() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    throttle = Throttle(sleep, lambda: 0.0)
    await asyncio.gather(*(throttle.failed("a") for _ in range(200)))
    assert waits == sorted(waits)
    assert waits[-1] == PATIENCE


async def test_one_address_does_not_slow_another() -> None:
    clock = Clock()
    throttle = Throttle(clock.sleep, clock.now)
    for _ in range(50):
        await throttle.failed("a")
    clock.slept.clear()
    await throttle.failed("b")
    assert clock.slept == []


async def test_a_quiet_address_starts_anew() -> None:
    clock = Clock()
    throttle = Throttle(clock.sleep, clock.now)
    for _ in range(FREE + 3):
        await throttle.failed("a")
    clock.time += 3600
    assert await throttle.failed("a") == 1


async def test_memory_is_bounded() -> None:
    clock = Clock()
    throttle = Throttle(clock.sleep, clock.now)
    for number in range(ADDRESSES + 10):
        await throttle.failed(str(number))
    assert len(throttle._records) == ADDRESSES
