"""A database that CiviCRM and the extension made: what is found, taken over, added, left alone; and handed back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import phpserialize
import pytest
import stamina
from sqlalchemy import select

from civiapi.adopt import look_over, take_over
from civiapi.auth import Auth, Shown
from civiapi.settings import DatabaseSettings, Settings
from civiapi.store.clock import site_clock
from civiapi.store.engine import open_store
from civiapi.store.site_settings import read_setting
from civiapi.store.tables import email, group_contact, job
from sync import tables
from sync.clients import Clients
from sync.context import SyncContext, SyncOptions
from sync.errors import SyncError
from sync.mailchimp.emulator.running import Emulator, running_emulator
from sync.mailchimp.wire import BatchOperation, subscriber_hash
from sync.positions import STAGES
from tests.contract import civicrm, databases
from tests.contract.civicrm import API_KEY, NEWS, ZONE, a_civicrm, contents_of, tables_of
from tests.contract.sites import Site
from tests.program import civiapi

SITE_KEY = "site-key-of-civicrm"
EXTENSIONS_WORDS = {"ok", "todo", "live", "redo", "fail"}


@dataclass
class Theirs:
    """CiviCRM's database and the Mailchimp it is in the middle of a sync with."""

    url: str
    emulator: Emulator
    list_id: str
    settings: Settings

    @asynccontextmanager
    async def taken_over(self) -> AsyncIterator[Site]:
        """Our part of a site on it."""
        await take_over(self.settings)
        store = await open_store(self.url, ZONE)
        clients = Clients(base_url=self.emulator.root_url)
        try:
            with stamina.set_testing(True, attempts=2):
                ctx = SyncContext(store, clients, SyncOptions(poll_seconds=0.05), holder="tests")
                yield Site(store, self.emulator, clients, ctx, self.list_id)
        finally:
            await clients.close()
            await store.close()


@asynccontextmanager
async def their_site(folder: Path, *, smart: bool = False) -> AsyncIterator[Theirs]:
    async with running_emulator(auto_batches=False) as emulator:
        list_id = emulator.audience().id
        for local in ("zoe", "bob", "newcomer"):
            emulator.admin("import", f"{local}@example.org")
        body = {"email_address": "cy@example.org", "status": "subscribed", "status_if_new": "subscribed"}
        path = f"/lists/{list_id}/members/{subscriber_hash('cy@example.org')}"
        clients = Clients(base_url=emulator.root_url)
        sent = await clients.client_for(emulator.key).submit_batch([BatchOperation("PUT", path, "theirs1", body, {})])
        await clients.close()
        made = a_civicrm(folder, key=emulator.key, list_id=list_id, batch_id=sent.id, smart=smart)
        with made as url:
            yield Theirs(url, emulator, list_id, Settings(database=DatabaseSettings(url=url, timezone=ZONE)))


@pytest.fixture
async def theirs(tmp_path: Path) -> AsyncIterator[Theirs]:
    async with their_site(tmp_path) as site:
        yield site


async def lines(theirs: Theirs) -> list[str]:
    sections = await look_over(theirs.settings)
    return [f"{'ok' if one.well else 'LOOK'} {one.what}" for section in sections for one in section.findings]


async def test_the_check_tells_what_is_there_and_what_would_be_added_and_writes_nothing(theirs: Theirs) -> None:
    before = tables_of(theirs.url), contents_of(theirs.url)
    said = await lines(theirs)
    assert (tables_of(theirs.url), contents_of(theirs.url)) == before
    for line in (
        "CiviCRM 5.75.1",
        "4 contacts, 4 addresses",
        "3 groups, 4 memberships, 4 words",
        "1 contacts with an API key",
        f"times are taken to be in {ZONE}",
        "4 cache rows",
        "1 updates to be sent, 1 sent and without a result",
        "1 batches in flight",
        f"audience {theirs.list_id} with group “News”, a sync under way at readyToSubmitUpdates",
        "table civiapi_claim",
        "table civiapi_schema",
        "index civiapi_cache_list_member on civicrm_mailchimpsync_cache",
    ):
        assert any(line in one for one in said), (line, said)
    assert not [one for one in said if "table civicrm" in one]


