"""What a run wrote itself is passed over by the next one; whatever anybody else did in between is not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact, group, subscription_history
from sync.audience import Audience
from sync.reconcile.matching import Range
from sync.runs.run import Step
from sync.runs.stages.modified_contacts import next_modified
from sync.runs.stages.new_history import fix_horizon, next_history
from sync.store.runs.checkpoints import Checkpoint, RunParameters
from sync.store.runs.own_rows import (
    CONTACT,
    HISTORY,
    OwnRange,
    forget_recent_contacts,
    gaps,
    note_rows,
    own_history,
    quiet_times,
    without_gaps,
)
from sync.store.tables import cache
from tests.support.crowd import add_contacts

LIST, GROUP = "abc123", 12
NOW = datetime(2026, 1, 9, 12, 0, 30, tzinfo=UTC)
FIRST, SECOND, LATER = "2026-01-09 12:00:01", "2026-01-09 12:00:02", "2026-01-09 12:00:09"
PEOPLE = range(1001, 1021)


def a_step(store: Store, history_id: int = 0) -> Step:
    parameters = RunParameters(since=1, contacts_since=int((NOW - timedelta(seconds=29)).timestamp()))
    return Step(Audience(LIST, GROUP, store.clock), Checkpoint(LIST, parameters=parameters, history_id=history_id), NOW)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], [(0, 9)]),
        ([(1, 9)], []),
        ([(1, 3), (7, 9)], [(3, 6)]),
        ([(4, 20)], [(0, 3)]),
        ([(12, 20)], [(0, 9)]),
    ],
)
def test_what_is_between_ranges_is_left_to_look_at(
    ranges: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    found = gaps([OwnRange(first, last, FIRST) for first, last in ranges], 0, 9)
    assert [(after, upto) for after, upto, _ in found] == expected


def test_ids_with_others_among_them_are_no_range() -> None:
    assert without_gaps([3, 1, 2]) == range(1, 4)
    assert without_gaps([1, 4, 7]) == range(0), "as on a node of a cluster"
    assert without_gaps([]) == range(0)


async def test_history_is_one_range_however_many_units_wrote_it(store: Store) -> None:
    def write(conn: Connection) -> list[OwnRange]:
        for first in range(1, 100, 10):
            note_rows(conn, LIST, HISTORY, range(first, first + 10), FIRST)
        note_rows(conn, "other", HISTORY, range(100, 110), FIRST)
        return own_history(conn, LIST, 0)

    assert [(one.first, one.last) for one in await store.write(write)] == [(1, 100)]


def they_rename(conn: Connection) -> None:
    conn.execute(update(contact).where(contact.c.id == 1005).values(first_name="Grace", modified_date=LATER))


def they_add(conn: Connection) -> None:
    add_contacts(conn, range(1500, 1501), SECOND)


def they_trash(conn: Connection) -> None:
    conn.execute(update(contact).where(contact.c.id == PEOPLE[-1]).values(is_deleted=1, modified_date=LATER))


@pytest.mark.parametrize(
    ("does", "met"),
    [(lambda conn: None, []), (they_rename, [1005]), (they_add, [1500]), (they_trash, [PEOPLE[-1]])],
)
async def test_only_what_others_did_to_contacts_is_met(
    store: Store, does: Callable[[Connection], None], met: list[int]
) -> None:
    def work(conn: Connection) -> list[int]:
        for part, at in ((PEOPLE[:10], FIRST), (PEOPLE[10:], SECOND)):
            add_contacts(conn, part, at)
            note_rows(conn, LIST, CONTACT, part, at)
        does(conn)
        found: list[int] = []
        ids, following = next_modified(conn, a_step(store), {}, 50)
        while following is not None:
            found += ids
            ids, following = next_modified(conn, a_step(store), following, 50)
        return found + ids

    found = await store.write(work)
    assert set(met) <= set(found)
    assert set(found) <= {*met, *PEOPLE[10:]}, "of a second in which others were at work, all are looked at"
    if does is not they_add and does is not they_trash:
        assert found == met


async def test_contacts_that_are_reconciled_in_the_second_of_their_creation_are_looked_at_again(store: Store) -> None:
    def work(conn: Connection) -> list[Any]:
        add_contacts(conn, PEOPLE, FIRST)
        note_rows(conn, LIST, CONTACT, PEOPLE, FIRST)
        row = {"mailchimp_list_id": LIST, "mailchimp_member_id": "m", "civicrm_contact_id": PEOPLE[0]}
        cache_id = int(conn.execute(insert(cache).values(**row)).inserted_primary_key[0])
        rows = Range(cache_id - 1, cache_id).of(a_step(store).audience)
        forget_recent_contacts(conn, LIST, SECOND, rows)
        later = quiet_times(conn, LIST, FIRST)
        forget_recent_contacts(conn, LIST, FIRST, rows)
        return [len(later), len(quiet_times(conn, LIST, FIRST))]

    assert await store.write(work) == [1, 0]


async def test_history_of_others_is_met_wherever_it_is_among_ours(store: Store) -> None:
    def work(conn: Connection) -> tuple[list[int], int, int]:
        conn.execute(insert(group).values(id=GROUP, name="News", title="News"))
        add_contacts(conn, PEOPLE, FIRST)
        at = store.clock.write(NOW)
        for number, one in enumerate(PEOPLE):
            written = set_status(conn, GROUP, [one], "Added", method="Admin" if number == 7 else "MCsync", at=at)
            if number != 7:
                note_rows(conn, LIST, HISTORY, written, at)
        step, start = a_step(store), int(written[-1]) - len(PEOPLE)
        step.checkpoint.history_id = start
        fix_horizon(conn, step)
        met, after = [], start
        while True:
            rows, following = next_history(conn, step, after, (subscription_history.c.contact_id,), size=3)
            met += [row.contact_id for row in rows]
            if following is None:
                return met, step.parameters.history_mark - start, step.parameters.history_upto - start
            after = following

    met, mark, upto = await store.write(work)
    assert met == [PEOPLE[7]]
    assert mark == 7, "the next run looks again where a transaction may still come in between"
    assert upto == len(PEOPLE)
