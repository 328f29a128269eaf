"""Databases for tests, of the kind the run asks for: SQLite, or MariaDB with ``pytest --database mariadb``.

``database_at(path)`` is the one way a fixture comes by a database, so one option moves the whole suite; the few suites
that promise the same on both take ``KINDS`` and ``a_database``: each run has the variants of its own kind. A SQLite
file costs a tenth of a second to make, so each test process makes one and copies it; a MariaDB database costs a third,
so each keeps a few: given back, the tables that changed get a new site's rows.
"""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import sync.store.tables  # noqa: F401  registers the extension's tables
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import METADATA
from civiapi.store.text import collation

KINDS = ("sqlite", "mariadb")
VARIABLE = "CIVIAPI_TEST_DATABASE"
HOST = "mysql://root@127.0.0.1"
MARIADB = ["mysql", "-uroot", "-h127.0.0.1", "-N", "-e"]


class ServerRefusedError(OSError):
    """The MariaDB server, or the client that asks it, did not do what it was asked."""


_leased: dict[Path, str] = {}
_free: list[str] = []


def chosen() -> str:
    """The kind of database this run is on."""
    return os.environ.get(VARIABLE, "sqlite")


def database_at(path: Path) -> str:
    """The URL of this test's database at *path*, a new site's: a file there, or a MariaDB database that stands for it.

    The same path is the same database until the test ends.
    """
    if chosen() == "sqlite":
        return _file_at(path)
    if path not in _leased:
        _leased[path] = _lease()
    return f"{HOST}/{_leased[path]}"


def raw_sqlite(path: Path | str, **options: Any) -> sqlite3.Connection:
    """A plain connection to a database file of ours, with what its columns compare by."""
    conn = sqlite3.connect(path, **options)
    collation.register(conn)
    return conn


def in_use() -> frozenset[Path]:
    """The paths whose MariaDB databases somebody has."""
    return frozenset(_leased)


def give_back(but: frozenset[Path]) -> None:
    """Take back the databases of the test that ended, *but* those of fixtures that go on."""
    for path in _leased.keys() - but:
        _take_back(_leased.pop(path))


@contextmanager
def copy_of(path: Path, copied: Path) -> Iterator[str]:
    """The URL of a database at *copied* with the rows of the one at *path*, which nobody may have open."""
    if chosen() == "sqlite":
        shutil.copy(path, copied)
        yield database_at(copied)
        return
    name = _lease()
    try:
        source = _leased[path]
        _fill(name, _new_site(), source, _look_at(source))
        yield f"{HOST}/{name}"
    finally:
        _take_back(name)


@contextmanager
def a_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a new site's database of this kind; skips, saying why, where there is no MariaDB to use."""
    if kind == "sqlite":
        yield _file_at(folder / "site.sqlite")
        return
    name = _lease()
    try:
        yield f"{HOST}/{name}"
    finally:
        _take_back(name)


@asynccontextmanager
async def a_store(kind: str, folder: Path) -> AsyncIterator[Store]:
    """A new site's store of this kind, closed when the block ends; skips as `a_database` does."""
    with a_database(kind, folder) as url:
        opened = await open_store(url)
        try:
            yield opened
        finally:
            await opened.close()


@contextmanager
def an_empty_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a database without any table; where its tables are changed, nobody gets it afterwards."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'empty.sqlite'}"
        return
    _or_skip()
    name = _new_name()
    sql(f"CREATE DATABASE {name}")
    try:
        yield f"{HOST}/{name}"
    finally:
        _drop(name)


def drop_all() -> None:
    """Drop what this test process kept."""
    if _new_file.cache_info().currsize:
        shutil.rmtree(_new_file().parent)
        _new_file.cache_clear()
    for name in (*_free, *_leased.values(), *([_template()] if _template.cache_info().currsize else [])):
        _drop(name)
    _free.clear()
    _leased.clear()


@cache
def why_no_mariadb() -> str:
    """Why MariaDB cannot be used here, or nothing."""
    try:
        sql("SELECT 1")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no MariaDB at 127.0.0.1 that root may use: {error}"
    return ""


