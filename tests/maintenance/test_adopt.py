"""A database that CiviCRM and the extension made: what is found, taken over, added, left alone; and handed back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import phpserialize
import pytest
from sqlalchemy import select

from civiapi.auth.authenticator import Auth, Credentials
from civiapi.maintenance.adopt import survey_database, take_over
from civiapi.settings import DatabaseSettings, Settings, UserSettings
from civiapi.store.civicrm.settings import read_setting
from civiapi.store.clock import site_clock
from civiapi.store.engine import open_store
from civiapi.store.schema.tables import email, group_contact, job
from sync.emulator.model.records import Hook
from sync.errors import SyncError
from sync.mailchimp.wire import subscriber_hash
from sync.reports.checks import Severity
from sync.store import tables
from sync.store.runs.checkpoints import STAGES
from tests.support import civicrm, databases
from tests.support.civicrm import API_KEY, NEWS, ZONE, contents_of, tables_of
from tests.support.databases import sql
from tests.support.processes import civiapi, invoke
from tests.support.their_site import Theirs, their_site

SITE_KEY = "site-key-of-civicrm"
EXTENSIONS_WORDS = {"ok", "todo", "live", "redo", "fail"}


@pytest.fixture
async def theirs(tmp_path: Path) -> AsyncIterator[Theirs]:
    async with their_site(tmp_path) as site:
        yield site


def add_hook(theirs: Theirs, url: str) -> None:
    """A webhook that somebody added at Mailchimp."""
    audience = theirs.emulator.audience()
    hook = Hook(f"hook{len(audience.hooks)}", url, audience.id)
    audience.hooks[hook.id] = hook


async def lines(theirs: Theirs) -> list[str]:
    sections = await survey_database(theirs.settings)
    findings = [one for section in sections for one in section.findings]
    return [f"{'LOOK' if one.severity >= Severity.WARNING else 'ok'} {one.sentence}" for one in findings]


async def test_the_check_tells_what_is_there_and_what_would_be_added_and_writes_nothing(theirs: Theirs) -> None:
    sql(
        "UPDATE civicrm_mailchimpsync_cache SET sync_status = NULL WHERE id = 1", database=theirs.url.rpartition("/")[2]
    )
    sql("UPDATE civicrm_mailchimpsync_batch SET mailchimp_list_id = NULL", database=theirs.url.rpartition("/")[2])
    before = tables_of(theirs.url), contents_of(theirs.url)
    said = await lines(theirs)
    assert (tables_of(theirs.url), contents_of(theirs.url)) == before
    for line in (
        "CiviCRM 5.75.1",
        "4 contacts, 4 addresses",
        "3 groups, 4 group contacts, 4 subscription history rows",
        "Dee (contact 8) has an API key; in CiviCRM it does not work, as no user account belongs to the contact.",
        f"Times are read as {ZONE}",
        "The extension's rows were written at UTC+03:00 (by 4 of them), as [database] timezone = Etc/GMT-3 says.",
        "4 cache rows",
        "1 update queued, 1 in flight",
        "1 batch in flight",
        f"Audience {theirs.list_id} is linked with group {NEWS} “News”.",
        f"The sync of audience {theirs.list_id} is at readyToSubmitUpdates",
        "table civiapi_claim",
        "table civiapi_schema",
        "index civiapi_cache_list_member on civicrm_mailchimpsync_cache",
    ):
        assert any(line in one for one in said), (line, said)
    assert not [one for one in said if "table civicrm" in one or "None" in one]
    assert len(set(said)) == len(said)


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
    assert any("Nothing: civiapi's schema has version" in one for one in await lines(theirs))


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
    from sync.connections.config_update import update_config

    update_config(conn, civicrm.config(theirs.emulator.key, theirs.list_id, NEWS))


async def test_a_contacts_api_key_goes_on_working(theirs: Theirs) -> None:
    await take_over(theirs.settings)
    store = await open_store(theirs.url, ZONE)
    try:
        caller = await Auth(store, SITE_KEY, ()).by_key(Credentials(key=SITE_KEY, api_key=API_KEY))
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


@pytest.mark.parametrize(
    ("on_email", "shown"),
    [("UPDATE, DELETE", ""), ("DELETE", "UPDATE on civicrm_email"), ("", "UPDATE, DELETE on civicrm_email")],
)
async def test_a_right_that_the_user_lacks_on_a_table_is_named(theirs: Theirs, on_email: str, shown: str) -> None:
    database = theirs.url.rpartition("/")[2]
    user = f"few_{database}"[-32:]
    sql(f"CREATE OR REPLACE USER {user}; GRANT SELECT, INSERT ON `{database}`.* TO {user}")
    if on_email:
        sql(f"GRANT {on_email} ON `{database}`.civicrm_email TO {user}")
    try:
        settings = replace(theirs.settings.database, url=theirs.url.replace("root@", f"{user}@"))
        found = await lines(replace(theirs, settings=replace(theirs.settings, database=settings)))
    finally:
        sql(f"DROP USER {user}")
    lacking = {one for one in found if "lacks the right" in one}
    assert "LOOK The database's user lacks the right UPDATE, DELETE on civicrm_group_contact." in lacking
    assert [one for one in lacking if "civicrm_email." in one] == (
        [f"LOOK The database's user lacks the right {shown}."] if shown else []
    )
    assert not [one for one in await lines(theirs) if "lacks the right" in one]


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
    theirs.settings = replace(theirs.settings, database=DatabaseSettings(url=theirs.url, timezone="UTC"))
    rows, last = [one for one in await lines(theirs) if one.startswith("LOOK")]
    assert "The extension's rows were written at UTC+03:00" in rows
    assert "The last batch was sent at" in last


async def test_a_database_that_is_not_civicrms_is_said_to_be_none(tmp_path: Path) -> None:
    settings = Settings(database=DatabaseSettings(url=f"sqlite:///{tmp_path / 'empty.sqlite'}"))
    [section] = await survey_database(settings)
    assert not section.findings[0].ok


async def test_processes_started_at_once_upgrade_once(theirs: Theirs) -> None:
    made = await asyncio.gather(*(take_over(theirs.settings) for _ in range(4)))
    assert sorted(bool(one) for one in made) == [False, False, False, True]


async def test_a_zone_with_summer_time_is_told_exactly_or_the_check_says_why_not(theirs: Theirs) -> None:
    """Without time zone tables a server knows today's offset alone, which is what CiviCRM goes by as well."""
    knows = databases.sql("SELECT CONVERT_TZ('2026-07-01 12:00:00', 'UTC', 'Europe/Helsinki')")[0][0] != "NULL"
    theirs.settings = replace(theirs.settings, database=DatabaseSettings(url=theirs.url, timezone="Europe/Helsinki"))
    said = [one for one in await lines(theirs) if "today's offset" in one]
    assert bool(said) is not knows


