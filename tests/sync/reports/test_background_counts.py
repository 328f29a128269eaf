"""Counts of an audience that is too large to be counted whenever somebody asks."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, insert

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.leases import acquire, now_ms
from civiapi.store.schema.tables import contact, group
from sync.audience import Audience
from sync.reports import background_counts
from sync.reports.background_counts import BackgroundCounts
from sync.store import balance, tables

LIST, GROUP = "abc123", 12
AUDIENCE = Audience(LIST, GROUP, site_clock("UTC"))


@pytest.fixture
async def site(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Five members, all in the group, where three are already many; counts are due as soon as something changed, and
    one that is waited for has all the time that a busy machine takes."""
    monkeypatch.setattr(background_counts, "AT_MOST_S", 30.0)
    monkeypatch.setattr(balance, "MANY", 3)
    monkeypatch.setattr(balance, "MIN_AGE_MS", 0)
    monkeypatch.setattr(balance, "PAUSE_FACTOR", 0)
    await store.write(_fill)
    return store


def _fill(conn: Connection) -> None:
    conn.execute(insert(group).values(id=GROUP, name="news", title="News"))
    conn.execute(insert(contact), [{"id": number, "contact_type": "Individual"} for number in range(101, 106)])
    conn.execute(
        insert(tables.cache),
        [
            {
                "mailchimp_list_id": LIST,
                "civicrm_contact_id": number,
                "mailchimp_status": "subscribed",
                "sync_status": "ok",
            }
            for number in range(101, 106)
        ],
    )
    set_status(conn, GROUP, list(range(101, 106)), "Added", method="Admin", at="2026-01-01 00:00:00")


def stores_later(store: Store, stored: asyncio.Event) -> Any:
    """A store whose writes wait for *stored*: a count that takes long."""

    async def write(*unit: Any) -> Any:
        await stored.wait()
        return await store.write(*unit)

    return SimpleNamespace(read=store.read, write=write)


async def in_group(store: Store) -> int:
    return (await store.read(balance.read_balance, LIST, GROUP)).subscribed_at_civicrm


async def leave(store: Store, contact_id: int) -> None:
    await store.write(set_status, GROUP, [contact_id], "Removed", method="Admin", at="2026-01-02 00:00:00")


async def counted(store: Store) -> None:
    counts = BackgroundCounts(store)
    await counts.refresh([AUDIENCE])
    await counts.finish()


async def test_a_large_audience_is_shown_as_last_counted_until_it_is_counted_again(site: Store) -> None:
    assert await in_group(site) == 5
    await counted(site)
    await leave(site, 101)
    assert await in_group(site) == 5
    await counted(site)
    assert await in_group(site) == 4


async def test_whoever_asks_at_rest_has_the_numbers_of_now(site: Store) -> None:
    await counted(site)
    await leave(site, 101)
    await BackgroundCounts(site).catch_up([AUDIENCE])
    assert await in_group(site) == 4


@pytest.mark.parametrize(
    ("took_ms", "ask"),
    [
        pytest.param(60_000, lambda counts: counts.catch_up([AUDIENCE]), id="who asks for the status"),
        pytest.param(60_001, lambda counts: counts.after_run(AUDIENCE, seconds=600), id="a run of ten times as long"),
    ],
)
async def test_nobody_waits_for_a_count_that_takes_longer_than_they_would(
    site: Store, took_ms: int, ask: Callable[[BackgroundCounts], Awaitable[None]]
) -> None:
    await counted(site)
    await site.write(lambda conn: conn.execute(tables.balance.update().values(took_ms=took_ms)) and None)
    await leave(site, 101)
    stored = asyncio.Event()
    counts = BackgroundCounts(stores_later(site, stored))
    async with asyncio.timeout(20):
        await ask(counts)
    assert await in_group(site) == 5
    stored.set()
    await counts.finish()
    assert await in_group(site) == 4, "it was begun meanwhile"


async def test_after_the_first_run_of_a_large_audience_its_count_is_there(site: Store) -> None:
    await BackgroundCounts(site).after_run(AUDIENCE, seconds=600)
    assert await site.read(balance.has_count, LIST)


async def test_after_a_run_the_numbers_are_those_of_now_however_long_counting_takes(site: Store) -> None:
    await counted(site)
    await site.write(lambda conn: conn.execute(tables.balance.update().values(took_ms=1000)) and None)
    await leave(site, 101)
    await BackgroundCounts(site).after_run(AUDIENCE, seconds=600)
    assert await in_group(site) == 4


async def test_nobody_waits_for_a_count_while_somebody_is_at_work(site: Store) -> None:
    await counted(site)
    await leave(site, 101)
    await site.write(acquire, LIST, "somebody", 60.0, now_ms())
    stored = asyncio.Event()
    counts = BackgroundCounts(stores_later(site, stored))
    async with asyncio.timeout(20):
        await counts.catch_up([AUDIENCE])
    assert await in_group(site) == 5
    stored.set()
    await counts.finish()
    assert await in_group(site) == 4, "it was begun meanwhile"


async def test_a_small_audience_is_counted_whenever_asked(site: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "MANY", 5)
    await counted(site)
    await leave(site, 101)
    assert await in_group(site) == 4
    assert not await site.read(balance.has_count, LIST)


async def test_a_count_is_out_of_date_once_somebody_joins_or_leaves_or_a_run_begins(site: Store) -> None:
    async def is_stale() -> bool:
        return await site.read(balance.is_stale, LIST, GROUP, now_ms())

    assert await is_stale()
    await counted(site)
    assert not await is_stale()
    await leave(site, 101)
    assert await is_stale()
    await counted(site)
    assert not await is_stale()
    await site.write(acquire, LIST, "somebody", 60.0, now_ms())
    assert await is_stale()
    await counted(site)
    assert await is_stale(), "while a run goes on, every count is"


async def test_a_count_of_another_group_is_not_shown(site: Store) -> None:
    await counted(site)
    other = await site.read(balance.read_balance, LIST, GROUP + 1)
    assert other.subscribed_at_civicrm == 0


async def test_the_little_that_is_owed_is_always_counted(site: Store) -> None:
    await counted(site)
    await site.write(
        lambda conn: conn.execute(insert(tables.update).values(mailchimpsync_cache_id=_first(conn), data="{}")) and None
    )
    assert (await site.read(balance.read_balance, LIST, GROUP)).mailchimp_updates_pending == 1


async def test_counting_notes_the_day(site: Store) -> None:
    await counted(site)
    days = await site.read(lambda conn: conn.execute(tables.daily.select()).all())
    assert [(day.mailchimp, day.civicrm) for day in days] == [(5, 5)]


def _first(conn: Connection) -> int:
    return int(conn.execute(tables.cache.select().order_by(tables.cache.c.id)).first().id)  # type: ignore[union-attr]
