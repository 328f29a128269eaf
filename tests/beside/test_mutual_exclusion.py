"""One of the two works on an audience at a time: the lock that the extension goes by, kept and honoured."""

import asyncio

import pytest

from civiapi.store import leases
from sync import leases as holding
from sync.outbox.cancel import abort_sync
from sync.outbox.submit import submit_if_free
from sync.runs.run import Run, RunRequest, Step
from sync.store.runs import checkpoints
from tests.support.extension import KNOWN_STAGES
from tests.support.linked_site import Site
from tests.support.their_site import Theirs

READY = "readyToFetch"


async def test_while_a_sync_of_ours_runs_the_extension_finds_its_lock_busy_and_does_nothing(
    theirs: Theirs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, str]] = []

    async def look(site: Site) -> None:
        began = await asyncio.to_thread(theirs.extension.starts)
        seen.append((began, theirs.extension.status()["log"][0]["message"]))

    async with theirs.taken_over() as site:
        original = site.client.iter_member_pages

        async def with_a_look(*args: object, **more: object):  # type: ignore[no-untyped-def]
            await look(site)
            async for page in original(*args, **more):  # type: ignore[arg-type]
                yield page

        monkeypatch.setattr(site.client, "iter_member_pages", with_a_look)
        theirs.extension.store(READY)
        assert (await site.run()).outcome == "finished"
    assert [began for began, _ in seen] == [False]
    assert seen[0][1].startswith("Fetching members changed since")
    assert theirs.extension.lock() == READY
    assert theirs.extension.starts()


async def test_a_sync_is_answered_busy_while_the_extension_logs(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.is_at_work(minutes_ago=2)
        outcome = await site.run()
        assert (outcome.outcome, (await site.status())["locks"]) == ("busy", {"fetchAndReconcile": "busy"})
        assert await submit_if_free(site.ctx, await site.audience()) == 0
        assert theirs.extension.lock() == "busy"
        assert (await site.run()).outcome == "busy"  # our own line is no sign of its life, and none of ours


async def test_an_extension_that_was_killed_is_taken_over_and_the_log_says_so(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.is_at_work(minutes_ago=31)
        seen = await site.store.read(checkpoints.load, theirs.list_id)
        assert seen.is_held_elsewhere
        outcome = await site.run()
        assert outcome.outcome == "finished"
        assert any("taken over" in one["message"] for one in (await site.status())["log"])
    assert theirs.extension.starts()


async def test_the_minutes_after_which_it_counts_as_killed_are_a_setting(theirs: Theirs) -> None:
    async with theirs.taken_over(crashed_minutes=5) as site:
        theirs.extension.is_at_work(minutes_ago=6)
        assert (await site.run()).outcome == "finished"


async def test_a_stage_that_the_extension_does_not_know_is_never_stored_at_rest(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.store(READY)
        await site.run(stop_on="readyToProcessEmailChanges")
        assert (await site.status())["locks"] == {"fetchAndReconcile": "readyToProcessEmailChanges"}
        assert theirs.extension.lock() == "readyToCleanUpDuplicates"
        assert theirs.extension.starts()
        ours = await site.store.read(checkpoints.load, theirs.list_id)
        assert ours.stage == "readyToProcessEmailChanges"
        assert (await site.run()).outcome == "finished"


async def test_the_lock_of_a_sync_that_was_killed_is_freed_by_another_process(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.store(READY)
        await _be_killed(site)
        assert theirs.extension.lock() == "busy"
        await site.watcher.start()
        async with asyncio.timeout(10):
            while theirs.extension.lock() == "busy":  # noqa: ASYNC110  the lock is in the database
                await asyncio.sleep(0.05)
        await site.watcher.stop()
        assert theirs.extension.lock() in KNOWN_STAGES
        assert (await site.run()).outcome == "finished"


async def test_a_sync_that_was_killed_is_no_extension_at_work(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.store(READY)
        await _be_killed(site)
        assert not theirs.extension.starts()  # whose line in the log changes nothing
        assert (await site.run()).outcome == "finished"
    assert theirs.extension.lock() == READY


async def test_aborting_frees_the_lock(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        await _be_killed(site, seconds=60)
        await abort_sync(site.ctx, await site.audience())
    assert theirs.extension.lock() == READY


async def test_where_the_extension_worked_on_in_between_its_place_counts(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.store(READY)
        await site.run(stop_on="readyToReconcileQueue")
        theirs.extension.store("readyToSubmitUpdates", "reconcileQueue: done")
        ours = await site.store.read(checkpoints.load, theirs.list_id)
        assert (ours.stage, ours.cursor, ours.parameters) == ("readyToSubmitUpdates", None, None)


async def _be_killed(site: Site, *, seconds: float = 0.0) -> None:
    """Hold the lease as a run does, and never release it; it expires after so many seconds."""
    lease, _ = await site.store.write(holding._try_acquire, site.ctx, site.list_id, "killed", 60.0, None)
    assert lease is not None
    checkpoint = await site.store.read(checkpoints.load, site.list_id)
    run = Run(site.ctx, await site.audience(), lease, RunRequest(), checkpoint)
    await run.commit(_log_a_line)
    await site.store.write(leases.renew, lease, seconds, leases.now_ms())


def _log_a_line(_conn: object, step: Step) -> None:
    step.log("Half-way.")
