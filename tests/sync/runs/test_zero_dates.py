"""Old databases have ``0000-00-00 00:00:00`` where a time is not known: nothing fails because of one."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from civiapi.maintenance.integrity import check_rows
from civiapi.store.civicrm.jobs import due_jobs, find_job
from sync.reports.checks import Severity
from sync.reports.gauges import read_gauges
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site

ZERO = "0000-00-00 00:00:00"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def write(site: Site, *statements: str) -> None:
    """Change rows as an old program did, on a server that accepts zero dates."""

    def change(conn: Connection) -> None:
        if conn.dialect.name != "sqlite":
            conn.execute(text("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'"))
        for one in statements:
            conn.execute(text(one))

    await site.store.write(change)


async def test_somebody_whose_group_date_is_not_known_is_decided_as_if_long_ago_and_others_are_synced(
    site: Site,
) -> None:
    site.joined("left@example.org", status="unsubscribed")
    dated, undated = [await site.person(one) for one in ("left@example.org", "new@example.org")]
    await write(
        site,
        f"UPDATE civicrm_subscription_history SET date = '{ZERO}'",
        f"UPDATE civicrm_contact SET created_date = '{ZERO}', modified_date = '{ZERO}'",
    )
    await site.run(since="ever")
    await site.settle()
    assert await site.standing(dated) == "Removed"  # Mailchimp's change is later than long ago
    assert await site.standing(undated) == "Added"
    assert site.at_mailchimp("new@example.org") == "subscribed"


async def test_a_member_whose_own_date_is_not_known_is_merged_and_decided(site: Site) -> None:
    await site.person("ada@example.org")
    await site.run(since="ever")
    await site.settle()
    await write(site, f"UPDATE civicrm_mailchimpsync_cache SET mailchimp_updated = '{ZERO}'")
    site.emulator.person("edit_profile", "ada@example.org", merge_fields={"FNAME": "Adele"})
    assert (await site.run(since="ever")).outcome == "finished"
    await site.settle()
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    assert (await site.row("ada@example.org")).sync_status == "ok"


async def test_every_report_answers_with_dates_that_are_not_known(site: Site) -> None:
    ask = ApiCaller(site)
    contact_id = await site.person("ada@example.org")
    await site.run(since="ever")
    await site.settle()
    await write(
        site,
        f"UPDATE civicrm_subscription_history SET date = '{ZERO}'",
        f"UPDATE civicrm_mailchimpsync_cache SET mailchimp_updated = '{ZERO}', sync_status = 'todo',"
        f" civicrm_groups = '{GROUP};Added;{ZERO}'",
        f"UPDATE civicrm_mailchimpsync_batch SET submitted_at = '{ZERO}', completed_at = '{ZERO}'",
        f"UPDATE civicrm_contact SET created_date = '{ZERO}', modified_date = '{ZERO}'",
        f"UPDATE civicrm_email SET hold_date = '{ZERO}', reset_date = '{ZERO}'",
        f"UPDATE civicrm_job SET last_run = '{ZERO}', last_run_end = '{ZERO}', scheduled_run_date = '{ZERO}'",
    )
    assert await ask("getstatus")
    [row] = await ask("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, troubleshoot=1)
    assert row["civicrm_updated"] == ZERO
    [explained] = await ask("explain", contact_id=contact_id)
    assert explained["history"][0]["since"] is None
    assert await ask("plan", group_id=GROUP)
    for entity in ("Contact", "Email", "Job", "MailchimpsyncBatch", "MailchimpsyncCache"):
        more = {"mailchimp_list_id": site.list_id} if entity == "MailchimpsyncCache" else {}
        assert await ask("get", entity, **more), entity
    await site.store.read(read_gauges, site.store.clock, datetime.now(UTC))
    assert (await site.run(since="ever")).outcome == "finished"


async def test_a_job_whose_last_run_is_not_known_counts_as_never_run_and_is_due(site: Site) -> None:
    await write(site, f"UPDATE civicrm_job SET last_run = '{ZERO}', scheduled_run_date = '{ZERO}', is_active = 1")
    due = await site.store.read(due_jobs, datetime.now(UTC), site.store.clock)
    assert due
    job = await site.store.read(find_job, due[0].id, site.store.clock)
    assert job is not None
    assert (job.last_run, job.scheduled) == (None, None)


async def test_check_names_the_rows_whose_date_is_not_known(site: Site) -> None:
    await site.person("ada@example.org")
    await write(site, f"UPDATE civicrm_subscription_history SET date = '{ZERO}'")
    found: list[Any] = [one for one in await site.store.read(check_rows) if one.code.startswith("time")]
    assert [(one.severity, one.sentence) for one in found] == [
        (
            Severity.OK,
            "1 row(s) of civicrm_subscription_history whose date is not known (0000-00-00): id 1. "
            "It counts as long ago; nothing fails because of it.",
        )
    ]


async def test_check_says_so_when_every_time_can_be_read(site: Site) -> None:
    await site.person("ada@example.org")
    assert "Every time can be read." in [one.sentence for one in await site.store.read(check_rows)]
