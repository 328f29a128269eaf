"""The status pages over HTTP: what they say in each state, what they never show, and their streams of events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from civiapi.adapters.http import SESSION_COOKIE
from civiapi.call import Call
from civiapi.dispatch import Api
from civiapi.tokens import SESSION
from civiapi.ui import events
from tests.browser.whole import ADMIN, ADMIN_KEY, HOSTILE, Whole, a_whole_site
from tests.contract.uikit import READER_KEY, Browser, a_browser, screens

STATUS = "/civicrm/mailchimpsync"
PATIENCE = 20.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    async with a_whole_site(tmp_path) as running:
        yield running


@pytest.fixture
async def browser(site: Whole) -> AsyncIterator[Browser]:
    async with a_browser(site.base) as opened:
        await opened.log_in(ADMIN, ADMIN_KEY)
        yield opened


def page_of(site: Whole) -> str:
    return f"{STATUS}/audience/{site.list_id}"


# ---- the pages ----


async def test_the_root_leads_to_the_status_page(browser: Browser) -> None:
    answer = await browser.get("/")
    assert (answer.status, answer.headers["Location"]) == (303, STATUS)


async def test_without_a_connection_the_page_says_what_to_do_next(browser: Browser) -> None:
    page = await browser.get(STATUS)
    assert "Nothing is connected yet" in page.text
    assert 'href="/civicrm/mailchimpsync/config"' in page.text


async def test_a_connection_that_never_ran_leads_to_the_preview(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    for path in (STATUS, page_of(site)):
        page = (await browser.get(path)).text
        assert "never run" in page
    assert f"{page_of(site)}/preview" in page


async def test_after_a_sync_the_balance_leads_to_the_people(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    for name in ("ada", "bob", "cyd"):
        site.emulator.admin("import", f"{name}@example.org")
    await site.sync(group_id)
    page = (await browser.get(page_of(site))).text
    assert ">in sync<" in page
    assert f'href="/civicrm/mailchimpsync/people?list_id={site.list_id}&amp;mailchimp_status=subscribed">3</a>' in page
    assert f'href="/civicrm/mailchimpsync/people?list_id={site.list_id}&amp;civicrm_status=Added">3</a>' in page
    assert "finished" in page


async def test_the_next_run_is_that_of_the_job_that_comes_first(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    [job] = (await site.call("Job", "get", sequential=1))["values"]
    assert "due now" in (await browser.get(STATUS)).text
    await site.call("Job", "create", id=job["id"], is_active=0)
    assert f"the job “{job['name']}” is switched off" in (await browser.get(STATUS)).text
    call = {"api_entity": "Mailchimpsync", "api_action": "Fetchandreconcile", "run_frequency": "Daily"}
    for group, when in ((group_id + 1, "2037-01-01"), (group_id, "2037-01-03"), (group_id, "2037-01-02")):
        more = {"parameters": f"group_id={group}\nmax_time=60", "scheduled_run_date": f"{when} 04:00:00"}
        await site.call("Job", "create", name=f"Sync {group} on {when}", **call, **more)
    assert "<time>2037-01-02 04:00:00</time>" in (await browser.get(STATUS)).text
    await site.call("Job", "create", id=job["id"], is_active=1)
    assert "due now" in (await browser.get(STATUS)).text


async def test_names_are_text_wherever_they_come_from(site: Whole, browser: Browser) -> None:
    group_id = await site.link(HOSTILE)
    site.emulator.audience().name = HOSTILE
    await site.sync(group_id)
    for path in (STATUS, page_of(site), f"{page_of(site)}/preview"):
        page = (await browser.get(path)).text
        assert "&lt;img src=x" in page
        assert "<img src=x" not in page


async def test_neither_keys_nor_webhook_secrets_are_shown(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    config = json.loads(await site.call("Setting", "getvalue", name="mailchimpsync_config"))
    [account] = config["accounts"].values()
    for path in (STATUS, page_of(site), f"{page_of(site)}/preview"):
        page = (await browser.get(path)).text
        assert account["apiKey"] not in page
        assert account["batchWebhookSecret"] not in page


async def test_what_a_failed_run_said_stands_at_the_top(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    site.emulator.add_fault("403_user_disabled")
    await site.app.api.respond(_sync(group_id))
    page = (await browser.get(page_of(site))).text
    assert ">failed<" in page
    assert "stopped at readyToFetch" in page


@pytest.mark.parametrize("rest", ["", "/preview", "/preview.csv"])
async def test_an_audience_that_is_not_linked_is_said_to_be_none(site: Whole, browser: Browser, rest: str) -> None:
    await site.link("Newsletter")
    answer = await browser.get(f"{STATUS}/audience/nothere{rest}")
    assert (answer.status, "No group is linked" in answer.text) == (404, True)


@pytest.mark.parametrize("rest", ["", "/events", "/audience/a1", "/audience/a1/preview", "/audience/a1/preview.csv"])
async def test_without_the_permission_nothing_is_shown(api: Api, rest: str) -> None:
    async with screens(api) as base, a_browser(base) as reader:
        await reader.log_in("reader", READER_KEY)
        answer = await reader.get(STATUS + rest)
        assert (answer.status, "administer CiviCRM" in answer.text) == (403, True)


# ---- streams of events ----


class Stream:
    """A page's stream of events, read one at a time."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, name: str = "") -> Any:
        """The data of the next event, of the next with this *name*; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            while True:
                kind = ""
                async for raw in self.response.content:
                    line = raw.decode().rstrip("\n")
                    if line.startswith("event: "):
                        kind = line[7:]
                    if line.startswith("data: ") and (not name or name == kind):
                        return json.loads(line[6:])
                return None

    async def parts_until(self, wanted: str, text: str) -> list[str]:
        """Names of the parts that came until the part *wanted* says *text*."""
        names = []
        while True:
            part = await self.next("part")
            assert part is not None, names
            names.append(part["name"])
            if part["name"] == wanted and text in part["html"]:
                return names


@asynccontextmanager
async def a_stream(browser: Browser, query: str = "", **how: Any) -> AsyncIterator[Stream]:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
    async with browser.session.get(f"{browser.base}{STATUS}/events{query}", timeout=timeout, **how) as response:
        yield Stream(response)


def marks_in(page: str) -> str:
    """The query with which the page's script asks for what is new."""
    found = [piece.split('"')[0:3:2] for piece in page.split('data-part="')[1:]]
    return "".join(f"&have={name}:{mark}" for name, mark in found)


