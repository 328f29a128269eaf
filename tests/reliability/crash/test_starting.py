"""A server whose database cannot be used says why in one sentence, and exits 1."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import migrate
from tests.reliability.crash.processes import Forker
from tests.support.processes import free_port

NOBODY = 65534


async def start(forker: Forker, folder: Path, url: str, **limits: int) -> str:
    """Start a server that cannot; what it says."""
    output = folder / "stderr"
    job = {"database": url, "mailchimp": "", "port": free_port(), "stderr": str(output), "steps": [], **limits}
    ended = (await forker.run(job)).ended
    words = output.read_text("utf-8")
    assert ended == 1, (ended, words)
    assert words.count("\n") == 1, words
    assert "Traceback" not in words
    return words.strip()


@pytest.fixture
async def site(tmp_path: Path) -> Path:
    """A database that can be used."""
    path = tmp_path / "site.sqlite"
    store = await open_store(f"sqlite:///{path}")
    await migrate(store)
    await store.close()
    return path


async def test_a_missing_folder(forker: Forker, tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "site.sqlite"
    said = await start(forker, tmp_path, f"sqlite:///{path}")
    assert said == f"The database {path} cannot be opened: the folder {path.parent} does not exist."


async def test_a_folder_in_its_place(forker: Forker, tmp_path: Path) -> None:
    said = await start(forker, tmp_path, f"sqlite:///{tmp_path}")
    assert said == f"The database {tmp_path} cannot be opened: it is a folder."


async def test_a_database_that_another_program_keeps_locked(forker: Forker, site: Path) -> None:
    with locked(site):
        said = await start(forker, site.parent, f"sqlite:///{site}")
    assert said == f"The database {site} cannot be opened: it is locked by another process."


async def test_a_database_that_may_not_be_written(forker: Forker, site: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not write")
    let_everybody_look(site)
    said = await start(forker, site.parent, f"sqlite:///{site}", uid=NOBODY)
    assert said in {
        f"The database {site} cannot be opened: {why}." for why in ("it is read-only", "it cannot be opened")
    }


async def test_a_folder_that_may_not_be_read(forker: Forker, site: Path, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become somebody who may not read it")
    let_everybody_look(site)
    site.parent.chmod(0o700)
    said = await start(forker, tmp_path, f"sqlite:///{site}", uid=NOBODY)
    assert said == f"The database {site} cannot be opened: the folder {site.parent} may not be read."


async def test_a_full_disk(forker: Forker, tmp_path: Path) -> None:
    said = await start(forker, tmp_path, f"sqlite:///{tmp_path / 'new.sqlite'}", file_limit=8192)
    assert said.endswith(("the disk cannot be read or written.", "the disk is full.")), said


async def test_a_file_that_is_no_database(forker: Forker, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear all, " * 1000)
    said = await start(forker, tmp_path, f"sqlite:///{path}")
    assert said == f"The database {path} cannot be opened: the file is not a database."


@pytest.mark.parametrize("how", ["cut short", "overwritten in the middle"])
async def test_a_corrupt_database(forker: Forker, site: Path, how: str) -> None:
    damage(site, how)
    said = await start(forker, site.parent, f"sqlite:///{site}")
    assert said.startswith("The database")
    assert "it is corrupt" in said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://root@127.0.0.1:1/site", "the server does not answer"),
        ("mysql://root@nowhere.invalid/site", "the server does not answer"),
    ],
)
async def test_a_mariadb_that_cannot_be_reached(forker: Forker, tmp_path: Path, url: str, why: str) -> None:
    assert await start(forker, tmp_path, url) == f"The database cannot be used: {why}."


def let_everybody_look(path: Path) -> None:
    """Anybody may read the file, nobody but root may write it or beside it."""
    path.chmod(0o444)
    for folder in path.parents:
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(folder.stat().st_mode | 0o055)


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    middle = len(whole) // 2
    rest = b"" if how == "cut short" else b"\xff" * 40_000 + whole[middle + 40_000 :]
    path.write_bytes(whole[:middle] + rest)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program has the file to itself."""
    other = sqlite3.connect(path)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()
