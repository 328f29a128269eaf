"""The engine: who may run, when it stops, what it says, and what it leaves behind when something goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.errors import ConstraintBroken
from civiapi.store.schema.tables import group, lease
from sync.errors import MailchimpFailed, SyncError
from sync.leases import hold_lease
from sync.runs.engine import BUSY_TEXT, run_audience
from sync.runs.run import RunRequest, StageProgress
from sync.runs.stages import STAGES as WORK
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import STAGES
from sync.store.tables import run_log
from sync.store.tables import status as status_table
from tests.support.databases import chosen, database_at, raw_sqlite, sql
from tests.support.linked_site import GROUP, Site, a_site
from tests.support.processes import a_named_process


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        opened.joined("ada@example.org")
        await opened.person("bob@example.org")
        yield opened


async def run_log_of(site: Site) -> list[Any]:
    return await site.store.read(lambda conn: list(conn.execute(select(run_log).order_by(run_log.c.id))))


def messages(status: dict[str, Any]) -> list[str]:
    return [entry["message"] for entry in status["log"]]


async def test_stages_run_in_the_documented_order() -> None:
    assert tuple(stage.name for stage in WORK) == STAGES


async def test_a_run_ends_where_it_began_and_says_what_it_did(site: Site) -> None:
    outcome = await site.run(since="ever")
    assert outcome.outcome == "finished"
    assert (await site.status())["locks"] == {"fetchAndReconcile": "readyToFetch"}
    assert (await site.status())["fetch"] == {"since": "", "offset": 0}
    assert messages(await site.status())[0] == "Fetching all members."
    assert outcome.counts["readyToCreateNewContactsFromMailchimp"]["created"] == 1
    [entry] = await run_log_of(site)
    assert (entry.outcome, entry.error, entry.ended_s is not None) == ("finished", None, True)
    assert orjson.loads(entry.counts) == outcome.counts


@pytest.mark.parametrize("stage", STAGES)
async def test_it_stops_before_the_stage_it_is_told_and_goes_on_from_there(site: Site, stage: str) -> None:
    outcome = await site.run(since="ever", stop_on=stage, with_data=True)
    assert outcome.outcome == "stopped"
    assert (await site.status())["locks"]["fetchAndReconcile"] == stage
    assert messages(await site.status())[-1] == f"Stopped as requested at step {stage}"
    assert (await site.run(since="ever")).outcome == "finished"


async def test_a_group_that_is_deleted_while_a_run_is_under_way_ends_it_with_a_reason(
    site: Site, tmp_path: Path
) -> None:
    """It ended as "failed" without one, and audiences after it did not have their turn."""
    path = tmp_path / "site.sqlite"

    def delete_group(stage: str, *_: object) -> None:
        statement = f"DELETE FROM civicrm_group WHERE id = {GROUP}"
        if stage == "readyToCheckForGroupChanges" and chosen() == "sqlite":
            with closing(raw_sqlite(path)) as conn, conn:
                conn.execute(statement)
        elif stage == "readyToCheckForGroupChanges":
            sql(statement, database=database_at(path).rpartition("/")[2])

    site.ctx = replace(site.ctx, on_stage=delete_group)
    with pytest.raises(SyncError, match="stopped at readyToReconcileQueue: a group or contact was deleted meanwhile"):
        await site.run(since="ever")
    [entry] = await run_log_of(site)
    assert (entry.outcome, "deleted meanwhile" in entry.error) == ("failed", True)
    with pytest.raises(SyncError, match=f"linked with group {GROUP}, which does not exist"):
        await site.run()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (ConstraintBroken("constraint violation"), "constraint violation"),
        (ConstraintBroken("constraint violation", "civicrm_note"), "constraint violation in the table civicrm_note"),
        (KeyError("a@example.org"), r"an unexpected error \(KeyError\), of which the server's log has more"),
    ],
)
async def test_a_fault_in_one_audience_ends_its_run_with_a_reason_and_no_other(
    site: Site, fault: Exception, reason: str
) -> None:
    """It left the engine as it was, and no audience after it had its turn, night after night."""

    def fail(stage: str, *_: object) -> None:
        if stage == "readyToFetch":
            raise fault

    site.ctx = replace(site.ctx, on_stage=fail)
    with pytest.raises(SyncError, match=f"stopped at readyToFixContactIds: {reason}. The next run continues there"):
        await site.run(since="ever")
    [entry] = await run_log_of(site)
    assert (entry.outcome, "stopped at" in entry.error, "a@example.org" in entry.error) == ("failed", True, False)
    site.ctx = replace(site.ctx, on_stage=None)
    assert (await site.run()).outcome == "finished"


async def test_the_data_stage_is_skipped_unless_data_is_asked_for(site: Site) -> None:
    outcome = await site.run(since="ever", stop_on="readyToCheckForDataUpdates")
    assert outcome.outcome == "finished"


async def test_stopped_before_submitting_civicrm_has_changed_and_mailchimp_has_not(site: Site) -> None:
    await site.run(since="ever", stop_on="readyToSubmitUpdates")
    assert site.at_mailchimp("bob@example.org") is None
    assert len(await site.updates()) == 1
    [ada] = [one for one in await site.contacts() if one.display_name == "ada@example.org"]
    assert await site.standing(ada.id) == "Added"


async def test_what_a_run_was_asked_is_answered_by_whoever_continues_it(site: Site) -> None:
    """`since` and `with_data` count at the start of a run only."""
    await site.run(since="ever", stop_on="readyToFixContactIds", with_data=True)
    outcome = await site.run(stop_on="readyToCheckForDataUpdates")
    assert outcome.outcome == "stopped"


async def test_out_of_time_it_pauses_after_a_bit_of_work_and_says_so(site: Site) -> None:
    outcome = await site.run(since="ever", max_time=1e-9)
    assert outcome.outcome == "paused"
    assert messages(await site.status())[-1].startswith("Out of time at ")
    [entry] = await run_log_of(site)
    assert entry.outcome == "paused"


async def test_a_second_run_beside_the_first_does_nothing_and_says_why(site: Site) -> None:
    async with hold_lease(site.ctx, site.list_id):
        outcome = await site.run(since="ever")
    assert outcome.outcome == "busy"
    assert messages(await site.status()) == [BUSY_TEXT]
    assert await site.rows() == []
    assert await run_log_of(site) == []


async def test_the_lease_is_released_when_a_run_ends(site: Site) -> None:
    await site.run(since="ever")
    assert not await site.store.read(leases.is_live, site.list_id, leases.now_ms())


async def test_force_restart_takes_the_audience_from_its_holder_and_begins_anew(site: Site) -> None:
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    async with hold_lease(site.ctx, site.list_id) as first:
        assert first is not None
        outcome = await site.run(since="ever", force_restart=True)
        assert outcome.outcome == "finished"
        with pytest.raises(leases.LeaseLost):
            await site.store.write(leases.check, first)
    assert messages(await site.status())[0] == "Fetching all members."


async def test_a_run_that_loses_its_lease_stops_without_writing(site: Site) -> None:
    def steal_at_the_second_stage(event: StageProgress) -> None:
        if event.stage == "readyToFixContactIds":
            stolen.append(asyncio.ensure_future(site.store.write(leases.revoke, site.list_id)))

    stolen: list[asyncio.Future[None]] = []
    with pytest.raises(SyncError, match=f"Audience {site.list_id} stopped at .*lost to another process"):
        await run_audience(
            site.ctx, await site.audience(), RunRequest(since="ever", max_time=0), steal_at_the_second_stage
        )
    await asyncio.gather(*stolen)
    [entry] = await run_log_of(site)
    assert entry.outcome == "failed"


async def test_mailchimp_out_of_reach_fails_the_run_keeps_the_place_and_releases_the_lease(site: Site) -> None:
    site.emulator.add_fault("502_html")
    with pytest.raises(MailchimpFailed, match=f"Audience {site.list_id} stopped at readyToFetch.*continues there"):
        await site.run(since="ever")
    site.emulator.clear_faults()
    assert not await site.store.read(leases.is_live, site.list_id, leases.now_ms())
    [entry] = await run_log_of(site)
    assert entry.outcome == "failed"
    assert "readyToFetch" in entry.error
    assert (await site.run()).outcome == "finished"


async def test_a_cancelled_run_releases_its_lease(site: Site) -> None:
    reached = asyncio.Event()

    def tell(event: StageProgress) -> None:
        reached.set()

    task = asyncio.ensure_future(run_audience(site.ctx, await site.audience(), RunRequest(since="ever"), tell))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not await site.store.read(leases.is_live, site.list_id, leases.now_ms())
    assert (await site.run()).outcome == "finished"


async def test_a_stored_busy_without_a_living_lease_is_a_run_that_was_killed(site: Site) -> None:
    blob = b'a:2:{s:12:"lastSyncTime";N;s:5:"locks";a:1:{s:17:"fetchAndReconcile";s:4:"busy";}}'
    await site.store.write(
        lambda conn: conn.execute(insert(status_table).values(list_id=site.list_id, data=blob)).rowcount
    )
    assert (await site.run(since="ever")).outcome == "finished"


async def test_a_run_that_was_killed_is_called_so_in_the_run_log(site: Site) -> None:
    await site.store.write(
        lambda conn: conn.execute(insert(run_log).values(list_id=site.list_id, started_s=1)).rowcount
    )
    await site.run(since="ever")
    assert [entry.outcome for entry in await run_log_of(site)] == ["crashed", "finished"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (delete(group).where(group.c.id == GROUP), "which does not exist"),
        (change(group).where(group.c.id == GROUP).values(saved_search_id=4), "a smart group"),
    ],
    ids=["a group deleted while linked", "a smart group"],
)
async def test_a_group_that_cannot_be_written_to_is_refused_with_the_reason(site: Site, spoil: Any, words: str) -> None:
    await site.store.write(lambda conn: conn.execute(spoil).rowcount)
    with pytest.raises(SyncError, match=words):
        await site.run(since="ever")
    assert site.emulator.requests == []


async def test_progress_is_told_for_each_stage(site: Site) -> None:
    told: list[StageProgress] = []
    await run_audience(site.ctx, await site.audience(), RunRequest(since="ever", with_data=True), told.append)
    assert list(dict.fromkeys(event.stage for event in told)) == list(STAGES)
    assert next(event for event in told if event.stage == "readyToReconcileQueue").total == 2


async def test_the_log_keeps_its_last_hundred_lines(site: Site) -> None:
    for _ in range(110):
        async with hold_lease(site.ctx, site.list_id):
            await site.run()
    checkpoint = await site.store.read(checkpoints.load, site.list_id)
    assert len(checkpoint.log) == 100


async def test_an_empty_audience_and_an_empty_group_are_in_step(tmp_path: Path) -> None:
    async with a_site(database_at(tmp_path / "empty.sqlite")) as empty:
        outcome = await empty.run(since="ever")
        assert outcome.outcome == "finished"
        assert await empty.rows() == []


async def test_a_run_whose_process_was_killed_on_this_machine_is_continued_within_seconds(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    with a_named_process() as (_, name):
        holder = f"{name}:0a1b2c3d"
        assert await site.store.write(leases.acquire, site.list_id, holder, 120, leases.now_ms())
        assert (await site.run()).outcome == "busy"
        assert await site.store.read(leases.held_by_ended, leases.now_ms()) == []
    [(found, _)] = await site.store.read(leases.held_by_ended, leases.now_ms())
    assert found == site.list_id
    monkeypatch.setattr(leases, "ENDED_MS", 0)
    assert (await site.run()).outcome == "busy"  # what it sent last may still have been on its way
    assert (await site.run()).outcome == "finished"


async def test_after_the_lease_of_a_dead_process_has_lapsed_the_next_run_goes_on(site: Site) -> None:
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    lapsed = change(lease).where(lease.c.name == site.list_id).values(expires_ms=leases.now_ms(), fence=99)
    await site.store.write(lambda conn: conn.execute(lapsed).rowcount)
    assert (await site.run()).outcome == "finished"
    assert await site.store.read(lambda conn: conn.execute(select(lease.c.fence)).scalar()) == 100