def sql(*statements: str, database: str = "") -> list[list[str]]:
    """Run statements on the MariaDB server, outside any test's store; the rows they give.

    Raises ServerRefusedError with the client's words: what it was asked alone does not say what was wrong.
    """
    done = subprocess.run([*MARIADB, ";".join(statements), database], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ServerRefusedError(f"{done.stderr.strip()} (code {done.returncode}): {'; '.join(statements)}")
    return [line.split("\t") for line in done.stdout.splitlines()]


def _file_at(path: Path) -> str:
    if not path.exists():
        shutil.copy(_new_file(), path)
    return f"sqlite:///{path}"


@cache
def _new_file() -> Path:
    path = Path(tempfile.mkdtemp(prefix="civiapi-test-")) / "new.sqlite"
    _migrate(f"sqlite:///{path}")
    return path


def _or_skip() -> None:
    if why_no_mariadb():
        pytest.skip(why_no_mariadb())


def _new_name() -> str:
    return f"civiapi_test_{os.getpid()}_{uuid4().hex[:8]}"


def _lease() -> str:
    _or_skip()
    return _free.pop() if _free else _made()


def _made() -> str:
    """A database with the schema and the first rows."""
    name = _new_name()
    sql(f"CREATE DATABASE {name}")
    _migrate(f"{HOST}/{name}")
    return name


def _migrate(url: str) -> None:
    """Give a database the schema and the first rows."""
    failures: list[BaseException] = []

    async def make() -> None:
        store = await open_store(url)
        await migrate(store)
        await store.close()

    def run() -> None:
        try:
            asyncio.run(make())
        except BaseException as error:
            failures.append(error)

    maker = threading.Thread(target=run)  # the caller's loop may be running
    maker.start()
    maker.join()
    if failures:
        raise failures[0]


@cache
def _template() -> str:
    return _made()


def _take_back(name: str) -> None:
    """Put a database back to a new site's rows, or drop it where the test changed its tables.

    A database that cannot be put back is dropped, with a warning: this is no part of the test that had it.
    """
    try:
        _put_back(name)
    except ServerRefusedError as error:
        warnings.warn(f"{name} could not be put back to a new site's rows and is dropped: {error}", stacklevel=2)
        _drop(name)


def _put_back(name: str) -> None:
    seen = _look_at(name)
    if seen.connections:
        for one in seen.connections:
            subprocess.run([*MARIADB, f"KILL {one}"], capture_output=True, timeout=60)
        seen = _look_at(name)
    new = _new_site()
    if seen.shape == new.shape:
        _fill(name, seen, _template(), new)
        _free.append(name)
    else:
        _drop(name)


@dataclass(frozen=True)
class _Database:
    """What a database looks like: who is connected, its columns, indexes and triggers, and by table its next id and
    the checksum of its rows."""

    connections: list[str]
    shape: list[list[str]]
    contents: dict[str, tuple[str, str]]


def _look_at(name: str) -> _Database:
    """Look at all of it in one go: to start the client takes longer than all these questions."""
    of = f"FROM information_schema.%s WHERE table_schema = '{name}'"
    tables = ", ".join(f"{name}.`{one}`" for one in METADATA.tables)
    rows = sql(
        f"SELECT 'connection', id FROM information_schema.processlist WHERE db = '{name}'",
        f"SELECT 'shape', table_name, column_name, column_type, collation_name {of % 'columns'} ORDER BY 2, 3",
        f"SELECT 'shape', table_name, index_name, column_name {of % 'statistics'} ORDER BY 2, 3, 4",
        f"SELECT 'shape', event_object_table, trigger_name FROM information_schema.triggers "
        f"WHERE trigger_schema = '{name}'",
        f"SELECT 'next', table_name, COALESCE(auto_increment, 0) {of % 'tables'} AND table_type = 'BASE TABLE'",
        f"CHECKSUM TABLE {tables}",
    )
    by_kind: dict[str, list[list[str]]] = {"connection": [], "shape": [], "next": []}
    sums = {}
    for kind, *values in rows:
        if kind in by_kind:
            by_kind[kind].append(values)
        else:
            sums[kind.removeprefix(f"{name}.")] = values[0]
    contents = {table: (number, sums.get(table, "")) for table, number in by_kind["next"]}
    return _Database([one for [one] in by_kind["connection"]], by_kind["shape"], contents)


@cache
def _new_site() -> _Database:
    return _look_at(_template())


def _fill(target: str, there: _Database, source: str, wanted: _Database) -> None:
    """Give *target* the rows and the next ids of *source*; only tables that differ are written."""
    changed = [one for one in wanted.contents if wanted.contents[one] != there.contents.get(one)]
    if not changed:
        return
    rows = ["SET foreign_key_checks = 0", "BEGIN", *(f"DELETE FROM `{one}`" for one in changed)]
    rows += [f"INSERT INTO `{one}` SELECT * FROM {source}.`{one}`" for one in changed]
    next_ids = {one: wanted.contents[one][0] for one in changed if wanted.contents[one][0] != there.contents[one][0]}
    counters = [f"ALTER TABLE `{one}` AUTO_INCREMENT = {number}" for one, number in next_ids.items()]
    sql(*rows, "COMMIT", *counters, database=target)


def _drop(name: str) -> None:
    sql(f"DROP DATABASE IF EXISTS {name}")
