"""Files with addresses and keys are readable by their owner only, whatever the umask."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from civiapi.app import open_app
from civiapi.maintenance.doctor import examine
from civiapi.runtime.private_files import create_private, open_private
from civiapi.settings import DatabaseSettings, Settings
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import migrate
from tests.support.processes import civiapi, write_settings

pytestmark = pytest.mark.sqlite_only("the files are those of a SQLite database")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o000)  # the most open there is
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


async def test_a_new_database_and_its_companions_are_private(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/site.sqlite")
    await migrate(store)
    assert modes(tmp_path) == dict.fromkeys(("site.sqlite", "site.sqlite-wal", "site.sqlite-shm"), 0o600)
    await store.close()


def test_a_file_written_again_becomes_private(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    path.write_text("old and longer")
    with open_private(path) as out:
        out.write("new")
    assert (path.read_text(), modes(tmp_path)) == ("new", {"plan.csv": 0o600})
    create_private(path)
    assert path.read_text() == "new"


def test_what_commands_write_is_private(tmp_path: Path) -> None:
    assert civiapi("init", "new.ini", cwd=tmp_path).returncode == 0
    config = write_settings(tmp_path)
    sqlite3.connect(tmp_path / "other.sqlite").close()
    assert civiapi("plan", "--config", config, "--csv", "plan.csv", cwd=tmp_path).returncode in (0, 1)
    assert civiapi("backup", "copy.sqlite", "--config", config, cwd=tmp_path).returncode == 0
    assert civiapi("docs", "--out", "reference", cwd=tmp_path).returncode == 0
    made = modes(tmp_path) | modes(tmp_path / "reference")
    assert {name for name, mode in made.items() if mode != 0o600} <= {"settings.ini", "other.sqlite", "site.sqlite"}
    assert {"new.ini", "plan.csv", "copy.sqlite", "index.html"} <= made.keys()


async def test_the_doctor_names_files_that_others_may_read_and_only_those(tmp_path: Path) -> None:
    config, database = tmp_path / "settings.ini", tmp_path / "site.sqlite"
    config.write_text("")
    config.chmod(0o644)
    async with open_app(Settings(database=DatabaseSettings(f"sqlite:///{database}"))) as app:
        database.chmod(0o640)
        found = {one.code: one async for one in examine(app, config) if "File" in one.code}
        assert {code: one.ok for code, one in found.items()} == {"settingsFile": False, "databaseFile": False}
        assert found["settingsFile"].remedy == f"chmod 600 {config}"
        assert found["databaseFile"].remedy == f"chmod 600 {database}"
        database.chmod(0o600)
        config.chmod(0o600)
        assert all([one.ok async for one in examine(app, config) if "File" in one.code])
