"""Traps of batches (contract/mailchimp.md 7): late ends, archives that say too little, results that are gone.

What a lost answer to a submission leaves behind is in ``test_batches.py``, what each kind of result means in
``test_results.py``; ``tests/reliability/traps.py`` lists all traps with the tests that meet them.
"""

import gzip
import io
import tarfile
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from sync.mailchimp import client
from sync.mailchimp.archive import read_in_thread
from sync.mailchimp.wire import subscriber_hash
from sync.outbox.watcher import MAX_GAP, Watcher
from sync.service import SyncService
from tests.support.linked_site import Site, a_site, sync_settings
from tests.support.member_calls import put_member_operation

ADA, BOB, CY = "ada@example.org", "bob@example.org", "cy@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Batches wait until they are run by hand."""
    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}", sockets=True, auto_batches=False) as opened:
        yield opened


def an_archive(*files: bytes) -> bytes:
    """An archive as Mailchimp packs it: a directory first, then files with names nobody can foresee."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for number, content in enumerate(files):
            entry = tarfile.TarInfo(f"./5d1f2e3a{number:02x}.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue())


async def sent_and_run(site: Site, *addresses: str) -> Any:
    """A batch that subscribes these, carried out; as the emulator keeps it."""
    await site.owe_subscribing(*addresses)
    await site.submit()
    site.emulator.run_batches()
    [batch] = site.emulator.world.default_account.batches.values()
    return batch


def results_of(batch: Any) -> list[dict[str, Any]]:
    """What the archive of a batch tells, operation by operation."""
    found: list[dict[str, Any]] = []
    with tarfile.open(fileobj=io.BytesIO(batch.archive)) as tar:
        for entry in tar:
            file = tar.extractfile(entry)
            found += orjson.loads((file.read() if file else b"") or b"[]")
    return found


def downloads(site: Site, batch: Any) -> int:
    """How often the results of a finished batch were downloaded: each time it is read for a new link."""
    asked = [one for one in site.emulator.requests if one.method == "GET" and one.path.endswith(f"/batches/{batch.id}")]
    return len(asked) - 1  # once to see that it is finished


async def all_is_well(site: Site, *addresses: str) -> None:
    assert [site.at_mailchimp(one) for one in addresses] == ["subscribed"] * len(addresses)
    assert [row.sync_status for row in await site.rows()] == ["ok"] * len(addresses)
    assert [one.error_response for one in await site.updates()] == [None] * len(addresses)
    assert len(site.emulator.audience().members) == len(addresses)


class TestTheEnd:
    async def test_a_batch_with_every_operation_done_is_not_taken_for_finished(self, site: Site) -> None:
        """Seconds, and once seven hours, may pass between the last operation and the results."""
        site.emulator.configure(batch_stuck_finalizing=True)
        service = SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02))
        await sent_and_run(site, ADA, BOB)
        assert not await service.wait_until_idle(seconds=0)
        [batch] = await site.batches()
        assert (batch.status, batch.finished_operations, batch.total_operations) == ("finalizing", 2, 2)
        assert (batch.response_processed, [one.completed for one in await site.updates()]) == (0, [0, 0])
        site.emulator.configure(batch_stuck_finalizing=False)
        site.emulator.run_batches()
        await site.settle()
        await all_is_well(site, ADA, BOB)

    async def test_another_program_s_batch_that_takes_hours_delays_ours_and_loses_nothing(self, site: Site) -> None:
        site.emulator.configure(auto_batches=True, batch_ops_per_second=0.001)
        theirs = put_member_operation(site.list_id, subscriber_hash(CY), {"status_if_new": "subscribed"}, "theirs-1")
        await site.client.submit_batch([theirs])
        await site.owe_subscribing(ADA)
        await site.submit()
        assert not await site.watcher.wait_until_idle([site.list_id], 0)
        assert site.at_mailchimp(ADA) is None  # one batch of an account runs at a time
        site.emulator.configure(batch_ops_per_second=0.0)
        await site.settle()
        await all_is_well(site, ADA)

    async def test_a_batch_that_takes_long_is_asked_about_at_growing_gaps_of_five_minutes_at_most(
        self, site: Site
    ) -> None:
        """Two hours of waiting, on a clock of our own."""
        hours = Hours()
        site.ctx = type(site.ctx)(site.store, site.clients, sync_settings(poll_seconds=5), holder="tests")
        await site.owe_subscribing(ADA)
        await site.submit()
        watcher = Watcher(site.ctx, clock=hours.monotonic)
        site.emulator.clear_requests()
        asked: list[float] = []
        while hours.now < 2 * 3600:
            await watcher.check()
            if site.emulator.requests:
                asked.append(hours.now)
                site.emulator.clear_requests()
            hours.now += watcher.seconds_until_due()
        gaps = [later - earlier for earlier, later in pairwise(asked)]
        assert gaps == sorted(gaps)
        assert (gaps[0], gaps[-1]) == (5, MAX_GAP)
        assert len(asked) < 40


class Hours:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class TestArchives:
    """Each of these was carried out by Mailchimp in full; only its archive says too little."""

    async def told(self, site: Site, batch: Any, files: Sequence[bytes]) -> None:
        batch.archive = an_archive(*files)
        await site.settle_with_batches()
        await all_is_well(site, ADA, BOB)

    async def test_an_empty_result_file_among_others_is_no_harm(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        await self.told(site, batch, [b"", orjson.dumps(results_of(batch)), b""])
        assert site.posted_batches() == 1

    async def test_result_files_that_are_all_empty_have_everything_sent_again(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        await self.told(site, batch, [b"", b"[]"])
        assert site.posted_batches() == 2

    async def test_an_archive_without_any_file_has_everything_sent_again(self, site: Site) -> None:
        await self.told(site, await sent_and_run(site, ADA, BOB), [])
        assert site.posted_batches() == 2

    async def test_an_operation_missing_from_the_results_is_sent_again_alone(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        await self.told(site, batch, [orjson.dumps(results_of(batch)[:1])])
        assert [one.total_operations for one in await site.batches()] == [2, 1]

    async def test_a_result_without_an_operation_id_is_nobody_s_and_its_operation_is_sent_again(
        self, site: Site
    ) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        first, second = results_of(batch)
        await self.told(site, batch, [orjson.dumps([first, {**second, "operation_id": None}])])
        assert [one.total_operations for one in await site.batches()] == [2, 1]

    async def test_results_in_another_order_and_split_anywhere_find_their_rows(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        await self.told(site, batch, [orjson.dumps([one]) for one in reversed(results_of(batch))])
        assert site.posted_batches() == 1

    async def test_a_result_told_twice_counts_once(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        await self.told(site, batch, [orjson.dumps(results_of(batch)), orjson.dumps(results_of(batch))])
        assert site.posted_batches() == 1

    async def test_results_of_operations_that_are_not_ours_are_passed_over(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        foreign = {"status_code": 400, "operation_id": "theirs-1", "response": '{"title":"Bad","status":400}'}
        await self.told(site, batch, [orjson.dumps([foreign, *results_of(batch)])])

    async def test_what_somebody_s_tools_left_beside_the_results_is_no_harm(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in (("._5d.json", b"\0\5\x16\7Mac OS X"), ("5d.json", orjson.dumps(results_of(batch)))):
                entry = tarfile.TarInfo(f"./{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
            latest = tarfile.TarInfo("./latest.json")
            latest.type, latest.linkname = tarfile.SYMTYPE, "5d.json"
            tar.addfile(latest)
        batch.archive = gzip.compress(packed.getvalue())
        await site.settle_with_batches()
        await all_is_well(site, ADA, BOB)
        assert (site.posted_batches(), downloads(site, batch)) == (1, 1)

    async def test_an_archive_that_breaks_off_is_downloaded_again_by_a_new_link(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        whole, batch.archive = batch.archive, batch.archive[:-30]
        find = read_in_thread

        def mended(*args: Any, **more: Any) -> Any:
            batch.archive = whole  # for the next download
            return find(*args, **more)

        monkeypatch.setattr(client, "read_in_thread", mended)
        await site.settle_with_batches()
        await all_is_well(site, ADA, BOB)
        assert (site.posted_batches(), downloads(site, batch)) == (1, 2)

    async def test_an_archive_that_always_breaks_off_has_everything_sent_again(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        batch.archive = batch.archive[:-30]
        await site.settle_with_batches()
        await all_is_well(site, ADA, BOB)
        assert (site.posted_batches(), downloads(site, batch)) == (2, 2)  # of three: tests retry once

    async def test_a_download_that_answers_html_is_tried_again_and_then_read(self, site: Site) -> None:
        batch = await sent_and_run(site, ADA, BOB)
        whole, batch.archive = batch.archive, b"<html>Bad gateway</html>"
        await site.watcher.wait_until_idle([site.list_id], 0)
        batch.archive = whole
        await site.settle_with_batches()
        await all_is_well(site, ADA, BOB)


class TestGone:
    async def test_a_batch_that_somebody_deleted_at_mailchimp_is_sent_again(self, site: Site) -> None:
        await sent_and_run(site, ADA)
        [row] = await site.batches()
        await site.client.delete_batch(row.mailchimp_batch_id)
        await site.settle_with_batches()
        await all_is_well(site, ADA)
        assert [one.status for one in await site.batches()] == ["expired", "finished"]

    async def test_a_server_that_slept_for_longer_than_results_last_sends_again_what_it_cannot_know(
        self, site: Site
    ) -> None:
        await sent_and_run(site, ADA, BOB)
        site.emulator.advance(7 * 24 * 3600 + 1)
        site.emulator.person("unsubscribe", BOB)
        await site.settle_with_batches()
        assert site.at_mailchimp(ADA) == "subscribed"
        assert site.at_mailchimp(BOB) != "subscribed"  # their own word came later; Mailchimp refuses ours
