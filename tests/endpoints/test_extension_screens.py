"""The extension's own Angular screens as a client: their calls, in their form, and the keys they read.

A browser with a session cookie posts form fields to ``/civicrm/ajax/rest``, the parameters as JSON in one field, and
says ``X-Requested-With``. The server is the whole one, the Mailchimp behind it the emulator.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from civiapi.app import open_app
from civiapi.http.messages import SESSION_COOKIE
from civiapi.server.lifecycle import serving
from civiapi.settings import (
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    UserSettings,
)
from sync.emulator.server.running import Emulator, running_emulator
from tests.support.databases import database_at

USER_KEY = "key-of-a-person-at-a-screen"


@dataclass
class Screen:
    """A browser that is logged in."""

    base: str
    session: aiohttp.ClientSession

    async def api3(self, entity: str, action: str, params: dict[str, Any]) -> Any:
        """What ``CRM.api3`` does."""
        form = {"entity": entity, "action": action, "json": json.dumps(params)}
        headers = {"X-Requested-With": "XMLHttpRequest"}
        async with self.session.post(f"{self.base}/civicrm/ajax/rest", data=form, headers=headers) as answer:
            assert answer.status == 200
            return await answer.json(content_type=None)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator() as running:
        for name in ("ada", "bob", "cyd"):
            running.admin("import", f"{name}@example.org")
        yield running


@pytest.fixture
async def screen(tmp_path: Any, emulator: Emulator, unused_tcp_port: int) -> AsyncIterator[Screen]:
    base = f"http://127.0.0.1:{unused_tcp_port}"
    settings = Settings(
        server=ServerSettings(port=unused_tcp_port, base_url=base, site_key="site-key-of-tests"),
        database=DatabaseSettings(url=database_at(tmp_path / "site.sqlite")),
        mailchimp=MailchimpSettings(base_url=emulator.root_url, poll_seconds=0.05),
        scheduler=SchedulerSettings(enabled=False),
        log=LogSettings(level="warning"),
        users=(UserSettings("person", USER_KEY, frozenset({"*"})),),
    )
    async with open_app(settings) as app, serving(app):
        person = await app.auth.by_name_and_key("person", USER_KEY, "127.0.0.1")  # as the log-in page does
        cookies = {SESSION_COOKIE: await app.auth.open_session(person)}
        async with aiohttp.ClientSession(cookies=cookies, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            yield Screen(base, session)


@pytest.fixture
async def linked(screen: Screen, emulator: Emulator) -> str:
    """The Config screen's road to a saved link. The list id."""
    made = await screen.api3("Group", "create", {"title": "Newsletter", "group_type": "Mailing List"})
    found = await screen.api3("Mailchimpsync", "fetchaccountinfo", {"api_key": emulator.key})
    account = found["values"] | {"apiKey": emulator.key}
    (list_id,) = account["audiences"]
    link = {"apiKey": emulator.key, "subscriptionGroup": made["id"], "interests": {}}
    config = {"accounts": {emulator.key: account}, "lists": {list_id: link}}
    saved = await screen.api3("Mailchimpsync", "updateconfig", {"config": json.dumps(config)})
    assert saved["is_error"] == 0, saved
    return str(list_id)


async def settled(screen: Screen, list_id: str) -> dict[str, Any]:
    """Ask for the status, as the screen does every few seconds, until nothing is under way."""
    for _ in range(500):
        answer = await screen.api3("Mailchimpsync", "getstatus", {"batches": 1})
        status: dict[str, Any] = answer["values"][list_id]
        if status["in_sync"]:
            return status
    raise AssertionError(f"never came into step: {status}")


# The Config screen


async def test_the_config_screen_starts_with_nothing(screen: Screen) -> None:
    answer = await screen.api3("Setting", "getvalue", {"name": "mailchimpsync_config", "group": "MailchimpSync"})
    assert not answer["result"]


async def test_the_config_screen_reads_back_what_it_saved(screen: Screen, emulator: Emulator, linked: str) -> None:
    answer = await screen.api3("Setting", "getvalue", {"name": "mailchimpsync_config"})
    config = json.loads(answer["result"])
    assert config["lists"][linked]["apiKey"] == emulator.key
    assert config["accounts"][emulator.key]["audiences"][linked]["webhookFound"] is False
    assert config["accounts"][emulator.key]["batchWebhookFound"] is False


async def test_the_config_screen_lists_groups_to_choose_from(screen: Screen, linked: str) -> None:
    asked = {"is_active": 1, "is_hidden": 0, "options": {"limit": 0, "sort": "title"}, "return": ["id", "title"]}
    answer = await screen.api3("Group", "get", asked)
    assert [one["title"] for one in answer["values"].values()] == ["Newsletter"]


