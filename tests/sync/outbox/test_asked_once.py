"""A request to confirm is an e-mail (contract/mailchimp.md 6): once it was carried out it is never sent again, whatever
became of its result. Each person here unsubscribed at Mailchimp and was then added to the group."""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import update as change

from sync.mailchimp.errors import Unreachable
from sync.mailchimp.wire import BatchOperation
from sync.outbox.cancel import abort_sync
from sync.store.tables import batch
from tests.support.databases import database_at
from tests.support.linked_site import TREES_GROUP, Site, a_site, subscribing
from tests.support.small_changes import TREES, with_trees

ADA = "ada@example.org"


class Posted:
    """A site whose batches run by hand, with the statuses that each POST of a batch asked for, in order."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.statuses: list[str] = []
        self._submit = site.client.submit_batch
        site.client.submit_batch = self._note  # type: ignore[method-assign]

    async def _note(self, operations: Any, **more: Any) -> Any:
        self.statuses += [str((one.body or {}).get("status")) for one in operations]
        return await self._submit(operations, **more)

    @property
    def account(self) -> Any:
        return self.site.emulator.world.default_account

    async def asked_ada(self) -> int:
        """She left, was added to the group, and her request to confirm is in flight; her contact."""
        site = self.site
        site.joined(ADA)
        site.emulator.person("unsubscribe", ADA)
        site.emulator.advance(2)
        contact_id = await site.person(ADA, at=datetime.now(UTC) + timedelta(seconds=1))
        await site.run(since="ever")
        site.emulator.run_batches()
        await self.look()
        assert self.statuses == ["subscribed", "pending"]
        return contact_id

    def newest(self) -> Any:
        return list(self.account.batches.values())[-1]

    async def look(self) -> bool:
        return await self.site.watcher.wait_until_idle([self.site.list_id], 0)

    async def see_through(self) -> None:
        for _ in range(10):
            self.site.emulator.run_batches()
            if await self.look():
                return
        pytest.fail("it does not come to rest")


@pytest.fixture
async def posted(tmp_path: Path) -> AsyncIterator[Posted]:
    async with a_site(database_at(tmp_path / "site.sqlite"), auto_batches=False) as site:
        yield Posted(site)


async def titles(site: Site) -> list[str]:
    return [orjson.loads(one.error_response)["title"] if one.error_response else "" for one in await site.updates()]


def cut(posted: Posted) -> None:
    posted.newest().archive = posted.newest().archive[:-30]


def without_a_file(posted: Posted) -> None:
    packed = io.BytesIO()
    tarfile.open(fileobj=packed, mode="w").close()
    posted.newest().archive = gzip.compress(packed.getvalue())


def gone(posted: Posted) -> None:
    del posted.account.batches[posted.newest().id]


def expired(posted: Posted) -> None:
    posted.site.emulator.advance(7 * 24 * 3600 + 1)


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(cut, id="The archive breaks off."),
        pytest.param(without_a_file, id="The archive does not mention the operation."),
        pytest.param(gone, id="The batch is gone at Mailchimp."),
        pytest.param(expired, id="The results have expired."),
    ],
)
async def test_a_request_whose_result_is_lost_is_found_carried_out(
    posted: Posted, lose: Callable[[Posted], None]
) -> None:
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    lose(posted)
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    assert site.at_mailchimp(ADA) == "pending"
    assert await titles(site) == ["Member In Compliance State", ""]
    row = await site.row(ADA)
    assert (row.mailchimp_status, row.sync_status) == ("pending", "ok")
    await site.run(since="ever")
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]


async def test_somebody_who_confirmed_before_it_was_looked_up_is_not_asked_again(posted: Posted) -> None:
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    cut(posted)
    site.emulator.person("confirm", ADA)
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    row = await site.row(ADA)
    assert (row.mailchimp_status, row.sync_status) == ("subscribed", "ok")


async def test_a_request_that_was_not_carried_out_is_sent_again_once(posted: Posted) -> None:
    site = posted.site
    await posted.asked_ada()
    gone(posted)
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending", "pending"]
    assert site.at_mailchimp(ADA) == "pending"
    assert (await site.row(ADA)).sync_status == "ok"


async def test_nothing_is_sent_while_nobody_can_say_whether_it_was_carried_out(posted: Posted) -> None:
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    gone(posted)
    site.emulator.add_fault("502_html", method="GET", path="/members/")
    assert not await posted.look()
    assert not await posted.look()
    site.emulator.clear_faults()
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    assert (await site.row(ADA)).sync_status == "ok"


async def test_a_process_killed_after_the_post_leaves_a_request_that_the_next_one_finds_carried_out(
    posted: Posted,
) -> None:
    """The batch itself is not found any more."""
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    posted.account.batches.clear()
    killed = change(batch).where(batch.c.response_processed == 0).values(status="submitting", mailchimp_batch_id=None)
    await site.store.write(lambda conn: conn.execute(killed) and None)
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    assert await titles(site) == ["Member In Compliance State", ""]
    assert (await site.row(ADA)).sync_status == "ok"


async def test_a_post_whose_answer_is_lost_is_not_repeated_for_who_was_asked_by_it(posted: Posted) -> None:
    """The batch ran and was deleted before it was looked for."""
    site = posted.site
    submit = site.client.submit_batch

    async def lost(operations: list[BatchOperation], **more: Any) -> Any:
        sent = await submit(operations, **more)
        if "pending" not in posted.statuses:
            return sent
        site.emulator.run_batches()
        gone(posted)
        raise Unreachable("POST /batches", "the answer is lost", outcome_unknown=True)

    site.client.submit_batch = lost  # type: ignore[method-assign]
    await posted.asked_ada()
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    assert (await site.row(ADA)).sync_status == "ok"


async def test_a_sync_that_is_aborted_meanwhile_asks_nobody_again(posted: Posted) -> None:
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    await abort_sync(site.ctx, await site.audience())
    for _ in range(2):
        await site.run(since="ever")
        await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    row = await site.row(ADA)
    assert (row.mailchimp_status, row.sync_status) == ("pending", "ok")


async def test_an_update_that_a_processed_batch_left_open_is_found_carried_out(posted: Posted) -> None:
    """As another program may leave it."""
    site = posted.site
    await posted.asked_ada()
    site.emulator.run_batches()
    processed = change(batch).values(response_processed=2)
    await site.store.write(lambda conn: conn.execute(processed) and None)
    await site.run(since="ever")
    site.watcher = type(site.watcher)(site.ctx)
    await posted.see_through()
    assert posted.statuses == ["subscribed", "pending"]
    assert (await site.row(ADA)).sync_status == "ok"


@pytest.mark.parametrize(
    "lose",
    [
        pytest.param(cut, id="The result of the first is lost."),
        pytest.param(lambda _: None, id="The result of the first is known."),
    ],
)
async def test_a_newer_update_behind_a_request_asks_nobody_again(
    posted: Posted, lose: Callable[[Posted], None]
) -> None:
    """What else it was to do is left to the next sync."""
    site = posted.site
    await with_trees(site)
    contact_id = await posted.asked_ada()
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=datetime.now(UTC) + timedelta(seconds=5))
    await site.owe((await site.row(ADA)).id, subscribing(ADA, interests={TREES: True}))
    site.emulator.run_batches()
    lose(posted)
    await posted.see_through()
    await site.run(since="ever")
    await posted.see_through()
    assert posted.statuses.count("pending") == 1
    member = site.emulator.member(ADA)
    assert member is not None
    assert (member.status, member.interests) == ("pending", {TREES})
    assert (await site.row(ADA)).sync_status == "ok"
