"""The People pages in a real browser: search, pages, ticking, one person explained and synced, hostile names."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from sync.emulator.model.records import Interest, InterestCategory
from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import HOSTILE, Whole, a_whole_site

pytestmark = pytest.mark.browser
PEOPLE = "/civicrm/mailchimpsync/people"
PERSON = "/civicrm/mailchimpsync/person"


async def a_person(site: Whole, group_id: int, address: str, first_name: str = "Cleo") -> int:
    made = await site.call("Contact", "create", contact_type="Individual", first_name=first_name, email=address)
    await site.call("GroupContact", "create", contact_id=made["id"], group_id=group_id)
    return int(made["id"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """Thirty members, one of a hostile name; one on hold and one whom Mailchimp forgot, in the group; synced."""
    async with a_whole_site(tmp_path) as running:
        audience = running.emulator.audience()
        audience.categories["c1"] = InterestCategory(
            id="c1", title="Topics", interests={"i1": Interest("i1", "c1", "Trees")}
        )
        running.emulator.configure(forgotten_emails=["gone@example.org"])
        for n in range(30):
            name = HOSTILE if n == 3 else f"Ada{n}"
            fields = {"FNAME": name, "LNAME": "Byron"}
            running.emulator.admin("import", f"member{n:02}@example.org", merge_fields=fields)
        trees = await running.call("Group", "create", title="Trees")
        group_id = await running.link(interests={"i1": str(trees["id"])})
        await a_person(running, group_id, "gone@example.org", "Gone")
        held = await a_person(running, group_id, "held@example.org", "Held")
        address = await running.call("Email", "get", contact_id=held)
        await running.call("Email", "create", id=address["id"], on_hold=1)
        await running.sync(group_id)
        yield running


async def names(tab: Page) -> list[str]:
    return [(await one.inner_text()).split("\n")[0] for one in await tab.locator("tbody th").all()]


async def test_people_are_paged_through_and_selected(tab: Page, site: Whole, screenshots: Path) -> None:
    await log_in(tab, site, PEOPLE)
    await expect(tab.get_by_text("All 32 matches")).to_be_visible()
    await expect(tab.get_by_role("row")).to_have_count(26)
    await stands(tab, "people", screenshots, full=False)
    first = await names(tab)
    await tab.get_by_role("link", name="Next").click()
    await expect(tab.get_by_role("row")).to_have_count(8)
    second = await names(tab)
    assert len({*first, *second}) == 32
    await expect(tab.get_by_role("link", name="Next")).to_have_count(0)
    await tab.get_by_role("link", name="Previous").click()
    await expect(tab.get_by_role("row")).to_have_count(26)
    assert await names(tab) == first
    await expect(tab.get_by_role("link", name="Previous")).to_have_count(0)

    await tab.get_by_role("button", name="Include in the next Mailchimp sync").click()
    await expect(tab.get_by_role("alert")).to_contain_text("Select the people to include first")
    await tab.get_by_role("checkbox", name=f"Include {first[0]}").check()
    await tab.get_by_role("checkbox", name=f"Include {first[1]}", exact=True).check()
    await expect(tab.get_by_text("2 selected")).to_be_visible()
    await tab.get_by_role("button", name="Include in the next Mailchimp sync").click()
    await expect(tab.get_by_role("status").first).to_contain_text("2 people are included in the next Mailchimp sync")
    assert await site.call("MailchimpsyncCache", "getcount", mailchimp_list_id=site.list_id, sync_status="todo") == 2

    await tab.goto(f"{site.base}{PEOPLE}?sync_status=fail")
    await tab.get_by_text("All 2 matches").click()
    await tab.get_by_role("button", name="Include in the next Mailchimp sync").click()
    await expect(tab.get_by_role("status").first).to_contain_text("2 people are included")
    await expect(tab.get_by_role("heading", level=2)).to_have_text("No matches")
    await stands(tab, "people-nobody", screenshots)
    assert await site.call("MailchimpsyncCache", "getcount", mailchimp_list_id=site.list_id, sync_status="todo") == 4


FINDS: tuple[tuple[str, str, list[str]], ...] = (
    ("Name, address", "member07", ["Ada7 Byron"]),
    ("Name, address", "held@", ["Held"]),  # in CiviCRM alone
    ("Name, address", "*07@example", ["Ada7 Byron"]),
    ("Name, address", "Ada7 By", ["Ada7 Byron"]),
    ("Name, address", "ada12", ["Ada12 Byron"]),
    ("Name, address", "<img", [f"{HOSTILE} Byron"]),
    ("Error message", "on hold", ["Held"]),
    ("Error message", "forgotten", ["Gone"]),  # Mailchimp's word
    ("Name, address", "<script>", []),
)


async def test_people_are_found_by_address_name_and_why_they_failed(tab: Page, site: Whole) -> None:
    await log_in(tab, site, PEOPLE)
    for label, text, found in FINDS:
        await tab.goto(f"{site.base}{PEOPLE}")
        await tab.get_by_label(label).fill(text)
        await tab.keyboard.press("Enter")
        await expect(tab.get_by_role("search").get_by_role("link", name="Show all")).to_be_visible()
        assert await names(tab) == found, (label, text)
    await expect(tab.get_by_role("heading", level=2)).to_have_text("No matches")


async def test_a_person_is_explained_synced_and_included(tab: Page, site: Whole, screenshots: Path) -> None:
    await log_in(tab, site, f"{PERSON}?email=gone@example.org")
    main = tab.locator("main")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Gone")
    await expect(main).to_contain_text("refused")
    await expect(main).to_contain_text("Forgotten Email Not Subscribed")
    await expect(main).to_contain_text("It cannot change anything.")
    await stands(tab, "person-refused", screenshots)

    site.emulator.configure(forgotten_emails=[])
    await tab.get_by_role("button", name="Include in the next sync").click()
    await expect(tab.get_by_role("status")).to_contain_text("is included in the next")
    await tab.get_by_role("button", name="Sync this person now").click()
    await expect(tab.get_by_role("status")).to_contain_text("was synced")
    assert await site.app.sync.wait_until_idle(seconds=20)
    await tab.reload()
    await expect(main).to_contain_text("Nothing: both sides agree.")
    assert site.emulator.member("gone@example.org") is not None
    await stands(tab, "person-in-step", screenshots)


async def test_a_hostile_name_is_text_and_a_stranger_is_said_to_be_one(tab: Page, site: Whole) -> None:
    await log_in(tab, site, PEOPLE)
    await tab.get_by_role("link", name=HOSTILE).click()
    await expect(tab.get_by_role("heading", level=1)).to_have_text(f"{HOSTILE} Byron")
    await expect(tab.locator("main")).to_contain_text("Topics: Trees")
    await tab.goto(f"{site.base}{PERSON}?email=%3Cscript%3Ealert(1)%3C/script%3E@example.org")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("<script>alert(1)</script>@example.org")
    await expect(tab.locator("main")).to_contain_text("Not in the group, and not known at Mailchimp")
    await tab.goto(f"{site.base}{PERSON}?contact_id=999999")
    await expect(tab.locator("main")).to_contain_text("Not in the group, and not known at Mailchimp")
