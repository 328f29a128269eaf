"""The status and preview pages in a real browser: each state, live progress, two tabs, a session that ends."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.looks import stands
from tests.browser.whole import Whole, a_tab, a_whole_site, log_in

pytestmark = pytest.mark.browser

STATUS = "/civicrm/mailchimpsync"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    async with a_whole_site(tmp_path) as running:
        yield running


@pytest.fixture
async def tab(chromium: Browser, site: Whole) -> AsyncIterator[Page]:
    async with a_tab(chromium) as opened:
        yield opened


def page_of(site: Whole) -> str:
    return f"{STATUS}/audience/{site.list_id}"


def people_at_mailchimp(site: Whole, count: int) -> None:
    for number in range(count):
        site.emulator.admin("import", f"person{number}@example.org", first_name="Ada", last_name=f"Number {number}")


async def person_in_group(site: Whole, group_id: int, address: str) -> None:
    made = await site.call("Contact", "create", contact_type="Individual", first_name="Cleo", email=address)
    await site.call("GroupContact", "create", contact_id=made["id"], group_id=group_id)


async def test_from_nothing_to_a_first_sync_that_is_watched_live(site: Whole, tab: Page, screenshots: Path) -> None:
    await log_in(tab, site)
    await expect(tab.get_by_role("heading", name="Nothing is connected yet")).to_be_visible()
    await stands(tab, "status-empty", screenshots)

    group_id = await site.link("Newsletter")
    people_at_mailchimp(site, 5)
    await person_in_group(site, group_id, "cleo@example.org")
    await tab.goto(f"{site.base}{page_of(site)}")
    await expect(tab.locator(".pill").first).to_have_text("never run")
    await stands(tab, "status-never-run", screenshots)

    # Slowed down, so that there is something to watch: the first stage cannot end before it is let.
    site.emulator.turn(latency_routes={f"GET /lists/{site.list_id}/members": 4000.0})
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator(".pill").first).to_have_text("running")
    await expect(tab.locator(".stages .now .title")).to_have_text("Fetch members")
    await expect(tab.locator("#line")).to_contain_text("it goes on")
    await expect(tab.locator("#spoken")).to_contain_text("running, Fetch members")
    await stands(tab, "status-running", screenshots)
    site.emulator.turn(latency_routes={})

    await expect(tab.locator(".pill").first).to_have_text("in sync", timeout=20_000)
    await expect(tab.locator("#line")).to_contain_text("has done its part")
    await expect(tab.locator("#spoken")).to_have_text("Newsletter: in sync.")
    await expect(tab.locator(".balance tfoot")).to_contain_text("6")
    assert site.emulator.member("cleo@example.org") is not None
    await tab.reload()
    await tab.get_by_text("The numbers of both charts as a table").click()
    await stands(tab, "status-in-sync", screenshots)
    await tab.goto(f"{site.base}/")
    await stands(tab, "status-list", screenshots)


async def test_a_failed_sync_says_what_happened_and_goes_on_when_it_is_mended(
    site: Whole, tab: Page, screenshots: Path
) -> None:
    await site.link("Newsletter")
    people_at_mailchimp(site, 1)
    await log_in(tab, site, page_of(site))
    site.emulator.add_fault("403_user_disabled")
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator("#line")).to_contain_text("stopped at readyToFetch")
    await expect(tab.locator(".pill").first).to_have_text("failed")
    await stands(tab, "status-failed", screenshots)
    site.emulator.clear_faults()
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator(".pill").first).to_have_text("in sync")
