"""Contacts that changed since the previous run are met once each, those that the sync made and nobody touched never."""

from datetime import UTC, datetime
from itertools import product

import pytest
from sqlalchemy import Connection, insert

from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, email
from sync.audience import Audience
from sync.context import UnitSizes
from sync.runs.run import Step
from sync.runs.stages.modified_contacts import next_modified
from sync.store.runs.checkpoints import Checkpoint, RunParameters
from sync.store.tables import cache

LIST = "abc123"
BEGAN = datetime(2026, 1, 9, 12, 0, 0, tzinfo=UTC)
MADE = "2026-01-09 12:00:01"
LONG_BEFORE = "2026-01-09 11:00:00"

UNTOUCHED = {"is_deleted": 0, "created": MADE, "status": "ok", "address": "a@example.org", "linked": True}
NEWS: list[tuple[str, dict[str, object], bool]] = [
    ("Made by the sync and at rest.", {}, False),
    ("Made before; changed since.", {"created": LONG_BEFORE}, True),
    ("Nobody knows when they were made.", {"created": None}, True),
    ("In the trash.", {"is_deleted": 1}, True),
    ("Something is to be thought about them.", {"status": "todo"}, True),
    ("They failed.", {"status": "fail"}, True),
    ("Their member has another address.", {"address": "b@example.org"}, True),
    ("No row is theirs.", {"linked": False}, True),
]


def make(conn: Connection, number: int, case: dict[str, object], modified: str) -> None:
    facts = UNTOUCHED | case
    conn.execute(
        insert(contact).values(
            id=number,
            contact_type="Individual",
            is_deleted=facts["is_deleted"],
            created_date=modified if facts["created"] == MADE else facts["created"],
            modified_date=modified,
        )
    )
    conn.execute(insert(email).values(contact_id=number, email=facts["address"], is_primary=1))
    if facts["linked"]:
        row = {"mailchimp_list_id": LIST, "mailchimp_member_id": f"{number:032x}", "mailchimp_email": "a@example.org"}
        conn.execute(insert(cache).values(**row, civicrm_contact_id=number, sync_status=facts["status"]))


def walk(conn: Connection, audience: Audience, size: int, sizes: UnitSizes | None = None) -> list[int]:
    parameters = RunParameters(contacts_since=int(BEGAN.timestamp()))
    step = Step(audience, Checkpoint(LIST, parameters=parameters), BEGAN, sizes or UnitSizes())
    met: list[int] = []
    ids, following = next_modified(conn, step, {}, size)
    while following is not None:
        assert len(ids) <= size
        met += ids
        ids, following = next_modified(conn, step, following, size)
    return met + ids


@pytest.mark.parametrize(("case", "is_met"), [pytest.param(*row[1:], id=row[0]) for row in NEWS])
async def test_who_is_news(store: Store, case: dict[str, object], is_met: bool) -> None:
    def look(conn: Connection) -> list[int]:
        make(conn, 1001, case, MADE)
        return walk(conn, Audience(LIST, 1, store.clock), 10)

    assert await store.write(look) == ([1001] if is_met else [])


@pytest.mark.parametrize(("step", "size"), list(product((1, 2, 3, 50), (1, 2, 50))))
async def test_the_news_among_many_is_met_once_each_whatever_the_steps(store: Store, step: int, size: int) -> None:
    def look(conn: Connection) -> list[int]:
        for number in range(1001, 1025):
            second = number * 7 % 4  # several a second, and not in the order of their ids
            make(conn, number, {} if number % 3 else {"status": "fail"}, f"2026-01-09 12:00:0{second}")
        make(conn, 1100, {"status": "fail"}, LONG_BEFORE)
        return walk(conn, Audience(LIST, 1, store.clock), size, UnitSizes(scanned_rows_per_unit=step))

    assert sorted(await store.write(look)) == [number for number in range(1001, 1025) if not number % 3]


async def test_a_full_run_asks_for_nobody(store: Store) -> None:
    def look(conn: Connection) -> tuple[list[int], object]:
        make(conn, 1001, {"status": "fail"}, MADE)
        return next_modified(conn, Step(Audience(LIST, 1, store.clock), Checkpoint(LIST), BEGAN), {}, 10)

    assert await store.write(look) == ([], None)
