"""A smart group is linked as a source on the Connections page, and shown as one way wherever the connection is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from sqlalchemy import Connection, insert, update

from civiapi.store.schema.tables import group, group_contact_cache
from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import Whole

pytestmark = pytest.mark.browser


async def test_a_smart_group_is_linked_synced_and_shown_as_one_way(tab: Page, site: Whole, screenshots: Path) -> None:
    smart = int((await site.call("Group", "create", title="Donors of this year"))["id"])
    ada = int((await site.call("Contact", "create", contact_type="Individual", email="ada@example.org"))["id"])

    def compute(conn: Connection) -> None:
        conn.execute(update(group).where(group.c.id == smart).values(saved_search_id=1))
        conn.execute(insert(group_contact_cache).values(group_id=smart, contact_id=ada))

    await site.app.store.write(compute)
    account = (await site.call("Mailchimpsync", "fetchaccountinfo", api_key=site.emulator.key))["values"]
    accounts = {site.emulator.key: account | {"apiKey": site.emulator.key}}
    await site.call("Mailchimpsync", "updateconfig", config={"accounts": accounts, "lists": {}})

    await log_in(tab, site, f"/civicrm/mailchimpsync/config/link?list_id={site.list_id}")
    await tab.get_by_label("CiviCRM group that mirrors this audience").select_option(label="Donors of this year")
    await tab.get_by_label("Who leaves a smart group").select_option("archive")
    await stands(tab, "config-smart-group", screenshots)
    await tab.get_by_role("button", name="Save").click()
    await expect(tab.get_by_text("smart group, one way; who leaves is archived")).to_be_visible()

    await tab.goto(f"{site.base}/civicrm/mailchimpsync/audience/{site.list_id}")
    await expect(tab.get_by_role("heading", level=1)).to_contain_text("→")
    await expect(tab.get_by_text("whose members CiviCRM has not computed")).to_be_visible()
    await stands(tab, "status-smart-group-not-computed", screenshots)

    computed = site.app.store.clock.write(datetime.now(UTC))
    known = update(group).where(group.c.id == smart).values(cache_date=computed)
    await site.app.store.write(lambda conn: conn.execute(known))
    await site.sync(smart)
    await tab.reload()
    await expect(tab.get_by_text("who leaves it is archived")).to_be_visible()
    await stands(tab, "status-smart-group", screenshots)
    member = site.emulator.member("ada@example.org")
    assert member is not None
    assert member.status == "subscribed"

    await tab.goto(f"{site.base}/civicrm/mailchimpsync/person?contact_id={ada}")
    await expect(tab.get_by_role("heading", level=2).first).to_contain_text("→")
    await expect(tab.get_by_text("CiviCRM’s search").first).to_be_visible()
    status = (await site.call("Mailchimpsync", "getstatus"))["values"][site.list_id]
    assert status["one_way"]["leavers"] == "archive"