async def test_a_stream_sends_what_is_new_and_nothing_else(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    await site.sync(group_id)
    page = (await browser.get(page_of(site))).text
    async with a_stream(browser, f"?list_id={site.list_id}{marks_in(page)}") as stream:
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["Cache-Control"] == "no-store"
        made = await site.call("Contact", "create", contact_type="Individual", email="ada@example.org")
        await site.call("GroupContact", "create", group_id=group_id, contact_id=made["id"])
        await site.sync(group_id)
        names = await stream.parts_until("balance", ">1</a>")
    assert "hooks" not in names
    assert set(names) <= {"standing", "pipeline", "balance", "batches", "runs", "log"}


async def test_a_stream_of_all_connections_sends_their_cards(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    async with a_stream(browser) as stream:
        first = await stream.next("part")
        assert (first["name"], "never run" in first["html"]) == (f"card-{site.list_id}", True)
        await site.sync(group_id)
        assert await stream.parts_until(f"card-{site.list_id}", "in sync")


async def test_a_connection_that_is_removed_is_said_to_be_gone(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    async with a_stream(browser, f"?list_id={site.list_id}") as stream:
        assert await stream.next("part")
        await site.call("Mailchimpsync", "updateconfig", config={"accounts": {}, "lists": {}})
        assert await stream.next("gone") == ""


async def test_a_stream_ends_with_its_session(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    admin = await site.app.auth.by_name_and_key(ADMIN, ADMIN_KEY, "127.0.0.1")
    assert admin.contact_id is not None
    short = site.app.auth.tokens.issue(admin.contact_id, 2.0, SESSION, admin.cred)
    browser.session.cookie_jar.clear()
    async with a_stream(browser, headers={"Cookie": f"{SESSION_COOKIE}={short}"}) as stream:
        assert await stream.next("part")
        assert "session is over" in await stream.next("over")
        assert await stream.next() is None


async def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with a_whole_site(tmp_path) as site:
            browser = Browser(site.base, session)
            await browser.log_in(ADMIN, ADMIN_KEY)
            await site.link("Newsletter")
            response = await session.get(f"{site.base}{STATUS}/events")
            stream = Stream(response)
            assert await stream.next("part")
        assert await stream.next() is None  # an end in good order: a stream that is cut off raises


async def test_there_are_only_so_many_streams(site: Whole, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    await site.link("Newsletter")
    monkeypatch.setattr(events, "MOST_EACH", 1)
    async with a_stream(browser) as stream:
        assert await stream.next("part")
        async with a_stream(browser) as second:
            assert second.response.status == 503
    async with asyncio.timeout(PATIENCE):
        while True:  # the place is given back once the server has noticed
            async with a_stream(browser) as third:
                if third.response.status == 200:
                    break


async def test_whoever_asks_for_the_head_of_a_stream_gets_only_that(site: Whole, browser: Browser) -> None:
    answer = await browser.send("HEAD", f"{STATUS}/events")
    assert (answer.status, answer.text) == (200, "")


async def test_nobody_reads_a_stream_without_a_session(site: Whole) -> None:
    async with a_browser(site.base) as stranger:
        assert (await stranger.get(f"{STATUS}/events")).status == 303
        answer = await stranger.get(f"{STATUS}/events", headers={"Accept": "text/event-stream"})  # as browsers do
        assert answer.status == 401


def _sync(group_id: int) -> Any:
    return Call("Mailchimpsync", "fetchandreconcile", {"group_id": group_id})
