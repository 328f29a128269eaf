"""What the pages show of a sync, asked of the API: progress, run log, days. On both databases."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from civiapi.store import leases
from sync.context import UnitSizes
from sync.leases import hold_lease
from sync.store.runs.checkpoints import STAGES
from tests.support.api_caller import ApiCaller
from tests.support.contacts import a_caller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(poll_seconds=0.05, batch_size=2)) as opened:
            yield opened


@pytest.fixture
def ask(site: Site) -> ApiCaller:
    return ApiCaller(site)


# ── Progress ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sync_that_never_ran_has_made_no_progress(site: Site, ask: ApiCaller) -> None:
    assert await ask("getprogress") == {
        site.list_id: {
            "list_id": site.list_id,
            "group_id": GROUP,
            "running": False,
            "stage": "readyToFetch",
            "stages": list(STAGES),
            "stage_index": 0,
            "done": 0,
            "total": None,
            "rate_per_s": None,
            "seconds_left": None,
            "started": None,
            "updated": None,
            "counts": {},
        }
    }


async def test_progress_tells_what_every_stage_did(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org", "bob@example.org")
    for name in ("cy", "dee", "eve"):
        await site.person(f"{name}@example.org")
    await site.sync(since="ever")
    one = (await ask("getprogress", group_id=GROUP))[site.list_id]
    counts = one["counts"]
    assert counts["readyToFetch"]["members"] == 2
    assert counts["readyToAddCiviOnly"]["added"] == 3
    assert counts["readyToReconcileQueue"] | {"failed": 0} == {
        "rows": 5, "joined": 2, "left": 0, "updates": 3, "failed": 0
    }  # fmt: skip
    assert counts["readyToSubmitUpdates"] == {"updates": 3, "batches": 2, "left": 0}
    assert (one["running"], one["done"], one["stage"]) == (False, 0, "readyToFetch")
    assert one["started"] <= one["updated"]


async def test_progress_in_the_middle_can_be_read_from_another_process(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org", "bob@example.org", "cy@example.org")
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    async with hold_lease(site.ctx, site.list_id) as claim:
        assert claim is not None
        one = (await ask("getprogress"))[site.list_id]
        assert one["running"] is True
        assert (one["stage"], one["stage_index"], one["done"], one["total"]) == ("readyToReconcileQueue", 8, 0, None)
    assert (await ask("getprogress"))[site.list_id]["running"] is False


async def test_done_total_rate_and_time_left_are_told_while_a_stage_is_half_way(
    site: Site, ask: ApiCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.joined(*(f"member{n}@example.org" for n in range(6)))
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    site.ctx = replace(site.ctx, sizes=UnitSizes(set_rows_per_unit=2))
    now = leases.now_ms()
    ticks = iter(range(now, now + 10**9, 1000))
    monkeypatch.setattr(leases, "now_ms", lambda: next(ticks))
    await site.run(max_time=1e-9)
    one = (await ask("getprogress"))[site.list_id]
    assert (one["done"], one["total"]) == (2, 6)
    assert one["rate_per_s"] > 0
    assert one["seconds_left"] == round(4 / one["rate_per_s"])


async def test_whoever_goes_on_counts_on_from_where_the_last_run_stopped(site: Site, ask: ApiCaller) -> None:
    site.joined(*(f"member{n}@example.org" for n in range(6)))
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    site.ctx = replace(site.ctx, sizes=UnitSizes(set_rows_per_unit=2))
    for done in (2, 4):
        await site.run(max_time=1e-9)
        assert (await ask("getprogress"))[site.list_id]["done"] == done
    await site.sync()
    counts = (await ask("getprogress"))[site.list_id]["counts"]
    assert counts["readyToReconcileQueue"]["rows"] == 6


async def test_sent_updates_are_told_batch_by_batch(
    site: Site, ask: ApiCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ada", "bob", "cy"):
        await site.person(f"{name}@example.org")
    seen: list[tuple[int, int | None]] = []

    async def look() -> None:
        one = (await ask("getprogress"))[site.list_id]
        seen.append((one["done"], one["total"]))

    submit = site.client.submit_batch

    async def submit_and_look(*args: Any, **how: Any) -> Any:
        await look()
        return await submit(*args, **how)

    monkeypatch.setattr(site.client, "submit_batch", submit_and_look)
    await site.run(since="ever")
    assert seen == [(0, 3), (2, 3)]


async def test_a_new_sync_begins_to_count_anew(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    await site.sync()
    counts = (await ask("getprogress"))[site.list_id]["counts"]
    assert counts["readyToReconcileQueue"]["rows"] == 0


async def test_a_group_that_is_not_linked_is_named_in_the_error(ask: ApiCaller) -> None:
    for action in ("getprogress", "getruns", "getdaily"):
        answer = await ask.answer(action, group_id=999)
        assert answer["error_message"] == "Unknown group ID `999`"


async def test_views_need_the_permission_of_the_sync(ask: ApiCaller) -> None:
    for action in ("getprogress", "getruns", "getdaily"):
        answer = await ask.answer(action, caller=a_caller("access CiviCRM"), group_id=GROUP, check_permissions=1)
        assert "administer CiviCRM" in answer["error_message"], answer


# ── Runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_run_log_tells_the_newest_run_first(site: Site, ask: ApiCaller) -> None:
    site.joined("ada@example.org")
    await site.run(since="ever", stop_on="readyToReconcileQueue")
    await site.sync()
    runs = await ask("getruns", group_id=GROUP)
    assert [(one["outcome"], one["list_id"], one["group_id"], one["error"]) for one in runs] == [
        ("finished", site.list_id, GROUP, None),
        ("stopped", site.list_id, GROUP, None),
    ]
    assert runs[1]["counts"]["readyToFetch"]["members"] == 1
    assert all(one["took_s"] >= 0 and one["started"] <= one["ended"] for one in runs)


async def test_the_run_log_is_read_in_pages(site: Site, ask: ApiCaller) -> None:
    for _ in range(3):
        await site.run()
    ids = [one["id"] for one in await ask("getruns")]
    assert [one["id"] for one in await ask("getruns", options={"limit": 1, "offset": 1})] == [ids[1]]
    assert len(await ask("getruns", options={"limit": 0})) == 3


async def test_a_failed_run_keeps_its_error(site: Site, ask: ApiCaller) -> None:
    site.emulator.add_fault("500", path="/members")
    await ask.answer("fetchandreconcile", since="ever")
    [one] = await ask("getruns")
    assert one["outcome"] == "failed"
    assert one["error"].startswith(f"Audience {site.list_id} stopped at readyToFetch")


async def test_a_run_without_an_end_is_running_while_its_lease_lives_and_crashed_after(
    site: Site, ask: ApiCaller
) -> None:
    from sync.store.runs.run_log import open_entry

    async with hold_lease(site.ctx, site.list_id):
        await site.store.write(open_entry, await site.audience())
        assert [(one["outcome"], one["ended"], one["took_s"]) for one in await ask("getruns")] == [
            ("running", None, None)
        ]
    assert [one["outcome"] for one in await ask("getruns")] == ["crashed"]


# ── Days ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def day(found: list[dict[str, Any]], date: str) -> dict[str, int | None]:
    [one] = [one for one in found if one["date"] == date]
    return {name: value for name, value in one.items() if name != "date"}


async def test_a_day_has_both_ends_and_the_changes_by_direction(site: Site, ask: ApiCaller) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        site.joined("ada@example.org", "bob@example.org")
        await site.person("cy@example.org")
        await site.sync(since="ever")
        await site.run()
        clock.shift(timedelta(days=1))
        site.emulator.person("unsubscribe", "ada@example.org")
        await site.sync()
        await site.run()
        found = await ask("getdaily", group_id=GROUP, days=3)
    assert [one["date"] for one in found] == ["2026-01-08", "2026-01-09", "2026-01-10"]
    none = {"joined_civicrm": 0, "left_civicrm": 0, "joined_mailchimp": 0, "left_mailchimp": 0}
    assert day(found, "2026-01-08") == {"mailchimp": None, "civicrm": None, **none}
    assert day(found, "2026-01-09") == {
        **none,
        "mailchimp": 3,
        "civicrm": 3,
        "joined_civicrm": 2,
        "joined_mailchimp": 1,
    }
    assert day(found, "2026-01-10") == {**none, "mailchimp": 2, "civicrm": 2, "left_civicrm": 1}


async def test_who_left_the_group_is_counted_once_mailchimp_has_done_it(site: Site, ask: ApiCaller) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        contact_id = await site.person("ada@example.org")
        await site.sync(since="ever")
        clock.shift(60)
        await site.set_group(contact_id, "Removed")
        await site.sync()
        [one] = await ask("getdaily", group_id=GROUP, days=1)
    assert (one["joined_mailchimp"], one["left_mailchimp"]) == (1, 1)


async def test_days_are_those_of_the_sites_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from civiapi.store.clock import site_clock

    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}") as site:
        monkeypatch.setattr(site.store, "clock", site_clock("Pacific/Auckland"))
        with time_machine.travel(NOON, tick=False):
            site.joined("ada@example.org")
            await site.sync(since="ever")
            [one] = await ApiCaller(site)("getdaily", group_id=GROUP, days=1)
    assert (one["date"], one["joined_civicrm"]) == ("2026-01-10", 1)


async def test_a_run_in_which_nothing_changed_counts_nobody(
    site: Site, ask: ApiCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    await site.run()

    def never(*_: Any) -> int:
        raise AssertionError("a run in which nothing changed counted everybody")

    monkeypatch.setattr("sync.store.daily.count_group", never)
    await site.run()
    assert (await ask("getdaily", group_id=GROUP, days=1))[0]["civicrm"] == 1


@pytest.mark.parametrize("days", ["0", "-1", "x", "99999"])
async def test_days_that_make_no_sense_are_refused(ask: ApiCaller, days: str) -> None:
    answer = await ask.answer("getdaily", group_id=GROUP, days=days)
    assert answer["is_error"] == 1


async def test_two_calls_at_once_see_the_same_progress(ask: ApiCaller) -> None:
    one, two = await asyncio.gather(ask("getprogress"), ask("getprogress"))
    assert one == two
