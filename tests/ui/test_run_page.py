"""The page of a run: what it did, searched and as CSV, and its undo in two steps; hostile names stay text."""

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from civiapi.ui.status.run import WORDS
from sync.reports.run_view import KINDS
from tests.browser.whole import HOSTILE, Whole, a_whole_site
from tests.support.ui_server import READER_KEY, Browser, a_browser

RUN = "/civicrm/mailchimpsync/run"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    async with a_whole_site(tmp_path) as running:
        group_id = await running.link("Newsletter")
        for number in range(3):
            running.emulator.admin("import", f"member{number}@example.org", merge_fields={"FNAME": HOSTILE})
        made = await running.call("Contact", "create", contact_type="Individual", email="here@example.org")
        await running.call("GroupContact", "create", contact_id=made["id"], group_id=group_id)
        await running.sync(group_id)
        yield running


def test_every_kind_has_words() -> None:
    assert set(WORDS) == set(KINDS)


async def test_it_is_linked_from_the_connection(site: Whole, browser: Browser) -> None:
    page = (await browser.get(f"/civicrm/mailchimpsync/audience/{site.list_id}")).text
    assert f'href="{RUN}/1"' in page


@pytest.mark.parametrize("fails", [False, True], ids=["finished", "failed"])
async def test_the_log_of_a_sync_job_leads_to_its_runs(site: Whole, browser: Browser, fails: bool) -> None:
    """Run 1 was asked for by somebody, before the job ran."""
    job = await site.call("Job", "getsingle", api_action="fetchandreconcile")
    if fails:
        site.emulator.add_fault("500", count=1000)
    await site.call("Job", "execute", id=job["id"])
    page = (await browser.get("/civicrm/mailchimpsync/jobs/log")).text
    assert page.count(f'href="{RUN}/2"') == 1
    assert f'href="{RUN}/1"' not in page


async def test_it_shows_people_with_reasons_and_as_csv(browser: Browser) -> None:
    page = (await browser.get(f"{RUN}/1")).text
    assert "What it did" in page
    assert "never in the group: added to the group" in page
    assert HOSTILE not in page
    answer = await browser.get(f"{RUN}/1.csv?kind=join_group")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert rows
    assert {row["kind"] for row in rows} == {"join_group"}
    nobody = (await browser.get(f"{RUN}/1?search=nobody-has-this")).text
    assert "No matches" in nobody


async def test_it_is_undone_in_two_steps_and_only_once(site: Whole, browser: Browser) -> None:
    page = await browser.get(f"{RUN}/1")
    plan = await browser.send("POST", f"{RUN}/1", data={"token": page.token, "do": "plan"})
    assert "What undoing it would do" in plan.text
    assert "out of the group again" in plan.text
    assert (await browser.get(f"{RUN}/1/undo.csv")).text.count("\n") > 2
    done = await browser.send("POST", f"{RUN}/1", data={"token": plan.token, "do": "undo"})
    assert (done.status, done.headers["Location"]) == (303, f"{RUN}/2")
    opened = (await browser.get(f"{RUN}/2")).text
    assert "It took back what" in opened
    assert "Preview an undo" not in opened
    again = await browser.send("POST", f"{RUN}/1", data={"token": plan.token, "do": "undo"})
    assert again.status == 422
    assert "was undone already" in again.text


async def test_a_run_that_is_not_there_is_a_page_that_says_so(browser: Browser) -> None:
    assert (await browser.get(f"{RUN}/4711")).status == 404
    assert (await browser.get(f"{RUN}/999999999999999999")).status == 404


async def test_without_the_permission_it_cannot_be_seen(site: Whole) -> None:
    async with a_browser(site.base) as opened:
        await opened.log_in("reader", READER_KEY)
        assert (await opened.get(f"{RUN}/1")).status in (303, 403)
