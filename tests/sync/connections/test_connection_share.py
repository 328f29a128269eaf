"""What Mailchimp allows an account is shared by the processes that are at work on its audiences."""

import asyncio

import pytest
from sqlalchemy import Connection, update

from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.leases import acquire
from civiapi.store.schema.tables import lease
from sync.audience import Audience
from sync.connections.config import write_config
from sync.connections.connection_share import RESULTS, count_others
from sync.mailchimp.connection_limit import ConnectionLimit

KEYS = ("a" * 32 + "-us1", "b" * 32 + "-us1")
NEWS, EVENTS, OTHERS = "aaaa111111", "bbbb222222", "cccc333333"
AUDIENCE = Audience(NEWS, 1, site_clock("UTC"), api_key=KEYS[0])
ME, NOW = "me", 1_000_000


def link(conn: Connection) -> None:
    lists = {NEWS: KEYS[0], EVENTS: KEYS[0], OTHERS: KEYS[1]}
    write_config(
        conn,
        {
            "accounts": {key: {"apiKey": key, "audiences": {}} for key in KEYS},
            "lists": {
                one: {"apiKey": key, "subscriptionGroup": str(group), "interests": {}}
                for group, (one, key) in enumerate(lists.items(), 1)
            },
        },
    )


CASES: list[tuple[str, list[tuple[str, str]], int]] = [
    ("Nobody is at work.", [], 0),
    ("We ourselves do not count, however many claims we hold.", [(NEWS, ME), (EVENTS, "brief:" + ME)], 0),
    ("Somebody is at work on another audience of the account.", [(EVENTS, "one")], 1),
    ("Somebody writes down results of the account.", [(RESULTS + EVENTS, "brief:one")], 1),
    ("One with two claims is one.", [(EVENTS, "one"), (RESULTS + NEWS, "brief:one")], 1),
    ("Two are two.", [(EVENTS, "one"), (NEWS, "two")], 2),
    ("Another account is another matter, and so is leading the scheduler.", [(OTHERS, "one"), ("scheduler", "two")], 0),
]


@pytest.mark.parametrize(("held", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CASES])
async def test_who_is_at_work_on_an_account_has_a_share(
    store: Store, held: list[tuple[str, str]], expected: int
) -> None:
    def make(conn: Connection) -> int:
        link(conn)
        for name, holder in held:
            assert acquire(conn, name, holder, 60, NOW)
        return count_others(conn, AUDIENCE, ME, NOW + 1)

    assert await store.write(make) == expected


async def test_whose_lease_has_lapsed_has_none(store: Store) -> None:
    def make(conn: Connection) -> int:
        link(conn)
        acquire(conn, EVENTS, "one", 60, NOW)
        conn.execute(update(lease).values(expires_ms=NOW))
        return count_others(conn, AUDIENCE, ME, NOW + 1)

    assert await store.write(make) == 0


class Room:
    """A connection limit, and who holds a connection."""

    def __init__(self, most: int) -> None:
        self.limit = ConnectionLimit(most)
        self.inside = 0
        self.highest = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.leave = asyncio.Semaphore(0)

    async def _visit(self) -> None:
        async with self.limit.limiter:
            self.inside += 1
            self.highest = max(self.highest, self.inside)
            await self.leave.acquire()
            self.inside -= 1

    async def come(self, visitors: int) -> None:
        self.tasks += [asyncio.create_task(self._visit()) for _ in range(visitors)]
        await self.rest()

    async def rest(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def let_go(self, visitors: int) -> None:
        for _ in range(visitors):
            self.leave.release()
        await self.rest()


async def test_a_limit_that_is_narrowed_lets_nobody_in_before_enough_have_left() -> None:
    room = Room(8)
    await room.come(12)
    room.limit.set_share(2)
    await room.let_go(6)
    assert room.inside == 2
    await room.let_go(1)
    assert room.inside == 2
    room.limit.set_share(8)
    await room.rest()
    assert room.inside == 5
    await room.let_go(5)
    await asyncio.gather(*room.tasks)
    assert (room.highest, room.limit.is_idle) == (8, True)


async def test_one_place_is_always_left() -> None:
    room = Room(8)
    room.limit.set_share(0)
    await room.come(3)
    assert room.inside == 1
    await room.let_go(3)
    await asyncio.gather(*room.tasks)


async def test_who_gives_up_waiting_or_inside_leaves_the_place_to_the_next() -> None:
    room = Room(1)
    await room.come(3)
    room.tasks[1].cancel()
    room.tasks[0].cancel()
    await room.rest()
    assert not room.tasks[2].done()
    await room.let_go(1)
    await room.tasks[2]
    assert room.limit.is_idle
