"""A rehearsal: it says what the real first sync then does, touches nothing, and refuses what is no export."""

import csv
import hashlib
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import select

from civiapi.api.call import Call
from civiapi.app import open_app
from civiapi.cli.demo import SAMPLE
from civiapi.cli.demo.site import EXPORT
from civiapi.cli.rehearse.database_copy import describe
from civiapi.cli.rehearse.export_folder import BadExport, load_export
from civiapi.cli.rehearse.rehearsal import Rehearsal, RehearsalFailed, Rehearsed
from civiapi.cli.rehearse.report import CHANGES, FAILURES, HTML, LEFT_OUT, Report
from civiapi.importer.import_folder import import_folder
from civiapi.settings import DatabaseSettings, MailchimpSettings, Settings
from civiapi.store.engine import open_store
from civiapi.store.schema.tables import group, subscription_history
from sync.connections.config import read_config, write_config
from sync.emulator.data.exports import load
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from tests.support.databases import KINDS, a_database, sql
from tests.support.processes import civiapi, free_port, invoke, serving, write_settings
from tests.support.their_site import their_site

GROUP = "Newsletter"
HEAD = "Email Address,First Name,Last Name,MEMBER_RATING,OPTIN_TIME,CONFIRM_TIME,LAST_CHANGED,TAGS"
THEN = "2024-08-09 07:21:58"


@dataclass
class TheirSite:
    """A charity's database linked with its audience at "Mailchimp", which nobody may call."""

    settings: Settings
    mailchimp: Emulator
    list_id: str
    group_id: int

    async def rehearse(self, export: Path, out: Path, *, group: int | None = None, rows: int = 200) -> list[Rehearsed]:
        out.mkdir(exist_ok=True)  # noqa: ASYNC240  a test may wait for the disk
        loaded = load_export(export)
        report = Report(out, describe(self.settings.database), export, loaded, rows)
        return await Rehearsal(self.settings, loaded, Console(quiet=True), rows=rows).run(group, report)

    async def change_link(self, **settings: Any) -> None:
        """Give the connection more settings."""
        store = await open_store(self.settings.database.url)
        raw = deepcopy(dict((await store.read(read_config)).raw))
        raw["lists"] = {self.list_id: {**raw["lists"][self.list_id], **settings}}
        await store.write(write_config, raw)
        await store.close()

    def fingerprint(self) -> Any:
        """Of all that is stored: the file, or the sums of all tables; and what lies beside it."""
        file = self.settings.database.file
        if file is not None:
            return hashlib.sha256(file.read_bytes()).hexdigest(), sorted(one.name for one in file.parent.iterdir())
        name = self.settings.database.url.rpartition("/")[2]
        tables = [one for [one] in sql("SHOW TABLES", database=name)]
        schemas = "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT LIKE 'civiapi_test%'"
        return sql(f"CHECKSUM TABLE {','.join(tables)}", database=name), sql(schemas)


@asynccontextmanager
async def a_charity(url: str, export: Path = EXPORT) -> AsyncIterator[TheirSite]:
    """The demo's charity, linked with the audience of *export*, which its Mailchimp has."""
    world = World(key=f"{'feedbeef' * 4}-us7")
    load(world, export)
    async with running_emulator(world) as mailchimp:
        list_id = mailchimp.audience().id
        store = await open_store(url)
        await import_folder(store, SAMPLE)
        found = select(group.c.id).where(group.c.title == GROUP)
        group_id = await store.read(lambda conn: int(conn.execute(found).scalar_one()))
        account = {"apiKey": world.key, "audiences": {list_id: {"name": "News"}}, "batchWebhookSecret": "s" * 40}
        link = {"apiKey": world.key, "subscriptionGroup": group_id, "interests": {"9143cf3bd1": group_id + 1}}
        await store.write(write_config, {"accounts": {world.key: account}, "lists": {list_id: link}})
        await store.close()
        settings = Settings(
            database=DatabaseSettings(url),
            mailchimp=MailchimpSettings(base_url=mailchimp.base_url, poll_seconds=0.05),
        )
        yield TheirSite(settings, mailchimp, list_id, group_id)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TheirSite]:
    folder = tmp_path / "site"
    folder.mkdir()
    with a_database(request.param, folder) as url:
        async with a_charity(url) as made:
            yield made


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def an_export(folder: Path, rows: str, name: str = "subscribed_members_export_9f2c1e7d44.csv") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"{HEAD}\n{rows}", "utf-8")
    return folder


