"""Nobody reads or writes what they may not: every entity, field, reference and action, tried by every kind of caller.

Told by comparison: two databases that differ only in what a caller may not know give equal answers to every call, down
to the errors, the counts and the order. Two kinds of marks in the planted rows say what leaked.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import Connection, select

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.store.engine import Store, open_store
from civiapi.store.schema import tables
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from tests.support.databases import chosen, database_at
from tests.support.every_call import (
    EMPLOYER,
    FIFTH,
    ME,
    OTHER,
    OTHER_EMAIL,
    OWN_EMAIL,
    TRASHED,
    Sent,
    Variant,
    plant,
    reads,
    secret_writes,
    writes,
)

REGISTRY = catalogue()
SEES = ("access CiviCRM", "access AJAX API", "view all contacts")
EDITS = (*SEES, "edit all contacts", "add contacts")
OWN = ("access CiviCRM", "access AJAX API", "view my contact", "edit my contact")
PERMISSIONS: dict[str, tuple[str, ...]] = {
    "lowly": ("access CiviCRM",),
    "viewer": SEES,
    "selfedit": OWN,
    "editor": EDITS,
    "keeper of one's own key": (*OWN, "edit own api keys"),
    "viewer with one's own key": (*SEES, "edit own api keys"),
    "keeper of keys": (*EDITS, "edit api keys"),
    "viewer of activities": (*SEES, "view all activities"),
    "keeper of one's own activities": (*OWN, "view all activities", "delete activities"),
    "editor of activities": (*EDITS, "view all activities", "delete activities"),
    "adder who sees nobody": ("access CiviCRM", "add contacts", "edit groups", "manage tags"),
    "nobody": (),
}
CALLERS = {name: Caller(ME, frozenset(held), name) for name, held in PERMISSIONS.items()}
NOBODY = "nobody without a contact"
CALLERS[NOBODY] = Caller(None, frozenset(), NOBODY)


THOROUGH = {"lowly", "viewer", "selfedit", "keeper of keys"}
"""Those who try every call; the others every fourth, in turn, and all that name a key where a permission is about keys.

On MariaDB everybody tries every fourth: each statement is made there, for three or four of them."""


def unknown_to(caller: Caller) -> Variant:
    """The planted database with everything different that this caller may not know."""
    varied = Variant(admin="a1", trash="t1", hash="h1")
    if not caller.may("edit api keys"):
        varied = replace(varied, key="k1", own_key="k0" if caller.may("edit own api keys") else "k1")
    return varied if caller.may("view all contacts") else replace(varied, others="o1")


def forbidden_to(caller: Caller) -> list[str]:
    """Parts of texts that no answer to this caller may hold."""
    marks = ["zzadmin", "zzhash", "zzt0zz", "zzt1zz"]
    if not caller.may("edit api keys"):
        marks += [f"zzkeyk{n}zz{one}" for n in (0, 1) for one in (OTHER, EMPLOYER, TRASHED, FIFTH)]
        marks += [] if caller.may("edit own api keys") else ["zzkeyk"]
    return marks if caller.may("view all contacts") else [*marks, "zzo0zz", "zzo1zz"]


class Site:
    """A planted database with the API over it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.api = Api(store, REGISTRY)

    async def answers(self, caller: Caller, calls: Iterable[Sent]) -> list[str]:
        """The answers as text, in order."""
        return [
            json.dumps(await self.api.respond(Call(entity, action, params, caller)), default=str)
            for entity, action, params in calls
        ]

    async def rows(self, *, but: int | None = None) -> dict[str, Any]:
        """What belongs to contacts, *but* one."""
        return await self.store.read(_rows, but)

    async def secrets(self) -> dict[tuple[int, str], str]:
        """The API key and hash of every contact."""
        c = tables.contact.c
        rows = await self.store.read(lambda conn: conn.execute(select(c.id, c.api_key, c.hash)).all())
        return {(row.id, name): getattr(row, name) for row in rows for name in ("api_key", "hash")}


@asynccontextmanager
async def planted(path: Path, has: Variant) -> AsyncIterator[Site]:
    store = await open_store(database_at(path))
    try:
        await migrate(store)
        await store.write(plant, has)
        yield Site(store)
    finally:
        await store.close()


def _rows(conn: Connection, but: int | None) -> dict[str, Any]:
    owners = {
        tables.contact: "id",
        tables.email: "contact_id",
        tables.address: "contact_id",
        tables.note: "entity_id",
        tables.phone: "contact_id",
        tables.group_contact: "contact_id",
        tables.subscription_history: "contact_id",
        tables.entity_tag: "entity_id",
        tables.uf_match: "contact_id",
    }
    found: dict[str, Any] = {}
    for table, owner in owners.items():
        for row in conn.execute(select(table).order_by(table.c.id)).mappings():
            if row[owner] != but:
                found[f"{table.name} {row['id']}"] = dict(row)
    return found


