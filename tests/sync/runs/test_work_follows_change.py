"""What a run costs follows what changed, not how large the audience is; also right after the sync made all of it.

Work is counted in rows that the database reads (``tests/support/work.py``), on tables of twelve and of fifty thousand
people, loaded in bulk: with statistics, and as they are right after, when MariaDB takes the tables to be empty.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from civiapi.store.schema.tables import subscription_history
from sync.audience import Audience
from sync.reconcile.facts import ECHO_METHOD
from sync.store import balance, daily
from sync.store.runs import checkpoints
from sync.store.runs.own_rows import CONTACT, HISTORY, note_rows
from tests.support.crowd import (
    FIRST_ID,
    WATCHED,
    add_contacts,
    add_members,
    add_strangers,
    add_to_group,
    analyze,
    happenings,
    remake_indexes,
)
from tests.support.databases import an_empty_database, chosen
from tests.support.linked_site import GROUP, Site, a_site, sync_settings
from tests.support.work import Work, counted_work

SMALL, LARGE = 12_500, 50_000
A_SECOND = 2_500
"""Contacts that the sync creates in a second."""

GROWTH = 1.5
"""How much more work many more people may be: the issue's bar."""

SOME_ROWS = 500
"""Rows that may be read besides, where few are: a few for each second in which the sync created contacts."""


def _first_sync_just_ended(conn: Connection, audience: Audience, size: int) -> None:
    """What a first sync of new members leaves, a few seconds later."""
    list_id, clock, ended = audience.list_id, audience.clock, datetime.now(UTC) - timedelta(seconds=2)
    if conn.dialect.name != "sqlite":  # no statistics until somebody asks for them
        for name in sorted(WATCHED):
            conn.exec_driver_sql(f"ALTER TABLE {name} STATS_AUTO_RECALC = 0")
    history_id = conn.execute(select(func.max(subscription_history.c.id))).scalar() or 0
    people = range(FIRST_ID, FIRST_ID + size)
    began = ended - timedelta(seconds=size // A_SECOND + 1)
    for second, first in enumerate(range(people[0], people[-1] + 1, A_SECOND)):
        part, at = range(first, first + A_SECOND), clock.write(began + timedelta(seconds=second))
        add_contacts(conn, part, at)
        note_rows(conn, list_id, CONTACT, part, at)
    add_to_group(conn, people, clock.write(ended), method=ECHO_METHOD)
    note_rows(conn, list_id, HISTORY, range(history_id + 1, history_id + size + 1), clock.write(ended))
    add_members(conn, people, list_id, clock.write(began))
    strangers = range(people[-1] + 1, people[-1] + 1 + size // 4)
    add_strangers(conn, strangers, list_id, clock.write(began), first_row=size + 1)
    checkpoint = checkpoints.load(conn, list_id)
    checkpoint.last_sync_time, checkpoint.last_started = clock.write(began), int(began.timestamp())
    checkpoint.history_id = history_id
    checkpoints.save(conn, checkpoint)
    balance.keep_count(conn, list_id, GROUP, balance.take_count(conn, list_id, GROUP, 0))
    daily.note_ends(conn, audience, ended, size, size)


@pytest.fixture(params=["no statistics", "no statistics, indexes backwards", "statistics"])
async def crowds(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Site, Site]]:
    """A small and a large audience, each in a database of its own."""
    async with AsyncExitStack() as stack:
        sites = []
        for size in (SMALL, LARGE):
            (folder := tmp_path / f"{size}").mkdir()
            url = stack.enter_context(an_empty_database(chosen(), folder))
            site = await stack.enter_async_context(a_site(url, settings=sync_settings(overlap_seconds=0)))
            if chosen() == "sqlite":
                await site.store.write(partial(remake_indexes, backwards="backwards" in request.param))
            await site.store.write(_first_sync_just_ended, await site.audience(), size)
            if request.param == "statistics":
                await site.store.write(analyze)
            sites.append(site)
        yield sites[0], sites[1]


async def work_of_a_run(site: Site) -> Work:
    """The work of a run, and of all that follows from it."""
    with counted_work() as work:
        await site.sync()
    return work


def assert_no_growth(small: Work, large: Work) -> None:
    grown = [
        f"{rows} rows, {small.rows[one]} before: {one}"
        for one, rows in large.rows.items()
        if rows > GROWTH * small.rows[one] + SOME_ROWS
    ]
    assert not grown, "\n".join(grown)
    assert large.total <= GROWTH * small.total + SOME_ROWS, (
        f"{small.total} rows, then {large.total}:\n{large.largest()}"
    )


async def test_a_run_is_as_much_work_in_a_large_audience_as_in_a_small_one(crowds: tuple[Site, Site]) -> None:
    right_after = [await work_of_a_run(site) for site in crowds]
    assert_no_growth(*right_after)
    assert right_after[1].total < SMALL, "nothing is looked at again"
    for site in crowds:
        await happenings(site, range(FIRST_ID, FIRST_ID + SMALL))
    assert_no_growth(*[await work_of_a_run(site) for site in crowds])
