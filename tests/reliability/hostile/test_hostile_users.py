"""Calls that nobody meant well, as each of the four users: no fault of ours, and nothing written that they may not.

What a user may write is told by rows: after each call that changed the database, all rows are compared with those
before. ``CIVIAPI_HOSTILE_CALLS`` sets how many calls of each entity are tried, as in ``test_hostile_calls.py``.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import Connection, select

from civiapi.api.call import SYSTEM
from civiapi.api.envelope import UNKNOWN_ERROR
from civiapi.store.schema.tables import METADATA
from tests.reliability.hostile.test_hostile_calls import (
    CALLS,
    ENTITIES,
    REGISTRY,
    REMOTE,
    Site,
    calls_of,
    entity_of,
)
from tests.reliability.hostile.users import PERMISSIONS, caller

OF_CONTACTS = {
    "civicrm_contact": "id",
    "civicrm_email": "contact_id",
    "civicrm_group_contact": "contact_id",
    "civicrm_subscription_history": "contact_id",
    "civicrm_entity_tag": "entity_id",
}
"""Tables of what belongs to a contact, with the column that says to whom."""

SECRETS = ("api_key", "hash", "user_unique_id")

Rows = dict[str, dict[Any, dict[str, Any]]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with asyncio.Runner() as runner:
        opened = Site(runner, tmp_path_factory.mktemp("users"))
        yield opened
        opened.close()


def all_rows(conn: Connection) -> Rows:
    """Every row of every table by its key."""
    found: Rows = {}
    for name, table in METADATA.tables.items():
        rows = [dict(row) for row in conn.execute(select(table)).mappings()]
        key = [column.name for column in table.primary_key]
        found[name] = {tuple(row[one] for one in key): row for row in rows}
    return found


def changes(before: Rows, after: Rows) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What differs: the table, the row before and the row after, empty where there is none."""
    for table, rows in after.items():
        for key in rows.keys() | before[table].keys():
            old, new = before[table].get(key, {}), rows.get(key, {})
            if old != new:
                yield table, old, new


def may_change(user: str, contact_id: int, table: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether this user may have changed a row so."""
    owner = OF_CONTACTS.get(table)
    if owner is None or user not in ("selfedit", "editor"):
        return False
    if any(old.get(name) != new.get(name) for name in SECRETS) and old:
        return False
    if any(new.get(name) for name in SECRETS) and not old:
        return new.get("api_key") is None
    return user == "editor" or {row.get(owner) for row in (old, new) if row} == {contact_id}


@pytest.mark.parametrize("user", PERMISSIONS)
@pytest.mark.parametrize("entity", ENTITIES)
def test_a_user_writes_only_what_it_may_whatever_it_sends(site: Site, entity: str, user: str) -> None:
    actions = sorted(name for name in REGISTRY.actions(entity_of(entity)) if name not in REMOTE)
    contact_id = 1 + list(PERMISSIONS).index(user) % 3
    acting = caller(user, contact_id)
    rows = site.read(all_rows)

    @given(asked=calls_of(entity, actions))
    @settings(max_examples=CALLS)
    def hold(asked: tuple[str, dict[str, Any]]) -> None:
        nonlocal rows
        mark = site.mark()
        assert site.ask(entity, *asked, acting) != UNKNOWN_ERROR
        if site.mark() == mark:
            return
        before, rows = rows, site.read(all_rows)
        for table, old, new in changes(before, rows):
            assert may_change(user, contact_id, table, old, new), (table, old, new)

    hold()


def test_the_comparison_of_rows_sees_a_write(site: Site) -> None:
    before = site.read(all_rows)
    site.ask("Group", "create", {"title": "Another"}, SYSTEM)
    [(table, old, new)] = changes(before, site.read(all_rows))
    assert (table, old, new["title"]) == ("civicrm_group", {}, "Another")
    assert not may_change("editor", 1, table, old, new)
