"""``civiapi backup``: a whole copy of a database in use, or none; and upgrades that fail leave the old one usable."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, inspect, select, text, update

from civiapi.maintenance.backup import CannotBackUp, back_up
from civiapi.maintenance.integrity import check_database
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import MIGRATIONS, Migration, migrate, schema
from civiapi.store.schema.tables import contact, email
from tests.support.databases import KINDS, a_database, raw_sqlite
from tests.support.processes import ROOT, civiapi, environment, free_port, invoke, serving, write_settings


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database with one contact."""
    found = tmp_path / "site.sqlite"
    store = await open_store(f"sqlite:///{found}")
    await migrate(store)
    await store.write(lambda conn: conn.execute(insert(contact).values(contact_type="Individual")) and None)
    await store.close()
    return found


class TestBackup:
    async def test_a_copy_holds_everything_is_sound_and_readable_by_its_owner_alone(
        self, path: Path, tmp_path: Path
    ) -> None:
        target = tmp_path / "copy.sqlite"
        assert back_up(f"sqlite:///{path}", target) == target.stat().st_size
        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        assert all(one.ok for one in await check_database(f"sqlite:///{target}"))
        assert dump(target) == dump(path)

    async def test_a_copy_made_while_others_write_is_one_moment_of_the_database(
        self, path: Path, tmp_path: Path
    ) -> None:
        """Each transaction writes a contact and its address: no copy may hold one without the other."""
        stop, begun = threading.Event(), threading.Event()

        def keep_writing() -> None:
            conn = raw_sqlite(path, isolation_level=None, timeout=20)
            while not stop.is_set():
                conn.execute("BEGIN IMMEDIATE")
                made = conn.execute("INSERT INTO civicrm_contact (contact_type) VALUES ('Individual')").lastrowid
                conn.execute("INSERT INTO civicrm_email (contact_id, email) VALUES (?, 'a@example.org')", (made,))
                conn.execute("COMMIT")
                begun.set()
            conn.close()

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            assert begun.wait(20)
            for n in range(5):
                back_up(f"sqlite:///{path}", tmp_path / f"copy{n}.sqlite")
        finally:
            stop.set()
            writer.join()
        for n in range(5):
            store = await open_store(f"sqlite:///{tmp_path / f'copy{n}.sqlite'}")
            contacts = await store.read(lambda conn: set(conn.execute(select(contact.c.id)).scalars()))
            owners = await store.read(lambda conn: set(conn.execute(select(email.c.contact_id)).scalars()))
            await store.close()
            assert contacts - owners == {1}  # the one who was there before
            assert owners <= contacts

    @pytest.mark.sqlite_only("a server's database is copied by mysqldump, which the command names")
    def test_the_command_copies_the_database_of_a_running_server(self, tmp_path: Path) -> None:
        port = free_port()
        settings = write_settings(tmp_path, port=port)
        with serving(settings, port):
            made = civiapi("backup", "copy.sqlite", cwd=tmp_path)
            assert (made.returncode, made.stdout.startswith("Wrote copy.sqlite (")) == (0, True), made.stderr
            again = civiapi("backup", "copy.sqlite", cwd=tmp_path)
            assert (again.returncode, again.stderr) == (1, "copy.sqlite already exists; choose another file name.\n")
        restored = tmp_path / "restored"
        restored.mkdir()
        write_settings(restored)
        os.rename(tmp_path / "copy.sqlite", restored / "site.sqlite")
        assert civiapi("check", cwd=restored).returncode == 0

    @pytest.mark.parametrize(
        ("url", "target", "says"),
        [
            pytest.param("sqlite:///{}/none.sqlite", "copy", "There is no database at ", id="no database"),
            pytest.param("sqlite:///{}/site.sqlite", "site.sqlite", " already exists", id="a file that is there"),
            pytest.param("sqlite:///{}/site.sqlite", "no/copy", " cannot be written: No such file", id="no folder"),
            pytest.param("sqlite:///{}/broken.sqlite", "copy", "file is not a database", id="a damaged database"),
        ],
    )
    def test_what_stands_in_its_way_is_said_and_nothing_is_left_behind(
        self, path: Path, tmp_path: Path, url: str, target: str, says: str
    ) -> None:
        (tmp_path / "broken.sqlite").write_bytes(b"nonsense" * 1000)
        before = sorted(tmp_path.iterdir()), path.read_bytes()
        with pytest.raises(CannotBackUp) as caught:
            back_up(url.format(tmp_path), tmp_path / target)
        assert says in str(caught.value)
        assert (sorted(tmp_path.iterdir()), path.read_bytes()) == before

    def test_a_full_disk_leaves_no_copy(self, path: Path, tmp_path: Path) -> None:
        """The limit on a file's size stands for the end of the disk."""
        script = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from civiapi.maintenance.backup import CannotBackUp, back_up\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
            "try: back_up(sys.argv[1], Path(sys.argv[2]))\n"
            "except CannotBackUp as error: print(error)\n"
        )
        words = [sys.executable, "-c", script, f"sqlite:///{path}", str(tmp_path / "copy")]
        done = subprocess.run(words, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60)
        assert done.stdout.startswith(f"No copy of {path} could be made: "), done
        assert [one.name for one in tmp_path.iterdir() if "copy" in one.name] == []

    def test_for_mariadb_the_command_that_copies_it_is_shown_without_the_password(self, tmp_path: Path) -> None:
        with pytest.raises(CannotBackUp) as caught:
            back_up("mysql://civi:s3cret@db.example:3307/crm", Path("crm.sql"))
        assert "mysqldump --single-transaction" in str(caught.value)
        assert "--host=db.example --port=3307 --user=civi --password crm > crm.sql" in str(caught.value)
        assert "s3cret" not in str(caught.value)