# ── It touches nothing, and is right ────────────────────────────────────────────────────────────────────────────────


async def test_neither_the_database_nor_mailchimp_is_touched(site: TheirSite, tmp_path: Path) -> None:
    before = site.fingerprint()
    [done] = await site.rehearse(EXPORT, tmp_path / "out")
    assert sum(one["count"] for one in done.summary) > 20
    assert site.fingerprint() == before
    assert site.mailchimp.requests == []


async def test_it_says_what_the_real_first_sync_then_does(site: TheirSite, tmp_path: Path) -> None:
    [rehearsed] = await site.rehearse(EXPORT, tmp_path / "out")
    said = Counter(one["kind"] for one in lines_of(tmp_path / "out" / CHANGES))
    async with open_app(site.settings) as app:
        asked = {"group_id": site.group_id, "since": "ever", "max_time": 0, "confirm": 1}
        answer = await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", asked))
        assert not answer["is_error"], answer
        await app.sync.wait_until_idle()
        made = subscription_history.c
        wanted = select(made.status).where(made.method == "MCsync", made.group_id == site.group_id)
        did = Counter(await app.store.read(lambda conn: list(conn.execute(wanted).scalars())))
        status = (await app.sync.get_status())[site.list_id]
    assert did == {"Added": said["join_group"] + said["new_contact"], "Removed": said["leave_group"]}
    assert status["stats"] == rehearsed.stats
    assert said["subscribe"] > 0


async def test_a_brake_that_would_stop_it_is_told_before_what_it_would_do(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    with a_database("sqlite", folder) as url:
        async with a_charity(url) as site:
            await site.change_link(brake={"additions": 2})
            [done] = await site.rehearse(EXPORT, tmp_path / "out")
    assert "The brake is on: this sync would add 7 people at Mailchimp" in done.brake
    page = (tmp_path / "out" / HTML).read_text()
    assert "The brake would stop this sync" in page
    assert done.brake.split(";")[0] in page
    assert len([one for one in lines_of(tmp_path / "out" / CHANGES) if one["kind"] == "subscribe"]) == 7


async def test_what_was_synced_before_is_rehearsed_as_a_first_sync(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    with a_database("sqlite", folder) as url:
        async with a_charity(url) as site:
            async with open_app(site.settings) as app:
                await app.sync.fetch_and_reconcile(since="ever", confirm=True)
                await app.sync.wait_until_idle()
            called = len(site.mailchimp.requests)
            [done] = await site.rehearse(EXPORT, tmp_path / "out")
            assert len(site.mailchimp.requests) == called
    told = {one["kind"]: one["count"] for one in done.summary}
    assert told["in_step"] > 10
    assert "new_contact" not in told  # they were made by the sync


@pytest.mark.parametrize("kind", ["mariadb"])
async def test_a_civicrms_database_that_nobody_adopted_can_be_rehearsed(kind: str, tmp_path: Path) -> None:
    async with their_site(tmp_path) as theirs:
        site = TheirSite(theirs.settings, theirs.emulator, theirs.list_id, 0)
        before, called = site.fingerprint(), len(theirs.emulator.requests)
        export = an_export(tmp_path / "export", f"zoe@example.org,Zoë,Doe,2,{THEN},{THEN},{THEN},\n")
        [done] = await site.rehearse(export, tmp_path / "out")
        assert done.summary
        assert site.fingerprint() == before
        assert len(theirs.emulator.requests) == called


# ── The report ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_report_has_everybody_as_csv_and_the_first_of_each_kind_on_the_page(
    site: TheirSite, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    [done] = await site.rehearse(EXPORT, out, rows=1)
    listed = lines_of(out / CHANGES)
    counted = {one["kind"]: one["count"] for one in done.summary if one["kind"] not in ("in_step", "under_way")}
    assert Counter(one["kind"] for one in listed) == counted
    assert all(one["reason"] for one in listed)
    page = (out / HTML).read_text("utf-8")
    assert page.count("<tr><td>") == len(counted) + len(done.failures) + len(done.people) * 0
    assert all(one["sentence"] in page for one in done.summary)
    assert "linked interest" in page  # that are left out
    assert len(lines_of(out / FAILURES)) == sum(one["count"] for one in done.failures)
    for file in out.iterdir():
        assert file.stat().st_mode & 0o077 == 0


async def test_keys_and_passwords_are_not_in_the_report(site: TheirSite, tmp_path: Path) -> None:
    await site.rehearse(EXPORT, tmp_path / "out")
    told = "".join(file.read_text("utf-8") for file in (tmp_path / "out").iterdir())
    assert "feedbeef" not in told
    assert "s" * 40 not in told
    hidden = DatabaseSettings("mysql://crm:hunter2@db.example.org/civicrm")
    assert describe(hidden) == "db.example.org/civicrm"


async def test_hostile_names_are_text_on_the_page_and_no_formula_in_the_csv(site: TheirSite, tmp_path: Path) -> None:
    rows = f'evil@example.org,"=HYPERLINK(""http://x"")",<script>alert(1)</script>,2,{THEN},{THEN},{THEN},\n'
    rows += f"-2+3@example.org,Ada,Byron,2,{THEN},{THEN},{THEN},\n"
    export = an_export(tmp_path / "export", rows + f"=cmd,Bob,Doe,2,{THEN},{THEN},{THEN},\n")
    out = tmp_path / "out"
    await site.rehearse(export, out, group=site.group_id)
    page = (out / HTML).read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for file in (CHANGES, FAILURES, LEFT_OUT):
        cells = [cell for line in lines_of(out / file) for cell in line.values()]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))], file
    assert [one["line"] for one in lines_of(out / LEFT_OUT)] == ["4"]


