"""The page of campaigns in a real browser: import them, see what was sent to whom, and that a failure is said."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from sync.emulator.rules import campaigns
from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import HOSTILE, Whole

pytestmark = pytest.mark.browser
ADA = "ada@example.org"


async def test_campaigns_are_imported_and_shown_with_their_opens(tab: Page, site: Whole, screenshots: Path) -> None:
    site.emulator.admin("import", ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    site.emulator.admin("import", "bea@example.org")
    group_id = await site.link()
    await site.sync(group_id, since="ever")
    sent = campaigns.send(site.emulator.world, f"Spring {HOSTILE}", site.list_id, links=["https://example.org/give"])
    campaigns.open_mail(site.emulator.world, sent.id, ADA)

    await log_in(tab, site, f"/civicrm/mailchimpsync/audience/{site.list_id}")
    await tab.get_by_role("link", name="Campaigns", exact=True).click()
    await expect(tab.get_by_text("Last import: never.")).to_be_visible()
    await stands(tab, "campaigns-none", screenshots)

    await tab.get_by_label("also read who opened and clicked").check()
    await tab.get_by_role("button", name="Import campaigns").click()
    await expect(tab.get_by_role("status")).to_have_text("Imported: 1 campaign.")
    row = tab.get_by_role("row").nth(1)
    await expect(row).to_contain_text(f"Spring {HOSTILE}")
    await expect(row).to_contain_text("2 contacts")
    await stands(tab, "campaigns", screenshots)

    await tab.goto(f"{site.base}/civicrm/mailchimpsync/person?email={ADA}")
    mine = tab.get_by_role("region", name="Last campaigns").get_by_role("row").nth(1)
    await expect(mine).to_contain_text(f"Spring {HOSTILE}")
    await expect(mine).not_to_contain_text("not opened")
    await stands(tab, "person-campaigns", screenshots)


async def test_a_failed_import_is_said_with_its_reason(tab: Page, site: Whole, screenshots: Path) -> None:
    await site.link()
    campaigns.send(site.emulator.world, "Spring", site.list_id)
    site.emulator.add_fault("403_user_disabled", path="/sent-to")
    await log_in(tab, site, f"/civicrm/mailchimpsync/audience/{site.list_id}/campaigns")
    await tab.get_by_role("button", name="Import campaigns").click()
    await expect(tab.get_by_role("alert")).to_contain_text("could not be imported")
    await stands(tab, "campaigns-failed", screenshots)
    found = {one["name"] for one in (await site.call("System", "check", sequential=1))["values"]}
    assert f"mailchimpsyncCampaigns:{site.list_id}" in found
