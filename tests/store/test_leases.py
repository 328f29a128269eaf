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
from tests.support.databases import KINDS, a_database, a_store

NOW = 1_800_000_000_000


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


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


def ended(holder: str) -> bool:
    return holder.startswith(("ended", "brief:ended"))


@pytest.mark.parametrize("holder", ["ended", "brief:ended"])
async def test_the_claim_of_a_process_that_has_ended_lapses_within_seconds(
    store: Store, monkeypatch: pytest.MonkeyPatch, holder: str
) -> None:
    monkeypatch.setattr(leases, "is_gone", ended)
    first = await take(store, holder)
    assert first is not None
    assert await take(store, "two", NOW + 1) is None  # what it sent last may still be on its way
    assert await take(store, "two", NOW + 9_000) is None  # asking again makes it no longer
    second = await take(store, "two", NOW + 10_001)
    assert second is not None
    with pytest.raises(LeaseLost):
        await store.write(leases.check, first)
    await store.write(leases.check, second)


async def test_claims_of_processes_that_have_ended_are_shortened_and_no_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "is_gone", ended)
    for holder in ("one", "ended.1", "ended.2"):
        assert await store.write(leases.acquire, f"list of {holder}", holder, 120, NOW) is not None
    assert [name for name, _ in await store.read(leases.held_by_ended, NOW)] == ["list of ended.1", "list of ended.2"]
    await store.write(leases.shorten_ended, NOW)
    assert await store.read(leases.held_by_ended, NOW) == []
    assert await store.read(leases.held, NOW + 10_001) == [("list of one", "one")]


async def test_a_process_of_this_machine_that_runs_keeps_its_claim(store: Store) -> None:
    holder = leases.new_holder()
    assert not leases.is_gone(holder)
    assert len(leases.BRIEF + holder) <= 64
    assert await take(store, holder) is not None
    assert await store.read(leases.held_by_ended, NOW) == []
    assert await take(store, "two", NOW + 119_999) is None


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
