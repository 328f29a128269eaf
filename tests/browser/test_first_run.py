"""From an empty server to a previewed first sync, by the buttons alone: each step says what is next."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import Whole, a_whole_site

pytestmark = pytest.mark.browser


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """An empty server; three members at Mailchimp."""
    async with a_whole_site(tmp_path) as running:
        for name in ("Ada", "Bob", "Cyd"):
            running.emulator.admin("import", f"{name.lower()}@example.org", merge_fields={"FNAME": name, "LNAME": "B"})
        yield running


async def test_from_log_in_to_a_previewed_first_sync(tab: Page, site: Whole, screenshots: Path) -> None:
    step = tab.locator("ol.steps [aria-current=step]")
    await log_in(tab, site)
    await expect(tab.get_by_role("heading", level=2).first).to_have_text("No connection yet")
    await tab.get_by_role("link", name="Connect Mailchimp").click()

    await expect(step).to_have_text("Connect Mailchimp")
    await expect(tab.get_by_label("Mailchimp API key")).to_be_focused()
    await stands(tab, "first-run-1-connect", screenshots)
    await tab.keyboard.type(site.emulator.key)
    await tab.keyboard.press("Enter")

    await expect(step).to_have_text("Link an audience with a group")
    await tab.get_by_role("link", name="Link Newsletter with a group").click()
    await expect(tab.get_by_label("Name of the new group")).to_have_value("Newsletter")
    await stands(tab, "first-run-2-link", screenshots)
    await tab.get_by_role("button", name="Save").click()

    await expect(step).to_have_text("Preview the first sync")
    await stands(tab, "first-run-3-linked", screenshots)
    await tab.get_by_role("link", name="Preview the first sync").click()
    await expect(step).to_have_text("Preview the first sync")
    await tab.get_by_role("button", name="Calculate the preview").click()

    await expect(step).to_have_text("Sync")
    await expect(tab.locator("main")).to_contain_text("ada@example.org")
    await stands(tab, "first-run-4-preview", screenshots)
    assert await site.call("Contact", "getcount", email="ada@example.org") == 0, "a preview writes nothing"
    await tab.get_by_role("button", name="Start the first sync").click()

    await expect(tab.locator(".badge").first).to_have_text("in sync")
    assert await site.call("GroupContact", "getcount", group_id=1, status="Added") == 3
    await tab.get_by_role("link", name="People").first.click()
    await expect(tab.get_by_role("link", name="Ada B")).to_be_visible()
    await stands(tab, "first-run-5-people", screenshots)


async def test_contacts_come_from_files_once_their_mistakes_are_corrected(
    tab: Page, site: Whole, tmp_path: Path, screenshots: Path
) -> None:
    contacts, emails, large = (tmp_path / name for name in ("contacts.csv", "emails.csv", "large.csv"))
    contacts.write_text("id,contact_type,first_name\n1,Person,Ada\n", "utf-8")
    emails.write_text("contact_id,email\n1,ada@example.org\n", "utf-8")
    large.write_bytes(b"," * site.app.settings.server.max_body)
    await log_in(tab, site)
    chooser, button = tab.get_by_label("CSV files"), tab.get_by_role("button", name="Import")
    await chooser.set_input_files([contacts, large])
    await button.click()
    assert "civiapi import" in await chooser.evaluate("input => input.validationMessage")
    await stands(tab, "first-run-0-empty", screenshots)

    await chooser.set_input_files([contacts, emails])
    await button.click()
    await expect(tab.get_by_role("alert")).to_contain_text("contacts.csv, line 2: contact_type")
    await stands(tab, "import-mistake", screenshots)
    contacts.write_text("id,contact_type,first_name\n1,Individual,Ada\n", "utf-8")
    await chooser.set_input_files([contacts, emails])
    await button.click()
    await expect(tab.get_by_role("status")).to_contain_text("Imported: 1 contact, 1 email address.")
    await stands(tab, "imported", screenshots)


async def test_the_pages_of_an_empty_server_say_what_to_do(tab: Page, site: Whole) -> None:
    await log_in(tab, site, "/civicrm/mailchimpsync/people")
    for path in ("/people", "/person?email=ada@example.org", ""):
        await tab.goto(f"{site.base}/civicrm/mailchimpsync{path}")
        way = tab.locator(".empty").get_by_role("link")
        await expect(way).to_have_attribute("href", "/civicrm/mailchimpsync/config")
