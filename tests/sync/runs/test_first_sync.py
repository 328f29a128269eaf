"""A new connection waits until a person starts its first sync; the schedule passes it over and says so."""

from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from civiapi.api.dispatch import Api
from civiapi.store.text.php import dump_php
from entities.site.job_runner import run_job
from sync.connections.config import read_config
from sync.reports.status import WAITING
from sync.store.tables import cache, run, status
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

PEOPLE = ["ada@example.org", "bob@example.org"]


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """A connection just linked, with two members that CiviCRM does not know."""
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings()) as opened:
            opened.joined(*PEOPLE)
            yield opened


@pytest.fixture
async def ask(site: Site) -> ApiCaller:
    made = ApiCaller(site)
    await made("updateconfig", config=deepcopy(dict((await site.store.read(read_config)).raw)))
    return made


async def run_hourly_job(site: Site, ask: ApiCaller, **parameters: Any) -> str:
    """Run a scheduled sync now; what the job log says of it."""
    lines = "\n".join(f"{name}={value}" for name, value in parameters.items())
    made = await ask("create", "Job", name="Sync", run_frequency="Hourly", api_entity="Mailchimpsync",
                     api_action="fetchandreconcile", parameters=lines)  # fmt: skip
    job_id = int(next(iter(made)))
    await run_job(Api(site.store, ask.api.registry, ask.sync), job_id, forced=True)
    found = await ask("get", "JobLog", job_id=job_id, sequential=1, options={"sort": "id DESC", "limit": 1})
    return str(found[0]["data"] if found[0].get("data") else found[0]["description"])


async def is_waiting(site: Site, ask: ApiCaller) -> bool:
    return bool((await ask("getstatus", health=1))[site.list_id]["waiting"] == WAITING)


async def people(site: Site) -> int:
    return sum(one.contact_type == "Individual" for one in await site.contacts())


async def test_the_schedule_passes_a_new_connection_over_and_says_so(site: Site, ask: ApiCaller) -> None:
    before = await people(site)
    for parameters in ({}, {"group_id": GROUP}, {"since": "ever", "force_restart": 1}):
        assert "Waiting for your first sync" in await run_hourly_job(site, ask, **parameters)
    assert await people(site) == before
    assert await is_waiting(site, ask)
    assert not site.emulator.requests


@pytest.mark.parametrize(
    "started", [{"group_id": GROUP}, {"group_id": GROUP, "confirm": 1}, {}], ids=["script", "page", "command line"]
)
async def test_a_person_starts_it_and_from_then_on_the_schedule_goes_on(
    site: Site, ask: ApiCaller, started: dict[str, Any]
) -> None:
    before = await people(site)
    await ask("fetchandreconcile", **started)
    assert await people(site) == before + 2
    assert not await is_waiting(site, ask)
    site.joined("cyd@example.org")
    assert "Waiting" not in await run_hourly_job(site, ask)
    assert await people(site) == before + 3


async def test_a_job_that_confirms_starts_it(site: Site, ask: ApiCaller) -> None:
    await run_hourly_job(site, ask, group_id=GROUP, confirm=1)
    assert len(await site.rows()) == 2


async def test_a_first_sync_out_of_time_is_continued_by_the_schedule(site: Site, ask: ApiCaller) -> None:
    await ask("fetchandreconcile", group_id=GROUP, stop_on="readyToCreateNewContactsFromMailchimp")
    before = await people(site)
    await run_hourly_job(site, ask)
    assert await people(site) == before + 2


async def test_neither_a_webhook_nor_one_person_nor_an_abort_starts_it(site: Site, ask: ApiCaller) -> None:
    fields = {"type": "subscribe", "data": {"list_id": site.list_id, "email": PEOPLE[0]}}
    await site.inbox.receive_audience_webhook(fields)
    await site.inbox.process_due()
    await ask("syncmember", group_id=GROUP, email=PEOPLE[0])
    await ask("abortsync", group_id=GROUP)
    assert await is_waiting(site, ask)
    assert "Waiting for your first sync" in await run_hourly_job(site, ask)


@pytest.mark.parametrize("left_behind", ["rows", "status"])
async def test_a_connection_taken_over_from_the_extension_is_not_new(site: Site, left_behind: str) -> None:
    theirs = {"lastSyncTime": "2026-01-09 11:00:00", "locks": {"fetchAndReconcile": "readyToFetch"}, "log": []}
    values = (
        insert(cache).values(mailchimp_list_id=site.list_id, mailchimp_member_id="x", mailchimp_email="x@example.org")
        if left_behind == "rows"
        else insert(status).values(list_id=site.list_id, data=dump_php(theirs))
    )
    await site.store.write(lambda conn: conn.execute(values))
    ask = ApiCaller(site)
    before = await people(site)
    assert "Waiting" not in await run_hourly_job(site, ask)
    assert await people(site) == before + 2


async def test_a_connection_that_the_extension_syncs_beside_us_no_longer_waits(site: Site, ask: ApiCaller) -> None:
    line = {"time": "2026-01-09 11:00:00", "message": "Fetched 2 members"}
    theirs = {"lastSyncTime": None, "locks": {"fetchAndReconcile": "readyToFetch"}, "log": [line]}
    await site.store.write(
        lambda conn: conn.execute(insert(status).values(list_id=site.list_id, data=dump_php(theirs)))
    )
    assert not await is_waiting(site, ask)


async def test_a_link_that_was_stored_by_other_means_waits_as_well(site: Site) -> None:
    await site.store.write(lambda conn: conn.execute(run.delete()))
    assert await is_waiting(site, ApiCaller(site))