async def test_a_zone_that_is_not_that_of_the_extensions_rows_is_found_and_an_offset_is_one(theirs: Theirs) -> None:
    theirs.settings = replace(theirs.settings, database=DatabaseSettings(url=theirs.url, timezone="+01:00"))
    [said] = [one for one in await lines(theirs) if one.startswith("LOOK The extension's rows")]
    assert "at UTC+03:00 (by 4 of them), but [database] timezone is Etc/GMT-1, which was UTC+01:00 then" in said
    theirs.settings = replace(theirs.settings, database=DatabaseSettings(url=theirs.url, timezone="+03:00"))
    assert not [one for one in await lines(theirs) if one.startswith("LOOK")]


async def test_a_key_holder_who_is_a_user_of_the_settings_is_listed_with_that_users_permissions(
    theirs: Theirs,
) -> None:
    user = UserSettings("dee", "", frozenset({"access CiviCRM", "edit groups"}), 8)
    theirs.settings = replace(theirs.settings, users=(user,))
    assert "ok Dee (contact 8) has an API key and is [user:dee], who may: access CiviCRM, edit groups." in await lines(
        theirs
    )


async def test_a_webhook_that_calls_the_old_civicrm_with_our_secret_is_named_without_it(theirs: Theirs) -> None:
    add_hook(theirs, f"https://crm.example.org/civicrm/mailchimpsync/webhook?secret={'5' * 40}")
    add_hook(theirs, "https://others.example.org/hook?secret=theirs")
    found = [one for one in await lines(theirs) if "Mailchimp calls" in one]
    assert found == [
        f"ok Mailchimp calls https://crm.example.org/civicrm/mailchimpsync/webhook for audience {theirs.list_id}, with "
        "our secret: the old CiviCRM's address."
    ]


async def test_the_command_reports_and_then_adds(theirs: Theirs, tmp_path: Path) -> None:
    config = theirs.write_settings(tmp_path)
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
    refused = invoke("adopt", "--config", config, cwd=tmp_path)
    assert refused.returncode == 1
    assert "empty.sqlite" in refused.stderr
    assert not (tmp_path / "empty.sqlite").exists()
