"""What the drivers keep of statements is bounded by size, not only by number."""

import re
from pathlib import Path

from sqlalchemy import Connection, insert, select

from civiapi.store.databases.sqlite import _CORE, MAX_KEPT_BYTES, SqliteStore
from civiapi.store.databases.statements import MAX_COMPILED_VALUE, CompiledCache, kept_bytes
from civiapi.store.engine import Store
from civiapi.store.schema.tables import setting
from tests.conftest import Ask

LONG = "x" * 500_000


def memory_kb() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def test_small_statements_are_not_counted_and_long_texts_and_values_are() -> None:
    assert kept_bytes("SELECT ?", ("x" * 100,)) == 0
    assert kept_bytes("SELECT ?", (LONG,)) == len(LONG)
    assert kept_bytes("INSERT …", [("x",), (LONG,)]) == len(LONG)
    assert kept_bytes("SELECT " + "?, " * 10_000, ()) > 1_000_000


async def test_hundreds_of_statements_with_long_values_do_not_stay_in_memory(store: Store) -> None:
    def read(conn: Connection, number: int) -> None:
        cursor = conn.exec_driver_sql(f"SELECT {number}, length(?)", (LONG,)) if _is_lite(conn) else None
        assert cursor is None or cursor.one()[1] == len(LONG)

    before = memory_kb()
    for number in range(300):  # 150 MB, were they kept
        await store.read(read, number)
    assert memory_kb() - before < 60_000 + MAX_KEPT_BYTES // 1000


def _is_lite(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite"


async def test_a_statement_first_seen_with_a_long_value_is_not_kept_with_it(store: Store) -> None:
    if not isinstance(store, SqliteStore):
        return
    cache = _CORE.get_execution_options()["compiled_cache"]
    assert isinstance(cache, CompiledCache)
    await store.write(lambda conn: conn.execute(insert(setting).values(name="long", value=LONG, is_domain=1)))
    await store.read(lambda conn: conn.execute(select(setting.c.id).where(setting.c.value == LONG)).all())
    values = [bind.value for compiled in cache.values() for bind in compiled.binds.values()]
    assert not [one for one in values if isinstance(one, str) and len(one) > MAX_COMPILED_VALUE]


async def test_a_text_that_the_driver_cannot_send_fails_alone(call: Ask) -> None:
    half = {"nick_name": "\ud83d"}  # half a pair of surrogates, which HTTP refuses
    made = {"contact_type": "Individual", "first_name": "Ada"}
    for action, sent in (("create", made | half), ("get", half), ("getcount", half)):
        assert (await call("Contact", action, sent))["is_error"] == 1
        assert (await call("Contact", "create", made))["is_error"] == 0
        assert (await call("Contact", "get", {"first_name": "Ada"}))["is_error"] == 0
