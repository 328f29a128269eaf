"""Texts compare on SQLite as under MariaDB's ``utf8mb4_unicode_ci``, and an existing database is brought there."""

import random
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text, update

from civiapi.store.databases.dialect import recollate
from civiapi.store.databases.expressions import begins_like, in_list
from civiapi.store.databases.text_keys import in_order
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import MIGRATIONS, migrate, schema
from civiapi.store.schema.tables import METADATA, contact, email, group
from civiapi.store.text.collation import NAME, compare, like, like_high, like_low, sort_key, text_key
from sync.store.tables import cache
from tests.support.databases import database_at, raw_sqlite, sql, why_no_mariadb

needs_mariadb = pytest.mark.skipif(bool(why_no_mariadb()), reason=why_no_mariadb() or "-")

EQUAL = ["Müller MULLER muller", "Élodie elodie ÉLODIE", "straße STRASSE", "œuvre OEUVRE", "Šárka SARKA", "ČAPEK capek"]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:///{tmp_path / 'site.sqlite'}")
    await migrate(opened)
    yield opened
    await opened.close()


@pytest.mark.parametrize("words", EQUAL)
def test_case_and_accents_are_ignored(words: str) -> None:
    first, *others = words.split()
    assert [compare(first, other) for other in others] == [0] * len(others)
    assert {sort_key(word) for word in words.split()} == {sort_key(first)}


def test_spaces_at_the_end_do_not_count() -> None:
    assert compare("Ada  ", "Ada") == compare("Zoë ", "zoe") == 0
    assert compare("Ada", "Ada B") == -1


TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
LIKELY = st.text("aAzZ09äÄßœé.-_@' \t\x7fĀ一😀", max_size=6)


@given(a=TEXTS | LIKELY, b=TEXTS | LIKELY)
@example(a="a", b="a\t")
@example(a="a ", b="a")
@example(a="Straße", b="strasse!")
@settings(max_examples=1000, deadline=None)
def test_keys_sort_and_are_equal_as_the_texts_are(a: str, b: str) -> None:
    x, y = text_key(a), text_key(b)
    assert x is not None
    assert y is not None
    assert (x > y) - (x < y) == compare(a, b)


def test_every_two_characters_have_keys_in_their_order() -> None:
    codes = [code for code in range(1, 0x3000) if not 0xD800 <= code < 0xE000]
    ordered = sorted(codes, key=lambda code: sort_key(f"x{chr(code)}x"))
    for a, b in pairwise(f"x{chr(code)}x" for code in ordered):
        x, y = text_key(a) or b"", text_key(b) or b""
        assert (x > y) - (x < y) == compare(a, b), (a, b)


def test_nothing_has_no_key_and_a_number_that_of_its_text() -> None:
    assert text_key(None) is None
    assert text_key(12) == text_key("12") == text_key(b"12")


@needs_mariadb
def test_each_character_sorts_as_on_mariadb() -> None:
    codes = [code for code in range(1, 0x10000) if not 0xD800 <= code < 0xE000] + [0x1F600, 0x10348]
    asked = (
        "SET NAMES utf8mb4; SET max_recursive_iterations = 70000; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
        "SELECT i + 1 FROM n WHERE i < 65535) SELECT i, HEX(WEIGHT_STRING(CONVERT(CHAR(i USING utf16) USING utf8mb4) "
        f"COLLATE {NAME})) FROM n WHERE i NOT BETWEEN 55296 AND 57343"
    )
    weights = {int(row[0]): row[1] if len(row) > 1 else "" for row in sql(asked)}
    weights |= {0x1F600: "FFFD", 0x10348: "FFFD"}
    ordered = sorted(codes, key=weights.__getitem__)
    x = weights[ord("x")]
    differing = []
    for a, b in pairwise(ordered):
        there = (f"{x}{weights[a]}{x}" > f"{x}{weights[b]}{x}") - (f"{x}{weights[a]}{x}" < f"{x}{weights[b]}{x}")
        if compare(f"x{chr(a)}x", f"x{chr(b)}x") != there:
            differing.append((hex(a), hex(b)))
    assert differing == []


WORDS = st.text("aAäÄbßsSœOoeéÉ.-_%' ,0😀ł", max_size=6)