def said(call: Sent, *answers: str) -> str:
    return "\n".join([f"{call[0]}.{call[1]} {call[2]}", *answers])[:1500]


@cache
def all_reads() -> Sequence[Sent]:
    return tuple(reads(REGISTRY))


def reads_of(name: str) -> list[Sent]:
    """The calls that this caller tries."""
    if name in THOROUGH and chosen() == "sqlite":
        return list(all_reads())
    turn, has_key = list(CALLERS).index(name), CALLERS[name].may("edit own api keys")
    return [one for n, one in enumerate(all_reads(), turn) if n % 4 == 0 or (has_key and "api_key" in str(one))]


def leaks(calls: Sequence[Sent], answers: Sequence[str], marks: Sequence[str]) -> list[str]:
    """The calls whose answer holds a mark that the call itself does not."""
    return [
        said(call, answer)
        for call, answer in zip(calls, answers, strict=True)
        if any(mark in answer and mark not in str(call) for mark in marks)
    ]


@pytest.mark.parametrize("name", CALLERS)
async def test_no_answer_holds_or_depends_on_what_the_caller_may_not_know(tmp_path: Path, name: str) -> None:
    caller, calls = CALLERS[name], reads_of(name)
    assert len(calls) > 1000
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        async with planted(tmp_path / "a", Variant()) as a, planted(tmp_path / "b", unknown_to(caller)) as b:
            one, two = [], []
            for call in calls:  # in turn, so that what is compiled for one serves the other
                one += await a.answers(caller, [call])
                two += await b.answers(caller, [call])
    assert leaks(calls, one, forbidden_to(caller)) == []
    assert leaks(calls, two, forbidden_to(caller)) == []
    differing = [said(call, a, b) for call, a, b in zip(calls, one, two, strict=True) if a != b]
    assert differing == []
    faults = [said(call, a) for call, a in zip(calls, one, strict=True) if "Unknown error" in a]
    assert faults == []


def all_writes() -> list[Sent]:
    return [*(call for victim in (OTHER, TRASHED) for call in writes(REGISTRY, victim)), *secret_writes(ME)]


ONES_OWN = ("viewer", "selfedit", "lowly", "keeper of one's own key", "adder who sees nobody", "nobody", NOBODY)


@pytest.mark.parametrize("name", ONES_OWN)
async def test_nothing_of_another_contact_is_written(tmp_path: Path, name: str) -> None:
    """Nor moved, displaced, or given to somebody; and what is answered says nothing of what is unknown."""
    caller, calls = CALLERS[name], [*all_writes(), *secret_writes(OTHER)]
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        async with planted(tmp_path / "a", Variant()) as a, planted(tmp_path / "b", unknown_to(caller)) as b:
            before = await a.rows(but=ME)
            one, two = await a.answers(caller, calls), await b.answers(caller, calls)
            after = await a.rows(but=ME)
    made = {row for row in after.keys() - before.keys() if not caller.may("add contacts")}
    assert made == set()
    assert {row: after.get(row) for row in before if after.get(row) != before[row]} == {}
    assert leaks(calls, one, forbidden_to(caller)) == []
    assert [said(call, x, y) for call, x, y in zip(calls, one, two, strict=True) if x != y] == []
    assert [said(call, x) for call, x in zip(calls, one, strict=True) if "Unknown error" in x] == []


@pytest.mark.parametrize("name", [*ONES_OWN, "editor"])
async def test_a_key_or_a_hash_is_set_by_nobody_without_the_permission(tmp_path: Path, name: str) -> None:
    caller, own = CALLERS[name], CALLERS[name].may("edit own api keys")
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        async with planted(tmp_path / "a", Variant()) as site:
            secrets = await site.secrets()
            for whose in (ME, OTHER, TRASHED):
                calls = list(secret_writes(whose))
                answers = await site.answers(caller, calls)
                after = await site.secrets()
                changed = {key for key, value in after.items() if value != secrets.get(key)}
                assert changed <= ({(ME, "api_key")} if own else set()), changed
                assert not [said(c, a) for c, a in zip(calls, answers, strict=True) if "zzforged" in a and not own]
                refused = [a for c, a in zip(calls, answers, strict=True) if c[0] == "Contact" and c[1] == "create"]
                assert own or all('"is_error": 1' in one for one in refused)


