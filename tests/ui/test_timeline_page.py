"""The timeline page: what happened, filtered, page by page and as CSV; hostile text stays text."""

import csv
import io
import re
from urllib.parse import urlencode

import pytest
from sqlalchemy import insert

from civiapi.store.leases import now_ms
from sync.store.events import record
from sync.store.tables import event
from tests.browser.whole import HOSTILE, Whole
from tests.support.ui_server import READER_KEY, Browser, a_browser

TIMELINE = "/civicrm/mailchimpsync/timeline"


async def many_events(site: Whole, count: int) -> None:
    rows = [
        {
            "at_ms": now_ms() + number,
            "list_id": site.list_id,
            "kind": "abort",
            "author": "",
            "sentence": f"No {number}.",
        }
        for number in range(count)
    ]
    await site.app.store.write(lambda conn: conn.execute(insert(event), rows) and None)


async def test_it_is_linked_from_the_status_pages(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    assert f'href="{TIMELINE}"' in (await browser.get("/civicrm/mailchimpsync")).text
    one = (await browser.get(f"/civicrm/mailchimpsync/audience/{site.list_id}")).text
    assert f'href="{TIMELINE}?list_id={site.list_id}"' in one


async def test_a_linked_and_synced_connection_tells_both(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    await site.sync(group_id)
    page = (await browser.get(f"{TIMELINE}?list_id={site.list_id}")).text
    assert f"was linked with group {group_id}" in page
    assert "The sync finished" in page
    only = (await browser.get(f"{TIMELINE}?kind=config")).text
    assert "was linked with" in only
    assert "The sync finished" not in only


async def test_before_anything_happened_it_says_so(browser: Browser) -> None:
    assert "Nothing happened" in (await browser.get(TIMELINE)).text
    filtered = (await browser.get(f"{TIMELINE}?kind=brake&since=2020-01-01")).text
    assert "Nothing happened that matches" in filtered


async def test_older_entries_are_on_the_next_pages(site: Whole, browser: Browser) -> None:
    await many_events(site, 120)
    pages = [(await browser.get(f"{TIMELINE}?offset={offset}")).text for offset in (0, 50, 100)]
    assert [("Older" in one, "Newer" in one) for one in pages] == [(True, False), (True, True), (False, True)]
    assert "No 119." in pages[0]
    assert "No 0." in pages[2]


async def test_all_of_it_is_there_as_csv_in_which_nothing_is_a_formula(site: Whole, browser: Browser) -> None:
    await many_events(site, 1100)
    await site.app.store.write(record, "config", site.list_id, "=HYPERLINK(1)")
    lines = list(csv.DictReader(io.StringIO((await browser.get(f"{TIMELINE}.csv")).text)))
    assert len(lines) == 1101
    [formula] = [one["sentence"] for one in lines if "HYPERLINK" in one["sentence"]]
    assert formula == "'=HYPERLINK(1)"


async def test_names_are_text(site: Whole, browser: Browser) -> None:
    await site.link(HOSTILE)
    await site.app.store.write(record, "config", site.list_id, HOSTILE)
    page = (await browser.get(f"{TIMELINE}?list_id={site.list_id}&kind=config")).text
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("wrong", ["kind=gossip", "since=whenever", "until=whenever"])
async def test_what_cannot_be_asked_is_said_on_the_page(browser: Browser, wrong: str) -> None:
    answer = await browser.get(f"{TIMELINE}?{wrong}")
    assert answer.status == 422
    assert "Nothing can be shown" in answer.text


async def test_the_last_day_that_there_is_can_be_the_last_one_asked_for(site: Whole, browser: Browser) -> None:
    await many_events(site, 1)
    for path in (TIMELINE, f"{TIMELINE}.csv"):
        answer = await browser.get(f"{path}?until=9999-12-31")
        assert answer.status == 200
        assert "No 0." in answer.text


@pytest.mark.parametrize("offset", ["9" * 5000, "9" * 30, "-1", "x", "²"])
@pytest.mark.parametrize("page", ["timeline", "run/1", "audience/{list_id}/preview", "audience/{list_id}/campaigns"])
async def test_a_place_in_a_list_that_is_no_number_is_its_beginning(
    site: Whole, browser: Browser, page: str, offset: str
) -> None:
    await site.sync(await site.link("Newsletter"))
    path = f"/civicrm/mailchimpsync/{page.format(list_id=site.list_id)}"
    assert (await browser.get(f"{path}?{urlencode({'offset': offset})}")).status == 200


@pytest.mark.parametrize("path", [TIMELINE, f"{TIMELINE}.csv"])
async def test_who_may_not_see_connections_is_refused(site: Whole, path: str) -> None:
    async with a_browser(site.base) as reader:
        await reader.log_in("reader", READER_KEY)
        assert (await reader.get(path)).status in (303, 403)


async def test_keys_and_secrets_are_not_on_it(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    page = (await browser.get(TIMELINE)).text
    assert site.emulator.key not in page
    assert f"…{site.emulator.key.partition('-')[0][-4:]}" in page


async def test_a_change_made_on_the_pages_names_who_was_logged_in(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    path = f"/civicrm/mailchimpsync/config/link?list_id={site.list_id}"
    page = await browser.get(path)
    [digest] = re.findall(r'name="digest" value="(\w+)"', page.text)[:1]
    form = {"token": page.token, "digest": digest, "group": str(group_id), "brake[people]": "7"}
    assert (await browser.post(path, data=form)).status == 303
    answer = await site.call("Mailchimpsync", "gettimeline", kind="config", sequential=1)
    newest, *_ = answer["values"]
    assert "“people” changed from the site's to 7" in newest["sentence"]
    me = await site.call("Contact", "get", id=newest["contact_id"], sequential=1)
    assert newest["by"] == me["values"][0]["display_name"]
