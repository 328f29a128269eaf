"""Every text field of every entity: filters, patterns and order give the same answer on SQLite and on MariaDB."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Table, UniqueConstraint, insert, select

from civiapi.api.call import SYSTEM, Call
from civiapi.api.declaration.fields import STRING, TEXT
from civiapi.api.declaration.spec import Entity
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import (
    METADATA,
    contact,
    custom_field,
    custom_group,
    domain,
    group,
    option_group,
    relationship_type,
)
from civiapi.store.text.collation import sort_key
from entities import catalogue
from sync.store.tables import cache
from tests.support.databases import KINDS, a_database

WORDS = [
    "Élodie", "elodie", "ELODIE", "Müller", "muller", "MÜLLER ", "mueller", "Zoë", "zoe", "Straße", "strasse", "100%",
    "1000", "a_b", "aXb", "Ñandú", "Ёжик", "ёжик", "ежик", "O'Brien", "obrien", "o-brien", "😀", "Œuvre", "oeuvre",
    "日本", "Łódź", "a\\b", "Ada", "ada",
]  # fmt: skip
CUSTOM_GET = {"MailchimpsyncCache"}  # its own filters, see below


def free_texts(entity: Entity) -> list[str]:
    """The fields that hold any text: no options, no code such as an id of Mailchimp."""
    found = []
    for one in entity.fields:
        column = entity.column(one.name)
        if column is None or one.type not in (STRING, TEXT) or one.options is not None or one.multiple:
            continue
        if not is_code(column) and hasattr(column.type, "length"):
            found.append(one.name)
    return found


def is_code(column: Column[Any]) -> bool:
    return getattr(column.type.dialect_impl(_sqlite()), "collation", None) == "NOCASE"


def _sqlite() -> Any:
    from sqlalchemy.dialects import sqlite

    return sqlite.dialect()


REGISTRY = catalogue()
ENTITIES = {
    one.name: one
    for one in REGISTRY.entities()
    if one.table is not None and one.name not in CUSTOM_GET and free_texts(one)
}


@pytest.fixture(params=[ENTITIES[name] for name in sorted(ENTITIES)], ids=sorted(ENTITIES))
def entity(request: pytest.FixtureRequest) -> Entity:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[Store]]:
    """A site on each database."""
    contexts = [a_database(kind, tmp_path) for kind in KINDS]
    opened = [await open_store(context.__enter__()) for context in contexts]
    for one in opened:
        await migrate(one)
    yield opened
    for one in opened:
        await one.close()
    for context in contexts:
        context.__exit__(None, None, None)


def fill(conn: Connection, table: Table, names: list[str]) -> list[int]:
    """A row for each word, which stands in all text columns, as far as it may stand twice."""
    single = {
        column.name
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
        for column in constraint.columns
    }
    if table is custom_field:
        conn.execute(insert(custom_group).values(title="x"))
    referred = {
        name: conn.execute(select(METADATA.tables[name].c.id)).scalar() for name in METADATA.tables if name in REFERRED
    }
    referred[contact.name] = conn.execute(insert(contact).values(contact_type="Individual")).inserted_primary_key[0]  # type: ignore[index]
    seen: dict[str, set[str]] = {name: set() for name in names}
    ids = []
    for number, word in enumerate(WORDS):
        row: dict[str, Any] = {}
        for column in table.columns:
            refers = next(iter(column.foreign_keys), None)
            if column.name in names:
                row[column.name] = word[: getattr(column.type, "length", None) or 255]
                key = sort_key(row[column.name])
                if column.name in single and key in seen[column.name]:
                    row[column.name] = f"{number}x"
                seen[column.name].add(key)
            elif not column.nullable and column.server_default is None and not column.primary_key:
                row[column.name] = referred[refers.column.table.name] if refers is not None else usual(column, number)
        if table is contact:
            row["contact_type"] = "Individual"
        ids.append(int(conn.execute(insert(table).values(row)).inserted_primary_key[0]))  # type: ignore[index]
    return ids


def usual(column: Column[Any], number: int) -> Any:
    if "date" in column.name:
        return "2026-01-01 00:00:00"
    return str(number) if hasattr(column.type, "length") else number


REFERRED = {contact.name, domain.name, group.name, option_group.name, custom_group.name, relationship_type.name}


def questions(name: str, longest: int) -> list[dict[str, Any]]:
    words = [
        "élodie",
        "MULLER",
        "müller ",
        "zoë",
        "STRASSE",
        "100%",
        "a_b",
        "ñandu",
        "ЁЖИК",
        "🙂",
        "œuvre",
        "Łódź",
        "a\\b",
    ]
    cut = [word[:longest] for word in words]
    filters: list[Any] = [
        *cut,
        {"IN": cut[:4]},
        {"NOT IN": cut[4:]},
        {"<": "m"},
        {">=": "müller"},
        {"BETWEEN": ["e", "ñ"]},
    ]
    filters += [{op: word} for word in cut[:6] for op in ("!=", "LIKE", "NOT LIKE")]
    filters += [{"LIKE": one} for one in ("%ÜLL%", "élo%", "%oë", "m_ller", "100\\%", "a\\_b", "%ß%", "%ss%", "%и%")]
    return [{name: one} for one in filters]


async def answer(store: Store, entity: Entity, ids: list[int], params: dict[str, Any]) -> Any:
    """What ``get`` finds, as places among the rows that were made."""
    whole = {"options": {"limit": 0, "sort": "id"}, "return": "id", "sequential": 1} | params
    told = await Api(store, REGISTRY).respond(Call(entity.name, "get", whole, SYSTEM))
    if told["is_error"]:
        return told["error_message"]
    places = {str(number): place for place, number in enumerate(ids)}
    return [places[row["id"]] for row in told["values"] if row["id"] in places]


async def test_filters_patterns_and_order_are_those_of_mariadb(stores: list[Store], entity: Entity) -> None:
    assert entity.table is not None
    names = free_texts(entity)
    ids = [await one.write(fill, METADATA.tables[entity.table.name], names) for one in stores]
    differing = []
    for name in names:
        longest = getattr(entity.table.c[name].type, "length", None) or 255
        asked = [*questions(name, longest), {"options": {"limit": 0, "sort": f"{name}, id"}}]
        asked += [{"options": {"limit": 0, "sort": f"{name} desc, id"}}]
        for params in asked:
            lite, maria = [await answer(one, entity, known, params) for one, known in zip(stores, ids, strict=True)]
            if lite != maria:
                differing.append((params, [WORDS[n] for n in lite] if isinstance(lite, list) else lite, maria))
    assert differing == []


SOME: list[tuple[str, dict[str, Any]]] = [
    ("Contact", {"contact_type": "Individual", "first_name": "Ada", "email": "ada@example.org"}),
    ("Group", {"title": "News"}),
    ("GroupContact", {"contact_id": 1, "group_id": 1}),
    ("Note", {"entity_table": "civicrm_contact", "entity_id": 1, "note": "Hello"}),
    ("Tag", {"name": "Donor"}),
    ("EntityTag", {"entity_id": 1, "tag_id": 1}),
    ("MailchimpsyncCache", {"mailchimp_list_id": "a1", "mailchimp_email": "a@b.org", "mailchimp_status": "cleaned"}),
    ("MailchimpsyncBatch", {"mailchimp_list_id": "a1", "mailchimp_batch_id": "b1", "status": "pending"}),
]


def held(conn: Connection, column: Column[Any]) -> list[str]:
    return list(conn.execute(select(column).where(column.is_not(None), column != "").distinct().limit(2)).scalars())


async def test_codes_are_found_in_any_case_and_with_spaces_at_their_end(stores: list[Store]) -> None:
    apis = [Api(one, REGISTRY) for one in stores]
    for name, row in SOME:
        for api in apis:
            made = await api.respond(Call(name, "create", row, SYSTEM))
            assert not made["is_error"], made
    columns = [
        (entity, one.name, column)
        for entity in REGISTRY.entities()
        for one in entity.fields
        if (column := entity.column(one.name)) is not None and is_code(column) and one.options is None
    ]
    tried, differing = set(), []
    for entity, name, column in columns:
        for value in await stores[0].read(held, column):
            tried.add((entity.name, name))
            asked: list[Any] = [f"{value} ", value.upper(), {"IN": [f"{value}  "]}, {"!=": f"{value} "}]
            asked += [{"NOT IN": [f"{value} "]}, {"<=": f"{value} "}, {"LIKE": f"{value} "}]
            for one in asked:
                call = Call(entity.name, "getcount", {name: one}, SYSTEM)
                lite, maria = [await api.respond(call) for api in apis]
                if lite != maria:
                    differing.append((entity.name, name, one, lite, maria))
    assert {("Note", "entity_table"), ("RelationshipType", "contact_type_a"), ("MailchimpsyncBatch", "status")} <= tried
    assert differing == []


async def test_the_addresses_of_a_cache_row_too(stores: list[Store]) -> None:
    found = []
    for store in stores:
        rows = [{"mailchimp_list_id": "a1", "mailchimp_email": word} for word in WORDS]
        await store.write(lambda conn, rows: conn.execute(insert(cache), rows) and None, rows)
        emails = [cache.c.mailchimp_email == "ÉLODIE", cache.c.mailchimp_email.like("%ÜLL%")]

        def ask(conn: Connection, emails: list[Any] = emails) -> list[list[int]]:
            queries = [select(cache.c.id).where(one).order_by(cache.c.mailchimp_email, cache.c.id) for one in emails]
            return [list(conn.execute(query).scalars()) for query in queries]

        found.append(await store.read(ask))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3


@pytest.mark.parametrize(
    "params",
    [
        {"first_name": "élodie"},
        {"sort_name": "müll"},
        {"sort_name": {"LIKE": "müll%"}},
        {"email": "ÉLODIE@example.org"},
        {"last_name": {"IN": ["muller"]}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
async def test_elodie_muller_is_found(kind: str, params: dict[str, Any], tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        store = await open_store(url)
        await migrate(store)
        api = Api(store, REGISTRY)
        person = {
            "contact_type": "Individual",
            "first_name": "Élodie",
            "last_name": "MÜLLER",
            "email": "élodie@example.org",
        }
        made = await api.respond(Call("Contact", "create", person, SYSTEM))
        told = await api.respond(Call("Contact", "get", params, SYSTEM))
        assert told["id"] == made["id"]
        listed = await api.respond(Call("Contact", "getlist", {"input": "müll"}, SYSTEM))
        assert [row["id"] for row in listed["values"]] == [str(made["id"])]
        emails = await api.respond(Call("Email", "get", {"email": "ÉLODIE@example.org"}, SYSTEM))
        assert emails["count"] == 1
        await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_groups_title_may_not_differ_by_case_or_accents_alone(kind: str, tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        store = await open_store(url)
        await migrate(store)
        api = Api(store, REGISTRY)
        told = [
            await api.respond(Call("Group", "create", {"title": title, "name": f"n{n}"}, SYSTEM))
            for n, title in enumerate(("Über uns", "ÜBER UNS", "uber uns"))
        ]
        assert [one["is_error"] for one in told] == [0, 1, 1]
        named = [
            await api.respond(Call("Group", "create", {"title": f"t{name}", "name": name}, SYSTEM))
            for name in ("Ärzte", "ärzte")
        ]
        assert [one["is_error"] for one in named] == [0, 1]
        assert {one.get("error_code") for one in (*told[1:], named[1])} == {told[1]["error_code"]}
        await store.close()
