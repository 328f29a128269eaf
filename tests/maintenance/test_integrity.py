"""``civiapi check``: what is broken is found, named with the way to mend it, and gone when that was done."""

import subprocess
import time
from pathlib import Path

import pytest

from civiapi.maintenance.integrity import check_database, check_rows
from civiapi.store.engine import open_store
from civiapi.store.errors import StoreUnusable
from civiapi.store.schema.migrations import migrate
from sync.connections.config import write_config
from sync.reports.checks import Finding
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import Checkpoint
from tests.support.databases import KINDS, MARIADB, a_database, database_at, raw_sqlite
from tests.support.linked_site import a_site, link
from tests.support.processes import civiapi, write_settings

LIST = "a1b2c3d4e5"
CACHE = "civicrm_mailchimpsync_cache"
UPDATE = "civicrm_mailchimpsync_update"
BATCH = "civicrm_mailchimpsync_batch"


def run(url: str, *statements: str) -> None:
    """Run SQL past everything that would refuse it."""
    if url.startswith("sqlite:///"):
        conn = raw_sqlite(url.removeprefix("sqlite:///"), isolation_level=None)
        for one in statements:
            conn.execute(one)
        conn.close()
        return
    script = "; ".join(["SET foreign_key_checks = 0", *(one.rstrip(";") for one in statements)])
    subprocess.run([*MARIADB, script, url.rpartition("/")[2]], check=True, capture_output=True, timeout=60)


async def made(url: str) -> None:
    """A database with a linked audience that was synced once."""
    store = await open_store(url)
    await migrate(store)

    def fill(conn: object) -> None:
        link(conn, "0123456789abcdef0123456789abcdef-us1", LIST)  # type: ignore[arg-type]
        checkpoints.save(conn, Checkpoint(LIST))  # type: ignore[arg-type]

    await store.write(fill)
    await store.close()


