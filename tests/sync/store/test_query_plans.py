"""How the databases carry out what an incremental sync asks: never by walking an audience, a group or a whole table.

Every statement that a run really sends is caught, on a database with some thousand people in and around the audience,
and the database is asked for its plan. SQLite without statistics is how our files are; with them is what ANALYZE makes.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, select
from sqlalchemy.engine import Engine

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.databases.bulk import insert_rows
from civiapi.store.schema.tables import contact, email, subscription_history
from sync.connections.config import read_config
from sync.reports.people import search
from sync.store import balance, daily, tables
from sync.store.runs import checkpoints
from tests.support.crowd import (
    FIRST_ID,
    WATCHED,
    add_contacts,
    add_members,
    add_to_group,
    address,
    analyze,
    happenings,
    remake_indexes,
)
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site

CROWD = 4000
PEOPLE = range(FIRST_ID, FIRST_ID + CROWD)
MANY_ROWS = 1500
"""Rows of a table that a plan may mean to look at: a chunk of five hundred, each with a few, and not the crowd."""

BEFORE = "2025-01-01 00:00:00"
BROAD = {"mailchimp_list_id=?", "group_id=?", "is_deleted=?", "status=?"}
BROAD |= {"civicrm_contact_id>?", "mailchimp_member_id>?", "mailchimp_email>?"}
"""What by itself narrows nothing down (``>?`` is how SQLite says that a column is not NULL)."""


def _crowd(conn: Connection, list_id: str) -> None:
    """A large audience at rest, a second group with the same people, and a second audience."""
    add_contacts(conn, PEOPLE, BEFORE)
    for group_id in (GROUP, TREES_GROUP):
        add_to_group(conn, PEOPLE, BEFORE, method="Admin", group_id=group_id)
    add_members(conn, PEOPLE, list_id, BEFORE)
    add_members(conn, PEOPLE, "other", BEFORE, first_row=CROWD + 1)
    made = range(1, 2 * CROWD + 1)
    insert_rows(conn, tables.update, ("mailchimpsync_cache_id", "data", "completed"), [(one, "{}", 1) for one in made])
    checkpoint = checkpoints.load(conn, list_id)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    checkpoint.last_sync_time = f"{yesterday:%Y-%m-%d %H:%M:%S}"
    checkpoint.last_started = int(yesterday.timestamp())
    checkpoint.history_id = conn.execute(select(func.max(subscription_history.c.id))).scalar() or 0
    checkpoints.save(conn, checkpoint)


@pytest.fixture(params=[*KINDS, "sqlite, indexes backwards", "sqlite, analyzed"])
async def caught(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator["Caught"]:
    """What was sent while people came and went at both ends of a large audience, with the plans for it."""
    kind = request.param.partition(",")[0]
    with a_database(kind, tmp_path) as url, pytest.MonkeyPatch.context() as patch:
        patch.setattr(balance, "MANY", 100)  # the audience counts as a large one
        async with a_site(url) as site:
            if kind == "sqlite":
                await site.store.write(partial(remake_indexes, backwards="backwards" in request.param))
            await site.store.write(_crowd, site.list_id)
            await site.store.write(_keep_count, await site.audience())
            if "analyzed" in request.param or kind == "mariadb":
                await site.store.write(analyze)
            await happenings(site, PEOPLE)
            with _catching() as found:
                await site.sync()
                await _questions(site)
            found.plans = await site.store.read(_explain, found.sent)
            yield found


def _keep_count(conn: Connection, audience: Any) -> None:
    balance.keep_count(conn, audience.list_id, GROUP, balance.take_count(conn, audience.list_id, GROUP, 0))
    daily.note_ends(conn, audience, datetime.now(UTC), CROWD, CROWD)


async def _questions(site: Site) -> None:
    """What the pages ask of an audience, but for counts of it all."""
    link = (await site.store.read(read_config)).link_for_list(site.list_id)
    await site.store.read(balance.read_balance, site.list_id, GROUP)
    by_address = [tables.cache.c.mailchimp_email == address(1500)]
    page = search.select_rows(site.list_id, link.group_id, by_address, lambda ids: ids.limit(25), backwards=False)
    await site.store.read(lambda conn: conn.execute(page).all())


@dataclass
class Caught:
    """Statements by their text, each with the values it was first sent with; and its plan, a line a table."""

    sent: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    count: int = 0
    plans: dict[str, list[str]] = field(default_factory=dict)


@contextmanager
def _catching() -> Iterator[Caught]:
    found = Caught()

    def catch(_conn: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        found.count += 1
        if re.match(r"SELECT|UPDATE|DELETE|INSERT INTO \w+ \([^)]*\) SELECT", statement):
            found.sent.setdefault(
                re.sub(r"(\?|%s)(, (\?|%s))+", r"\1…", statement), (statement, values[0] if many else values)
            )

    event.listen(Engine, "before_cursor_execute", catch)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", catch)


def _explain(conn: Connection, sent: dict[str, tuple[Any, Any]]) -> dict[str, list[str]]:
    plans = {}
    for short, (statement, values) in sent.items():
        if conn.dialect.name == "sqlite":
            rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            plans[short] = [row.detail for row in rows]
        else:
            rows = conn.exec_driver_sql(f"EXPLAIN {statement}", values).all()
            plans[short] = [f"{row.table} {row.type} {row.key} {row.rows} {row.Extra}" for row in rows if row.table]
    return plans


def _walks(statement: str, plan: list[str]) -> list[str]:
    """The lines of a plan that go over all of a table, an audience or a group; none for one that stops soon."""
    sorts = any("ORDER BY" in line or "filesort" in line for line in plan)
    stops = (" LIMIT " in statement and not sorts) or re.fullmatch(
        r"SELECT max\(\S+\.id\) AS max_1 \s*FROM \w+", statement
    )
    return [] if stops else [line for line in plan if _is_walk(line)]


def _is_walk(line: str) -> bool:
    if found := re.match(r"(SCAN|SEARCH) (\w+)(?: AS \w+)?(?: USING .*?)?(?:\((.*)\))?(?: LEFT-JOIN)?$", line):
        by = set((found[3] or "").split(" AND ")) - {""}
        return _is_watched(found[2]) and (found[1] == "SCAN" or by <= BROAD)
    if found := re.match(r"(\w+) (\w+) (\w+) (\d+)", line):
        return _is_watched(found[1]) and int(found[4]) > MANY_ROWS
    return False


def _is_watched(name: str) -> bool:
    return name in WATCHED or name in ("other", "other_detail")


async def test_an_incremental_sync_looks_up_what_changed_and_walks_over_nothing(caught: Caught) -> None:
    walks = [(lines, statement) for statement, plan in caught.plans.items() if (lines := _walks(statement, plan))]
    assert not walks, "\n\n".join(f"{lines}\n{statement}" for lines, statement in walks)
    everything = " ".join(caught.plans)
    assert all(name in everything for name in WATCHED), "a whole sync was caught"


async def test_a_walk_is_recognized() -> None:
    cache = "civicrm_mailchimpsync_cache"
    assert _is_walk(f"SCAN {cache}")
    assert _is_walk(f"SCAN {cache} USING COVERING INDEX civiapi_cache_list")
    assert _is_walk(f"SEARCH {cache} USING INDEX civiapi_cache_list (mailchimp_list_id=?)")
    assert _is_walk("SEARCH civicrm_group_contact USING INDEX some (group_id=?)")
    assert not _is_walk(f"SEARCH {cache} USING INDEX civiapi_cache_list (mailchimp_list_id=? AND rowid>?)")
    assert not _is_walk(f"SEARCH {cache} USING INTEGER PRIMARY KEY (rowid=?)")
    assert _is_walk(f"{cache} ref civiapi_cache_list 4000 Using where")
    assert _is_walk(f"{cache} ALL None 4000 Using where")
    assert not _is_walk(f"{cache} eq_ref PRIMARY 1 ")


async def test_a_first_push_sends_as_many_statements_for_two_hundred_people_as_for_twenty(tmp_path: Path) -> None:
    counts = []
    for people in (20, 200):
        async with a_site(f"sqlite:///{tmp_path / f'{people}.sqlite'}") as site:
            ids = range(1, people + 1)
            await site.store.write(insert_rows, contact, ("id", "contact_type"), [(one, "Individual") for one in ids])
            await site.store.write(insert_rows, email, ("contact_id", "email"), [(one, address(one)) for one in ids])
            await site.store.write(set_status, GROUP, list(ids), "Added", method="Admin", at=BEFORE)
            with _catching() as found:
                await site.run()
            counts.append(found.count)
    assert counts[1] <= counts[0] + 5