async def test_an_editor_changes_neither_secrets_nor_what_is_in_the_trash_nor_deletes(tmp_path: Path) -> None:
    caller = CALLERS["editor"]
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        async with planted(tmp_path / "a", Variant()) as a, planted(tmp_path / "b", unknown_to(caller)) as b:
            secrets, before = await a.secrets(), await a.rows()
            calls = [*all_writes(), *secret_writes(OTHER)]
            one, two = await a.answers(caller, calls), await b.answers(caller, calls)
            after = await a.rows()
            assert {key: value for key, value in (await a.secrets()).items() if key in secrets} == secrets
    theirs = {key for key, row in before.items() if TRASHED in (row.get("contact_id"), row.get("entity_id"))}
    for key in {*theirs, f"civicrm_contact {TRASHED}"}:
        assert after.get(key) == before[key], key
    contacts = [row for key, row in after.items() if key.startswith("civicrm_contact ")]
    assert [row["id"] for row in contacts if row["is_deleted"]] == [TRASHED]
    assert leaks(calls, one, forbidden_to(caller)) == []
    assert [said(call, x, y) for call, x, y in zip(calls, one, two, strict=True) if x != y] == []
    assert [said(call, x) for call, x in zip(calls, one, strict=True) if "Unknown error" in x] == []


@pytest.mark.parametrize(
    ("name", "whose", "employer", "word"), [("selfedit", ME, EMPLOYER, "o0"), ("viewer", FIFTH, TRASHED, "t0")]
)
async def test_the_organization_name_of_an_employee_names_no_employer_who_is_not_seen(
    tmp_path: Path, name: str, whose: int, employer: int, word: str
) -> None:
    """It is a copy of the employer's name, and was answered where ``current_employer`` was empty."""
    copied, only = f"zz{word}zz{employer}", {"id": whose, "return": "organization_name", "sequential": 1}
    calls: list[Sent] = [
        ("Contact", "get", only),
        ("Contact", "getcount", {"id": whose, "organization_name": copied}),
        ("Email", "getcount", {"contact_id": whose, "is_primary": 1, "contact_id.organization_name": copied}),
    ]
    async with planted(tmp_path / "a", Variant()) as site:
        shown = await site.api.respond(Call(*calls[0], CALLERS[name]))
        assert shown["values"][0]["organization_name"] == ""
        assert await site.answers(CALLERS[name], calls[1:]) == ["0", "0"]
        everything = Caller(ME, frozenset({"*"}), "administrator")
        shown = await site.api.respond(Call(*calls[0], everything))
        assert shown["values"][0]["organization_name"] == copied
        assert await site.answers(everything, calls[1:]) == ["1", "1"]


async def test_a_reference_to_what_is_not_seen_is_refused_as_one_to_what_is_not_there(tmp_path: Path) -> None:
    """An address of one's own that repeats another's: the answer told which addresses there are."""
    caller, absent = CALLERS["keeper of one's own activities"], 99
    hidden = {"Contact": OTHER, "Address": OTHER_EMAIL, "Email": OTHER_EMAIL, "Activity": 2}
    own = {"Address": OWN_EMAIL, "Email": OWN_EMAIL}
    tried = []
    async with planted(tmp_path / "a", Variant()) as site:
        for entity in REGISTRY.entities():
            for one in entity.references if entity.action("create") else ():
                if one.fk not in hidden or one.name == entity.contact_field:
                    continue
                unseen, missing = await site.answers(
                    caller,
                    [
                        (entity.name, "create", {"id": own.get(entity.name, ME), one.name: to})
                        for to in (hidden[one.fk], absent)
                    ],
                )
                assert unseen.replace(f" : {hidden[one.fk]}", f" : {absent}") == missing
                assert '"is_error": 1' in unseen
                tried.append(f"{entity.name}.{one.name}")
    assert {"Address.master_id", "Activity.parent_id", "ActivityContact.activity_id", "Contact.employer_id"} < {*tried}


async def test_keepers_of_keys_set_them(tmp_path: Path) -> None:
    async with planted(tmp_path / "a", Variant()) as site:
        for name, whose, allowed in (
            ("keeper of keys", OTHER, True),
            ("keeper of keys", TRASHED, False),
            ("keeper of one's own key", ME, True),
            ("keeper of one's own key", OTHER, False),
            ("editor", OTHER, False),
            ("editor", ME, False),
        ):
            before = (await site.secrets())[whose, "api_key"]
            answers = await site.answers(
                CALLERS[name],
                [("Contact", "create", {"id": whose, "api_key": f"new of {name}"[:32]})],
            )
            assert ('"is_error": 0' in answers[0]) == allowed, answers
            assert ((await site.secrets())[whose, "api_key"] != before) == allowed