async def wrong(url: str) -> list[Finding]:
    return [one for one in await check_database(url) if not one.ok]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_sound_database_is_well_in_every_respect(kind: str, tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        await made(url)
        await is_well(url)


async def is_well(url: str) -> None:
    found = await check_database(url)
    assert [one for one in found if not one.ok] == []
    assert [one.sentence for one in found][:1] == ["The storage is intact."]
    assert "One row for each member and audience." in [one.sentence for one in found]


ROW = f"INSERT INTO {CACHE} (id, mailchimp_list_id, mailchimp_member_id, sync_status)"
AN_UPDATE = f"INSERT INTO {UPDATE} (id, mailchimpsync_cache_id, mailchimpsync_batch_id, data, completed)"
SENT = f"INSERT INTO {BATCH} (id, mailchimp_list_id, mailchimp_batch_id, status, response_processed)"
AN_EVENT = "INSERT INTO civiapi_webhook_event (id, kind, fingerprint, body, received_s)"
BROKEN = [
    pytest.param(
        ["INSERT INTO civicrm_email (contact_id, email) VALUES (4711, 'a@example.org')"],
        "1 row(s) of civicrm_email whose contact_id does not exist: 4711",
        "DELETE FROM civicrm_email",
        id="a reference that names nothing",
    ),
    pytest.param(
        ["INSERT INTO civicrm_contact (contact_type, employer_id) VALUES ('Individual', 4711)"],
        "civicrm_contact whose employer_id does not exist: 4711",
        "UPDATE civicrm_contact SET employer_id = NULL",
        id="a reference that may be empty",
    ),
    pytest.param(
        [f"{ROW} VALUES ({n}, '{LIST}', '{'f' * 32}', 'ok')" for n in (1, 2)],
        f"1 member(s) with several rows, such as {'f' * 32} of audience {LIST} (2 rows)",
        "civiapi sync --since ever makes them one",
        id="two rows for one member",
    ),
    pytest.param(
        [f"INSERT INTO {CACHE} (mailchimp_list_id, civicrm_contact_id) VALUES ('{LIST}', 1)"] * 2,
        "1 contact(s) with several rows and no member, such as contact 1",
        "MailchimpsyncCache.delete all but one",
        id="two rows for one contact without a member",
    ),
    pytest.param(
        ["UPDATE civicrm_mailchimpsync_status SET data = 'gibberish'"],
        f"the status of audience {LIST} cannot be read",
        "civiapi sync --since ever",
        id="a place that cannot be read",
    ),
    pytest.param(
        ["UPDATE civiapi_run SET state = '{broken'"],
        f"the cursor of audience {LIST} cannot be read",
        "DELETE FROM civiapi_run",
        id="a cursor that is no JSON",
    ),
    pytest.param(
        ["UPDATE civiapi_run SET history_id = 999999"],
        "next changes would be overlooked",
        "UPDATE civiapi_run SET history_id = 0",
        id="a watermark beyond the end of the history",
    ),
    pytest.param(
        [f"{AN_UPDATE} VALUES (1, NULL, NULL, '{{}}', 0)"],
        "1 update(s) for no row: 1",
        f"DELETE FROM {UPDATE} WHERE",
        id="an update without a row",
    ),
    pytest.param(
        [
            f"{ROW} VALUES (1, '{LIST}', 'a', 'live')",
            f"{SENT} VALUES (7, '{LIST}', 'abc', 'finished', 2)",
            f"{AN_UPDATE} VALUES (3, 1, 7, '{{}}', 0)",
        ],
        "1 open update(s) of completed batches: 3",
        "by itself",
        id="an update that waits for a batch that is over",
    ),
    pytest.param(
        [f"{ROW} VALUES (1, '{LIST}', 'a', 'live')"],
        "1 row(s) that wait for an update that does not exist: 1",
        "by itself",
        id="a row that waits for nothing",
    ),
    pytest.param(
        [f"{ROW} VALUES (1, '{LIST}', 'a', 'live')", f"{AN_UPDATE} VALUES (3, 1, NULL, 'gibberish', 0)"],
        "1 open update(s) that hold no JSON: 3",
        "MailchimpsyncUpdate.delete",
        id="an update that says nothing",
    ),
    pytest.param(
        [f"{SENT} VALUES (7, '{LIST}', 'abc', 'pending', 0)"],
        "1 open batch(es) without an update: 7",
        "MailchimpsyncBatch.delete",
        id="a batch of nothing",
    ),
    pytest.param(
        [
            f"{ROW} VALUES (1, '{LIST}', 'a', 'live')",
            f"{SENT} VALUES (7, '{LIST}', NULL, 'submitting', 0)",
            f"{AN_UPDATE} VALUES (3, 1, 7, '{{}}', 0)",
        ],
        "1 batch(es) that Mailchimp may or may not have received: 7",
        "by itself",
        id="a batch that was being sent",
    ),
    pytest.param(
        [f"INSERT INTO civiapi_claim VALUES ('{LIST}', 'somebody', 3, {(int(time.time()) + 10**6) * 1000})"],
        f"the lease on {LIST} by somebody lasts for more than a day",
        "UPDATE civiapi_claim SET expires_ms = 0",
        id="a lease from a wrong clock",
    ),
    pytest.param(
        ["UPDATE civicrm_setting SET value = 'gibberish' WHERE name = 'mailchimpsync_config'"],
        "the setting mailchimpsync_config is not what PHP or we serialized",
        "Mailchimpsync.updateconfig",
        id="a configuration that cannot be unpacked",
    ),
    pytest.param(
        ["UPDATE civicrm_setting SET value = 's:4:\"oops\";' WHERE name = 'mailchimpsync_config'"],
        "mailchimpsync_config does not hold a JSON object",
        "Mailchimpsync.updateconfig",
        id="a configuration that is no JSON",
    ),
    pytest.param(
        [f"{ROW} VALUES (1, 'ffffffffff', 'a', 'ok')"],
        f"1 row(s) of {CACHE} are about audience ffffffffff, which is not linked",
        "Mailchimpsync.updateconfig",
        id="rows of an audience that is linked no more",
    ),
    pytest.param(
        [f"{AN_EVENT} VALUES (5, 'audience', 'f', '<', 1)"],
        "1 webhook event(s) cannot be read: 5",
        "DELETE FROM civiapi_webhook_event WHERE id IN (5)",
        id="a webhook event that cannot be read",
    ),
]


@pytest.mark.parametrize(("statements", "what", "mend"), BROKEN)
async def test_what_is_broken_is_named_with_the_way_to_mend_it(
    tmp_path: Path, statements: list[str], what: str, mend: str
) -> None:
    url = f"sqlite:///{tmp_path / 'site.sqlite'}"
    await made(url)
    run(url, *statements)
    [found] = [one for one in await wrong(url) if what in one.sentence]
    assert mend in found.remedy
    if advised := advised_sql(found):
        run(url, advised)
        assert [one for one in await wrong(url) if what in one.sentence] == []


async def test_mariadb_is_looked_over_and_mended_likewise(tmp_path: Path) -> None:
    together = [BROKEN[n].values for n in (0, 1, 2, 6, 7, 11, 13, 17)]
    with a_database("mariadb", tmp_path) as url:
        await made(url)
        run(url, *(one for case in together for one in case[0]))
        found = await wrong(url)
        for _, what, mend in together:
            words = what.partition(":")[0]
            assert [one for one in found if words in one.sentence and mend in one.remedy], (what, found)
        run(url, *(sql for one in found if (sql := advised_sql(one))))
        assert [advised_sql(one) for one in await wrong(url)] == [""] * 2


def advised_sql(found: Finding) -> str:
    """The statement that a finding says mends it, where it is one."""
    places = [at for sign in ("UPDATE ", "DELETE FROM ") if (at := found.remedy.find(sign)) >= 0]
    return found.remedy[min(places) :].partition(";")[0] if places else ""


async def test_checking_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'site.sqlite'}"
    await made(url)
    run(url, f"{ROW} VALUES (1, '{LIST}', 'a', 'live')")
    before = dump(tmp_path / "site.sqlite")
    assert await wrong(url)
    assert dump(tmp_path / "site.sqlite") == before


