"""The Jobs page in a real browser: what is said of each job, run it, change it, read its log."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.looks import stands
from tests.browser.tabs import log_in
from tests.browser.whole import HOSTILE, Whole

pytestmark = pytest.mark.browser
JOBS = "/civicrm/mailchimpsync/jobs"


async def test_a_job_is_run_edited_switched_off_and_its_log_is_read(tab: Page, site: Whole, screenshots: Path) -> None:
    await log_in(tab, site, JOBS)
    card = tab.get_by_role("region", name=re.compile("(Hourly|Daily) Mailchimp sync"))
    await expect(card).to_contain_text("never")
    await expect(card).to_contain_text("due now")

    await card.get_by_role("button", name="Run now").click()
    await expect(tab.get_by_role("status").first).to_have_text("The job has run; its result is shown below.")
    await expect(card).to_contain_text("with result: Success")
    await expect(card).not_to_contain_text("due now")

    await card.get_by_text("Edit").click()
    await card.get_by_label("How often").select_option("Daily")
    await card.get_by_label("Parameters of the call").fill("max_time=60\ngroup_id=3")
    await card.get_by_label("Run once at this time").fill("2037-01-31T10:00:00")
    await stands(tab, "jobs-edit", screenshots)
    await card.get_by_role("button", name="Save").click()
    await expect(card).to_contain_text("31 Jan 2037, 10:00")
    saved = (await site.call("Job", "get", sequential=1))["values"][0]
    assert (saved["run_frequency"], saved["parameters"]) == ("Daily", "max_time=60\ngroup_id=3")

    await card.get_by_role("button", name="Disable").click()
    await expect(card).to_contain_text("disabled")
    await expect(card).to_contain_text("not scheduled")

    await card.get_by_role("link", name="Log").click()
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Job log")
    await expect(tab.get_by_role("row")).to_have_count(3)
    await expect(tab.get_by_role("row").nth(1)).to_contain_text("Finished execution")
    await stands(tab, "jobs-log", screenshots)


async def test_what_jobs_are_called_and_say_is_text(tab: Page, site: Whole) -> None:
    job = await site.call(
        "Job", "create", name=HOSTILE, run_frequency="Always", api_entity="Nothing", api_action="get",
        description=HOSTILE + "!", parameters=f"a={HOSTILE}",
    )  # fmt: skip
    await log_in(tab, site, JOBS)
    card = tab.get_by_role("region", name=HOSTILE)
    await card.get_by_role("button", name="Run now").click()
    await expect(card).to_contain_text("Failure, Error message: API (Nothing, get) does not exist")
    await card.get_by_role("link", name="Log").click()
    await expect(tab.get_by_role("row").nth(1)).to_contain_text(f"Finished execution of {HOSTILE}")
    await tab.goto(f"{site.base}/civicrm/admin/joblog?jid={job['id']}")
    await expect(tab.get_by_role("row")).to_have_count(3)


async def test_a_job_that_was_deleted_meanwhile_is_said_to_be_gone(tab: Page, site: Whole) -> None:
    await log_in(tab, site, "/civicrm/admin/job")
    await site.call("Job", "delete", id=2)
    await tab.reload()
    await site.call("Job", "delete", id=1)
    await tab.get_by_role("button", name="Run now").click()
    await expect(tab.locator("#result-1")).to_contain_text("There is no job with id 1")
    await tab.get_by_role("button", name="Disable").click()
    await expect(tab.get_by_role("alert")).to_contain_text("Nothing was changed")
    await expect(tab.get_by_role("heading", level=2).last).to_have_text("There are no scheduled jobs")
