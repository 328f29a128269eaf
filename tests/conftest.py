"""Fixtures every suite shares: a fresh migrated store, an API over it, and a short way to ask it something.

``pytest --database mariadb`` runs every test that opens a database on MariaDB, and leaves out those that open none. A
test that is parametrized by the kind of database runs once in each of the two runs.
"""

import gc
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.dev import ConsoleRenderer, plain_traceback

import sync.store.tables  # noqa: F401  registers the extension's tables
from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from tests.support import databases, templates
from tests.support.databases import KINDS, database_at

# How long an example takes says how busy the machine is, not whether the program is right.
settings.register_profile("civiapi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("civiapi")

Ask = Callable[..., Awaitable[Any]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database", choices=KINDS, default=None, help="the kind of database that tests open (sqlite)")


def pytest_configure(config: pytest.Config) -> None:
    templates.compile_once()
    *others, _ = structlog.get_config()["processors"]  # the last draws tracebacks in frames, which takes 20 ms each
    structlog.configure(processors=[*others, ConsoleRenderer(exception_formatter=plain_traceback)])
    config.addinivalue_line("markers", "sqlite_only(reason): about SQLite itself; left out on MariaDB")
    if config.getoption("--database"):
        os.environ[databases.VARIABLE] = config.getoption("--database")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Exclude from garbage collection what is there for good: thousands of tests, and all modules.

    Every full collection walked through them again, which took a tenth of the time of the tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each kind of database has its own run: on SQLite, leave out the variants of tests that MariaDB's run has; on
    MariaDB, what opens no database or is about SQLite. Skip the rest there where there is no MariaDB."""
    on_mariadb = databases.chosen() == "mariadb"
    kept, left_out = [], []
    for item in items:
        wanted = _opens_a_database(item) if on_mariadb else not _is_mariadbs(item)
        (kept if wanted else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
    if on_mariadb and databases.why_no_mariadb():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=databases.why_no_mariadb()))


def _params(item: pytest.Item) -> list[object]:
    return list(getattr(getattr(item, "callspec", None), "params", {}).values())


def _is_mariadbs(item: pytest.Item) -> bool:
    return "mariadb" in _params(item) and _opens_a_database(item)


def _opens_a_database(item: pytest.Item) -> bool:
    if item.get_closest_marker("sqlite_only") or "sqlite" in _params(item):
        return False
    known = vars(getattr(item, "module", None))
    ways = {
        "database_at",
        "a_database",
        "an_empty_database",
        "a_site",
        "a_harness",
        "a_whole_site",
        "write_settings",
        "prepare_runner",
        "prepare_site",
    }
    return not {"store", "site"}.isdisjoint(getattr(item, "fixturenames", ())) or not ways.isdisjoint(known)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """A test that asks for another machine's address would wait for the network, and mean another thing with it."""
    resolve = socket.getaddrinfo

    def local_only(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        assert not name or name == "localhost" or name[0] in "0123456789:", f"{name} is no address of this machine"
        return resolve(host, *args, **kwargs)

    with mock.patch.object(socket, "getaddrinfo", local_only):
        yield


@pytest.fixture(autouse=True)
def _databases() -> Iterator[None]:
    """Whatever the test opened is given back when it ends; what a module's fixture opened before, with the session."""
    others = databases.in_use()
    yield
    databases.give_back(others)


@pytest.fixture(autouse=True, scope="session")
def _kept_databases() -> Iterator[None]:
    yield
    databases.drop_all()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A new database with the schema and the seed rows; the site lives in UTC."""
    opened = await open_store(database_at(tmp_path / "site.sqlite"))
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.fixture
def api(store: Store) -> Api:
    return Api(store, catalogue())


@pytest.fixture
def call(api: Api) -> Ask:
    """``await call("Email", "get", {...})``: the answer as every adapter gets it, errors as envelopes."""

    async def ask(entity: str, action: str, params: dict[str, Any] | None = None, caller: Caller = SYSTEM) -> Any:
        return await api.respond(Call(entity, action, params or {}, caller))

    return ask
