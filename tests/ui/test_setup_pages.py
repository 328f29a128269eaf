"""People, Config and Jobs over HTTP, over a whole server and the emulator: who gets in, secrets, escaping."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.whole import HOSTILE, Whole, a_whole_site
from tests.support.ui_server import Browser, a_browser

BASE = "/civicrm/mailchimpsync"
PAGES = ("people", "person?email=ada@example.org", "config", "jobs", "jobs/log")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """A linked and synced site whose every name would be markup."""
    async with a_whole_site(tmp_path) as running:
        running.emulator.audience().name = HOSTILE
        for name in ("ada", "bob", "cyd"):
            fields = {"FNAME": HOSTILE, "LNAME": "Byron"}
            running.emulator.admin("import", f"{name}@example.org", merge_fields=fields)
        await running.sync(await running.link(HOSTILE))
        yield running


def pages_of(site: Whole) -> list[str]:
    """Every page there is to look at."""
    lists = f"list_id={site.list_id}"
    return [
        f"{BASE}/{page}"
        for page in (*PAGES, f"config/link?{lists}", f"config/fields?{lists}", f"config/remove?{lists}")
    ]


async def test_pages_are_for_those_who_may(site: Whole, browser: Browser) -> None:
    async with a_browser(site.base) as stranger:
        for page in pages_of(site):
            assert (await browser.get(page)).status == 200, page
            assert (await stranger.get(page)).headers["Location"].startswith("/civicrm/login?next="), page


async def test_no_page_shows_a_whole_key_or_a_secret(site: Whole, browser: Browser) -> None:
    key = site.emulator.key
    await site.call("Mailchimpsync", "updatewebhook", process="add_webhook", api_key=key, list_id=site.list_id)
    config = await site.call("Setting", "getvalue", name="mailchimpsync_config")
    secret = re.findall(r'"batchWebhookSecret":"(\w+)"', config)[0]
    for page in pages_of(site):
        shown = (await browser.get(page)).text
        assert key[:-8] not in shown, page
        assert secret not in shown, page
    assert key[-8:] in (await browser.get(f"{BASE}/config")).text


async def test_names_reach_pages_as_text(site: Whole, browser: Browser) -> None:
    for page in pages_of(site):
        shown = (await browser.get(page)).text
        assert "<img src=x" not in shown, page
    assert "&lt;img src=x" in shown


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("people", {"all": "1"}),
        ("person", {"email": "ada@example.org", "do": "include"}),
        ("config", {"do": "refresh"}),
        ("config/link", {"group": "new", "title": "Evil"}),
        ("config/fields", {"list_id": "x", "names": "1"}),
        ("config/remove", {"list_id": "x"}),
        ("jobs", {"do": "disable", "id": "1"}),
    ],
)
async def test_a_form_that_we_did_not_show_changes_nothing(
    site: Whole, browser: Browser, path: str, form: dict[str, str]
) -> None:
    before = await site.call("Setting", "getvalue", name="mailchimpsync_config")
    assert (await browser.post(f"{BASE}/{path}", data={**form, "list_id": site.list_id})).status == 403
    assert await site.call("Setting", "getvalue", name="mailchimpsync_config") == before
    assert await site.call("Job", "getcount", is_active=1) == 1
    assert await todo(site) == set()


async def todo(site: Whole) -> set[str]:
    """Who is to be looked at by the next sync."""
    rows = await site.call("MailchimpsyncCache", "get", mailchimp_list_id=site.list_id, sync_status="todo")
    return {row["mailchimp_email"] for row in rows["values"]}


async def test_all_that_match_are_included_and_nobody_else(site: Whole, browser: Browser) -> None:
    token = (await browser.get(f"{BASE}/people")).token
    form = {"token": token, "list_id": site.list_id, "all": "1", "address": "b"}
    answer = await browser.post(f"{BASE}/people", data=form)
    assert answer.status == 303
    assert "included=1" in answer.headers["Location"]
    assert await todo(site) == {"bob@example.org"}


async def test_a_search_that_cannot_be_made_is_answered_with_why(site: Whole, browser: Browser) -> None:
    shown = await browser.get(f"{BASE}/people?list_id=nope")
    assert (shown.status, "Invalid list id" in shown.text) == (422, True)
    shown = await browser.get(f"{BASE}/people?after=x")
    assert shown.status == 422
    shown = await browser.get(f"{BASE}/config/link?list_id=nope")
    assert (shown.status, "no longer in the configuration" in shown.text) == (409, True)


async def test_a_removal_that_was_shown_before_something_changed_is_shown_again(site: Whole, browser: Browser) -> None:
    path = f"{BASE}/config/remove?list_id={site.list_id}"
    page = await browser.get(path)
    digest = re.findall(r'name="digest" value="(\w+)"', page.text)[0]
    form = {"token": page.token, "digest": digest, "list_id": site.list_id}
    await site.call(
        "Mailchimpsync", "updatewebhook", process="add_batch_webhook", api_key=site.emulator.key
    )  # changes what is stored
    answer = await browser.post(f"{BASE}/config/remove", data=form)
    assert (answer.status, "Nothing was removed" in answer.text) == (409, True)
    again = form | {"digest": re.findall(r'name="digest" value="(\w+)"', answer.text)[0]}
    assert (await browser.post(f"{BASE}/config/remove", data=again)).status == 303
    assert await site.call("Mailchimpsync", "getstatus") == {"is_error": 0, "version": 3, "count": 0, "values": []}


async def test_a_key_is_replaced_and_everybody_stays_known(site: Whole, browser: Browser) -> None:
    old, new = site.emulator.key, "f" * 28 + "beef-us1"
    site.emulator.world.default_account.users[0].keys.append(new)
    await site.call("Mailchimpsync", "updatewebhook", process="add_webhook", api_key=old, list_id=site.list_id)
    page = await browser.get(f"{BASE}/config")
    account = re.findall(r'name="account" value="(\w+)"', page.text)[0]
    form = {"token": page.token, "account": account, "do": "rekey", "mailchimp_key": new}
    assert (await browser.post(f"{BASE}/config", data=form)).status == 303
    stored = json.loads(await site.call("Setting", "getvalue", name="mailchimpsync_config"))
    assert list(stored["accounts"]) == [new]
    assert stored["lists"][site.list_id]["apiKey"] == new
    assert stored["accounts"][new]["audiences"][site.list_id]["webhookFound"] is True
    assert await site.call("MailchimpsyncCache", "getcount", mailchimp_list_id=site.list_id) == 3
    shown = (await browser.get(f"{BASE}/config")).text
    assert ("beef-us1" in shown, new in shown) == (True, False)


async def test_a_key_of_another_account_replaces_nothing(site: Whole, browser: Browser) -> None:
    other = site.emulator.world.add_account("Other")
    page = await browser.get(f"{BASE}/config")
    account = re.findall(r'name="account" value="(\w+)"', page.text)[0]
    form = {"token": page.token, "account": account, "do": "rekey", "mailchimp_key": other.users[0].keys[0]}
    answer = await browser.post(f"{BASE}/config", data=form)
    assert (answer.status, "belongs to another account" in answer.text) == (422, True)
    assert await site.call("MailchimpsyncCache", "getcount", mailchimp_list_id=site.list_id) == 3


async def test_what_fills_merge_fields_is_chosen_on_a_page_which_shows_what_was_saved(
    site: Whole, browser: Browser
) -> None:
    page = f"{BASE}/config/fields?list_id={site.list_id}"
    first = await browser.get(page)
    shown = first.text
    assert len(re.findall(r'name="clear\[\w+\]" value="1">', shown)) == len(site.emulator.audience().merge_fields)
    form = {"list_id": site.list_id, "source[PHONE]": "phone:phone", "source[FNAME]": "text:", "text[FNAME]": "You"}
    form["digest"] = re.findall(r'name="digest" value="(\w+)"', shown)[0]
    saved = await browser.post(f"{BASE}/config/fields", data={**form, "clear[PHONE]": "1", "token": first.token})
    assert saved.status == 303, saved.text
    config = json.loads(await site.call("Setting", "getvalue", name="mailchimpsync_config"))
    link = config["lists"][site.list_id]
    rules = {tag: (rule["source"], rule["clear"]) for tag, rule in link["mergeFields"].items()}
    assert (rules, link["sendNames"]) == ({"PHONE": ("phone:phone", True), "FNAME": ("text:You", False)}, False)
    shown = (await browser.get(page)).text
    assert re.findall(r'name="clear\[(\w+)\]" value="1" checked', shown) == ["PHONE"]
    assert re.findall(r'<option value="([^"]+)" selected', shown) == ["text:", "phone:phone"]
    assert 'name="names" value="1">' in shown


async def test_a_rule_that_was_stored_meanwhile_is_not_replaced_by_an_older_form(site: Whole, browser: Browser) -> None:
    first = await browser.get(f"{BASE}/config/fields?list_id={site.list_id}")
    [group_id] = {row["group_id"] for row in (await site.call("Mailchimpsync", "getruns"))["values"]}
    await site.call("Mailchimpsync", "setmergefields", group_id=group_id, rules='{"PHONE":"phone:phone"}')
    form = {"token": first.token, "list_id": site.list_id, "source[FNAME]": "text:", "text[FNAME]": "You"}
    form["digest"] = re.findall(r'name="digest" value="(\w+)"', first.text)[0]
    for stale in (form, {**form, "digest": ""}):
        again = await browser.post(f"{BASE}/config/fields", data=stale)
        assert (again.status, "changed in another tab" in again.text, 'value="You"' in again.text) == (409, True, True)
    stored = await site.call("Mailchimpsync", "getmergefields", group_id=group_id)
    rules = {one["tag"]: one["source"] for one in stored["values"]["fields"] if one["source"]}
    assert rules == {"PHONE": "phone:phone"}
    form["digest"] = re.findall(r'name="digest" value="(\w+)"', again.text)[0]
    assert (await browser.post(f"{BASE}/config/fields", data=form)).status == 303  # knowing it now


async def test_a_permission_is_linked_with_a_group_on_the_page_of_its_connection(site: Whole, browser: Browser) -> None:
    listed = [{"marketing_permission_id": "p1", "text": HOSTILE}, {"marketing_permission_id": "p2", "text": "Post"}]
    site.emulator.audience().marketing_permissions = listed
    site.emulator.person("edit_profile", "ada@example.org", marketing_permissions=[
        {"marketing_permission_id": "p1", "enabled": True}
    ])  # fmt: skip
    page = await browser.get(f"{BASE}/config")
    account = re.findall(r'name="account" value="(\w+)"', page.text)[0]
    form = {"token": page.token, "account": account, "do": "refresh"}
    assert (await browser.post(f"{BASE}/config", data=form)).status == 303
    page = await browser.get(f"{BASE}/config/link?list_id={site.list_id}")
    assert "<h2>Marketing permissions</h2>" in page.text
    assert "<h2>Interests</h2>" not in page.text
    [group_id] = {row["group_id"] for row in (await site.call("Mailchimpsync", "getruns"))["values"]}
    form = {"token": page.token, "list_id": site.list_id, "group": str(group_id), "interest[permission:p1]": "new"}
    form["digest"] = re.findall(r'name="digest" value="(\w+)"', page.text)[0]
    saved = await browser.post(f"{BASE}/config/link", data=form)
    assert saved.status == 303, saved.text
    link = json.loads(await site.call("Setting", "getvalue", name="mailchimpsync_config"))["lists"][site.list_id]
    assert (link["interests"], list(link["permissions"])) == ({}, ["p1"])
    await site.sync(group_id)
    known = (await site.call("Mailchimpsync", "getpermissions", group_id=group_id))["values"]
    assert [(one["text"], one["group_id"]) for one in known] == [(HOSTILE, link["permissions"]["p1"]), ("Post", "")]
    shown = (await browser.get(f"{BASE}/person?email=ada@example.org")).text
    assert (shown.count("linked with no group"), "<img src=x" in shown) == (1, False)
    for path in pages_of(site):
        assert "<img src=x" not in (await browser.get(path)).text

    page = await browser.get(f"{BASE}/config/link?list_id={site.list_id}")
    form["digest"], form["interest[permission:p1]"] = re.findall(r'name="digest" value="(\w+)"', page.text)[0], ""
    assert (await browser.post(f"{BASE}/config/link", data=form)).status == 303
    link = json.loads(await site.call("Setting", "getvalue", name="mailchimpsync_config"))["lists"][site.list_id]
    assert link["permissions"] == {}


async def test_jobs_of_a_civicrm_s_other_domains_are_not_shown_and_break_no_page(site: Whole, browser: Browser) -> None:
    job = {"run_frequency": "Daily", "name": "Of another site", "api_entity": "Group", "api_action": "getcount"}
    other = await site.call("Domain", "create", name="Another")
    await site.call("Job", "create", **job, domain_id=other["id"])
    await site.call("Job", "create", **job | {"name": "Of this site"})
    shown = await browser.get(f"{BASE}/jobs")
    assert shown.status == 200
    assert "Of this site" in shown.text
    assert "Of another site" not in shown.text
    assert (await browser.get(f"{BASE}/jobs/log")).status == 200
