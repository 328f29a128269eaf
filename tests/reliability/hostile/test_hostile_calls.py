"""Calls that nobody meant well: every entity and action with generated names and values in every place.

What must hold: an answer in the API's own form, never ``Unknown error.`` (a fault of ours), and no write by an action
that only reads. ``CIVIAPI_HOSTILE_CALLS=2000`` tries so many of each entity instead of the usual few; hypothesis
prints the call that failed, made as short as it can be.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.declaration.spec import Entity, Registry
from civiapi.api.envelope import UNKNOWN_ERROR
from civiapi.app import open_app
from civiapi.settings import DatabaseSettings, Settings
from civiapi.store.databases.dialect import change_mark
from entities import catalogue

T = TypeVar("T")

CALLS = int(os.environ.get("CIVIAPI_HOSTILE_CALLS", "30"))
REGISTRY: Registry = catalogue()
ENTITIES = sorted(entity.name for entity in REGISTRY.entities())
REMOTE = {"fetchaccountinfo", "updatewebhook"}  # these ask Mailchimp; tests of their own send them nonsense

SQL = [
    "'",
    "' OR 1=1 --",
    '"; DROP TABLE civicrm_contact; --',
    "id) UNION SELECT api_key FROM civicrm_contact --",
    "`id`",
]
texts = st.sampled_from(
    [*SQL, "", "0", "1", "-1", "null", "now", "2026-02-31", "%", "_", "\\", "\x00", "\x01", "é🎉", "9" * 30]
) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts
OPERATORS = ["=", "IN", "NOT IN", "BETWEEN", "LIKE", "IS NULL", ">", "<>", "in", "REGEXP", "1=1 OR", ""]
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(OPERATORS) | texts, inner, max_size=2),
    max_leaves=6,
)
CONTROLS = [
    "options", "option.limit", "options.sort", "sort", "return", "sequential", "debug", "version", "format.only_id",
    "filters", "filter.group_id", "rowCount", "offset", "limit", "id", "contact_id", "group", "email", "field", "match",
    "api.Contact.get", "api.Nothing.at_all", "api.contact.getsingle.1", "custom_1", "context", "api.Email.getcount",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    with asyncio.Runner() as runner:
        site = Site(runner, tmp_path_factory.mktemp("hostile"))
        yield site
        site.close()


@pytest.fixture(scope="module")
def other_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Site"]:
    """One that is written to, by jobs in the background as well."""
    with asyncio.Runner() as runner:
        site = Site(runner, tmp_path_factory.mktemp("written"))
        yield site
        site.close()


class Site:
    """A program with a contact, a group and an address in it, asked without HTTP."""

    def __init__(self, runner: asyncio.Runner, folder: Path) -> None:
        self._runner = runner
        self._opening = open_app(Settings(database=DatabaseSettings(f"sqlite:///{folder}/site.sqlite")))
        self.app = runner.run(self._opening.__aenter__())
        for title in ("News", "Members"):
            self.ask("Group", "create", {"title": title})
        for n in range(3):
            who = {"contact_type": "Individual", "first_name": f"P{n}", "email": f"p{n}@example.org"}
            self.ask("Contact", "create", who)
            self.ask("GroupContact", "create", {"contact_id": n + 1, "group_id": 1})

    def ask(self, entity: str, action: str, params: dict[str, Any], caller: Caller = SYSTEM) -> Any:
        return self._runner.run(self.app.api.respond(Call(entity, action, params, caller)))

    def read(self, fn: Callable[[Connection], T]) -> T:
        return self._runner.run(self.app.store.read(fn))

    def mark(self) -> Any:
        """A value that differs once anything was written."""
        return self._runner.run(self.app.store.read_inline(change_mark))

    def close(self) -> None:
        self._runner.run(self._opening.__aexit__(None, None, None))


def entity_of(name: str) -> Entity:
    found = REGISTRY.find_entity(name)
    assert found is not None
    return found


def names_of(entity: str) -> st.SearchStrategy[str]:
    fields = [field.name for field in entity_of(entity).fields or ()]
    params = [field.name for action in REGISTRY.actions(entity_of(entity)).values() for field in action.params or ()]
    return st.sampled_from(sorted({*fields, *params, *CONTROLS}))


def calls_of(entity: str, actions: list[str]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    sent = st.dictionaries(names_of(entity), values, max_size=5) | st.dictionaries(texts, values, max_size=3)
    return st.tuples(st.sampled_from(actions), sent)


@pytest.mark.parametrize("entity", ENTITIES)
def test_reading_writes_nothing_and_finds_no_fault_of_ours(site: Site, entity: str) -> None:
    reading = sorted(name for name in REGISTRY.actions(entity_of(entity)) if name.startswith("get"))
    before = site.mark()

    @given(asked=calls_of(entity, reading))
    @settings(max_examples=CALLS)
    def hold(asked: tuple[str, dict[str, Any]]) -> None:
        assert site.ask(entity, *asked) != UNKNOWN_ERROR
        assert site.mark() == before

    hold()


@pytest.mark.parametrize("entity", ENTITIES)
def test_no_call_that_writes_finds_a_fault_of_ours(other_site: Site, entity: str) -> None:
    known = REGISTRY.actions(entity_of(entity))
    writing = sorted(name for name in known if not name.startswith("get") and name not in REMOTE)
    if not writing:
        return

    @given(asked=calls_of(entity, writing))
    @settings(max_examples=CALLS)
    def hold(asked: tuple[str, dict[str, Any]]) -> None:
        assert other_site.ask(entity, *asked) != UNKNOWN_ERROR

    hold()
