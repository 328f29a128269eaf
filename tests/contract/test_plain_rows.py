"""Rows that are settled together end as they would have if each had been looked at by itself, on both databases."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import phpserialize
import pytest
from sqlalchemy import Connection, Table, insert, select

from civiapi.store.clock import site_clock
from civiapi.store.engine import open_store
from civiapi.store.groups import set_status
from civiapi.store.migrate import migrate
from civiapi.store.tables import contact, email, group, group_contact, subscription_history
from sync.apply import Applied, apply_plans
from sync.audience import Audience
from sync.facts import facts_for
from sync.matching import Range
from sync.member_data import encode
from sync.plain_rows import settle_plain_rows
from sync.reconcile import plan
from sync.stored import dump_data
from sync.tables import cache, daily, update, update_detail
from sync.updates import Wanted, queue
from tests.contract.databases import KINDS, a_database

LIST, GROUP = "abc123", 12
AUDIENCE = Audience(LIST, GROUP, site_clock("Europe/London"))
AT = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
SAID, CHANGED = "20260401120000", "2026-04-02 12:00:00"

STATUSES = (None, "subscribed", "pending", "unsubscribed", "cleaned", "archived")
WORDS = {
    "never heard of": (),
    "in the group": (("Added", "Admin"),),
    "put there by the sync": (("Added", "MCsync"),),
    "out of the group": (("Added", "Admin"), ("Removed", "Web")),
    "pending in the group": (("Pending", "Web"),),
    "taken away altogether": (("Added", "Admin"), ("Deleted", "Admin")),
    "in the group without history": None,
}
KNOWN = {
    "nothing": None,
    "names and times": encode({"status": "subscribed", "status@": SAID, "first_name": "Zoë", "first_name@": SAID}),
    "an echo already": encode({"status@": SAID, "echo-status@": "20250101000000"}),
    "the extension's form": phpserialize.dumps({b"first_name": b"Ada", b"interests": {}}),
    "rubbish": b"rubbish",
}
UNDER_WAY = ("nothing", "something waits", "something is done")
FAILED = (None, dump_data({"fail": "No."}), dump_data({"tags": ["a"]}))

DUMPED: tuple[Table, ...] = (cache, group_contact, subscription_history, update, update_detail, daily)


def people() -> Iterator[dict[str, Any]]:
    for has_contact, status, words, known in product((True, False), STATUSES, WORDS, KNOWN):
        if has_contact or (words == "never heard of" and status):
            yield {"has_contact": has_contact, "status": status, "words": words, "known": known}
    for status, words, owed, failed in product(STATUSES, WORDS, UNDER_WAY, range(len(FAILED))):
        yield {"status": status, "words": words, "owed": owed, "failed": failed}


def make_world(conn: Connection) -> None:
    conn.execute(insert(group).values(id=GROUP, name="News", title="News", frontend_title="News"))
    for number, one in enumerate(people(), 1):
        make_person(conn, number, **one)
    twice = {"mailchimp_list_id": LIST, "civicrm_contact_id": 1, "sync_status": "todo"}
    second = {"mailchimp_member_id": "z" * 32, "mailchimp_email": "two@example.org", "mailchimp_status": "subscribed"}
    conn.execute(insert(cache).values(**twice, **second))


def make_person(
    conn: Connection,
    number: int,
    *,
    status: str | None,
    words: str,
    has_contact: bool = True,
    known: str = "names and times",
    owed: str = "nothing",
    failed: int = 0,
) -> None:
    address = f"person{number}@example.org"
    if has_contact:
        conn.execute(insert(contact).values(id=number, contact_type="Individual", first_name="Ada"))
        conn.execute(insert(email).values(contact_id=number, email=address, is_primary=1))
        spoken = WORDS[words]
        for month, (said, method) in enumerate(spoken or (), 1):
            set_status(conn, GROUP, [number], said, method=method, at=f"2026-0{month}-01 09:00:00")
        if spoken is None:
            conn.execute(insert(group_contact).values(group_id=GROUP, contact_id=number, status="Added"))
    member = {
        "mailchimp_member_id": f"{number:032x}",
        "mailchimp_email": address,
        "mailchimp_status": status,
        "mailchimp_updated": CHANGED,
        "mailchimp_data": KNOWN[known],
    }
    made = conn.execute(
        insert(cache).values(
            mailchimp_list_id=LIST,
            civicrm_contact_id=number if has_contact else None,
            civicrm_data=FAILED[failed],
            sync_status="todo",
            **(member if status else {}),
        )
    )
    row_id = int(made.lastrowid)
    if owed != "nothing":
        update_id = queue(conn, row_id, Wanted("member", "PUT", f"members/{number:032x}", {"email_address": address}))
        if owed == "something is done":
            conn.execute(update.update().where(update.c.id == update_id).values(completed=1))
        conn.execute(cache.update().where(cache.c.id == row_id).values(sync_status="todo"))


def one_by_one(conn: Connection) -> Applied:
    ids = list(conn.execute(select(cache.c.id).where(cache.c.sync_status == "todo").order_by(cache.c.id)).scalars())
    return apply_plans(conn, AUDIENCE, [plan(one, AUDIENCE) for one in facts_for(conn, AUDIENCE, ids, lean=True)], AT)


def together_first(conn: Connection) -> Applied:
    settled = settle_plain_rows(conn, AUDIENCE, Range(0, 100_000, only_todo=True), AT)
    assert settled.rows > 50
    rest = one_by_one(conn)
    assert rest.rows > 50
    return Applied(
        settled.rows + rest.rows,
        settled.joined + rest.joined,
        settled.left + rest.left,
        settled.updates + rest.updates,
        settled.failed + rest.failed,
    )


def outcome(conn: Connection, road: Callable[[Connection], Applied]) -> dict[str, Any]:
    """What a road makes of the world, which is then as it was."""
    conn.exec_driver_sql("SAVEPOINT before_it")
    found: dict[str, Any] = {"applied": road(conn)}
    for table in DUMPED:
        columns = [one for one in table.c if table is cache or one.name not in ("id", "update_id")]
        found[table.name] = sorted(map(repr, conn.execute(select(*columns)).all()))
    conn.exec_driver_sql("ROLLBACK TO SAVEPOINT before_it")
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_settled_together_rows_end_as_each_would_have_alone(kind: str, tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        store = await open_store(url, "Europe/London")
        await migrate(store)

        def both(conn: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
            make_world(conn)
            return outcome(conn, one_by_one), outcome(conn, together_first)

        alone, together = await store.write(both)
        await store.close()
    assert together.pop("applied").as_counts() == alone.pop("applied").as_counts()
    for name, rows in alone.items():
        differences = [pair for pair in zip(rows, together[name], strict=True) if pair[0] != pair[1]]
        assert not differences, name
