"""Copies a SQLite database while it is in use: ``civiapi backup``.

SQLite's backup reads a consistent snapshot. The copy is written under a temporary name, verified, and renamed only when
it is complete and synced to disk; nothing is overwritten.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote, urlsplit

from civiapi.store.address import SQLITE
from civiapi.store.errors import StoreUnusable
from civiapi.store.text import collation

WAIT_S = 15.0


class CannotBackUp(StoreUnusable):
    """No copy was made; the text says why, and what to do."""


def back_up(url: str, target: Path) -> int:
    """Copy the SQLite database at *url* to *target*, a file that must not exist; returns its size in bytes.

    Raises ``CannotBackUp``, and then leaves no file behind.
    """
    if not url.startswith(SQLITE):
        raise CannotBackUp(f"Copy a MariaDB database with its own command: {dump_command(url, target)}")
    source = Path(url.removeprefix(SQLITE))
    if not source.is_file():
        raise CannotBackUp(f"There is no database at {source}.")
    if target.exists():
        raise CannotBackUp(f"{target} already exists; choose another file name.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))  # it holds keys and addresses
        _copy(source, temporary)
        _sync(temporary)
        os.link(temporary, target)  # unlike a rename, this never overwrites a file
        size = target.stat().st_size
    except FileExistsError as error:
        raise CannotBackUp(f"{target} already exists; choose another file name.") from error
    except OSError as error:
        raise CannotBackUp(f"{target} cannot be written: {error.strerror}.") from error
    except sqlite3.Error as error:
        raise CannotBackUp(f"No copy of {source} could be made: {error}.") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    _sync(target.parent)
    return size


def dump_command(url: str, target: Path) -> str:
    """The command that copies a MariaDB database while it is in use; it prompts for the password."""
    parts = urlsplit(url)
    command = ["mysqldump", "--single-transaction", "--quick", "--routines", "--triggers"]
    command += [f"--host={parts.hostname or 'localhost'}"]
    command += [f"--port={parts.port}"] if parts.port else []
    command += [f"--user={parts.username}"] if parts.username else []
    command += ["--password"] if parts.password else []
    return " ".join([*command, parts.path.strip("/"), ">", str(target)])


def _copy(source: Path, temporary: Path) -> None:
    reading = sqlite3.connect(f"file:{quote(str(source.resolve()))}?mode=rw", uri=True, timeout=WAIT_S)
    try:
        writing = sqlite3.connect(temporary)
        try:
            reading.backup(writing, pages=-1)
            collation.register(writing)
            writing.execute("PRAGMA journal_mode = DELETE")  # one file, without -wal
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