@needs_mariadb
def test_texts_and_patterns_compare_as_on_mariadb() -> None:
    dice = random.Random(7)
    letters = "aAäÄbßsSœOoeéÉ.-_%\\ ,0😀ł"
    pairs = [["".join(dice.choices(letters, k=dice.randrange(7))) for _ in range(2)] for _ in range(3000)]
    quoted = [["X'" + one.encode().hex() + "'" for one in pair] for pair in pairs]
    rows = ", ".join(f"({n}, {a}, {b})" for n, (a, b) in enumerate(quoted))
    made = f"(n INT, a VARCHAR(50), b VARCHAR(50)) CHARACTER SET utf8mb4 COLLATE {NAME}"
    there = (
        sql(
            f"SET NAMES utf8mb4 COLLATE {NAME}; CREATE TEMPORARY TABLE test.t {made}; "
            f"INSERT INTO test.t VALUES {rows}; "
            "SELECT CASE WHEN a = b THEN 0 WHEN a < b THEN -1 ELSE 1 END, a LIKE b FROM test.t ORDER BY n"
        )
        if sql("CREATE DATABASE IF NOT EXISTS test") == []
        else []
    )
    here = [[str(int(compare(a, b))), str(int(bool(like(b, a))))] for a, b in pairs]
    assert [(pair, ours, theirs) for pair, ours, theirs in zip(pairs, here, there, strict=True) if ours != theirs] == []


@given(WORDS, WORDS, WORDS)
def test_the_order_is_one(a: str, b: str, c: str) -> None:
    assert compare(a, b) == -compare(b, a)
    assert (compare(a, b) == 0) == (sort_key(a) == sort_key(b))
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("müll%", "MULLER", True),
        ("%ÜLL%", "Müller, Élodie", True),
        ("m_ller", "Müller", True),
        ("m_ller", "Mueller", False),
        ("%s%ss", "straße", False),  # LIKE goes by characters
        ("100\\%", "100%", True),
        ("100\\%", "1000", False),
        ("%a%b%c", "xaxbxc", True),
        ("%a%b%c", "xbxaxc", False),
        ("a%a", "a", False),
        ("%", "", True),
        ("7%", 71, True),
    ],
)
def test_like_matches_as_on_mariadb(pattern: str, value: object, matches: bool) -> None:
    assert like(pattern, value) is matches


def test_null_is_like_nothing() -> None:
    assert like(None, "a") is like("a", None) is None


def test_another_escape_character_can_be_named() -> None:
    assert like("10/%", "10%", "/")
    assert not like("10/%", "100", "/")


