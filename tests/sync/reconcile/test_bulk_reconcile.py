"""Rows that are settled together end as they would have if each had been looked at by itself, on both databases."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import phpserialize
import pytest
from sqlalchemy import Connection, Table, insert, select

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.clock import site_clock
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import contact, email, group, group_contact, subscription_history
from sync.audience import Audience, Privacy
from sync.model import MemberOperation
from sync.reconcile.apply import Applied
from sync.reconcile.bulk import settle_plain_rows
from sync.reconcile.matching import Range
from sync.reconcile.planning import reconcile_rows
from sync.store.members.blobs import dump_data
from sync.store.members.member_codec import encode
from sync.store.members.privacy import OBJECTIONS
from sync.store.tables import cache, daily, update, update_detail
from sync.store.updates import queue
from tests.support.databases import KINDS, a_database

LIST, GROUP = "abc123", 12
KEEP = Audience(LIST, GROUP, site_clock("Europe/London"))
UNSUBSCRIBE = replace(KEEP, privacy=Privacy.UNSUBSCRIBE)
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
    "interests": encode({"status": "pending", "status@": SAID, "interest-a1": True, "interest-a1@": SAID}),
    "no time": encode({"status": "subscribed", "status@": "", "first_name": f's:7:"status@";s:14:"{SAID}";'}),
    "an odd time": encode({"status": "subscribed", "status@": "2026-04-01 12:"}),
    "a name like ours": encode({"status@": SAID, "first_name": 's:12:"echo-status@";s:14:"20250101000000";}'}),
    "a name of bytes": encode({"status@": SAID, "first_name": "\x00}{Ünal😀"}),
    "another head": encode({"status@": SAID}).replace(b"a:1:{", b"a:x:{"),
}
UNDER_WAY = ("nothing", "something waits", "something is done")
FAILED = (None, dump_data({"fail": "No."}), dump_data({"tags": ["a"]}))

DUMPED: tuple[Table, ...] = (cache, group_contact, subscription_history, update, update_detail, daily)


def people() -> Iterator[dict[str, Any]]:
    for has_contact, status, words, known in product((True, False), STATUSES, WORDS, KNOWN):
        if has_contact or (words == "never heard of" and status):
            yield {"has_contact": has_contact, "status": status, "words": words, "known": known}
    for status, words, objection in product(STATUSES, WORDS, OBJECTIONS):
        yield {"status": status, "words": words, "objection": objection[0]}
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
    objection: str = "",
) -> None:
    address = f"person{number}@example.org"
    if has_contact:
        flags = {objection: 1} if objection else {}
        conn.execute(insert(contact).values(id=number, contact_type="Individual", first_name="Ada", **flags))
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
        update_id = queue(
            conn, row_id, MemberOperation("member", "PUT", f"members/{number:032x}", {"email_address": address})
        )
        if owed == "something is done":
            conn.execute(update.update().where(update.c.id == update_id).values(completed=1))
        conn.execute(cache.update().where(cache.c.id == row_id).values(sync_status="todo"))


def one_by_one(conn: Connection, audience: Audience) -> Applied:
    return reconcile_rows(conn, audience, todo_rows(conn), AT)


def todo_rows(conn: Connection) -> list[int]:
    return list(conn.execute(select(cache.c.id).where(cache.c.sync_status == "todo").order_by(cache.c.id)).scalars())


def together_first(conn: Connection, audience: Audience) -> Applied:
    settled = settle_plain_rows(conn, audience, Range(0, 100_000, todo_rows(conn)), AT)
    assert settled.rows > 50
    rest = one_by_one(conn, audience)
    assert rest.rows > 50
    return Applied(
        settled.rows + rest.rows,
        settled.joined + rest.joined,
        settled.left + rest.left,
        settled.updates + rest.updates,
        settled.failed + rest.failed,
    )


def outcome(conn: Connection, road: Callable[[Connection, Audience], Applied], audience: Audience) -> dict[str, Any]:
    """What a road makes of the world, which is then as it was."""
    conn.exec_driver_sql("SAVEPOINT before_it")
    found: dict[str, Any] = {"applied": road(conn, audience)}
    for table in DUMPED:
        columns = [one for one in table.c if table is cache or one.name not in ("id", "update_id")]
        found[table.name] = sorted(map(repr, conn.execute(select(*columns)).all()))
    conn.exec_driver_sql("ROLLBACK TO SAVEPOINT before_it")
    return found


@pytest.mark.parametrize("audience", [KEEP, UNSUBSCRIBE], ids=["keep", "unsubscribe"])
@pytest.mark.parametrize("kind", KINDS)
async def test_settled_together_rows_end_as_each_would_have_alone(
    kind: str, audience: Audience, tmp_path: Path
) -> None:
    with a_database(kind, tmp_path) as url:
        store = await open_store(url, "Europe/London")
        await migrate(store)

        def both(conn: Connection) -> tuple[dict[str, Any], dict[str, Any]]:
            make_world(conn)
            return outcome(conn, one_by_one, audience), outcome(conn, together_first, audience)

        alone, together = await store.write(both)
        await store.close()
    assert together.pop("applied").as_counts() == alone.pop("applied").as_counts()
    for name, rows in alone.items():
        differences = [pair for pair in zip(rows, together[name], strict=True) if pair[0] != pair[1]]
        assert not differences, name
