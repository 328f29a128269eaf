"""The status pages over HTTP: what they say in each state, what they never show, and their streams of events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from civiapi.alerts.watch import AlertWatch
from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from civiapi.http.messages import SESSION_COOKIE
from civiapi.ui.status.stream import MAX_STREAMS_PER_USER
from entities.site import system_checks
from tests.browser.whole import ADMIN, ADMIN_KEY, HOSTILE, Whole, a_whole_site
from tests.support.ui_server import READER_KEY, Browser, a_browser, ui_server

STATUS = "/civicrm/mailchimpsync"
PATIENCE = 20.0


def page_of(site: Whole) -> str:
    return f"{STATUS}/audience/{site.list_id}"


# ---- the pages ----


async def test_the_root_leads_to_the_status_page(browser: Browser) -> None:
    answer = await browser.get("/")
    assert (answer.status, answer.headers["Location"]) == (303, STATUS)


async def test_without_a_connection_the_page_says_what_to_do_next(browser: Browser) -> None:
    page = await browser.get(STATUS)
    assert "No connection yet" in page.text
    assert 'href="/civicrm/mailchimpsync/config"' in page.text
    assert 'action="/civicrm/mailchimpsync/import"' in page.text


async def test_a_connection_that_never_ran_leads_to_the_preview(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    for path in (STATUS, page_of(site)):
        page = (await browser.get(path)).text
        assert "waiting for your first sync" in page
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


async def test_failures_are_grouped_by_cause_each_with_its_people_a_csv_and_a_button(
    site: Whole, browser: Browser
) -> None:
    group_id = await site.link("Newsletter")
    for name in ("Ada", "Bob"):
        made = await site.call("Contact", "create", contact_type="Individual", first_name=name)
        await site.call("GroupContact", "create", group_id=group_id, contact_id=made["id"])
    assert "Failures by cause" not in (await browser.get(page_of(site))).text
    await site.sync(group_id)
    page = (await browser.get(page_of(site))).text
    people = f"/civicrm/mailchimpsync/people?list_id={site.list_id}&amp;cause=no+address"
    assert f'<a href="{people}">2</a>' in page
    assert "Give the contact an email address in CiviCRM." in page
    found = await browser.get(people.replace("&amp;", "&"))
    assert all(name in found.text for name in ("Ada", "Bob"))
    assert f'href="{people.replace("people?", "people.csv?")}"' in found.text
    csv = await browser.get(people.replace("&amp;", "&").replace("people?", "people.csv?"))
    assert len(csv.text.splitlines()) == 3
    form = {"token": found.token, "list_id": site.list_id, "cause": "no address", "all": "1"}
    answer = await browser.post("/civicrm/mailchimpsync/people", data=form)
    assert (answer.status, "included=2" in answer.headers["Location"]) == (303, True), answer.text
    assert await site.call("MailchimpsyncCache", "getcount", mailchimp_list_id=site.list_id, sync_status="todo") == 2


async def test_the_next_run_is_that_of_the_job_that_comes_first(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    assert "after you have started the first sync" in (await browser.get(STATUS)).text
    await site.sync(group_id)
    job = await site.call("Job", "getsingle", api_action="Fetchandreconcile")
    assert "due now" in (await browser.get(STATUS)).text
    await site.call("Job", "create", id=job["id"], is_active=0)
    assert "the job “Hourly Mailchimp sync” is disabled" in (await browser.get(STATUS)).text
    call = {"api_entity": "Mailchimpsync", "api_action": "Fetchandreconcile", "run_frequency": "Daily"}
    for group, when in ((group_id + 1, "2037-01-01"), (group_id, "2037-01-03"), (group_id, "2037-01-02")):
        more = {"parameters": f"group_id={group}\nmax_time=60", "scheduled_run_date": f"{when} 04:00:00"}
        await site.call("Job", "create", name=f"Sync {group} on {when}", **call, **more)
    assert ">2 Jan 2037, 04:00</time>" in (await browser.get(STATUS)).text
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


async def test_a_configuration_that_cannot_be_read_is_said_on_every_status_page(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    await site.call("Setting", "create", mailchimpsync_config="{broken")
    for path in (STATUS, page_of(site), f"{page_of(site)}/preview"):
        answer = await browser.get(path)
        assert answer.status < 500, path
        assert "so nothing is synced" in answer.text, path


@pytest.mark.parametrize("rest", ["", "/preview", "/preview.csv"])
async def test_an_audience_that_is_not_linked_is_said_to_be_none(site: Whole, browser: Browser, rest: str) -> None:
    await site.link("Newsletter")
    answer = await browser.get(f"{STATUS}/audience/nothere{rest}")
    assert (answer.status, "No group is linked" in answer.text) == (404, True)


@pytest.mark.parametrize("rest", ["", "/events", "/audience/a1", "/audience/a1/preview", "/audience/a1/preview.csv"])
async def test_without_the_permission_nothing_is_shown(api: Api, rest: str) -> None:
    async with ui_server(api) as base, a_browser(base) as reader:
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
    assert set(names) <= {"status", "steps", "balance", "batches", "runs", "log"}


async def test_a_stream_of_all_connections_sends_their_cards(site: Whole, browser: Browser) -> None:
    group_id = await site.link("Newsletter")
    async with a_stream(browser) as stream:
        first = await stream.next("part")
        assert (first["name"], "waiting for your first sync" in first["html"]) == (f"card-{site.list_id}", True)
        await site.sync(group_id)
        assert await stream.parts_until(f"card-{site.list_id}", "in sync")


async def test_an_alert_comes_and_goes_above_the_connections(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    page = (await browser.get(STATUS)).text
    assert "open alert" not in page
    watch = AlertWatch(
        site.app.store, site.app.settings, partial(system_checks.find, quiet=site.app.sync.quiet), channels=[]
    )
    async with a_stream(browser, f"?{marks_in(page)}") as stream:
        await watch.check()
        assert await stream.parts_until("alerts", "was never synced") == ["alerts"]
    page = (await browser.get(STATUS)).text
    assert f'<a href="{page_of(site)}">Newsletter</a>: Audience {site.list_id} was never synced.' in page


async def test_a_connection_that_is_removed_is_said_to_be_gone(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    async with a_stream(browser, f"?list_id={site.list_id}") as stream:
        assert await stream.next("part")
        await site.call("Mailchimpsync", "updateconfig", config={"accounts": {}, "lists": {}})
        assert await stream.next("removed") == ""


async def test_a_stream_ends_with_its_session(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    admin = await site.app.auth.by_name_and_key(ADMIN, ADMIN_KEY, "127.0.0.1")
    assert admin.contact_id is not None
    short = await site.app.auth.open_session(admin, 2.0)
    browser.session.cookie_jar.clear()
    async with a_stream(browser, headers={"Cookie": f"{SESSION_COOKIE}={short}"}) as stream:
        assert await stream.next("part")
        assert "session has ended" in await stream.next("session-ended")
        assert await stream.next() is None


async def test_a_stream_ends_when_its_user_logs_out_elsewhere(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        elsewhere = Browser(site.base, session)
        await elsewhere.log_in(ADMIN, ADMIN_KEY)
        async with a_stream(browser) as stream:
            assert await stream.next("part")
            token = (await elsewhere.get(STATUS)).token
            assert (await elsewhere.post("/civicrm/logout", data={"token": token})).status == 303
            assert "session has ended" in await stream.next("session-ended")
    assert (await browser.get(STATUS)).headers["Location"].startswith("/civicrm/login")


async def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with a_whole_site(tmp_path) as site:
            browser = Browser(site.base, session)
            await browser.log_in(ADMIN, ADMIN_KEY)
            await site.link("Newsletter")
            response = await session.get(f"{site.base}{STATUS}/events")
            stream = Stream(response)
            assert await stream.parts_until("alerts", "")
        assert await stream.next() is None  # an end in good order: a stream that is cut off raises


async def test_a_user_has_a_limited_number_of_streams(site: Whole, browser: Browser) -> None:
    await site.link("Newsletter")
    async with AsyncExitStack() as stack:
        for _ in range(MAX_STREAMS_PER_USER):
            stream = await stack.enter_async_context(a_stream(browser))
            assert await stream.next("part")
        async with a_stream(browser) as refused:
            assert refused.response.status == 503
    async with asyncio.timeout(PATIENCE):
        while True:  # until the server has noticed that they ended
            async with a_stream(browser) as again:
                if again.response.status == 200:
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


async def test_a_browser_at_a_wrong_address_gets_a_page_and_a_trailing_slash_is_forgiven(browser: Browser) -> None:
    html = {"Accept": "text/html"}
    for path in ("/civicrm/nothing", "/wrong", "/civicrm/mailchimpsync/nothing"):
        answer = await browser.get(path, headers=html)
        assert (answer.status, "Page not found" in answer.text, "<nav" in answer.text) == (404, True, False)
    moved = await browser.get("/civicrm/mailchimpsync/people/?q=ada", headers=html)
    assert (moved.status, moved.headers["Location"]) == (303, "/civicrm/mailchimpsync/people?q=ada")
    assert (await browser.get("/civicrm/nothing")).text == "Not found\n", "a script gets no page"
