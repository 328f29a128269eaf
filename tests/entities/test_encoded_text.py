"""Every text field of CiviCRM's tables, from the declarations: stored encoded, and answered as it was sent.

``beside-civicrm.md``, section 1.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, String, insert, select, type_coerce, update

from civiapi.api.call import SYSTEM, Call
from civiapi.api.declaration.fields import STRING, TEXT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact
from civiapi.store.text.encoded_text import encode, is_encoded
from entities import ENTITIES, catalogue
from tests.conftest import Ask
from tests.support.databases import KINDS, a_store

NEEDED: dict[str, dict[str, Any]] = {
    "Activity": {"activity_type_id": 1, "source_contact_id": 1, "subject": "x"},
    "Address": {"contact_id": 1},
    "Contact": {"contact_type": "Individual"},
    "Email": {"contact_id": 1, "email": "ada@example.org"},
    "Group": {"title": "News"},
    "Job": {"run_frequency": "Daily", "name": "x", "api_entity": "System", "api_action": "check"},
    "JobLog": {"domain_id": 1},
    "LocationType": {"name": "x", "display_name": "x"},
    "Note": {"entity_id": 1, "note": "x"},
    "OptionGroup": {"name": "x"},
    "OptionValue": {"option_group_id": 1, "label": "x"},
    "Phone": {"contact_id": 1, "phone": "030 12"},
    "Tag": {"name": "x"},
    "UFMatch": {"domain_id": 1, "uf_id": 7, "uf_name": "x", "contact_id": 1},
}
DERIVED = {"sort_name": "display_name"}  # of a contact without a name


OF_IDS = {("Group", "parents"), ("Group", "children")}


def text_for(field: Field) -> str:
    return "i <3 u & > me" if (field.max_length or 99) >= 19 else "<3"


def has_text(entity: Entity, field: Field) -> bool:
    column = entity.column(field.name)
    writable = field.writable and field.options is None and field.type in (STRING, TEXT)
    made = entity.action("create") is not None and entity.name != "Domain"  # whose create is refused
    free = (entity.name, field.name) not in OF_IDS
    return made and writable and free and column is not None and is_encoded(column.type)


FIELDS = [(one, field) for one in ENTITIES for field in one.fields if has_text(one, field)]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with a_store(request.param, tmp_path) as opened:
        await opened.write(lambda conn: conn.execute(insert(contact).values(id=1, contact_type="Individual")))
        yield opened


def ask_of(store: Store) -> Ask:
    api = Api(store, catalogue())

    async def ask(entity: str, action: str, params: dict[str, Any]) -> Any:
        answer = await api.respond(Call(entity, action, params, SYSTEM))
        assert not isinstance(answer, dict) or not answer.get("is_error"), answer
        return answer

    return ask


async def test_every_text_field_is_stored_encoded_and_answered_as_it_was_sent(store: Store) -> None:
    assert {one.name for one, _ in FIELDS} == NEEDED.keys()
    ask = ask_of(store)
    for entity, field in FIELDS:
        await _goes_round(store, ask, entity, field)


async def _goes_round(store: Store, ask: Ask, entity: Entity, field: Field) -> None:
    name, text = field.name, text_for(field)
    answered: Any = [text] if field.multiple else text
    about = f"{entity.name}.{name}"
    skip = {"skip_greeting_processing": 1} if entity.name == "Contact" else {}  # else they follow the names
    given = {"display_name": "x"} if entity.name == "Contact" else {}
    sent = NEEDED[entity.name] | given | skip | {DERIVED.get(name, name): text}
    made = await ask(entity.name, "create", {**sent, "sequential": 1})
    row_id = made["id"]
    assert made["values"][0][name] == answered, about

    column = entity.column(name)
    assert column is not None
    assert entity.table is not None
    raw = select(type_coerce(column, String())).where(entity.table.c.id == row_id)
    stored = await store.read(lambda conn: conn.execute(raw).scalar_one())
    assert stored.strip("\x01") == encode(text), about

    again = {"id": row_id, **skip, name: text, "options": {"reload": 1}, "sequential": 1}
    fresh = await ask(entity.name, "create", again)
    assert fresh["values"][0][name] == answered, about
    assert await ask(entity.name, "getvalue", {"id": row_id, "return": name}) == answered, about
    assert (await ask(entity.name, "getsingle", {"id": row_id, "return": [name]}))[name] == answered, about

    pattern = {"LIKE": f"%{text[-4:]}%"}
    plain = (text, {"IN": [text, "x<"]}, {"=": text}, {"BETWEEN": [text, text]})
    for wanted in (pattern,) if field.multiple else (pattern, *plain):
        found = await ask(entity.name, "get", {name: wanted, "return": name, "sequential": 1})
        assert [row["id"] for row in found["values"]] == [str(row_id)], (about, wanted)
        assert await ask(entity.name, "getcount", {name: wanted}) == 1, (about, wanted)
    listed = await ask(entity.name, "getlist", {"input": text, "search_field": name, "label_field": name})
    assert [row["label"] for row in listed["values"]] == [answered], about
    chained = {"id": row_id, f"api.{entity.name}.delete": {"id": "$value.id"}, "return": name, "sequential": 1}
    assert (await ask(entity.name, "get", chained))["values"][0][name] == answered, about


async def test_what_is_sent_encoded_stays_as_it_is(store: Store) -> None:
    ask = ask_of(store)
    made = await ask("Tag", "create", {"name": "a &lt; b &amp; c", "sequential": 1})
    assert made["values"][0]["name"] == "a < b &amp; c"
    assert await ask("Tag", "getcount", {"name": "a < b &amp; c"}) == 1
    assert await _stored(store, "Tag", "name") == ["a &lt; b &amp; c"]


async def _stored(store: Store, entity: str, name: str) -> list[Any]:
    column: Any = catalogue().resolve(entity, "get")[0].column(name)
    raw = select(type_coerce(column, String())).order_by(column.table.c.id)
    return await store.read(lambda conn: list(conn.execute(raw).scalars()))


async def test_joined_fields_chains_options_matches_and_order(store: Store) -> None:
    ask = ask_of(store)
    made = await ask("Contact", "create", {"contact_type": "Organization", "organization_name": "A<B"})
    person = {"contact_type": "Individual", "first_name": "I <3 U", "current_employer": "A<B", "email": "i@example.org"}
    ada = (await ask("Contact", "create", person))["id"]
    shown = await ask("Contact", "getsingle", {"id": ada, "return": "current_employer,employer_id,display_name"})
    assert (shown["current_employer"], shown["employer_id"]) == ("A<B", str(made["id"]))
    joined = {"contact_id.first_name": "I <3 U", "return": "contact_id.first_name", "sequential": 1}
    assert (await ask("Email", "get", joined))["values"][0]["contact_id.first_name"] == "I <3 U"
    chained = await ask(
        "Contact", "getsingle", {"id": ada, "api.Contact.getcount": {"first_name": "$value.first_name"}}
    )
    assert chained["api.Contact.getcount"] == 1
    assert [row["id"] for row in (await ask("Contact", "getlist", {"input": "<3"}))["values"]] == [str(ada)]

    group = await ask("Group", "create", {"title": "A > B"})
    assert await ask("Group", "create", {"title": "A > B", "source": "s", "options": {"match": "title"}}) is not None
    assert await ask("Group", "getcount", {}) == 1
    await ask("GroupContact", "create", {"group_id": "A > B", "contact_id": ada, "tracking": "<" * 255})
    assert await ask("Contact", "getcount", {"group": "A > B"}) == 1
    history = await ask("SubscriptionHistory", "getsingle", {"tracking": {"LIKE": "<%"}})
    assert history["tracking"] == "<" * 63, "all that fits"
    assert (await ask("GroupContact", "getsingle", {"contact_id": ada}))["title"] == "A > B"
    groups = await ask("GroupContact", "getoptions", {"field": "group_id"})
    assert groups["values"] == {str(group["id"]): "A > B"}
    for title in ("Z", "A < B", "B"):
        await ask("Group", "create", {"title": title})
    titles = await ask("Group", "get", {"options": {"sort": "title"}, "return": "title", "sequential": 1})
    assert [row["title"] for row in titles["values"]] == ["A > B", "A < B", "B", "Z"], "in the order of what is stored"


async def test_the_length_of_a_text_is_that_of_what_is_stored(store: Store) -> None:
    api = Api(store, catalogue())
    for text, fits in (("<" * 16, True), ("<" * 16 + "x", False), ("&lt;" * 16, True)):
        answer = await api.respond(Call("Tag", "create", {"name": "x", "label": text}, SYSTEM))
        await api.respond(Call("Tag", "delete", {"id": answer.get("id")}, SYSTEM))
        assert bool(answer["is_error"]) is not fits
    assert "Value for label is" not in str(answer)


async def test_names_that_are_worked_out_are_cut_to_what_fits(store: Store) -> None:
    ask = ask_of(store)
    parts = {"first_name": "<" * 16, "last_name": ">" * 16}
    for made in (parts, {**parts, "prefix_id": "Dr.", "suffix_id": "Jr."}):
        answer = await ask("Contact", "create", {"contact_type": "Individual", **made, "sequential": 1})
        assert answer["values"][0]["sort_name"].startswith(">" * 16 + ", <")
    for stored in await _stored(store, "Contact", "display_name"):
        assert len(stored or "") <= 128
        assert "<" not in (stored or "")


async def test_an_html_field_and_a_setting_stay_as_they_are(store: Store) -> None:
    ask = ask_of(store)
    html = "<p>I &lt;3 U</p>"
    made = await ask("Email", "create", {**NEEDED["Email"], "signature_html": html, "sequential": 1})
    assert made["values"][0]["signature_html"] == html
    assert await ask("Email", "getvalue", {"id": made["id"], "return": "signature_html"}) == html
    assert await ask("Email", "getcount", {"signature_html": {"LIKE": "<p>%"}}) == 1
    await ask("Setting", "create", {"contact_undelete": 1})


async def test_what_somebody_else_stored_as_it_is_is_answered_as_it_is(store: Store) -> None:
    def write(conn: Connection) -> None:
        raw = type_coerce("<b>&lt;", String())
        conn.execute(update(contact).where(contact.c.id == 1).values(first_name=raw))

    await store.write(write)
    assert await ask_of(store)("Contact", "getvalue", {"id": 1, "return": "first_name"}) == "<b><"
