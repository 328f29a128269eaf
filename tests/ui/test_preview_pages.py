"""The preview over HTTP: worked out when asked for, shown by kind and search, given away as CSV; nothing is written."""

import csv
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from civiapi.ui.status.tiles import ONE, make_tiles
from sync.reconcile.categories import KINDS, QUIET
from sync.store.tables import run_log
from tests.browser.whole import HOSTILE, Whole, a_whole_site
from tests.support.ui_server import Browser, PageResponse


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """Two members that CiviCRM does not know, and one in the group whom Mailchimp does not know."""
    async with a_whole_site(tmp_path) as running:
        group_id = await running.link("Newsletter")
        running.emulator.admin("import", "ada@example.org", merge_fields={"FNAME": "=1+1", "LNAME": HOSTILE[:40]})
        running.emulator.admin("import", "bob@example.org")
        made = await running.call("Contact", "create", contact_type="Individual", email="cleo@example.org")
        await running.call("GroupContact", "create", group_id=group_id, contact_id=made["id"])
        yield running


def preview_of(site: Whole) -> str:
    return f"/civicrm/mailchimpsync/audience/{site.list_id}/preview"


async def worked_out(site: Whole, browser: Browser) -> str:
    """The address of a new preview, made without any script."""
    page = await browser.get(preview_of(site))
    answer = await browser.post(preview_of(site), data={"token": page.token})
    assert answer.status == 303, answer.text
    where: str = answer.headers["Location"]
    return where


def people_in(page: PageResponse) -> list[str]:
    return [one.split("</span>")[0] for one in page.text.split('class="muted address">')[1:]]


async def test_a_preview_is_made_when_asked_for_and_writes_nothing(site: Whole, browser: Browser) -> None:
    assert "Preview the changes" in (await browser.get(preview_of(site))).text
    page = await browser.get(await worked_out(site, browser))
    assert sorted(people_in(page)) == ["ada@example.org", "bob@example.org", "cleo@example.org"]
    assert await site.call("Contact", "getcount", email="ada@example.org") == 0
    assert site.emulator.member("cleo@example.org") is None
    assert {one.method for one in site.emulator.requests} == {"GET"}


async def test_a_preview_is_searched_and_filtered_by_what_would_be_done(site: Whole, browser: Browser) -> None:
    where = await worked_out(site, browser)
    assert people_in(await browser.get(f"{where}&search=bob")) == ["bob@example.org"]
    assert "No matches." in (await browser.get(f"{where}&search=nobody")).text
    page = (await browser.get(where)).text
    kinds = [one.split('"')[0] for one in page.split('<option value="')[1:]]
    found = [people_in(await browser.get(f"{where}&kind={kind}")) for kind in kinds if kind]
    assert sorted(name for names in found for name in names) == sorted(people_in(await browser.get(where)))


async def test_the_csv_has_everybody_and_no_formula(site: Whole, browser: Browser) -> None:
    where = await worked_out(site, browser)
    answer = await browser.get(where.replace("/preview?", "/preview.csv?"))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert {row["email"] for row in rows} == {"ada@example.org", "bob@example.org", "cleo@example.org"}
    assert all(row["reason"] for row in rows)
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]


async def test_names_in_a_preview_are_text(site: Whole, browser: Browser) -> None:
    page = (await browser.get(await worked_out(site, browser))).text
    assert "<img src=x" not in page


async def test_a_preview_that_is_not_there_any_more_says_so(site: Whole, browser: Browser) -> None:
    for path in ("preview", "preview.csv"):
        answer = await browser.get(f"{preview_of(site).removesuffix('preview')}{path}?plan_id=999999")
        assert answer.status == 422
        assert 'role="alert"' in answer.text


async def test_a_preview_that_cannot_be_made_says_why(site: Whole, browser: Browser) -> None:
    token = (await browser.get(preview_of(site))).token
    site.emulator.add_fault("403_user_disabled")
    answer = await browser.post(preview_of(site), data={"token": token})
    assert (answer.status, "No preview" in answer.text) == (422, True)


async def test_a_preview_is_still_there_after_the_page_was_left_until_a_sync_has_run(
    site: Whole, browser: Browser
) -> None:
    made = await worked_out(site, browser)
    for _ in range(2):
        page = await browser.get(preview_of(site))
        assert "What a sync would do" in page.text
        assert sorted(people_in(page)) == sorted(people_in(await browser.get(made)))
    later = {"list_id": site.list_id, "started_s": int(time.time()) + 1, "outcome": "finished"}
    await site.app.store.write(lambda conn: conn.execute(insert(run_log).values(**later)))
    assert "Preview the changes" in (await browser.get(preview_of(site))).text


async def test_the_changes_are_tiles_by_where_they_happen_with_names_that_lead_to_the_person(
    site: Whole, browser: Browser
) -> None:
    page = (await browser.get(await worked_out(site, browser))).text
    assert page.index("In CiviCRM</h3>") < page.index("At Mailchimp</h3>")
    assert "<strong>+2</strong> new contacts, who join the group" in page
    assert "<strong>+1</strong> subscribed" in page
    assert 'href="/civicrm/mailchimpsync/person?email=ada%40example.org"' in page
    assert page.count("<button>") + page.count('id="go"') == 1, "one primary button"


def test_every_kind_of_a_plan_has_a_tile_and_words_and_removals_come_first() -> None:
    tiles = make_tiles([{"kind": kind, "count": 1} for kind in KINDS])
    shown = [tile.kind for _, numbers in tiles for tile in numbers]
    assert sorted(shown) == sorted(KINDS)
    assert set(ONE) == set(KINDS) - QUIET
    for _, numbers in tiles:
        removals = [tile.is_removal for tile in numbers]
        assert removals == sorted(removals, reverse=True)