async def test_only_our_own_tables_and_indexes_are_added(theirs: Theirs) -> None:
    before, rows = tables_of(theirs.url), contents_of(theirs.url)
    planned = {one.split(" ")[2] for one in await lines(theirs) if one.startswith("ok table ")}
    await take_over(theirs.settings)
    after = tables_of(theirs.url)
    assert {name for name in after if name not in before} == planned
    assert all(name.startswith("civiapi_") for name in planned)
    for name, shown in before.items():
        kept = [line.rstrip(",") for line in after[name].splitlines() if "KEY `civiapi_" not in line]
        assert kept == [line.rstrip(",") for line in shown.splitlines()], name
    now = contents_of(theirs.url)
    assert {name: now[name] for name in rows} == rows
    assert any("nothing: civiapi's schema is here" in one for one in await lines(theirs))


async def test_config_cache_updates_and_batches_go_on_where_the_extension_left_them(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        assert {one.sync_status for one in await site.rows()} == {"ok", "live"}
        await site.run()
        await site.settle_with_batches()
        await site.sync()
        assert [(row.mailchimp_email, row.sync_status) for row in await site.rows()] == [
            (f"{local}@example.org", "ok") for local in ("zoe", "bob", "cy", "dee", "newcomer")
        ]
        assert {one.email: one.status for one in theirs.emulator.audience().members} == {
            f"{local}@example.org": "subscribed" for local in ("zoe", "bob", "cy", "dee", "newcomer")
        }
        wanted = select(email.c.email).join(group_contact, group_contact.c.contact_id == email.c.contact_id)
        added = (group_contact.c.group_id == NEWS, group_contact.c.status == "Added")
        there = await site.store.read(lambda conn: set(conn.execute(wanted.where(*added)).scalars()))
        assert "newcomer@example.org" in there
        assert len(there) == 5


async def test_the_extension_can_take_over_again(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        await site.run()
        await site.settle_with_batches()
        await site.sync()
        await site.store.write(_link_again, theirs)
        for row in await site.rows():
            assert row.sync_status in EXTENSIONS_WORDS
            assert isinstance(phpserialize.loads(row.mailchimp_data, decode_strings=True), dict)
            assert row.mailchimp_member_id == subscriber_hash(row.mailchimp_email)
            group_id, status, date = row.civicrm_groups.split("|")[0].split(";")
            assert (int(group_id), status) == (NEWS, "Added")
            assert site_clock(ZONE).read(date)
        for one in await site.updates():
            assert one.completed == 1
            assert isinstance(orjson.loads(one.data), dict)
        for one in await site.batches():
            assert (one.status, one.response_processed) == ("finished", 2)
            assert one.completed_at
        blob = await site.store.read(lambda conn: conn.execute(select(tables.status.c.data)).scalar_one())
        status = phpserialize.loads(blob, decode_strings=True)
        assert status["locks"]["fetchAndReconcile"] in STAGES
        assert site_clock(ZONE).read(status["lastSyncTime"])
        assert list(status["log"]) == list(range(len(status["log"])))
        stored = await site.store.read(read_setting, "mailchimpsync_config")
        assert orjson.loads(stored)["lists"][theirs.list_id]["subscriptionGroup"] == NEWS
        assert len(await site._all(select(job))) == 1


def _link_again(conn: Any, theirs: Theirs) -> None:
    """Save the Config screen as it stands."""
    from sync.accounts import update_config

    update_config(conn, civicrm.config(theirs.emulator.key, theirs.list_id, NEWS))


async def test_a_contacts_api_key_goes_on_working(theirs: Theirs) -> None:
    await take_over(theirs.settings)
    store = await open_store(theirs.url, ZONE)
    try:
        caller = await Auth(store, SITE_KEY, ()).by_key(Shown(key=SITE_KEY, api_key=API_KEY))
    finally:
        await store.close()
    assert caller.contact_id == 8


async def test_times_are_the_sites_in_both_kinds_of_column(theirs: Theirs) -> None:
    """A ``timestamp`` is kept in UTC and a ``datetime`` as it was said; both were said in the site's zone."""
    async with theirs.taken_over() as site:
        history = await site.store.read(
            lambda conn: conn.exec_driver_sql(
                "SELECT date, UNIX_TIMESTAMP(date) FROM civicrm_subscription_history LIMIT 1"
            ).one()
        )
        [batch] = await site.batches()
        clock = site_clock(ZONE)
        assert int(history[1]) == int(clock.read(str(history[0])).timestamp())  # type: ignore[union-attr]
        assert str(history[0]) == "2026-01-05 11:00:00"
        assert batch.submitted_at == "2026-01-05 12:00:00"


async def test_a_linked_smart_group_is_found_by_the_check_and_refused_by_the_sync(tmp_path: Path) -> None:
    async with their_site(tmp_path, smart=True) as theirs:
        [said] = [one for one in await lines(theirs) if one.startswith("LOOK")]
        assert "“Clever”" in said
        async with theirs.taken_over() as site:
            with pytest.raises(SyncError, match="smart group"):
                await site.run()
            assert {one.sync_status for one in await site.rows()} == {"ok", "live"}


async def test_a_zone_that_puts_the_last_batch_into_the_future_is_found(theirs: Theirs) -> None:
    store = await open_store(theirs.url, ZONE)
    await store.write(
        lambda conn: (
            conn.exec_driver_sql(
                "UPDATE civicrm_mailchimpsync_batch SET submitted_at = UTC_TIMESTAMP() + INTERVAL 3 HOUR"
            ).rowcount
        )
    )
    await store.close()
    assert not [one for one in await lines(theirs) if one.startswith("LOOK")]
    theirs.settings = Settings(database=DatabaseSettings(url=theirs.url, timezone="UTC"))
    [said] = [one for one in await lines(theirs) if one.startswith("LOOK")]
    assert "the last batch was sent at" in said


async def test_a_database_that_is_not_civicrms_is_said_to_be_none(tmp_path: Path) -> None:
    settings = Settings(database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'empty.sqlite'}"))
    [section] = await look_over(settings)
    assert not section.findings[0].well


async def test_processes_started_at_once_upgrade_once(theirs: Theirs) -> None:
    made = await asyncio.gather(*(take_over(theirs.settings) for _ in range(4)))
    assert sorted(bool(one) for one in made) == [False, False, False, True]


async def test_a_zone_with_summer_time_is_told_exactly_or_the_check_says_why_not(theirs: Theirs) -> None:
    """Without time zone tables a server knows today's offset alone, and half of the year would be an hour off."""
    knows = databases.sql("SELECT CONVERT_TZ('2026-07-01 12:00:00', 'UTC', 'Europe/Helsinki')")[0][0] != "NULL"
    theirs.settings = Settings(database=DatabaseSettings(url=theirs.url, timezone="Europe/Helsinki"))
    [said] = [one for one in await lines(theirs) if "times are taken to be in" in one]
    assert said.startswith("ok" if knows else "LOOK")


async def test_the_command_reports_and_then_adds(theirs: Theirs, tmp_path: Path) -> None:
    config = tmp_path / "settings.ini"
    config.write_text(f"[database]\nurl = {theirs.url}\ntimezone = {ZONE}\n", "utf-8")
    before = tables_of(theirs.url)
    checked = await asyncio.to_thread(civiapi, "adopt", "--check", "--config", config, cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "Nothing was written." in checked.stdout
    assert tables_of(theirs.url) == before
    for secret in (API_KEY, theirs.emulator.key):
        assert secret not in checked.stdout
    added = await asyncio.to_thread(civiapi, "adopt", "--config", config, cwd=tmp_path)
    assert added.returncode == 0
    assert "Added: " in added.stdout


def test_the_command_ends_with_1_where_there_is_no_civicrm(tmp_path: Path) -> None:
    config = tmp_path / "settings.ini"
    config.write_text(f"[database]\nurl = sqlite:///{tmp_path / 'empty.sqlite'}\n", "utf-8")
    refused = civiapi("adopt", "--config", config, cwd=tmp_path)
    assert refused.returncode == 1
    assert "Nothing was written" in refused.stdout
