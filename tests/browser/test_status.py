"""The status and preview pages in a real browser: each state, live progress, two tabs, a session that ends."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from playwright.async_api import Page, expect

from civiapi.http.messages import SESSION_COOKIE
from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import ADMIN, ADMIN_KEY, HOSTILE, Whole

pytestmark = pytest.mark.browser

STATUS = "/civicrm/mailchimpsync"


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
    await expect(tab.get_by_role("heading", name="No connection yet")).to_be_visible()
    await stands(tab, "status-empty", screenshots)

    group_id = await site.link("Newsletter")
    people_at_mailchimp(site, 5)
    await person_in_group(site, group_id, "cleo@example.org")
    await tab.goto(f"{site.base}{page_of(site)}")
    await expect(tab.locator(".badge").first).to_have_text("waiting for your first sync")
    await stands(tab, "status-never-run", screenshots)

    # Slowed down, so that there is something to watch: the first stage cannot end before it is let.
    site.emulator.configure(latency_routes={f"GET /lists/{site.list_id}/members": 4000.0})
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator(".badge").first).to_have_text("running")
    await expect(tab.locator(".stages .current .title")).to_have_text("Fetch members")
    await expect(tab.locator("#message")).to_contain_text("the sync continues")
    await expect(tab.locator("#announcement")).to_contain_text("running, Fetch members")
    await stands(tab, "status-running", screenshots)
    site.emulator.configure(latency_routes={})

    await expect(tab.locator(".badge").first).to_have_text("in sync")
    await expect(tab.locator("#message")).to_contain_text("has finished")
    await expect(tab.locator("#announcement")).to_have_text("Newsletter: in sync.")
    await expect(tab.locator(".balance tfoot")).to_contain_text("6")
    assert site.emulator.member("cleo@example.org") is not None
    await tab.reload()
    await tab.get_by_text("Numbers as a table").click()
    await stands(tab, "status-in-sync", screenshots)
    await tab.goto(f"{site.base}/")
    await stands(tab, "status-list", screenshots)


async def test_a_failed_sync_says_what_happened_and_goes_on_when_it_is_mended(
    site: Whole, tab: Page, screenshots: Path
) -> None:
    group_id = await site.link("Newsletter")
    people_at_mailchimp(site, 1)
    await log_in(tab, site, page_of(site))
    site.emulator.add_fault("403_user_disabled")
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator("#message")).to_contain_text("The sync has stopped")
    await expect(tab.locator(".badge").first).to_have_text("failed")
    await stands(tab, "status-failed", screenshots)
    await expect(tab.locator(".notice").first).to_contain_text("did not accept the API key")
    site.emulator.clear_faults()
    await tab.get_by_text("Log", exact=True).click()
    await tab.locator(".log").focus()
    await site.sync(group_id)
    await expect(tab.locator(".badge").first).to_have_text("in sync")
    await expect(tab.locator(".log")).to_contain_text("Contacts: 1 created")
    await expect(tab.locator(".log")).to_be_focused()  # who reads on is not thrown out by what is new


async def test_a_sync_that_went_silent_is_called_crashed_and_says_the_way_on(
    site: Whole, tab: Page, screenshots: Path
) -> None:
    group_id = await site.link("Newsletter")
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=2)):
        await site.call("Mailchimpsync", "fetchandreconcile", group_id=group_id, stop_on="readyToReconcileQueue")
    await log_in(tab, site, page_of(site))
    await expect(tab.locator(".badge").first).to_have_text("crashed?")
    await expect(tab.get_by_text("have not been updated for about 2 hours")).to_be_visible()
    await expect(tab.locator(".stages .paused .title")).to_have_text("Reconcile")
    await stands(tab, "status-crashed", screenshots)


async def test_a_sync_that_stops_before_sending_is_aborted_after_a_warning(
    site: Whole, tab: Page, screenshots: Path
) -> None:
    group_id = await site.link("Newsletter")
    await person_in_group(site, group_id, "cleo@example.org")
    await log_in(tab, site, page_of(site))
    await tab.get_by_text("Sync since a date").click()
    await tab.get_by_label("everything").check()
    await tab.get_by_label("Stop before sending").check()
    await expect(tab.locator("#options")).to_have_text(
        f"Mailchimpsync.fetchandreconcile group_id={group_id} max_time=0 since=ever stop_on=readyToSubmitUpdates"
    )
    await tab.get_by_role("button", name="Sync with these options").click()
    await expect(tab.locator(".badge").first).to_have_text("paused")
    await expect(tab.locator(".rest")).to_contain_text("1 of them not sent yet")
    assert site.emulator.member("cleo@example.org") is None

    await tab.get_by_role("button", name="Abort…").focus()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("dialog")).to_contain_text("every batch that Mailchimp has not finished is cancelled")
    await stands(tab, "status-abort", screenshots, full=False)
    await tab.keyboard.press("Escape")
    await expect(tab.locator(".badge").first).to_have_text("paused")
    await tab.get_by_role("button", name="Abort…").click()
    await tab.get_by_role("button", name="Abort it").click()
    await expect(tab.locator("#message")).to_contain_text("Aborted")
    await expect(tab.locator(".badge").first).not_to_have_text("paused")


async def test_two_tabs_show_the_same_sync(site: Whole, tab: Page) -> None:
    await site.link("Newsletter")
    people_at_mailchimp(site, 2)
    await log_in(tab, site, page_of(site))
    other = await tab.context.new_page()
    await other.goto(f"{site.base}{STATUS}")
    site.emulator.configure(latency_routes={f"GET /lists/{site.list_id}/members": 4000.0})
    await tab.get_by_role("button", name="Sync now").click()
    await expect(other.locator(".badge")).to_have_text("running")
    await expect(other.locator("#announcement")).to_contain_text("Newsletter: running")
    site.emulator.configure(latency_routes={})
    await expect(other.locator(".badge")).to_have_text("in sync")
    await expect(other.locator(".facts")).to_contain_text("2 at Mailchimp, 2 in the group")


async def test_a_session_that_ends_leads_to_the_log_in_and_back(site: Whole, tab: Page) -> None:
    await site.link("Newsletter")
    await log_in(tab, site)
    admin = await site.app.auth.by_name_and_key(ADMIN, ADMIN_KEY, "127.0.0.1")
    assert admin.contact_id is not None
    short = await site.app.auth.open_session(admin, 3.0)
    await tab.context.add_cookies([{"name": SESSION_COOKIE, "value": short, "url": site.base}])
    await tab.goto(f"{site.base}{page_of(site)}")
    await expect(tab.locator("#message")).to_contain_text("Your session has ended")
    await tab.locator("#message").get_by_role("link", name="Log in").click()
    await tab.get_by_label("User name").fill(ADMIN)
    await tab.get_by_label("API key").fill(ADMIN_KEY)
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Newsletter ⇄ Newsletter")


async def test_what_is_clicked_after_the_session_says_so(site: Whole, tab: Page) -> None:
    await site.link("Newsletter")
    await log_in(tab, site, page_of(site))
    await tab.context.clear_cookies()
    await tab.get_by_role("button", name="Sync now").click()
    await expect(tab.locator("#message")).to_contain_text("Your session has ended. Log in again, then repeat this.")


async def test_a_name_that_would_be_markup_is_shown_as_it_is(site: Whole, tab: Page) -> None:
    group_id = await site.link(HOSTILE)
    await log_in(tab, site, page_of(site))
    await site.sync(group_id)
    await expect(tab.locator(".badge").first).to_have_text("in sync")  # came by the stream of events
    await expect(tab.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    assert await tab.locator("main img").count() == 0


async def test_log_in_and_explorer_stand_the_same_looks(site: Whole, tab: Page, screenshots: Path) -> None:
    await tab.goto(f"{site.base}/")
    await stands(tab, "login", screenshots)
    await log_in(tab, site, "/civicrm/api3")
    await stands(tab, "explorer", screenshots, full=False)
    await tab.goto(f"{site.base}/civicrm/api3/Mailchimpsync/fetchandreconcile")
    await stands(tab, "explorer-action", screenshots, full=False)