@pytest.fixture(params=KINDS)
async def old(request: pytest.FixtureRequest, tmp_path: Path) -> Store:  # type: ignore[misc]
    """A database of the version before this one, with a contact in it."""
    with a_database(request.param, tmp_path) as url:
        store = await open_store(url)
        await migrate(store)

        def fill(conn: Connection) -> None:
            conn.execute(insert(contact).values(contact_type="Individual", display_name="Ada"))
            conn.execute(update(schema).values(version=len(MIGRATIONS) - 1))

        await store.write(fill)
        yield store  # type: ignore[misc]
        await store.close()


class TestUpgrade:
    async def test_one_that_fails_half_way_leaves_a_database_that_works_and_can_be_upgraded_later(
        self, old: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def grow(conn: Connection) -> None:
            if "half_done" not in inspect(conn).get_table_names():
                conn.execute(text("CREATE TABLE half_done (id INTEGER)"))

        def fail(conn: Connection) -> None:
            conn.execute(insert(contact).values(contact_type="Individual", display_name="Halfway"))
            raise RuntimeError("out of luck")

        steps = (*MIGRATIONS, Migration("one that works", grow), Migration("one that fails", fail))
        monkeypatch.setattr("civiapi.store.schema.migrations.MIGRATIONS", steps)
        with pytest.raises(RuntimeError):
            await migrate(old)
        assert await old.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(MIGRATIONS) - 1
        names = select(contact.c.display_name).where(contact.c.display_name.in_(("Ada", "Halfway")))
        assert await old.read(lambda conn: list(conn.execute(names).scalars())) == ["Ada"]
        monkeypatch.setattr("civiapi.store.schema.migrations.MIGRATIONS", MIGRATIONS)  # the old program goes on with it
        assert await migrate(old) == [MIGRATIONS[-1].what]
        monkeypatch.setattr(
            "civiapi.store.schema.migrations.MIGRATIONS", (*MIGRATIONS, Migration("one that works", grow))
        )  # and a mended one
        assert await migrate(old) == ["one that works"]

    def test_one_that_is_killed_half_way_leaves_the_old_database(self, tmp_path: Path) -> None:
        settings = write_settings(tmp_path)
        assert invoke("api3", "Contact.getcount", "--config", settings, cwd=tmp_path).returncode == 0
        script = (
            "import asyncio, os, signal, sys\n"
            "import sync.store.tables\n"
            "from sqlalchemy import text\n"
            "from civiapi.store.schema import migrations\n"
            "from civiapi.store.engine import open_store\n"
            "def dying(conn):\n"
            "    conn.execute(text('CREATE TABLE half_done (id INTEGER)'))\n"
            "    conn.execute(text('DROP TABLE civicrm_tag'))\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "migrations.MIGRATIONS = (*migrations.MIGRATIONS, migrations.Migration('dying', dying))\n"
            "async def main(): await migrations.migrate(await open_store(sys.argv[1]))\n"
            "asyncio.run(main())\n"
        )
        words = [sys.executable, "-c", script, f"sqlite:///{tmp_path / 'site.sqlite'}"]
        assert subprocess.run(words, env=environment(), cwd=ROOT, timeout=60).returncode == -9
        assert invoke("check", "--config", settings, cwd=tmp_path).returncode == 0
        assert not [line for line in dump(tmp_path / "site.sqlite") if "half_done" in line]


def dump(path: Path) -> list[str]:
    conn = raw_sqlite(path)
    try:
        return list(conn.iterdump())
    finally:
        conn.close()
