"""A MariaDB that is stopped, killed, full of connections or read-only while we use it: said in a sentence, and over
when it is over; what its users may do, and how it is reached. Each test has what it needs of a server of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select
from structlog.testing import capture_logs

from civiapi.store.databases.bulk import insert_rows, update_rows
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import StoreBusy, StoreError, StoreUnusable
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import contact, tag
from sync.store.tables import cache
from tests.support import databases
from tests.support.crowd import address
from tests.support.linked_site import Site, a_site
from tests.support.mariadb_server import Server, a_server, make_certificates, missing_packages, server_folder
from tests.support.processes import free_port

DATABASE = "civiapi"
USER = "civiapi_user"
NEEDED_RIGHTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"

pytestmark = [
    pytest.mark.skipif(databases.chosen() != "mariadb", reason="about MariaDB: make test-mariadb-reliability"),
    pytest.mark.skipif(bool(missing_packages()), reason=f"not installed: {', '.join(missing_packages())}"),
]


@pytest.fixture(scope="module")
def certificates() -> Iterator[dict[str, Any]]:
    with server_folder("certificates") as folder:
        yield make_certificates(folder)


@pytest.fixture(scope="module")
def server(certificates: dict[str, Any]) -> Iterator[Server]:
    with a_server(free_port(), {"log-bin": "changes", "server-id": 1, **certificates}) as started:
        started.sql(f"CREATE USER {USER}; GRANT ALL ON *.* TO {USER}")
        yield started


@pytest.fixture
async def store(server: Server) -> AsyncIterator[Store]:
    """A new database, as a user without special rights (root may write to a read-only server)."""
    server.sql(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}")
    server.sql(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {USER}; GRANT ALL ON {DATABASE}.* TO {USER}")
    opened = await open_store(server.url(DATABASE, USER))
    await migrate(opened)
    yield opened
    await opened.close()


async def add_tag(store: Store, name: str) -> None:
    await store.write(lambda conn: conn.execute(insert(tag).values(name=name)) and None)


async def count_tags(store: Store) -> int:
    return await store.read(lambda conn: int(conn.execute(select(func.count()).select_from(tag)).scalar_one()))


@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["stopped", "killed"])
async def test_a_server_that_is_away_for_a_moment_is_waited_for_and_used_again(
    server: Server, store: Store, end: Callable[[Server], None]
) -> None:
    await add_tag(store, "before")
    before = await count_tags(store)
    await asyncio.to_thread(end, server)
    with pytest.raises(StoreError):
        await add_tag(store, "while it is away")
    await asyncio.to_thread(server.start)
    await add_tag(store, "after")
    assert await count_tags(store) == before + 1


async def fill_up(server: Server, others: list[Store]) -> None:
    """Open stores, each of which keeps a connection."""
    for _ in range(12):
        others.append(await open_store(server.url(DATABASE, USER)))


async def test_a_full_server_is_said_to_be_busy_and_used_as_soon_as_it_is_not(server: Server, store: Store) -> None:
    others: list[Store] = []
    server.sql("SET GLOBAL max_connections = 10")
    try:
        with pytest.raises(StoreBusy):
            await fill_up(server, others)
    finally:
        for one in others:
            await one.close()
    await add_tag(store, "after")


async def test_a_read_only_server_is_read_and_says_that_it_is_read_only(server: Server, store: Store) -> None:
    before = await count_tags(store)
    server.sql("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(StoreError, match="read-only"):
            await add_tag(store, "while it is read-only")
        assert await count_tags(store) == before
    finally:
        server.sql("SET GLOBAL read_only = 0")
    await add_tag(store, "after")


async def test_a_server_whose_binary_log_does_not_take_our_writes_is_said_to_be_so(
    server: Server, store: Store
) -> None:
    """It refuses what a transaction writes that sees what others have committed: database error 1665."""
    server.sql("SET GLOBAL binlog_format = STATEMENT")
    try:
        opened = await open_store(server.url(DATABASE, USER))
        with pytest.raises(StoreUnusable, match="set binlog_format to MIXED or ROW"):
            await add_tag(opened, "refused")
        await opened.close()
    finally:
        server.sql("SET GLOBAL binlog_format = MIXED")
    await add_tag(store, "after")


@pytest.mark.parametrize(
    ("rights", "is_new", "missing"),
    [
        ("USAGE", False, "its user has no rights to it"),
        ("SELECT", False, "its user lacks the right INSERT"),
        ("SELECT, INSERT, UPDATE, DELETE", True, "its user lacks the right CREATE"),
        ("SELECT, INSERT, UPDATE, DELETE, CREATE", True, "its user lacks the right INDEX"),
        ("SELECT, INSERT, UPDATE, DELETE", False, ""),
        (NEEDED_RIGHTS, True, ""),
    ],
)
async def test_a_right_that_the_user_lacks_is_named(server: Server, rights: str, is_new: bool, missing: str) -> None:
    server.sql(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}")
    server.sql(f"CREATE OR REPLACE USER limited; GRANT {rights} ON {DATABASE}.* TO limited")
    if not is_new:
        made = await open_store(server.url(DATABASE))
        await migrate(made)
        await made.close()

    async def use() -> None:
        opened = await open_store(server.url(DATABASE, "limited"))
        try:
            await migrate(opened)
            await add_tag(opened, "by a limited user")
        finally:
            await opened.close()

    if missing:
        with pytest.raises(StoreUnusable, match=missing):
            await use()
    else:
        await use()


async def test_a_server_that_asks_for_tls_is_used_with_the_certificate_that_the_address_names(
    server: Server, certificates: dict[str, Any]
) -> None:
    server.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    server.sql(f"CREATE OR REPLACE USER secret REQUIRE SSL; GRANT ALL ON {DATABASE}.* TO secret")
    opened = await open_store(f"{server.url(DATABASE, 'secret')}?ssl_ca={certificates['ssl-ca']}")
    cipher = await opened.read(lambda conn: conn.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1])
    await opened.close()
    assert cipher.startswith("TLS_")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("", "or the server asks for TLS"),
        ("?ssl_ca={ssl-cert}", "vouches for"),
        ("?ssl_ca=/nowhere.pem", "ssl_ca in its address, /nowhere.pem: No such file"),
        ("?ssl_ca={ssl-key}", "ssl_ca in its address, .*server.key: cannot be used as such"),
        ("?ssl_ca={ssl-ca}&ssl_cert={ssl-cert}", "ssl_cert in its address, .*server.pem: cannot be used as such"),
        (
            "?ssl_ca={ssl-ca}&ssl_cert={ssl-cert}&ssl_key=/nowhere.key",
            "ssl_key in its address, /nowhere.key: No such file",
        ),
    ],
)
async def test_why_a_server_cannot_be_reached_by_tls_is_said(
    server: Server, certificates: dict[str, Any], option: str, reason: str
) -> None:
    server.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    server.sql(f"CREATE OR REPLACE USER secret REQUIRE SSL; GRANT ALL ON {DATABASE}.* TO secret")
    with pytest.raises(StoreUnusable, match=reason):
        await open_store(server.url(DATABASE, "secret") + option.format(**certificates))


async def test_a_server_is_reached_by_its_socket(server: Server) -> None:
    server.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE}; CREATE OR REPLACE USER {USER}; GRANT ALL ON *.* TO {USER}")
    opened = await open_store(f"mysql://{USER}@localhost/{DATABASE}?unix_socket={server.folder / 'socket'}")
    assert await opened.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar()) == 1
    await opened.close()


@pytest.mark.parametrize(
    ("count", "value"),
    [(500, None), (80_000, 7), (10_000, "x" * 200), (500, b'"' * 30_000)],
    ids=["no values", "numbers", "texts", "data"],
)
async def test_a_server_that_accepts_a_megabyte_at_a_time_gets_no_more(server: Server, count: int, value: Any) -> None:
    """What is larger ends the connection; a unit of work that was repeated met that each time."""
    server.sql(
        f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}; SET GLOBAL max_allowed_packet = 1048576"
    )
    column = {int: "civicrm_contact_id", str: "civicrm_groups"}.get(type(value), "mailchimp_data")

    def write(conn: Connection) -> None:
        if column == "civicrm_contact_id":
            insert_rows(conn, contact, ("id", "contact_type"), [(value, "Individual")])
        insert_rows(conn, cache, ("mailchimp_list_id", "id", column), [("a", n, value) for n in range(1, count + 1)])
        update_rows(conn, cache, (column, "sync_status"), [(value, "ok", n) for n in range(1, count + 1)])

    try:
        opened = await open_store(server.url(DATABASE))
        await migrate(opened)
        await opened.write(write)
        done = select(func.count()).select_from(cache).where(cache.c.sync_status == "ok", cache.c[column] == value)
        assert await opened.read(lambda conn: conn.execute(done).scalar()) == count
        await opened.close()
    finally:
        server.sql("SET GLOBAL max_allowed_packet = 16777216")


ODD_DEFAULTS = (
    "SET GLOBAL sql_mode = 'ANSI_QUOTES,ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE'",
    "SET GLOBAL time_zone = '-08:00'",
    "SET GLOBAL explicit_defaults_for_timestamp = 0",
    "SET GLOBAL character_set_server = latin1",
)


async def test_a_servers_own_defaults_change_nothing_of_what_a_session_of_ours_has(server: Server) -> None:
    server.sql(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
    asked = [one.split()[2] for one in ODD_DEFAULTS]
    before = server.sql("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in asked)).split("\t")
    server.sql("; ".join(ODD_DEFAULTS))
    try:
        opened = await open_store(server.url(DATABASE))
        await migrate(opened)
        await add_tag(opened, 'a "quoted" and a \\ name')
        named = select(func.count()).select_from(tag).where(tag.c.name == 'A "quoted" and a \\ name')
        assert await opened.read(lambda conn: conn.execute(named).scalar()) == 1
        await opened.close()
    finally:
        server.sql(
            "; ".join(
                f"SET GLOBAL {name} = '{value}'" if not value.isdigit() else f"SET GLOBAL {name} = {value}"
                for name, value in zip(asked, before, strict=True)
            )
        )


async def test_a_password_beyond_ascii_is_the_one_that_other_programs_send(server: Server) -> None:
    server.sql("SET NAMES utf8mb4; CREATE OR REPLACE USER umlaut IDENTIFIED BY 'pä€ß'; GRANT ALL ON *.* TO umlaut")
    server.sql(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    opened = await open_store(server.url(DATABASE, "umlaut:p%C3%A4%E2%82%AC%C3%9F"))
    assert await opened.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar()) == 1
    await opened.close()


async def test_an_error_that_nobody_expects_has_its_code_and_its_statement_is_logged_without_values(
    store: Store,
) -> None:
    with capture_logs() as logged, pytest.raises(StoreError, match=r"^database error 1064$"):
        await store.read(lambda conn: conn.exec_driver_sql("SELECT FROM WHERE x = %s", ("secret",)))
    assert [(one["error"], one["statement"]) for one in logged] == [("1064", "SELECT FROM WHERE x = %s")]


async def stop_and_start(server: Server) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


async def kill_and_start(server: Server) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("trouble", [stop_and_start, kill_and_start], ids=lambda one: one.__name__)
async def test_a_sync_whose_server_goes_away_in_the_middle_ends_in_step_when_it_is_run_again(
    server: Server, trouble: Callable[[Server], Awaitable[None]]
) -> None:
    server.sql(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE}")
    async with a_site(server.url(DATABASE)) as site:
        site.joined(*(address(number) for number in range(2000)))
        running = asyncio.create_task(site.run())
        while not await _has_rows(site):  # noqa: ASYNC110  another task does it
            await asyncio.sleep(0.01)
        await trouble(server)
        await asyncio.gather(running, return_exceptions=True)
        server.sql("UPDATE civiapi_claim SET expires_ms = 0", DATABASE)
        await site.sync()
        rows = await site.rows()
        assert len(rows) == 2000
        assert {row.sync_status for row in rows} == {"ok"}
        assert len({row.civicrm_contact_id for row in rows}) == 2000
        assert len(await site.contacts()) == 2000


async def _has_rows(site: Site) -> bool:
    return bool(await site.rows())