async def test_what_a_running_server_mends_is_well_after_it_ran(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite"
    async with a_site(f"sqlite:///{path}") as site:
        await site.owe_subscribing("ada@example.org", "bob@example.org")
        await site.submit()
        await site.settle()
        run(f"sqlite:///{path}", f"UPDATE {UPDATE} SET completed = 0", f"UPDATE {CACHE} SET sync_status = 'live'")
        assert "by itself" in (await wrong(f"sqlite:///{path}"))[0].remedy
        fresh = type(site)(site.store, site.emulator, site.clients, site.ctx, site.list_id)
        await fresh.settle()
        assert await wrong(f"sqlite:///{path}") == []


async def test_a_healthy_site_in_the_middle_of_its_work_is_not_called_broken(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite"
    async with a_site(f"sqlite:///{path}", auto_batches=False) as site:
        site.joined(*(f"p{n}@example.org" for n in range(20)))
        await site.person("ada@example.org")
        for stage in checkpoints.STAGES[1:]:
            await site.run(since="ever", stop_on=stage)
            assert all(one.ok for one in await site.store.read(check_rows)), stage
        await site.run()
        assert site.posted_batches() == 1
        assert all(one.ok for one in await site.store.read(check_rows))
        await site.settle_with_batches()
        assert all(one.ok for one in await site.store.read(check_rows))


async def test_what_sqlite_finds_wrong_with_its_file_is_told_first(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite"
    await made(f"sqlite:///{path}")
    run(
        f"sqlite:///{path}",
        f"INSERT INTO {CACHE} (mailchimp_list_id) VALUES ('{LIST}')",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'mailchimp_email VARCHAR(255)', 'mailchimp_email TEXT NOT NULL') "
        f"WHERE name = '{CACHE}'",
    )
    first, *_ = await wrong(f"sqlite:///{path}")
    assert first.sentence == f"The storage is damaged: NULL value in {CACHE}.mailchimp_email"
    assert "restore a backup" in first.remedy


async def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "site.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreUnusable, match=r"cannot be opened: (the )?file is not a database"):
        await check_database(f"sqlite:///{path}")


async def test_an_older_schema_is_said_so_and_not_looked_into(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'site.sqlite'}"
    await made(url)
    run(url, "UPDATE civiapi_schema SET version = 3")
    [found] = await wrong(url)
    assert found.sentence.startswith("The schema has version 3 of ")
    assert "civiapi backup FILE" in found.remedy


async def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="There is no database at"):
        await check_database(f"sqlite:///{tmp_path / 'none.sqlite'}")
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_the_command_prints_every_finding_and_ends_with_1_when_something_is_to_mend(tmp_path: Path) -> None:
    write_settings(tmp_path)
    await made(database_at(tmp_path / "site.sqlite"))
    well = civiapi("check", cwd=tmp_path)
    assert (well.returncode, "FAIL" in well.stdout) == (0, False), well.stderr
    store = await open_store(database_at(tmp_path / "site.sqlite"))
    await store.write(lambda conn: write_config(conn, {"accounts": {}, "lists": {}}) and None)
    await store.close()
    ill = civiapi("check", cwd=tmp_path)
    assert ill.returncode == 1
    assert f"FAIL 1 row(s) of civiapi_run are about audience {LIST}, which is not linked  Link it again" in ill.stdout


def dump(path: Path) -> list[str]:
    conn = raw_sqlite(path)
    try:
        return list(conn.iterdump())
    finally:
        conn.close()
