"""Text as CiviCRM stores it: encoded on every road into its tables, decoded on every road out.

``beside-civicrm.md``, section 1.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, String, insert, select, type_coerce, update

from civiapi.store.databases.bulk import insert_rows, update_rows, upsert_rows
from civiapi.store.databases.expressions import in_list
from civiapi.store.engine import Store
from civiapi.store.schema.tables import METADATA, contact, email, group, setting
from civiapi.store.text.encoded_text import cut, decode, encode, is_encoded
from tests.support.databases import KINDS, a_store

CODES = {  # of option values, and names of programs
    "civicrm_contact.contact_type",
    "civicrm_group_contact.status",
    "civicrm_subscription_history.status",
    "civicrm_entity_tag.entity_table",
    "civicrm_setting.name",
    "civicrm_note.entity_table",
    "civicrm_relationship_type.contact_type_a",
    "civicrm_relationship_type.contact_type_b",
    "civicrm_custom_group.table_name",
    *(f"civicrm_custom_field.{name}" for name in ("column_name", "data_type", "html_type")),
}
HTML = {
    "civicrm_email.signature_html",
    "civicrm_activity.details",
    *(f"civicrm_custom_{kind}.help_{when}" for kind in ("group", "field") for when in ("pre", "post")),
}
NOT_ENCODED = HTML | {"civicrm_setting.value"} | CODES
LOVE, STORED = "I <3 U & >", "I &lt;3 U & &gt;"
TEXTS = st.text(st.sampled_from("ab&<>;lgt"))


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        yield opened


def as_stored(conn: Connection, column: Any) -> list[Any]:
    """The values of a column as the database has them."""
    return list(conn.execute(select(type_coerce(column, String())).order_by(column.table.c.id)).scalars())


# ---- encoding -----------------------------------------------------------------------------------------------------


@given(TEXTS)
def test_stored_text_has_neither_of_the_two_and_encoding_it_again_changes_nothing(text: str) -> None:
    assert not {"<", ">"} & set(encode(text))
    assert encode(encode(text)) == encode(text)


@given(st.text(st.sampled_from("ab&<>; ")))
def test_text_comes_back_as_it_went_in(text: str) -> None:
    assert decode(encode(text)) == text


def test_no_other_character_is_encoded() -> None:
    assert encode("\"'&;<é>") == "\"'&;&lt;é&gt;"
    assert decode("&amp;lt; &quot; &LT; &lt;") == "&amp;lt; &quot; &LT; <"


@given(TEXTS, st.integers(0, 12))
def test_a_cut_text_fits_and_no_character_is_cut_in_two(text: str, length: int) -> None:
    short = cut(text, length)
    assert len(encode(short)) <= length
    assert encode(text).startswith(encode(short))
    assert short == text or len(encode(short)) > length - 4


# ---- the tables ---------------------------------------------------------------------------------------------------


def test_all_text_in_civicrms_tables_is_encoded_but_for_html_serialized_values_and_codes() -> None:
    found = {
        str(column): is_encoded(column.type)
        for table in METADATA.tables.values()
        for column in table.columns
        if is_encoded(column.type) or isinstance(column.type, String)
    }
    ours = {name for name in found if name.startswith(("civiapi_", "civicrm_mailchimpsync_"))}
    assert {name for name, encoded in found.items() if not encoded} == ours | NOT_ENCODED


async def test_what_statements_write_compare_and_read(store: Store) -> None:
    def work(conn: Connection) -> None:
        for text in (LOVE, "Ada"):
            conn.execute(insert(contact).values(first_name=text))
        assert as_stored(conn, contact.c.first_name) == [STORED, "Ada"]
        conn.execute(update(contact).where(contact.c.first_name == LOVE).values(last_name=LOVE))
        assert as_stored(conn, contact.c.last_name) == [STORED, None]
        for found in (
            contact.c.first_name == LOVE,
            contact.c.first_name == STORED,
            contact.c.first_name.in_([LOVE, "x"]),
            contact.c.first_name.like("% <3 %"),
            in_list(contact.c.first_name, [LOVE, "x"]),
        ):
            assert list(conn.execute(select(contact.c.first_name).where(found)).scalars()) == [LOVE]

    await store.write(work)


async def test_many_rows_at_once(store: Store) -> None:
    def work(conn: Connection) -> None:
        insert_rows(conn, contact, ("last_name", "is_deleted", "id"), [(LOVE, 0, 1), (None, 1, 2), ("Ada", 0, 3)])
        assert as_stored(conn, contact.c.last_name) == [STORED, None, "Ada"]
        update_rows(conn, contact, ("first_name", "is_deleted"), [("Ada", 1, 1), ("<", 0, 2)])
        assert as_stored(conn, contact.c.first_name) == ["Ada", "&lt;", None]
        columns, key = ("id", "name", "title"), ("id",)
        for title in ("a>b", "c>d"):
            upsert_rows(conn, group, columns, [(7, "n", title)], key=key, set_=("title",))
        assert as_stored(conn, group.c.title) == ["c&gt;d"]

    await store.write(work)


async def test_html_and_serialized_values_stay_as_they_are(store: Store) -> None:
    def work(conn: Connection) -> None:
        conn.execute(insert(contact).values(id=1))
        conn.execute(insert(email).values(contact_id=1, signature_html="<p>&lt;</p>", signature_text="<"))
        conn.execute(insert(setting).values(name="x", value='s:1:"<";'))
        row = conn.execute(select(email)).one()
        assert (row.signature_html, row.signature_text) == ("<p>&lt;</p>", "<")
        assert as_stored(conn, email.c.signature_text) == ["&lt;"]
        assert '"<"' in conn.execute(select(setting.c.value).where(setting.c.name == "x")).scalar_one()

    await store.write(work)
