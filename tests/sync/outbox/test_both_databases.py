"""What is under way, on each kind of database: the promises whose statements might differ between the two."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sync.inbox.events import Inbox
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation
from sync.outbox.cancel import abort_sync
from sync.outbox.results import process_completed
from sync.outbox.watcher import Watcher
from sync.store.members.blobs import load_data
from sync.store.updates import queue_many
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site, subscribing

ADA, BOB, CY, FAKE = "ada@example.org", "bob@example.org", "cy@example.org", "x@fake.example.org"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, reject_domains=["fake.example.org"]) as opened:
            yield opened


def tags(address: str, name: str) -> MemberOperation:
    body = {"tags": [{"name": name, "status": "active"}], "is_syncing": True}
    return MemberOperation("tags", "POST", f"members/{subscriber_hash(address)}/tags", body)


async def test_updates_go_out_and_their_results_come_back(site: Site) -> None:
    site.joined(CY)
    site.emulator.person("unsubscribe", CY)
    rows = [await site.new_row(one) for one in (ADA, CY, FAKE)]
    await site.store.write(
        queue_many, [(row, subscribing(one)) for row, one in zip(rows, (ADA, CY, FAKE), strict=True)]
    )
    await site.store.write(queue_many, [(rows[0], tags(ADA, "A"))])
    await site.submit()
    await site.settle()
    assert [row.sync_status for row in await site.rows()] == ["ok", "ok", "fail"]
    assert [site.at_mailchimp(one) for one in (ADA, CY, FAKE)] == ["subscribed", "pending", None]
    assert load_data((await site.row(ADA)).civicrm_data)["tags"] == {"A": True}
    assert {one.completed for one in await site.updates()} == {1}


@pytest.mark.parametrize(
    ("who", "what", "status"),
    [
        pytest.param("admin", "archive", "archived", id="archived"),
        pytest.param("admin", "delete_permanently", None, id="deleted for good"),
        pytest.param("person", "hard_bounce", "cleaned", id="cleaned"),
        pytest.param("person", "unsubscribe", "unsubscribed", id="unsubscribed"),
    ],
)
async def test_who_leaves_mailchimp_before_the_results_of_their_batch_are_read_stays_as_they_are(
    site: Site, who: str, what: str, status: str | None
) -> None:
    site.emulator.configure(auto_batches=False)
    contact_id = await site.person(ADA, at=datetime.now(UTC) - timedelta(hours=1))
    await site.run()
    site.emulator.run_batches()
    site.emulator.advance(5)
    getattr(site.emulator, who)(what, ADA)
    await site.run()
    await site.settle_with_batches()
    await site.sync(since="ever")
    assert (site.at_mailchimp(ADA), await site.standing(contact_id)) == (status, "Removed")
    assert {row.sync_status for row in await site.rows()} == {"ok"}


async def test_results_again_leave_the_same_rows(site: Site) -> None:
    await site.owe_subscribing(ADA, FAKE)
    await site.submit()
    await site.settle()
    before = await site.snapshot()
    [one] = await site.batches()
    await process_completed(site.ctx, one.id, force=True)
    assert await site.snapshot() == before


async def test_abort_puts_everything_to_rest_and_can_be_repeated(site: Site) -> None:
    site.emulator.configure(auto_batches=False)
    await site.owe_subscribing(ADA)
    await site.submit()
    await site.owe_subscribing(BOB)
    assert [await abort_sync(site.ctx, await site.audience()) for _ in range(2)] == [2, 0]
    assert {row.sync_status for row in await site.rows()} == {"fail"}
    assert not site.emulator.world.default_account.batches


async def test_two_watchers_end_everything_once(site: Site) -> None:
    other = Watcher(site.ctx)
    await site.owe_subscribing(*(f"p{n}@example.org" for n in range(20)), FAKE)
    await site.submit()
    done = await asyncio.gather(
        site.watcher.wait_until_idle([site.list_id], 20), other.wait_until_idle([site.list_id], 20)
    )
    assert done == [True, True]
    assert [row.sync_status for row in await site.rows()] == ["ok"] * 20 + ["fail"]


async def test_the_same_event_at_the_same_moment_is_kept_once(site: Site) -> None:
    event: dict[str, Any] = {
        "type": "subscribe",
        "fired_at": "2026-01-09 10:00:00",
        "data": {"email": ADA, "list_id": site.list_id},
    }
    other = Inbox(site.ctx, site.watcher)
    kept = await asyncio.gather(*(one.receive_audience_webhook(event) for one in (site.inbox, other) * 4))
    assert (sorted(kept), len(await site.events())) == ([False] * 7 + [True], 1)


async def test_runs_results_and_events_at_the_same_time_come_to_rest_in_step(site: Site) -> None:
    people = [f"p{n}@example.org" for n in range(12)]
    for one in people[:8]:
        await site.person(one)
    site.joined(*people[6:])
    await site.watcher.start()
    await site.inbox.start()
    try:
        for n in range(4):
            site.emulator.advance(2)
            site.emulator.person("unsubscribe", people[6 + n])
            event = {
                "type": "unsubscribe",
                "fired_at": str(n),
                "data": {"email": people[6 + n], "list_id": site.list_id},
            }
            await asyncio.gather(site.run(since="ever"), site.inbox.receive_audience_webhook(event))
        async with asyncio.timeout(30):
            while "new" in [one.status for one in await site.events()]:  # noqa: ASYNC110  so in a database
                await asyncio.sleep(0.05)
    finally:
        await site.inbox.stop()
        await site.watcher.stop()
    await site.sync(since="ever")
    in_group = [await site.standing((await site.row(one)).civicrm_contact_id) == "Added" for one in people]
    assert in_group == [site.at_mailchimp(one) == "subscribed" for one in people]
    assert {row.sync_status for row in await site.rows()} == {"ok"}
