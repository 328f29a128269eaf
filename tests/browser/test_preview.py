"""Preview and brake in a real browser: what a sync would do is seen first, and only then let happen."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from playwright.async_api import Page, expect

from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import Whole

pytestmark = pytest.mark.browser

STATUS = "/civicrm/mailchimpsync"
MANY = 30


def addresses(count: int) -> list[str]:
    return [f"person{number}@example.org" for number in range(count)]


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text("utf-8").splitlines()))


async def test_the_first_sync_is_previewed_and_then_run(site: Whole, tab: Page, screenshots: Path) -> None:
    group_id = await site.link("Newsletter")
    for address in addresses(2):
        site.emulator.admin("import", address)
    made = await site.call("Contact", "create", contact_type="Individual", first_name="Cleo", email="cleo@example.org")
    await site.call("GroupContact", "create", contact_id=made["id"], group_id=group_id)
    await log_in(tab, site, f"{STATUS}/audience/{site.list_id}")
    await tab.get_by_role("link", name="Preview the first sync").click()
    await expect(tab.get_by_role("heading", name="Preview the changes")).to_be_visible()
    await stands(tab, "preview-start", screenshots)
    await tab.get_by_role("button", name="Calculate the preview").click()

    await expect(tab.locator(".address")).to_have_count(3)
    await stands(tab, "preview", screenshots)
    await tab.get_by_label("Name or address").fill("cleo")
    await tab.keyboard.press("Enter")
    await expect(tab.locator(".address")).to_have_text(["cleo@example.org"])
    async with tab.expect_download() as begun:
        await tab.get_by_role("link", name="Download as CSV").click()
    download = await begun.value
    assert [row["email"] for row in rows_of(await download.path())] == ["cleo@example.org"]
    assert {one.method for one in site.emulator.requests} == {"GET"}

    await tab.get_by_role("button", name="Start the first sync").click()
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Newsletter ⇄ Newsletter")
    await expect(tab.locator(".badge").first).to_have_text("in sync")
    assert site.emulator.member("cleo@example.org") is not None


async def test_the_brake_shows_the_plan_first_and_then_lets_go(site: Whole, tab: Page, screenshots: Path) -> None:
    group_id = await site.link("Newsletter")
    for address in addresses(MANY):
        site.emulator.admin("import", address)
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1)):
        await site.sync(group_id)
    for address in addresses(MANY):
        site.emulator.admin("unsubscribe", address)
    await log_in(tab, site, f"{STATUS}/audience/{site.list_id}")
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator(".badge").first).to_have_text("stopped by the brake")
    await expect(tab.locator("#message")).to_contain_text(f"remove {MANY} of {MANY} people from the group")
    await stands(tab, "status-brake", screenshots)
    await tab.goto(f"{site.base}{STATUS}")
    await stands(tab, "status-list-brake", screenshots)

    await tab.goto(f"{site.base}{STATUS}/audience/{site.list_id}")
    await tab.get_by_role("link", name="Review the changes").click()
    await tab.get_by_role("button", name="Calculate the preview").click()
    await expect(tab.get_by_text(f"1 to 25 of {MANY}")).to_be_visible()
    await stands(tab, "preview-brake", screenshots, full=False)
    go = tab.get_by_role("button", name="Continue the sync…")
    await go.click()
    await expect(tab.get_by_role("dialog")).to_contain_text("makes all of these changes")
    await stands(tab, "preview-go-on", screenshots, full=False)
    await tab.get_by_role("button", name="Cancel").click()
    assert await site.call("GroupContact", "getcount", group_id=group_id, status="Added") == MANY
    await go.click()
    await tab.get_by_role("button", name="Continue", exact=True).click()
    await expect(tab.locator(".badge").first).to_have_text("in sync")
    assert await site.call("GroupContact", "getcount", group_id=group_id, status="Added") == 0