async def test_rows_that_cannot_be_used_are_told_with_file_and_line(site: TheirSite, tmp_path: Path) -> None:
    good = f"ada@example.org,Ada,Byron,2,{THEN},{THEN},{THEN},\n"
    bad = f"bob@example.org,Bob\nnobody,N,N,2,{THEN},{THEN},{THEN},\ncyd@example.org,C,D,2,{THEN},{THEN},soon,\n{good}"
    export = an_export(tmp_path / "export", good + bad)
    [done] = await site.rehearse(export, tmp_path / "out", group=site.group_id)
    left_out = lines_of(tmp_path / "out" / LEFT_OUT)
    assert [one["line"] for one in left_out] == ["3", "4", "5", "6"]
    assert "already" in left_out[-1]["reason"]
    assert "4 rows could not be used" in (tmp_path / "out" / HTML).read_text()
    assert done.stats["subscribed_at_mailchimp"] >= 1


# ── Which group ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_export_of_another_id_is_the_only_connections(site: TheirSite, tmp_path: Path) -> None:
    """The id in the file's name may be that of the export, not the audience's."""
    export = an_export(tmp_path / "export", f"ada@example.org,Ada,Byron,2,{THEN},{THEN},{THEN},\n")
    [done] = await site.rehearse(export, tmp_path / "out")
    assert done.pair.group_id == site.group_id


@pytest.mark.parametrize(
    ("group_id", "error"),
    [(None, r"is linked with no group \(linked: none\). Name the group with --group."), (999, "999")],
)
async def test_without_a_usable_group_nothing_is_rehearsed(group_id: int | None, error: str, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    with a_database("sqlite", folder) as url:
        site = TheirSite(Settings(database=DatabaseSettings(url)), None, "", 0)  # type: ignore[arg-type]
        with pytest.raises((BadExport, RehearsalFailed), match=error):
            await site.rehearse(EXPORT, tmp_path / "out", group=group_id)
    assert list((tmp_path / "out").iterdir()) == []


# ── What is no export ───────────────────────────────────────────────────────────────────────────────────────────────


def utf16(folder: Path) -> None:
    [file] = an_export(folder, "ada@example.org,A,B,2,,,,\n").iterdir()
    file.write_bytes(file.read_text().encode("utf-16"))


def latin1(folder: Path) -> None:
    [file] = an_export(folder, f"zoe@example.org,Zoë,Doe,2,{THEN},{THEN},{THEN},\n").iterdir()
    file.write_bytes(file.read_text().encode("latin-1"))


def semicolons(folder: Path) -> None:
    [file] = an_export(folder, "").iterdir()
    file.write_text(HEAD.replace(",", ";") + "\nada@example.org;A;B;2;;;;\n")


def empty(folder: Path) -> None:
    folder.mkdir()


def other_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "contacts.csv").write_text("id\n1\n")


