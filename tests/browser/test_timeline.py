"""The timeline in a real browser: with entries, filtered by keyboard, and empty."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from sync.store.events import ABORT, BRAKE, CONFIRM, WEBHOOK, record
from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import Whole

pytestmark = pytest.mark.browser

TIMELINE = "/civicrm/mailchimpsync/timeline"
SENTENCES = {
    WEBHOOK: "The webhook of the audience is missing at Mailchimp.",
    BRAKE: "The brake is on: this sync would remove 60 of 214 people from the group; the limit is 10 % and 25 people.",
    CONFIRM: "Confirmed: the sync goes on past the brake.",
    ABORT: "The sync was aborted. 12 updates were cancelled.",
}


async def test_what_happened_is_read_and_narrowed(site: Whole, tab: Page, screenshots: Path) -> None:
    await log_in(tab, site)
    await tab.goto(f"{site.base}{TIMELINE}")
    await expect(tab.get_by_role("heading", name="Nothing happened")).to_be_visible()
    await stands(tab, "timeline-empty", screenshots)

    group_id = await site.link("Newsletter")
    await site.sync(group_id)
    for kind, sentence in SENTENCES.items():
        await site.app.store.write(record, kind, site.list_id, sentence)
    await tab.reload()
    await expect(tab.locator("tbody tr")).to_have_count(len(SENTENCES) + 4)  # linked, synced, two webhooks missing
    await stands(tab, "timeline", screenshots)

    await tab.get_by_label("Kind").focus()
    await tab.keyboard.press("b")
    await tab.get_by_role("button", name="Filter").press("Enter")
    await expect(tab.locator("tbody tr")).to_have_count(1)
    await expect(tab.locator("tbody")).to_contain_text("would remove 60 of 214")
    await stands(tab, "timeline-filtered", screenshots)
