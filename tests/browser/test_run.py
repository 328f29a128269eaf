"""A run in a real browser: opened, searched by keyboard, its undo previewed and done; a picture of each state."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import Whole

pytestmark = pytest.mark.browser


async def test_a_run_is_opened_and_undone(site: Whole, tab: Page, screenshots: Path) -> None:
    group_id = await site.link("Newsletter")
    for number in range(4):
        site.emulator.admin(
            "import", f"member{number}@example.org", merge_fields={"FNAME": "Cleo", "LNAME": f"No {number}"}
        )
    made = await site.call("Contact", "create", contact_type="Individual", first_name="Ada", email="here@example.org")
    await site.call("GroupContact", "create", contact_id=made["id"], group_id=group_id)
    await site.sync(group_id)
    await log_in(tab, site)
    await tab.goto(f"{site.base}/civicrm/mailchimpsync/audience/{site.list_id}")
    await tab.locator("details.run summary").first.press("Enter")
    await tab.get_by_role("link", name="What it did to whom").first.press("Enter")
    await expect(tab.get_by_role("heading", name="What it did")).to_be_visible()
    await stands(tab, "run", screenshots)

    await tab.get_by_label("Name or address").fill("nobody-has-this")
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_text("No matches.")).to_be_visible()
    await tab.get_by_role("link", name="Show all").press("Enter")

    await tab.get_by_role("button", name="Preview an undo").press("Enter")
    await expect(tab.get_by_role("heading", name="What undoing it would do")).to_be_visible()
    await stands(tab, "run-undo-plan", screenshots)
    await tab.get_by_role("button", name="Undo run").press("Enter")
    await expect(tab.get_by_text("It took back what")).to_be_visible()
    await stands(tab, "run-undone", screenshots)