def only_a_heading(folder: Path) -> None:
    an_export(folder, "")


def only_bad_rows(folder: Path) -> None:
    an_export(folder, "nobody,A,B,2,,,,\n")


def no_bytes(folder: Path) -> None:
    [file] = an_export(folder, "").iterdir()
    file.write_bytes(b"")


def zeros(folder: Path) -> None:
    [file] = an_export(folder, "").iterdir()
    file.write_bytes(b"\0" * 5000)


def an_open_quote(folder: Path) -> None:
    [file] = an_export(folder, "").iterdir()
    file.write_text('"Email Address,First Name\nada@example.org,A\n')


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (empty, "holds no export of a Mailchimp audience"),
        (other_files, "holds no export of a Mailchimp audience"),
        (utf16, "it is UTF-16"),
        (latin1, "line 2 is not UTF-8"),
        (semicolons, "it has no column 'Email Address'"),
        (only_a_heading, "has no members"),
        (only_bad_rows, r"has no members. The first row that cannot be used: .*:2: "),
        (no_bytes, "it has no column 'Email Address'"),
        (zeros, "cannot be used"),
        (an_open_quote, "cannot be used"),
    ],
)
def test_what_is_no_export_is_refused_with_the_reason(make: Any, error: str, tmp_path: Path) -> None:
    make(tmp_path / "export")
    with pytest.raises(BadExport, match=error):
        load_export(tmp_path / "export")


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(b"PK")
    with pytest.raises(BadExport, match="unpack it"):
        load_export(tmp_path / "export.zip")
    with pytest.raises(BadExport, match="is not a folder"):
        load_export(tmp_path / "nowhere")


def test_the_export_may_be_in_a_subfolder_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    deep = tmp_path / "account" / "lists" / "members"
    deep.parent.mkdir(parents=True)
    shutil.copytree(EXPORT, deep)
    first = next(deep.glob("subscribed_*.csv"))
    first.write_bytes(b"\xef\xbb\xbf" + first.read_bytes())
    assert load_export(tmp_path).members == load_export(EXPORT).members


# ── The command ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_writes_the_report_and_says_where(tmp_path: Path) -> None:
    invoke("init", cwd=tmp_path)
    invoke("import", "--sample", cwd=tmp_path)
    before = hashlib.sha256((tmp_path / "civiapi.sqlite").read_bytes()).hexdigest()
    groups = invoke("api3", "Group.get", f"title={GROUP}", cwd=tmp_path).stdout
    [group_id] = re.findall(r'"id": (\d+)', groups)[:1]
    done = civiapi("rehearse", EXPORT, "--group", group_id, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Wrote rehearsal/report.html. Nothing else was changed."
    assert "a contact is made, which joins the group" in done.stdout
    assert hashlib.sha256((tmp_path / "civiapi.sqlite").read_bytes()).hexdigest() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["civiapi.sqlite", "rehearsal", "settings.ini"]


def test_it_can_be_rehearsed_while_the_server_runs(tmp_path: Path) -> None:
    port = free_port()
    config = write_settings(tmp_path, port=port, mailchimp="http://127.0.0.1:9/3.0")
    invoke("import", "--sample", "--config", config, cwd=tmp_path)
    with serving(config, port):
        done = civiapi("rehearse", EXPORT, "--group", "1", "--config", config, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        answer = invoke("api3", "Mailchimpsync.gettimeline", "--config", config, cwd=tmp_path).stdout
        assert '"count": 0' in answer


def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    invoke("init", cwd=tmp_path)
    (tmp_path / "taken").write_text("a file")
    done = invoke("rehearse", EXPORT, "--group", "1", "--out", "taken", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "taken cannot be used: File exists.")


def test_the_command_ends_with_one_sentence_where_it_cannot_work(tmp_path: Path) -> None:
    nowhere = invoke("rehearse", EXPORT, cwd=tmp_path)
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (1, 1)
    invoke("init", cwd=tmp_path)
    for words, error in (((EXPORT,), "Name the group with --group"), ((tmp_path,), "holds no export")):
        done = invoke("rehearse", *words, cwd=tmp_path)
        assert done.returncode == 1
        assert error in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
