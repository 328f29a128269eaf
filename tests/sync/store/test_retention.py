"""Retention: what is older than the settings keep is deleted, but never what a sync or a health check still reads."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, insert, select
from sqlalchemy import update as change

from civiapi.settings import RetentionSettings, Settings
from civiapi.store.engine import Store
from civiapi.store.schema.tables import job_log
from sync.connections.clients import Clients
from sync.service import SyncService
from sync.store.batches import PROCESSED
from sync.store.retention import AT_ONCE, RULES
from sync.store.tables import batch, cache, event, run_change, run_log, update
from tests.support.databases import database_at
from tests.support.linked_site import a_site, subscribing, unsubscribing

ADA = "ada@example.org"
LONG_AGO, LATELY = "2020-01-01 00:00:00", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
ALL = RetentionSettings(updates_days=30, batches_days=30, runs_days=30, events_days=30, job_logs_days=30)


def fill(conn: Connection) -> None:
    """Two people with updates in an old and a new batch, runs of two audiences, events, and entries of two jobs."""
    for row in (1, 2):
        conn.execute(insert(cache).values(id=row, mailchimp_list_id="a1", sync_status="ok"))
    for row, done in ((1, LONG_AGO), (2, LATELY), (3, LONG_AGO)):
        values = {"mailchimp_list_id": "a1", "completed_at": done, "response_processed": PROCESSED}
        conn.execute(insert(batch).values(id=row, **values))
    for row, of, sent, completed in (
        (1, 1, 1, 1),
        (2, 2, 1, 1),
        (3, 1, 1, 0),
        (4, 1, 1, 1),
        (5, 1, 2, 1),
        (6, 1, 2, 1),
    ):
        values = {"mailchimpsync_cache_id": of, "mailchimpsync_batch_id": sent, "completed": completed, "data": "{}"}
        conn.execute(insert(update).values(id=row, **values))
    old, new = 1_577_836_800, int(datetime.now(UTC).timestamp())
    for row, list_id, ended in ((1, "a1", old), (2, "a1", old), (3, "a1", new), (4, "b2", old), (5, "a1", None)):
        conn.execute(insert(run_log).values(id=row, list_id=list_id, started_s=old, ended_s=ended))
    for row, at_s in ((1, old), (2, old), (3, new)):
        values = {"list_id": "a1", "kind": "abort", "author": "", "sentence": "It was aborted."}
        conn.execute(insert(event).values(id=row, at_ms=at_s * 1000, **values))
    for row, of in ((1, 1), (2, 1), (3, 3), (4, 4)):
        conn.execute(insert(run_change).values(id=row, run_id=of, kind="join_group"))
    for row, job, at in ((1, 1, LONG_AGO), (2, None, LONG_AGO), (3, None, LONG_AGO), (4, 1, LONG_AGO), (5, 1, LATELY)):
        conn.execute(insert(job_log).values(id=row, domain_id=1, job_id=job, run_time=at, name="j"))


async def left(store: Store, table: Table) -> list[int]:
    return await store.read(lambda conn: list(conn.execute(select(table.c.id).order_by(table.c.id)).scalars()))


def service(store: Store, kept: RetentionSettings) -> SyncService:
    return SyncService(store, Clients(), Settings(retention=kept))


async def test_what_is_old_and_no_longer_read_is_deleted(store: Store) -> None:
    await store.write(fill)
    assert await service(store, ALL).clean_up() == {
        "updates": 2,
        "batches": 1,
        "run_changes": 2,
        "runs": 2,
        "events": 2,
        "job_logs": 3,
    }
    # 2 is the newest of its row, 3 is not completed, 5 and 6 are of a new batch
    assert await left(store, update) == [2, 3, 5, 6]
    assert await left(store, batch) == [1, 2]  # two updates of the first stay
    assert await left(store, run_log) == [3, 4, 5]  # 4 is the last of its audience
    assert await left(store, event) == [3]
    assert await left(store, run_change) == [3, 4]  # those of runs that stay
    assert await left(store, job_log) == [3, 5]  # 3 is the newest without a job


async def test_a_batch_that_a_sync_has_sent_and_processed_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    """None ever was: what told that one is done was the number of one that is being processed."""
    async with a_site(database_at(tmp_path / "site.sqlite")) as site:
        row_id = await site.new_row(ADA)
        for wanted in (subscribing(ADA), unsubscribing(ADA)):
            await site.owe(row_id, wanted)
            await site.send()
        assert len(await site.batches()) == 2
        await site.store.write(lambda conn: conn.execute(change(batch).values(completed_at=LONG_AGO)) and None)
        deleted = await SyncService(site.store, Clients(), Settings(retention=ALL)).clean_up()
        assert (deleted["updates"], deleted["batches"]) == (1, 1), "the newest of a person stays, with its batch"


@pytest.mark.parametrize("name", RULES)
async def test_nothing_is_deleted_that_is_kept_for_ever(store: Store, name: str) -> None:
    await store.write(fill)
    table = RULES[name].table
    before = await left(store, table)
    kept = RULES[name].setting or name
    days = {rule.setting or other for other, rule in RULES.items()}
    others: Any = {f"{other}_days": 30.0 for other in days if other != kept} | {f"{kept}_days": 0.0}
    assert name not in await service(store, RetentionSettings(**others)).clean_up()
    assert await left(store, table) == before


async def test_many_rows_are_deleted_in_small_pieces(store: Store) -> None:
    count = AT_ONCE * 2 + 5
    rows = [{"domain_id": 1, "job_id": 1, "run_time": LONG_AGO, "name": "j"} for _ in range(count)]
    await store.write(lambda conn: conn.execute(insert(job_log), rows) and None)
    assert (await service(store, ALL).clean_up())["job_logs"] == count - 1


async def test_of_several_processes_one_cleans_up_once_a_day(store: Store) -> None:
    await store.write(fill)
    await service(store, ALL).clean_up_daily()
    await store.write(
        lambda conn: conn.execute(insert(job_log).values(domain_id=1, run_time=LONG_AGO, name="j")) and None
    )
    before = await left(store, job_log)
    await service(store, ALL).clean_up_daily()
    assert await left(store, job_log) == before
