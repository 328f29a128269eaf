"""What each command prints, and how it ends: inside this process but for a few."""

import asyncio
import json
import re
import socket
import sqlite3
import stat
import tomllib
from pathlib import Path

import pytest

from civiapi.api.call import Call, Caller
from civiapi.app import open_app
from civiapi.auth.authenticator import AuthenticationFailed, Credentials
from civiapi.settings import load_settings
from civiapi.store.databases import sqlite
from sync.emulator.server import running
from tests.support.processes import (
    ADMIN_KEY,
    civiapi,
    free_port,
    invoke,
    process,
    serving,
    stop,
    wait_until_served,
    write_settings,
)

DATA = Path(__file__).parents[2] / "civiapi" / "cli" / "demo" / "data"
COMMANDS = [
    "adopt",
    "alerts",
    "api3",
    "backup",
    "campaigns",
    "check",
    "cv",
    "cv api3",
    "demo",
    "docs",
    "doctor",
    "import",
    "init",
    "mailchimp-emulator",
    "pipe",
    "plan",
    "rehearse",
    "release",
    "rotate-signing-key",
    "run",
    "serve",
    "sync",
    "timeline",
    "token",
    "undo",
]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a settings file; the database is made at first use."""
    write_settings(tmp_path)
    return tmp_path


# ---- help ----------------------------------------------------------------------------------------------------


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = invoke("--help", cwd=tmp_path)
    assert shown.returncode == 0
    listed = shown.stdout.partition("Commands:")[2]
    assert {name for name in COMMANDS if " " not in name} == set(re.findall(r"^  ([\w-]+)  ", listed, re.M))


def test_help_gives_each_command_a_whole_sentence(tmp_path: Path) -> None:
    listed = invoke("--help", cwd=tmp_path, COLUMNS="80").stdout.partition("Commands:")[2]
    sentences = re.split(r"^  [\w-]+  ", listed, flags=re.M)[1:]
    assert len(sentences) > 10
    assert not [text for text in sentences if "..." in text]


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert invoke("--version", cwd=tmp_path).stdout == f"civiapi {project['version']}\n"


def test_the_shell_completes_commands(tmp_path: Path) -> None:
    typed = {"_CIVIAPI_COMPLETE": "complete_bash", "COMP_WORDS": "civiapi do", "COMP_CWORD": "1"}
    assert civiapi(cwd=tmp_path, **typed).stdout.split() == ["docs", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_it_does_and_explains_every_option(command: str, tmp_path: Path) -> None:
    shown = " ".join(invoke(*command.split(), "--help", cwd=tmp_path).stdout.split())
    assert re.search(r"\] [A-Z][^.]*\.|\.\.\. [A-Z][^.]*\.", shown)
    options = re.split(r"(?<!,) (?=-\w, --|--[a-z])", shown.partition("Options:")[2])[1:]
    for option in options:
        assert re.match(r"(-\w, )?--[\w-]+( <[\w ]+>)? [A-Zj]\w*", option), option


# ---- api3 ----------------------------------------------------------------------------------------------------


def test_api3_answers_with_no_server_running(site: Path) -> None:
    made = invoke("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", cwd=site)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["values"]
    found = invoke("api3", "Contact.getcount", "first_name=Ada", cwd=site)
    assert json.loads(found.stdout) == {"is_error": 0, "version": 3, "result": 1} or json.loads(found.stdout) == 1


def test_api3_reads_json_from_standard_input_and_words_win(site: Path) -> None:
    sent = json.dumps({"contact_type": "Individual", "first_name": "Ada", "last_name": "Søn"})
    made = invoke("api3", "Contact.create", "--in=json", "first_name=Eve", "sequential=1", cwd=site, stdin=sent)
    assert made.returncode == 0, made.stderr
    row = json.loads(made.stdout)["values"][0]
    assert (row["first_name"], row["last_name"]) == ("Eve", "Søn")


def test_api3_takes_json_as_a_value(site: Path) -> None:
    found = invoke("api3", "Contact.get", 'id={"IN":[1,2]}', 'options={"limit":1}', cwd=site)
    assert json.loads(found.stdout)["is_error"] == 0


def test_api3_takes_an_option_by_its_dotted_name(site: Path) -> None:
    for name in ("Ada", "Bob", "Cy"):
        invoke("api3", "Contact.create", "contact_type=Individual", f"first_name={name}", cwd=site)
    words = "options.sort=first_name DESC", 'options={"offset":1}', "options.limit=1", "return=first_name"
    asked = "first_name=" + json.dumps({"IN": ["Ada", "Bob", "Cy"]})
    found = invoke("api3", "Contact.get", asked, *words, "sequential=1", cwd=site)
    assert [row["first_name"] for row in json.loads(found.stdout)["values"]] == ["Bob"]


def test_api3_sets_a_dotted_option_among_those_from_standard_input(site: Path) -> None:
    for name in ("Ada", "Bob", "Cy"):
        invoke("api3", "Contact.create", "contact_type=Individual", f"first_name={name}", cwd=site)
    sent = json.dumps({"contact_type": "Individual", "options": {"limit": 1, "sort": "id DESC"}, "sequential": 1})
    found = invoke("api3", "Contact.get", "--in=json", "options.limit=2", cwd=site, stdin=sent)
    assert [row["first_name"] for row in json.loads(found.stdout)["values"]] == ["Cy", "Bob"]


def test_api3_keeps_the_dots_of_other_names(site: Path) -> None:
    invoke("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", "email=ada@example.org", cwd=site)
    words = "contact_id.first_name=Ada", "return=contact_id.first_name", "sequential=1", "option.limit=1"
    found = invoke("api3", "Email.get", *words, cwd=site)
    assert [row["contact_id.first_name"] for row in json.loads(found.stdout)["values"]] == ["Ada"]


def test_api3_shows_rows_as_a_table(site: Path) -> None:
    invoke("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", "last_name=O[bold]", cwd=site)
    shown = invoke("api3", "Contact.get", "first_name=Ada", "return=first_name,last_name", "--out=table", cwd=site)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"┃.*first_name.*┃", shown.stdout)
    assert re.search(r"│.*Ada.*O\[bold\].*│", shown.stdout)


def test_api3_ends_with_1_when_the_answer_is_an_error(site: Path) -> None:
    failed = invoke("api3", "Nonsense.get", "--out=table", cwd=site)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["is_error"] == 1


# ---- mistakes ------------------------------------------------------------------------------------------------


async def served_at_once(*_: object, **__: object) -> None:
    """In the place of an emulator that would serve until told to stop."""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param("frobnicate", "No such command 'frobnicate'", id="A command that is none."),
        pytest.param("api3", "Missing argument 'ENTITY.ACTION'", id="No call at all."),
        pytest.param("api3 Contact", "'Contact' is not Entity.action", id="An entity without an action."),
        pytest.param("api3 .get", "'.get' is not Entity.action", id="An action without an entity."),
        pytest.param("api3 Contact.get id", "'id' is not a parameter; write key=value", id="A word without a value."),
        pytest.param("api3 Contact.get =5", "'=5' is not a parameter", id="A value without a name."),
        pytest.param("api3 Contact.get options.=5", "'options.=5' is not a parameter", id="An option without a name."),
        pytest.param(
            "api3 Contact.get options=5 options.limit=2", "'options' is not a JSON object", id="Options that are none."
        ),
        pytest.param("api3 Contact.get id=[1", "The value of 'id' begins like JSON", id="Half a list."),
        pytest.param("api3 Contact.get --in=xml", "--in takes args or json, not 'xml'", id="An input that is none."),
        pytest.param("api3 Contact.get --out=xml", "--out takes json", id="An output that is none."),
        pytest.param("api3 Contact.get --colour", "No such option: --colour", id="An option that is none."),
        pytest.param(
            "cv --cwd /no/such api3 Contact.get", "/no/such cannot be the working directory", id="cv nowhere."
        ),
        pytest.param("serve --config none.ini", "none.ini cannot be read", id="A settings file that is not there."),
        pytest.param("serve --config .", "cannot be read: Is a directory", id="A folder as settings."),
        pytest.param("serve --config wrong.ini", "wrong.ini: [server] port must be a number", id="A wrong setting."),
        pytest.param("serve --config bare.ini", "[server] site_key is not set", id="A server without its key."),
        pytest.param("sync --group many", "Invalid value for '--group'", id="A group by another name."),
        pytest.param("sync --max-time -1", "Invalid value for '--max-time'", id="A time before now."),
        pytest.param("sync --since gibberish", "--since 'gibberish' is not a date", id="A date that is none."),
        pytest.param("sync --stop-on lunch", "--stop-on takes one of readyToFetch", id="A stage that is none."),
        pytest.param("import nowhere", "nowhere is not a folder", id="A folder that is not there."),
        pytest.param("import", "Give either a folder of CSV files or --sample", id="Nothing to load."),
        pytest.param("import . --sample", "Give either", id="A folder and the sample."),
        pytest.param("import . --timezone Mars", "--timezone: 'Mars' is not a time zone", id="A zone that is none."),
        pytest.param("init settings.ini", "settings.ini already exists", id="Settings that are there."),
        pytest.param("init no/such/folder.ini", "cannot be written", id="Settings in no folder."),
        pytest.param("mailchimp-emulator --load nowhere", "nowhere does not exist", id="An export that is not there."),
        pytest.param("mailchimp-emulator --load wrong.ini", "cannot start", id="An export that is none."),
        pytest.param("mailchimp-emulator --port 99999", "Invalid value for '--port'", id="A port too high."),
        pytest.param("mailchimp-emulator --key abc", "cannot start", id="A key without a data centre."),
        pytest.param("demo --port x", "Invalid value for '--port'", id="A port that is no number."),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: str, says: str, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / "wrong.ini").write_text("[server]\nport = many\n")
    (site / "bare.ini").write_text(f"[user:admin]\napi_key = {ADMIN_KEY}\n")
    monkeypatch.setattr(running, "serve", served_at_once)
    failed = invoke(*words.split(), cwd=site)
    assert failed.returncode == 2
    assert says in failed.stderr
    lines = failed.stderr.strip().splitlines()
    assert len([line for line in lines if "wrong.ini:" not in line or says in line]) == 1, failed.stderr
    assert "Traceback" not in failed.stderr + failed.stdout


def test_a_mistake_in_a_process_of_its_own_is_one_sentence_too(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[servr]\n")
    failed = civiapi("api3", "Contact.get", cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "settings.ini: [servr] is not a section of the settings\n"


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        pytest.param("{", "Standard input is not JSON.", id="Half an object."),
        pytest.param("[1]", "Standard input must be a JSON object of parameters.", id="A list."),
        pytest.param("[" * 100_000, "Standard input is not JSON.", id="Deeper than anyone goes."),
    ],
)
def test_standard_input_that_is_no_object_is_one_sentence(site: Path, stdin: str, says: str) -> None:
    failed = invoke("api3", "Contact.get", "--in=json", cwd=site, stdin=stdin)
    assert (failed.returncode, failed.stderr, failed.stdout) == (2, f"{says}\n", "")


# ---- a database that cannot be used --------------------------------------------------------------------------


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 10)


def _missing_folder(path: Path) -> None:
    path.parent.rmdir()


def _a_folder(path: Path) -> None:
    path.mkdir()


def _another_kind(path: Path) -> None:
    path.write_text("Dear database, ..." * 1000)


def _later(path: Path) -> None:
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE civiapi_schema (version INTEGER PRIMARY KEY)")
        conn.execute("INSERT INTO civiapi_schema VALUES (9999)")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(_missing_folder, "cannot be opened", id="Its folder is missing."),
        pytest.param(_a_folder, "cannot be opened", id="It is a folder."),
        pytest.param(_another_kind, "is not a database", id="It is something else."),
        pytest.param(_later, "schema version 9999", id="A later version made it."),
    ],
)
@pytest.mark.sqlite_only("what can be wrong with a file")
def test_a_database_that_cannot_be_used_is_one_sentence_and_exit_code_1(tmp_path: Path, spoil, says: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    spoil(folder / "site.sqlite")
    config = write_settings(tmp_path)
    config.write_text(config.read_text().replace(str(tmp_path / "site.sqlite"), str(folder / "site.sqlite")))
    for command in (["serve"], ["api3", "Contact.get"])[: 1 + (folder / "site.sqlite").exists()]:
        failed = invoke(*command, cwd=tmp_path, CIVIAPI_CONFIG=str(config))
        assert failed.returncode == 1, failed.stderr
        assert says in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.sqlite_only("MariaDB locks rows")
@pytest.mark.usefixtures("_impatient")
def test_a_locked_database_is_one_sentence_and_exit_code_1(site: Path) -> None:
    holder = sqlite3.connect(site / "site.sqlite", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")  # a mere transaction keeps no reader out
    holder.execute("BEGIN EXCLUSIVE")
    failed = invoke("api3", "Contact.get", cwd=site)
    holder.close()
    assert failed.returncode == 1
    assert "locked" in failed.stderr
    assert failed.stderr.strip().count("\n") == 0


# ---- the server ----------------------------------------------------------------------------------------------


def test_serve_answers_until_sigterm_and_then_ends_well(tmp_path: Path) -> None:
    port = free_port()
    config = write_settings(tmp_path, port=port)
    with process("serve", "--config", config, cwd=tmp_path) as child:
        wait_until_served(child, port)
        stop(child)
        assert child.returncode == 0


def test_serve_says_so_when_its_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_settings(tmp_path, port=port, more="[log]\nlevel = error\n")
        failed = civiapi("serve", "--config", config, cwd=tmp_path)
    assert failed.returncode == 1
    assert failed.stderr == f"127.0.0.1:{port} cannot be listened at: Address already in use.\n"


def test_a_call_from_the_command_line_works_beside_a_server(tmp_path: Path) -> None:
    port = free_port()
    config = write_settings(tmp_path, port=port)
    with serving(config, port):
        made = civiapi("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", cwd=tmp_path)
        assert made.returncode == 0, made.stderr


def test_pipe_greets_and_answers_line_by_line(site: Path) -> None:
    lines = ['{"jsonrpc":"2.0","method":"echo","params":["ho"],"id":1}', "{"]
    spoken = civiapi("pipe", cwd=site, stdin="\n".join(lines) + "\n")
    assert spoken.returncode == 0, spoken.stderr
    greeting, echo, error = (json.loads(line) for line in spoken.stdout.splitlines())
    assert "Civi::pipe" in greeting
    assert echo == {"jsonrpc": "2.0", "result": ["ho"], "id": 1}
    assert error["error"]["message"] == "Parse error"


# ---- data, settings, advice ----------------------------------------------------------------------------------


def test_import_says_what_it_loaded_and_twice_changes_nothing(site: Path) -> None:
    first = invoke("import", DATA / "civicrm", cwd=site)
    assert first.returncode == 0, first.stderr
    assert "contacts.csv: 31 rows, 31 loaded" in first.stdout
    again = invoke("import", DATA / "civicrm", cwd=site)
    assert "contacts.csv: 31 rows, 0 loaded, 31 existed already" in again.stdout


def test_import_loads_the_sample_without_a_folder(site: Path) -> None:
    assert "contacts.csv: 31 rows, 31 loaded" in invoke("import", "--sample", cwd=site).stdout


def test_import_names_file_line_and_reason_of_a_bad_row(site: Path) -> None:
    folder = site / "bad"
    folder.mkdir()
    (folder / "contacts.csv").write_text("id,contact_type,first_name\n1,Martian,Zog\n")
    failed = invoke("import", folder, cwd=site)
    assert failed.returncode == 1
    assert "Nothing was imported." in failed.stderr
    assert "contacts.csv, line 2:" in failed.stderr


def test_init_writes_settings_that_serve_and_that_only_the_owner_reads(tmp_path: Path) -> None:
    made = invoke("init", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE((tmp_path / "settings.ini").stat().st_mode) == 0o600
    assert "log in as admin with the API key in settings.ini" in made.stdout
    assert load_settings(tmp_path / "settings.ini", {}).users[0].api_key not in made.stdout, "it may be a log"
    port = free_port()
    with process("serve", cwd=tmp_path, CIVIAPI_SERVER__PORT=str(port)) as child:
        wait_until_served(child, port)
        stop(child)
        assert child.returncode == 0


def test_doctor_says_what_to_do_and_ends_with_1_only_if_something_is_wrong(site: Path) -> None:
    broken = invoke("doctor", cwd=site, CIVIAPI_SERVER__SITE_KEY="")
    assert broken.returncode == 1
    assert "FAIL [server] site_key is not set." in broken.stdout
    told = invoke("doctor", cwd=site)
    assert told.returncode == 0, told.stdout
    assert "ok   [server] site_key is set." in told.stdout
    assert "note 0 audience(s) linked with a group.  Link one on" in told.stdout
    assert ADMIN_KEY not in told.stdout + told.stderr


def test_alerts_that_are_open_are_listed_and_a_test_needs_a_channel(site: Path) -> None:
    told = invoke("alerts", cwd=site)
    assert (told.returncode, told.stdout) == (0, "No open alerts.\n"), told.stderr
    told = invoke("alerts", "test", cwd=site)
    assert told.returncode == 1
    assert "[alerts] has neither email_to nor webhook_url" in told.stdout
    (site / "settings.ini").open("a").write(f"[alerts]\nwebhook_url = http://127.0.0.1:{free_port()}/secret-path\n")
    told = invoke("alerts", "test", cwd=site)
    assert (told.returncode, told.stdout) == (1, "webhook: the webhook cannot be reached (ConnectError)\n")


def test_a_token_speaks_for_its_contact(site: Path) -> None:
    made = invoke("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", cwd=site)
    contact_id = json.loads(made.stdout)["id"]
    told = invoke("token", str(contact_id), "--hours", "1", cwd=site)
    assert told.returncode == 0, told.stderr
    assert asyncio.run(_caller_by(told.stdout.strip(), site)).contact_id == contact_id


def test_a_new_signing_key_ends_every_token(site: Path) -> None:
    made = invoke("api3", "Contact.create", "contact_type=Individual", "first_name=Ada", cwd=site)
    token = invoke("token", str(json.loads(made.stdout)["id"]), cwd=site).stdout.strip()
    told = invoke("rotate-signing-key", cwd=site)
    assert (told.returncode, told.stderr) == (0, "")
    with pytest.raises(AuthenticationFailed, match="Invalid credential"):
        asyncio.run(_caller_by(token, site))


async def _caller_by(token: str, site: Path) -> Caller:
    async with open_app(load_settings(site / "settings.ini", {})) as app:
        caller = await app.auth.by_authx(Credentials(x_civi_auth=f"Bearer {token}"))
        assert caller is not None
        return caller


def test_there_is_no_token_for_nobody(site: Path) -> None:
    told = invoke("token", "999", cwd=site)
    assert (told.returncode, told.stdout, told.stderr) == (1, "", "Contact ID 999 is invalid.\n")


def test_the_emulator_tells_where_it_answers_and_with_which_key(tmp_path: Path) -> None:
    words = ("mailchimp-emulator", "--port", "0", "--load", DATA / "mailchimp")
    with process(*words, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert re.match(r"Mailchimp emulator at http://127\.0\.0\.1:\d+/3\.0\n", child.stdout.readline())
        assert re.match(r"Account .*: key \S+-us\d+\n", child.stdout.readline())
        assert child.stdout.readline().endswith(": 24 members\n")
        stop(child)
        assert child.returncode == 0


# ---- where the database is -----------------------------------------------------------------------------------


@pytest.mark.sqlite_only("a MariaDB is named by its host")
def test_a_relative_database_is_beside_the_settings_wherever_a_command_is_run(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    config = home / "settings.ini"
    made = invoke("init", config, cwd=elsewhere)
    assert f"Created the database {home / 'civiapi.sqlite'}" in made.stdout
    invoke("api3", "Group.create", "title=News", "--config", config, cwd=home)
    found = invoke("api3", "Group.getcount", "title=News", "--config", config, cwd=elsewhere)
    assert "1" in found.stdout, found.stderr
    assert not list(elsewhere.iterdir())


@pytest.mark.sqlite_only("a MariaDB is not created")
@pytest.mark.parametrize("command", ["adopt", "api3 Contact.get", "backup b", "campaigns", "check",
                                     "cv api3 Contact.get", "doctor", "pipe", "plan", "release",
                                     "rotate-signing-key", "run 1", "sync", "token 1", "undo 1 --yes"])  # fmt: skip
def test_a_command_that_needs_a_database_makes_none(tmp_path: Path, command: str) -> None:
    config = tmp_path / "settings.ini"
    invoke("init", config, cwd=tmp_path)
    for file in tmp_path.glob("civiapi.sqlite*"):
        file.unlink()
    failed = invoke(*command.split(), cwd=tmp_path)
    assert failed.returncode == 1
    assert f"There is no database at {tmp_path / 'civiapi.sqlite'}" in failed.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["settings.ini"]


@pytest.mark.sqlite_only("a MariaDB is not created")
def test_import_makes_the_database_and_says_where(tmp_path: Path) -> None:
    invoke("init", "settings.ini", "--database", f"sqlite:///{tmp_path}/data.sqlite", cwd=tmp_path)
    assert not (tmp_path / "data.sqlite").exists()
    made = invoke("import", "--sample", cwd=tmp_path)
    assert f"Creating the database {tmp_path / 'data.sqlite'}" in made.stderr
    assert (tmp_path / "data.sqlite").exists()


@pytest.mark.sqlite_only("a MariaDB is named by its host")
def test_a_database_that_an_earlier_version_made_in_the_working_directory_is_not_replaced(tmp_path: Path) -> None:
    home, old = tmp_path / "home", tmp_path / "old"
    home.mkdir()
    old.mkdir()
    invoke("init", home / "settings.ini", cwd=home)
    (home / "civiapi.sqlite").rename(old / "civiapi.sqlite")
    failed = invoke("serve", "--config", home / "settings.ini", cwd=old)
    assert failed.returncode == 1
    assert f"but one at {old / 'civiapi.sqlite'}" in failed.stderr
    assert not (home / "civiapi.sqlite").exists()


# ---- sync ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["sync", "sync --json", "plan"])
def test_with_nothing_linked_sync_and_plan_say_so_and_end_with_1(site: Path, command: str) -> None:
    failed = invoke(*command.split(), cwd=site)
    assert failed.returncode == 1
    assert "No group is linked with an audience." in failed.stderr


async def test_sync_names_its_steps_and_says_what_it_did_in_sentences_json_for_scripts(tmp_path: Path) -> None:
    async with running.running_emulator() as emulator:
        emulator.admin("import", "ada@example.org")
        settings = write_settings(tmp_path, mailchimp=emulator.base_url)
        list_id = emulator.audience().id
        link = {"accounts": {emulator.key: {"apiKey": emulator.key, "audiences": {list_id: {"name": "News"}}}},
                "lists": {list_id: {"apiKey": emulator.key, "subscriptionGroup": "1", "interests": {}}}}  # fmt: skip
        async with open_app(load_settings(settings, {})) as app:
            await app.api.respond(Call("Group", "create", {"title": "News"}))
            group = await app.api.respond(Call("Group", "getsingle", {"title": "News"}))
            link["lists"][list_id]["subscriptionGroup"] = group["id"]
            answer = await app.api.respond(Call("Mailchimpsync", "updateconfig", {"config": json.dumps(link)}))
            assert not answer["is_error"], answer
        told = await asyncio.to_thread(civiapi, "sync", cwd=tmp_path)
        assert told.returncode == 0, told.stderr
        assert told.stdout.splitlines() == [
            f"Group {group['id']}: 1 contact created, 1 joined the group.",
            "Now 1 are subscribed at Mailchimp, 1 are in the group.",
        ]
        assert "Fetch members" in told.stderr
        assert "readyTo" not in told.stderr
        scripted = await asyncio.to_thread(civiapi, "sync", "--json", cwd=tmp_path)
        assert json.loads(scripted.stdout)["values"][0]["list_id"] == list_id
        emulator.add_fault("403_user_disabled")
        failed = await asyncio.to_thread(civiapi, "sync", cwd=tmp_path)
        assert failed.returncode == 1
        assert "stopped at readyToFetch" in failed.stderr
        assert "warning" not in failed.stderr


def test_serve_prints_the_address_to_open(tmp_path: Path) -> None:
    port = free_port()
    with process("serve", cwd=tmp_path, CIVIAPI_CONFIG=str(write_settings(tmp_path, port=port))) as child:
        wait_until_served(child, port)
        stop(child)
        assert child.stderr
        assert f"civiapi runs at http://127.0.0.1:{port}/" in child.stderr.read()
