"""What ``adopt --check`` says of busy audiences, and how ``civiapi release`` hands the database back."""

import asyncio
from pathlib import Path

import pytest

from civiapi.maintenance.adopt import survey_database
from civiapi.maintenance.release import CannotRelease, hand_back
from civiapi.settings import DatabaseSettings, Settings
from civiapi.store.engine import open_store
from civiapi.store.errors import NotAdopted
from civiapi.store.schema.migrations import migrate
from sync.leases import hold_lease
from sync.reports.checks import Finding
from tests.support.civicrm import ZONE
from tests.support.databases import a_database
from tests.support.extension import changed, rows_of
from tests.support.processes import civiapi
from tests.support.their_site import Theirs


async def findings(theirs: Theirs) -> dict[str, Finding]:
    return {one.code: one for section in await survey_database(theirs.settings) for one in section.findings}


async def test_the_check_lists_an_extension_at_work_with_the_age_of_its_last_line_and_has_it_waited_for(
    theirs: Theirs,
) -> None:
    theirs.extension.is_at_work(minutes_ago=5)
    found = (await findings(theirs))[f"busy:{theirs.list_id}"]
    assert "its newest log line is 5 mins old" in found.sentence
    assert "disable its scheduled job" in found.remedy


async def test_the_check_lists_a_crashed_audience_with_what_remains_and_lets_it_be_adopted(
    theirs: Theirs, tmp_path: Path
) -> None:
    theirs.extension.was_killed_in_a_page(1000, minutes_ago=125)
    found = (await findings(theirs))[f"crashed:{theirs.list_id}"]
    assert "2 hours old" in found.sentence
    assert "its fetch stopped at member 1000" in found.remedy
    assert "2 updates not completed" in found.remedy
    adopted = await asyncio.to_thread(civiapi, "adopt", "--config", theirs.write_settings(tmp_path), cwd=tmp_path)
    assert adopted.returncode == 0, adopted.stdout


async def test_a_database_handed_back_has_no_lease_and_no_lock_and_says_what_comes_next(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        theirs.extension.store("readyToFetch")
        await site.run(stop_on="readyToProcessEmailChanges")
        before = rows_of(theirs.url)
    said = "\n".join(await hand_back(theirs.settings))
    assert f"Audience {theirs.list_id}: the extension continues at readyToCleanUpDuplicates." in said
    assert "scheduled job" in said
    found = [one.sentence for section in await survey_database(theirs.settings) for one in section.findings]
    assert "civiapi handed this database back" in found
    assert changed(before, rows_of(theirs.url)) <= {"civicrm_mailchimpsync_status"}
    assert theirs.extension.starts()
    store = await open_store(theirs.url, ZONE)
    try:
        with pytest.raises(NotAdopted, match="adopt --check"):
            await migrate(store)
        assert await migrate(store, adopt=True)
    finally:
        await store.close()


async def test_a_database_that_civiapi_works_on_is_not_handed_back(theirs: Theirs) -> None:
    async with theirs.taken_over() as site, hold_lease(site.ctx, theirs.list_id):
        with pytest.raises(CannotRelease, match="Stop every civiapi"):
            await hand_back(theirs.settings)
        assert theirs.extension.lock() == "busy"


async def test_only_a_civicrms_database_is_handed_back(tmp_path: Path) -> None:
    with a_database("sqlite", tmp_path) as url, pytest.raises(CannotRelease, match="own"):
        await hand_back(Settings(database=DatabaseSettings(url=url)))


async def test_hooks_that_still_call_here_are_named_without_their_secret(theirs: Theirs, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)  # Mailchimp calls an address before it accepts it
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, theirs.taken_over() as site:
        await site.client.add_webhook(theirs.list_id, f"{base}/civicrm/mailchimpsync/webhook?secret=hidden")
    config = tmp_path / "settings.ini"
    config.write_text(
        f"[server]\nbase_url = {base}\n[mailchimp]\nbase_url = {theirs.emulator.root_url}\n"
        f"[database]\nurl = {theirs.url}\ntimezone = {ZONE}\n",
        "utf-8",
    )
    released = await asyncio.to_thread(civiapi, "release", "--config", config, cwd=tmp_path)
    assert released.returncode == 0, released.stderr
    assert f"Mailchimp still calls {base}/civicrm/mailchimpsync/webhook for audience" in released.stdout
    assert "hidden" not in released.stdout
