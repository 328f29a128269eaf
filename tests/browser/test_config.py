"""The Config pages in a real browser: accounts, links, groups made on the spot, webhooks, two tabs, removal."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from sync.emulator.model.records import Interest, InterestCategory
from tests.browser.looks import stands
from tests.browser.tabs import a_tab, log_in
from tests.browser.whole import HOSTILE, Whole, a_whole_site

pytestmark = pytest.mark.browser
CONFIG = "/civicrm/mailchimpsync/config"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """Nothing connected yet; the audience has two interests, one of a name that would be markup."""
    async with a_whole_site(tmp_path) as running:
        interests = {"i1": Interest("i1", "c1", "Trees"), "i2": Interest("i2", "c1", HOSTILE)}
        running.emulator.audience().categories["c1"] = InterestCategory(id="c1", title="Topics", interests=interests)
        yield running


@pytest.fixture
async def tab(chromium: Browser, site: Whole) -> AsyncIterator[Page]:
    """A tab that closes before the server does; no whole key is ever sent to it."""
    shown: list[str] = []
    async with a_tab(chromium) as opened:

        async def keep(response: object) -> None:
            if CONFIG in response.url and response.status == 200:  # type: ignore[attr-defined]
                shown.append(await response.text())  # type: ignore[attr-defined]

        opened.on("response", keep)
        yield opened
    secret = (await stored(site)).get("accounts", {}).get(site.emulator.key, {}).get("batchWebhookSecret", "no secret")
    assert shown
    assert not [text for text in shown if site.emulator.key in text or site.emulator.key[:-8] in text or secret in text]


async def stored(site: Whole) -> dict[str, dict[str, dict[str, object]]]:
    """The configuration as it stands in the database."""
    text = await site.call("Setting", "getvalue", name="mailchimpsync_config")
    return dict(json.loads(text)) if text else {}


async def test_an_account_is_added_linked_with_new_groups_and_mended(tab: Page, site: Whole, screenshots: Path) -> None:
    await log_in(tab, site, CONFIG)
    await expect(tab.get_by_role("listitem").filter(has_text="Connect Mailchimp")).to_have_attribute(
        "aria-current", "step"
    )
    await tab.get_by_label("Mailchimp API key").fill("0" * 32 + "-us1")
    await tab.get_by_role("button", name="Connect").click()
    await expect(tab.get_by_role("status")).to_contain_text("API Key Invalid")
    await expect(tab.get_by_role("status")).to_contain_text("Nothing was saved")
    await tab.screenshot(path=screenshots / "config-wrong-key.png", full_page=True)

    await tab.get_by_label("Mailchimp API key").fill(site.emulator.key)
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("status")).to_contain_text("The account was added. Next, link")
    await expect(tab.locator("main")).to_contain_text(site.emulator.key[-8:])
    await stands(tab, "config-account", screenshots)

    await tab.get_by_role("link", name="Link Newsletter with a group").click()
    await expect(tab.get_by_label("Name of the new group")).to_have_value("Newsletter")
    await tab.get_by_label("Topics: Trees").select_option("new")
    await tab.get_by_text("Override conflicts once").click()
    await tab.get_by_label("On conflict about subscriptions").select_option("Mailchimp wins in the next sync")
    await tab.get_by_text("Brake", exact=True).click()
    await tab.get_by_label("Stop before removing more than").fill("5")
    await stands(tab, "config-link", screenshots)
    await tab.get_by_role("button", name="Save").click()
    await expect(tab.get_by_role("link", name="Preview the first sync")).to_be_visible()
    await tab.screenshot(path=screenshots / "config-linked.png", full_page=True)
    groups = {row["title"]: row["id"] for row in (await site.call("Group", "get", sequential=1))["values"]}
    link = (await stored(site))["lists"][site.list_id]
    assert link["subscriptionGroup"] == groups["Newsletter"]
    assert link["interests"] == {"i1": groups["Newsletter: Topics: Trees"]}
    assert (link["trustOverride"], link["brake"]) == ({"subscription": "Mailchimp"}, {"percent": "5"})

    await tab.get_by_role("button", name="Set up the webhook of Newsletter").click()
    await expect(tab.get_by_text("reported at once")).to_be_visible()
    await tab.get_by_role("button", name="Set up the batch webhook").click()
    await expect(tab.get_by_text("received by webhook")).to_be_visible()
    await tab.get_by_text("Webhooks of").click()
    await tab.get_by_role("button", name=re.compile("Delete the webhook .*sync.webhook")).click()
    await tab.get_by_role("button", name="Cancel").click()
    await tab.get_by_role("button", name=re.compile("Delete the webhook .*sync.webhook")).click()
    await tab.get_by_role("button", name="Delete", exact=True).click()
    await expect(tab.get_by_role("status")).to_contain_text("The webhook was deleted")
    await expect(tab.get_by_text("found by the next sync")).to_be_visible()
    assert site.emulator.audience().hooks == {}


async def test_what_is_removed_is_counted_first(tab: Page, site: Whole, screenshots: Path) -> None:
    for n in range(3):
        site.emulator.admin("import", f"member{n}@example.org")
    group_id = await site.link()
    await site.sync(group_id)
    await log_in(tab, site, CONFIG)
    await tab.get_by_role("link", name="Remove the connection of Newsletter").click()
    await expect(tab.locator("main")).to_contain_text("3 people, 0 updates, 0 batches")
    await stands(tab, "config-remove", screenshots)
    await tab.get_by_role("button", name="Remove", exact=True).click()
    await expect(tab.get_by_role("status")).to_contain_text("The connection was removed")
    assert await site.call("GroupContact", "getcount", group_id=group_id) == 3
    await tab.get_by_role("link", name="Remove this account").click()
    await expect(tab.locator("main")).to_contain_text("nothing else is deleted")
    await tab.get_by_role("button", name="Remove", exact=True).click()
    await expect(tab.get_by_role("heading", level=2)).to_have_text("Connect your Mailchimp account")
    await stands(tab, "config-empty", screenshots)


async def test_two_tabs_do_not_overwrite_each_other(tab: Page, site: Whole, screenshots: Path) -> None:
    await site.link()
    other = await site.call("Group", "create", title="Another group")
    smart = await site.call("Group", "create", title="Smart one", saved_search_id=1)
    await log_in(tab, site, f"{CONFIG}/link?list_id={site.list_id}")
    second = await tab.context.new_page()
    await second.goto(tab.url)
    await second.get_by_label("Topics: Trees").select_option("new")
    await second.get_by_role("button", name="Save").click()
    await expect(second.get_by_role("status")).to_contain_text("The connection was saved")

    smart_one = f"option[value='{smart['id']}']"
    assert await tab.get_by_label("CiviCRM group that mirrors").locator(smart_one).count() == 1, "as a source, one way"
    assert await tab.get_by_label("Topics: Trees").locator(smart_one).count() == 0
    await tab.get_by_label("CiviCRM group that mirrors").select_option("Another group, 0 people")
    await tab.get_by_role("button", name="Save").click()
    await expect(tab.get_by_role("alert")).to_contain_text("changed in another tab")
    await tab.screenshot(path=screenshots / "config-two-tabs.png", full_page=True)
    link = (await stored(site))["lists"][site.list_id]
    assert link["subscriptionGroup"] == "1"
    assert link["interests"]
    await expect(tab.get_by_label("CiviCRM group that mirrors")).to_have_value(str(other["id"]))
    await tab.get_by_role("button", name="Save").click()  # knowing it now
    await expect(tab.get_by_role("status")).to_contain_text("The connection was saved")
    assert (await stored(site))["lists"][site.list_id]["subscriptionGroup"] == str(other["id"])


async def test_a_group_that_cannot_be_made_is_said_and_what_was_entered_stays(tab: Page, site: Whole) -> None:
    await site.link("Newsletter: Topics: Trees")
    await log_in(tab, site, f"{CONFIG}/link?list_id={site.list_id}")
    await tab.get_by_label("CiviCRM group that mirrors").select_option("Create a new group")
    await tab.get_by_label("Name of the new group").fill("Brand new")
    await tab.get_by_label("Topics: Trees").select_option("new")
    await tab.get_by_role("button", name="Save").click()
    await expect(tab.get_by_role("alert")).to_contain_text("The group could not be created")
    made = (await site.call("Group", "get", title="Brand new", sequential=1))["values"]
    await expect(tab.get_by_label("CiviCRM group that mirrors")).to_have_value(made[0]["id"])


async def test_names_from_mailchimp_and_civicrm_are_text(tab: Page, site: Whole) -> None:
    site.emulator.audience().name = HOSTILE
    group_id = await site.link(HOSTILE)
    await log_in(tab, site, CONFIG)
    await expect(tab.get_by_role("row", name=HOSTILE)).to_contain_text(HOSTILE)
    await tab.get_by_role("link", name=f"Edit the connection of {HOSTILE}").click()
    await expect(tab.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    await expect(tab.get_by_label("CiviCRM group that mirrors")).to_have_value(str(group_id))
    await expect(tab.get_by_label(f"Topics: {HOSTILE}")).to_be_visible()
