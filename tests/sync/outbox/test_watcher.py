"""The watcher: it finishes what was sent, alone or beside another, and mends rows that wait for nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update as change

from civiapi.store import leases
from sync.outbox.watcher import Watcher
from sync.store.tables import batch, cache, update
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site
from tests.support.processes import a_named_process

ADA = "ada@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        yield opened


async def problems(site: Site) -> list[str]:
    """The titles of what went wrong, update by update; empty where nothing did."""
    return [orjson.loads(one.error_response)["title"] if one.error_response else "" for one in await site.updates()]


class TestTheWatcher:
    async def test_finishes_everything_without_webhooks(self, site: Site) -> None:
        await site.watcher.start()
        try:
            await site.owe_subscribing(ADA)
            await site.submit()
            site.watcher.wake()
            await until(lambda: all_completed(site))
        finally:
            await site.watcher.stop()
        assert (await site.row(ADA)).sync_status == "ok"

    async def test_stops_when_told_even_in_the_moment_it_is_woken(self, site: Site) -> None:
        """Python 3.11's wait_for swallows a cancellation that comes together with what it waited for."""
        await site.watcher.start()
        await asyncio.sleep(0.05)  # it has looked, and waits
        site.watcher.wake()
        async with asyncio.timeout(20):
            await site.watcher.stop()

    async def test_frees_what_a_process_killed_on_this_machine_held(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(leases, "ENDED_MS", 0)
        with a_named_process() as (_, name):
            held = await site.store.write(leases.acquire, site.list_id, f"{name}:0a1b", 120, leases.now_ms())
        assert held is not None
        await site.watcher.start()
        try:
            await until(lambda: is_free(site))
        finally:
            await site.watcher.stop()

    async def test_survives_mailchimp_s_bad_days(self, site: Site) -> None:
        site.emulator.add_fault("502_html", method="GET", path="/batches/", count=3)
        await site.owe_subscribing(ADA)
        await site.send()
        assert (await site.row(ADA)).sync_status == "ok"

    async def test_leaves_alone_what_a_run_left_waiting_on_purpose(self, site: Site) -> None:
        await site.person(ADA)
        await site.run(since="ever", stop_on="readyToSubmitUpdates")
        await site.settle()
        assert site.posted_batches() == 0
        await site.sync()
        assert site.at_mailchimp(ADA) == "subscribed"

    async def test_two_of_them_write_results_down_once(self, site: Site) -> None:
        other = Watcher(site.ctx)
        site.emulator.configure(reject_domains=["fake.example.org"])
        await site.owe_subscribing(ADA, "x@fake.example.org")
        await site.submit()
        await site.watcher.start()
        await other.start()
        try:
            await until(lambda: all_completed(site))
        finally:
            await site.watcher.stop()
            await other.stop()
        assert await problems(site) == ["", "Invalid Resource"]

    async def test_takes_up_a_batch_that_the_extension_left_with_operations_of_its_own(self, site: Site) -> None:
        """Its operation ids are not ours, so its people are sent again: every write may be."""
        row_id = await site.new_row(ADA)
        theirs = await site.client.submit_batch([])

        def leave(conn: Any) -> None:
            made = conn.execute(batch.insert().values(mailchimp_list_id=site.list_id, mailchimp_batch_id=theirs.id))
            body = orjson.dumps({"email_address": ADA, "status": "subscribed"}).decode()
            values = {"mailchimpsync_cache_id": row_id, "mailchimpsync_batch_id": made.lastrowid, "data": body}
            conn.execute(update.insert().values(**values))

        await site.store.write(leave)
        await site.settle()
        assert site.at_mailchimp(ADA) == "subscribed"
        assert [one.completed for one in await site.updates()] == [1]

    async def test_mends_a_row_that_waits_for_nothing(self, site: Site) -> None:
        await site.new_row(ADA)
        await site.store.write(lambda conn: conn.execute(change(cache).values(sync_status="live")) and None)
        await site.settle()
        assert (await site.row(ADA)).sync_status == "todo"


async def is_free(site: Site) -> bool:
    return not await site.store.read(leases.is_held, site.list_id, leases.now_ms())


async def all_completed(site: Site) -> bool:
    return all(one.completed for one in await site.updates()) and all(
        one.response_processed == 2 for one in await site.batches()
    )


async def until(is_so: Any) -> None:
    """Wait until something is so; the test fails if that takes absurdly long."""
    async with asyncio.timeout(20):
        while not await is_so():  # noqa: ASYNC110  it becomes so in a database, which sets no events
            await asyncio.sleep(0.01)
