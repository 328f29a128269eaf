"""Claims: one holder at a time, lapsing by themselves, and a fence that stops whoever lost one. On both databases."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from civiapi.store import leases
from civiapi.store.databases import mariadb
from civiapi.store.engine import Store, open_store
from civiapi.store.leases import Lease, LeaseLost
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import tag
from tests.support.databases import KINDS, a_database

NOW = 1_800_000_000_000


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    with a_database(request.param, tmp_path) as url:
        opened = await open_store(url)
        await migrate(opened)
        yield opened
        await opened.close()


async def take(store: Store, holder: str, at: int = NOW) -> Lease | None:
    return await store.write(leases.acquire, "abc123", holder, 120, at)


async def test_one_holds_and_the_other_does_not(store: Store) -> None:
    first = await take(store, "one")
    assert first is not None
    assert await take(store, "two") is None
    assert await take(store, "one") is None
    assert await store.read(leases.is_live, "abc123", NOW)


async def test_a_claim_given_back_is_free_at_once(store: Store) -> None:
    first = await take(store, "one")
    assert first is not None
    await store.write(leases.release, first)
    second = await take(store, "two")
    assert second is not None
    assert second.fence > first.fence


async def test_a_claim_not_renewed_lapses_by_itself(store: Store) -> None:
    await take(store, "one")
    assert await take(store, "two", NOW + 119_999) is None
    assert await take(store, "two", NOW + 120_000) is not None


async def test_a_renewed_claim_lives_on(store: Store) -> None:
    first = await take(store, "one")
    assert first is not None
    assert await store.write(leases.renew, first, 120, NOW + 100_000)
    assert await take(store, "two", NOW + 200_000) is None


async def test_who_was_overtaken_cannot_renew_or_give_back(store: Store) -> None:
    first = await take(store, "one")
    second = await take(store, "two", NOW + 120_000)
    assert first is not None
    assert second is not None
    assert not await store.write(leases.renew, first, 120, NOW + 120_001)
    await store.write(leases.release, first)
    assert await store.read(leases.is_live, "abc123", NOW + 120_001)


@pytest.mark.parametrize("how", ["overtaken", "revoked"])
async def test_a_commit_under_a_lost_claim_writes_nothing(store: Store, how: str) -> None:
    first = await take(store, "one")
    assert first is not None
    if how == "overtaken":
        await take(store, "two", NOW + 120_000)
    else:
        await store.write(leases.revoke, "abc123")

    def work(conn: Connection) -> None:
        conn.execute(insert(tag).values(name="written"))
        leases.check(conn, first)

    with pytest.raises(LeaseLost, match="abc123"):
        await store.write(work)
    assert await store.read(lambda conn: conn.execute(select(tag.c.name)).all()) == []


async def test_the_locks_of_a_process_frozen_inside_a_transaction_on_mariadb_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server undoes what nobody goes on with; whoever was frozen runs its unit again and finds its claim lost."""
    monkeypatch.setattr(mariadb, "IDLE_S", 1)
    asleep, taken = threading.Event(), threading.Event()
    with a_database("mariadb", tmp_path) as url:
        mine, other = await open_store(url), await open_store(url)
        try:
            await migrate(mine)
            first = await take(mine, "one")
            assert first is not None

            def work(conn: Connection) -> None:
                conn.execute(insert(tag).values(name="written"))
                leases.check(conn, first)  # which locks the row
                if not asleep.is_set():
                    asleep.set()
                    taken.wait(10)  # holding the loop, as a frozen process does
                leases.check(conn, first)

            frozen = asyncio.create_task(asyncio.to_thread(asyncio.run, _alone(url, work)))
            await asyncio.to_thread(asleep.wait, 10)
            second = await take(other, "two", NOW + 120_000)
            taken.set()
            assert second is not None
            with pytest.raises(LeaseLost):
                await frozen
            assert await other.read(lambda conn: conn.execute(select(tag.c.name)).all()) == []
        finally:
            await mine.close()
            await other.close()


async def _alone(url: str, work: Callable[[Connection], None]) -> None:
    """A unit in a loop of its own."""
    store = await open_store(url)
    try:
        await store.write(work)
    finally:
        await store.close()


async def test_a_lapsed_claim_that_nobody_took_still_lets_its_holder_commit(store: Store) -> None:
    first = await take(store, "one")
    assert first is not None
    await store.write(leases.check, first)


async def test_a_revoked_lease_is_free_at_once(store: Store) -> None:
    await take(store, "one")
    await store.write(leases.revoke, "abc123")
    assert await take(store, "two") is not None