async def test_the_config_screen_adds_and_removes_webhooks(screen: Screen, emulator: Emulator, linked: str) -> None:
    key = {"api_key": emulator.key}
    answer = await screen.api3("Mailchimpsync", "updatewebhook", key | {"process": "add_webhook", "list_id": linked})
    audience = answer["values"]["config"]["accounts"][emulator.key]["audiences"][linked]
    assert audience["webhookFound"] is True
    answer = await screen.api3("Mailchimpsync", "updatewebhook", key | {"process": "add_batch_webhook"})
    account = answer["values"]["config"]["accounts"][emulator.key]
    assert account["batchWebhookFound"] is True
    hook = {"id": audience["webhooks"][0]["id"], "list_id": linked}
    answer = await screen.api3("Mailchimpsync", "updatewebhook", key | {"process": "delete_webhook"} | hook)
    audience = answer["values"]["config"]["accounts"][emulator.key]["audiences"][linked]
    assert (audience["webhookFound"], audience["webhooks"]) == (False, [])
    hook = {"id": account["batchWebhooks"][0]["id"]}
    answer = await screen.api3("Mailchimpsync", "updatewebhook", key | {"process": "delete_batch_webhook"} | hook)
    assert answer["values"]["config"]["accounts"][emulator.key]["batchWebhooks"] == []


async def test_the_config_screen_is_told_why_a_key_is_no_good(screen: Screen) -> None:
    answer = await screen.api3("Mailchimpsync", "fetchaccountinfo", {"api_key": "nonsense"})
    assert answer["error_message"] == "Invalid API key - could not extract datacentre from given API key."


# The Status screen


async def test_the_status_screen_shows_a_connection_before_its_first_sync(screen: Screen, linked: str) -> None:
    status = (await screen.api3("Mailchimpsync", "getstatus", {}))["values"][linked]
    assert (status["lastSyncTimeHuman"], status["in_sync"], status["crashed"]) == ("never", False, False)
    assert (status["locks"]["fetchAndReconcile"], status["log"]) == ("readyToFetch", [])


async def test_the_status_screen_shows_the_titles_of_its_groups(screen: Screen, linked: str) -> None:
    config = json.loads((await screen.api3("Setting", "getvalue", {"name": "mailchimpsync_config"}))["result"])
    group_id = config["lists"][linked]["subscriptionGroup"]
    answer = await screen.api3("Group", "get", {"id": {"IN": [group_id]}, "return": ["title"], "sequential": 1})
    assert answer["values"][0]["title"] == "Newsletter"


async def test_the_status_screen_follows_a_sync_to_its_end(screen: Screen, linked: str) -> None:
    answer = await screen.api3("Mailchimpsync", "fetchandreconcile", {"group_id": 1, "since": "ever"})
    assert answer["is_error"] == 0, answer
    status = await settled(screen, linked)
    assert status["stats"]["subscribed_at_mailchimp"] == status["stats"]["subscribed_at_civicrm"] == 3
    assert all(entry["message"] and entry["time"] for entry in status["log"])
    assert status["log"][-1]["took"] == ""


async def test_the_status_screen_aborts(screen: Screen, linked: str) -> None:
    answer = await screen.api3("Mailchimpsync", "abortsync", {"group_id": 1})
    assert answer == {"is_error": 0, "version": 3, "count": 0, "values": []}
    status = (await screen.api3("Mailchimpsync", "getstatus", {"batches": 1}))["values"][linked]
    assert status["log"][-1]["message"] == "Abort!"


# The Cache Browser on it


async def test_the_cache_browser_counts_then_pages_with_the_same_filters(screen: Screen, linked: str) -> None:
    await screen.api3("Mailchimpsync", "fetchandreconcile", {"group_id": 1, "since": "ever"})
    await settled(screen, linked)
    filters = {
        "mailchimp_list_id": linked,
        "mailchimp_email": {"LIKE": "%b%"},
        "mailchimp_status": "subscribed",
        "civicrm_status": "Added",
        "sync_status": "ok",
    }
    count = await screen.api3("MailchimpsyncCache", "getcount", filters)
    assert count["result"] == 1
    page = {"options": {"limit": 10, "offset": 0}, "troubleshoot": 1}
    (row,) = (await screen.api3("MailchimpsyncCache", "get", filters | page))["values"]
    assert row["mailchimp_email"] == "bob@example.org"
    assert (row["civicrm_status"], row["most_recent"], row["errors"], row["updates"]) == ("Added", "CiviCRM", "", [])
    assert row["civicrm_other_groups"]["1"]["mostRecent"] == "CiviCRM"
    assert row["civicrm_display_name"] == "bob@example.org"
    assert json.loads(row["mailchimp_data"])["status"] == "subscribed"


async def test_the_cache_browser_goes_through_all_pages(screen: Screen, linked: str) -> None:
    await screen.api3("Mailchimpsync", "fetchandreconcile", {"group_id": 1, "since": "ever"})
    seen = []
    for offset in (0, 2, 4):
        params = {"mailchimp_list_id": linked, "options": {"limit": 2, "offset": offset}, "troubleshoot": 1}
        seen.append(
            [one["mailchimp_email"][:3] for one in (await screen.api3("MailchimpsyncCache", "get", params))["values"]]
        )
    assert seen == [["ada", "bob"], ["cyd"], []]