def test_no_pattern_takes_long() -> None:
    value = "ab" * 32_000
    began = time.perf_counter()
    assert not like("%" + "_a" * 5_000 + "c%", value)
    assert not like("%a" * 2_000 + "c", value)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (select(contact.c.id).where(contact.c.first_name == "élodie"), "index_first_name"),
        (select(contact.c.id).where(in_list(contact.c.first_name, ["élodie", "ada"])), "index_first_name"),
        (select(contact.c.id).where(contact.c.first_name > "Élodie"), "index_first_name"),
        (select(contact.c.id).order_by(in_order(contact.c.sort_name)), "index_sort_name"),
        (select(contact.c.id, email.c.id).where(contact.c.sort_name == email.c.email), "UI_email"),
        (select(email.c.id).where(email.c.email == "ÉLODIE@example.org"), "UI_email"),
        (select(group.c.id).where(group.c.title == "Über"), "sqlite_autoindex_civicrm_group"),
        (
            select(cache.c.id).where(cache.c.mailchimp_list_id == "a", cache.c.mailchimp_email == "b"),
            "civiapi_cache_list_email",
        ),
    ],
)
async def test_a_filter_uses_the_index_of_its_column(site: Store, query: object, index: str) -> None:
    def plan(conn: Connection) -> str:
        compiled = query.compile(conn)  # type: ignore[attr-defined]
        marks = tuple("[]" if isinstance(one, list) else one for one in compiled.params.values())
        return str(conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", marks).all())

    assert index in await site.read(plan)


BEFORE = next(n for n, one in enumerate(MIGRATIONS) if one.what == "CiviCRM's collation on SQLite")


class TestAnOlderDatabase:
    """Its text columns ignore case in ASCII only."""

    @pytest.fixture
    async def older(self, tmp_path: Path) -> AsyncIterator[Store]:
        path = tmp_path / "older.sqlite"
        opened = await open_store(f"sqlite:///{path}")
        await migrate(opened)

        def grow_old(conn: Connection) -> None:
            look = text("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = :name")
            for table in METADATA.tables.values():
                made = str(conn.execute(look, {"name": table.name}).scalar())
                recollate(conn, table, made.replace(NAME, '"NOCASE"'))
            conn.execute(update(schema).values(version=BEFORE))
            people = ["Élodie", "elodie", "Ada", "Zoë"]
            conn.execute(insert(contact), [{"first_name": one, "external_identifier": one} for one in people])
            titles = ["Über", "uber", "News"]
            conn.execute(insert(group), [{"name": f"n{n}", "title": one} for n, one in enumerate(titles)])

        await opened.write(grow_old)
        yield opened
        await opened.close()

    async def test_gets_civicrms_collation_and_keeps_its_rows(self, older: Store) -> None:
        assert await older.read(self.found, "élodie") == []
        assert await migrate(older) == [one.what for one in MIGRATIONS[BEFORE:]]
        assert await older.read(self.found, "élodie") == ["Élodie", "elodie"]
        assert await older.read(lambda conn: conn.exec_driver_sql("PRAGMA integrity_check").scalar()) == "ok"
        assert await migrate(older) == []

    async def test_texts_that_are_now_equal_get_their_id_appended(self, older: Store) -> None:
        await migrate(older)
        titles = await older.read(lambda conn: conn.execute(select(group.c.title).order_by(group.c.id)).scalars().all())
        assert titles == ["Über", "uber (2)", "News"]

    async def test_is_whole_for_every_other_connection_and_after_the_next_start(
        self, older: Store, tmp_path: Path
    ) -> None:
        before = raw_sqlite(tmp_path / "older.sqlite")
        count = "SELECT count(*) FROM civicrm_contact WHERE first_name = 'ÉLODIE'"
        assert before.execute(count).fetchone() == (1,)
        await migrate(older)
        assert before.execute(count).fetchone() == (2,)
        before.close()
        again = raw_sqlite(tmp_path / "older.sqlite")
        assert again.execute(count).fetchone() == (2,)
        assert NAME in again.execute("SELECT sql FROM sqlite_schema WHERE name = 'civicrm_contact'").fetchone()[0]
        again.close()

    async def test_gets_indexes_by_keys(self, older: Store) -> None:
        def made_of_texts(conn: Connection) -> None:
            conn.exec_driver_sql("DROP INDEX UI_email")
            conn.exec_driver_sql("CREATE INDEX UI_email ON civicrm_email (email)")

        def sql_of(conn: Connection) -> str:
            return str(conn.exec_driver_sql("SELECT sql FROM sqlite_schema WHERE name = 'UI_email'").scalar())

        await older.write(made_of_texts)
        await migrate(older)
        assert "text_key(email)" in await older.read(sql_of)

    @staticmethod
    def found(conn: Connection, name: str) -> list[str]:
        query = "SELECT first_name FROM civicrm_contact WHERE first_name = ? ORDER BY id"
        return [str(one) for one in conn.exec_driver_sql(query, (name,)).scalars()]


@given(begins=TEXTS, ends=TEXTS)
@example(begins="Ada ", ends="")
@example(begins="Straß", ends="e")
@example(begins="a\\%b", ends="")
@example(begins="Ada", ends="\t\t\t")
@example(begins="", ends="\U0010ffff")
@example(begins="\xa0", ends="")
@example(begins="Ada \x01\u2003", ends="")
@settings(max_examples=300, deadline=None)
def test_what_a_pattern_fits_lies_in_its_range(begins: str, ends: str) -> None:
    value, pattern = begins.replace("\\", "") + ends, begins + "%"
    if like(pattern, value):
        assert compare(like_low(pattern), value) <= 0
        assert compare(like_high(pattern), value) >= 0


@pytest.mark.sqlite_only("MariaDB has its own plans")
async def test_a_like_that_begins_with_text_is_looked_up_in_an_index(tmp_path: Path) -> None:
    store = await open_store(database_at(tmp_path / "plans.sqlite"))
    try:
        for column in (contact.c.sort_name, contact.c.first_name, email.c.email):
            wanted = select(column.table.c.id).where(begins_like(column, "zz%"))
            plan = await store.read(explain, wanted)
            assert "USING" in plan, plan
            assert "SCAN" not in plan, plan
    finally:
        await store.close()


def explain(conn: Connection, wanted: Any) -> str:
    sql = wanted.compile(dialect=conn.dialect)
    rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", tuple(sql.params[name] for name in sql.positiontup or ()))
    return " ".join(str(row[-1]) for row in rows)
