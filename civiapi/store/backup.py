"""A copy of a SQLite database that is consistent while others write to it, or no copy at all.

SQLite's own backup reads one moment of the database, whoever writes meanwhile. The copy grows beside its place under
another name, is looked over, and gets its own name only when it is whole and on the disk; nothing is overwritten.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, urlsplit

from civiapi.store.errors import StoreUnusable

WAIT_S = 15.0
SQLITE = "sqlite:///"


class CannotBackUp(StoreUnusable):
    """No copy was made, and this says why and how to go on."""


def back_up(url: str, target: Path) -> int:
    """Copy the SQLite database at *url* to *target*, a file that must not be there; returns its size in bytes.

    Raises ``CannotBackUp``; then nothing is left behind.
    """
    if not url.startswith(SQLITE):
        raise CannotBackUp(f"This database is a server's, which makes the copy itself: {dump_command(url, target)}")
    source = Path(url.removeprefix(SQLITE))
    if not source.is_file():
        raise CannotBackUp(f"There is no database at {source} to make a copy of.")
    if target.exists():
        raise CannotBackUp(f"{target} is there already; name a file that is not.")
    growing = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.close(os.open(growing, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # it holds keys and addresses
        _copy(source, growing)
        _sync(growing)
        os.link(growing, target)  # unlike a rename, this never overwrites what came meanwhile
        size = target.stat().st_size
    except FileExistsError as error:
        raise CannotBackUp(f"{target} is there already; name a file that is not.") from error
    except OSError as error:
        raise CannotBackUp(f"{target} cannot be written: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise CannotBackUp(f"No copy of {source} could be made: {error}.") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            growing.unlink()
    _sync(target.parent)
    return size


def dump_command(url: str, target: Path) -> str:
    """The command that copies a MariaDB database while it is in use; it asks for the password, which is not shown."""
    parts = urlsplit(url)
    words = ["mysqldump", "--single-transaction", "--quick", "--routines", "--triggers"]
    words += [f"--host={parts.hostname or 'localhost'}"]
    words += [f"--port={parts.port}"] if parts.port else []
    words += [f"--user={parts.username}"] if parts.username else []
    words += ["--password"] if parts.password else []
    return " ".join([*words, parts.path.strip("/"), ">", str(target)])


def _copy(source: Path, growing: Path) -> None:
    reading = sqlite3.connect(f"file:{quote(str(source.resolve()))}?mode=rw", uri=True, timeout=WAIT_S)
    try:
        writing = sqlite3.connect(growing)
        try:
            reading.backup(writing, pages=-1)
            writing.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
            found = writing.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(f"it is damaged ({found}); see `civiapi check`")
        finally:
            writing.close()
    finally:
        reading.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
