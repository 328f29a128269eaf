"""What explains, previews or counts a sync says of a row what the sync then does with it, whatever the row."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.clock import site_clock
from civiapi.store.schema.tables import METADATA, contact, email, group, group_contact
from sync.audience import CIVICRM, MAILCHIMP, SUBSCRIPTION, Audience, Privacy
from sync.connections.config import Config, Link
from sync.data.plugins import data_plugins
from sync.model import GroupStatus, MemberOperation, MemberStatus, OperationKind, SyncStatus
from sync.outbox.selection import has_ready
from sync.reconcile import categories
from sync.reconcile.bulk import settle_plain_rows
from sync.reconcile.categories import kind_of
from sync.reconcile.dead_contacts import drop_dead_contacts
from sync.reconcile.matching import PersonQuery, Range
from sync.reconcile.plan import Plan
from sync.reconcile.planning import change_addresses, plan_rows, reconcile_rows
from sync.reports.people.explain import explain
from sync.reports.people.troubleshoot import FAILED, why_failed
from sync.runs.impact import KINDS as COUNTED
from sync.runs.impact import count_plans
from sync.store.members.blobs import dump_data, load_data
from sync.store.members.member_codec import encode
from sync.store.tables import cache, update, update_detail
from sync.store.updates import queue
from tests.support.databases import raw_sqlite

LIST, GROUP, INTEREST_GROUP, INTEREST = "abc123", 12, 13, "i1"
PLUGINS = data_plugins()
CLOCK = site_clock("Europe/London")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = datetime(2026, 6, 1, 12, tzinfo=UTC)

MOMENTS = st.integers(0, 4).map(lambda hours: START + timedelta(hours=hours))
CHANGES = st.lists(
    st.tuples(st.sampled_from(list(GroupStatus)), st.sampled_from(("Admin", "MCsync")), MOMENTS), max_size=3
)
ROWS = st.fixed_dictionaries(
    {
        "status": st.sampled_from((None, *MemberStatus)),
        "since": st.none() | MOMENTS,
        "echo": st.none() | MOMENTS,
        "history": CHANGES,
        "interest_history": CHANGES,
        "interest": st.sampled_from((None, True, False)),
        "interest_since": st.none() | MOMENTS,
        "addresses": st.sampled_from(("own", "other", "own on hold", "none", "two")),
        "opted_out": st.booleans(),
        "open": st.sampled_from((None, "subscribed", "unsubscribed", "email", "tags")),
        "in_flight": st.booleans(),
        "refused": st.booleans(),
        "noted": st.booleans(),
        "has_contact": st.sampled_from((True, True, True, False)),
    }
)


@lru_cache
def _connection() -> Connection:
    raw = raw_sqlite(":memory:", isolation_level=None)
    conn = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool).connect()
    METADATA.create_all(conn)
    for group_id in (GROUP, INTEREST_GROUP):
        conn.execute(insert(group).values(id=group_id, name=str(group_id), title=str(group_id), frontend_title=""))
    return conn


@contextmanager
def a_world() -> Iterator[Connection]:
    """A database with the two groups; what the block writes is undone."""
    conn = _connection()
    conn.exec_driver_sql("SAVEPOINT world")
    try:
        yield conn
    finally:
        conn.exec_driver_sql("ROLLBACK TO SAVEPOINT world")


def make_row(conn: Connection, number: int, one: dict[str, Any]) -> None:
    address = f"person{number}@example.org"
    if one["has_contact"]:
        conn.execute(insert(contact).values(id=number, contact_type="Individual", is_opt_out=int(one["opted_out"])))
        for owned in {"other": (f"new{address}",), "none": (), "two": (address, f"new{address}")}.get(
            one["addresses"], (address,)
        ):
            on_hold = int(one["addresses"] == "own on hold")
            conn.execute(insert(email).values(contact_id=number, email=owned, is_primary=1, on_hold=on_hold))
        for group_id, history in ((GROUP, one["history"]), (INTEREST_GROUP, one["interest_history"])):
            for status, method, at in history:
                set_status(conn, group_id, [number], status, method=method, at=CLOCK.write(at))
    data = {"status": one["status"] or ""}
    for key, moment in (("status@", one["since"]), ("echo-status@", one["echo"])):
        data |= {key: compact(moment)} if moment else {}
    if one["interest"] is not None:
        data |= {f"interest-{INTEREST}": one["interest"]}
        data |= {f"interest-{INTEREST}@": compact(one["interest_since"])} if one["interest_since"] else {}
    member = {
        "mailchimp_member_id": f"{number:032x}",
        "mailchimp_email": address,
        "mailchimp_status": one["status"],
        "mailchimp_updated": CLOCK.write(START),
        "mailchimp_data": encode(data),
    }
    conn.execute(
        insert(cache).values(
            id=number,
            mailchimp_list_id=LIST,
            civicrm_contact_id=number if one["has_contact"] else None,
            civicrm_data=dump_data({"fail": "An old reason."}) if one["noted"] else None,
            **(member if one["status"] else {}),
        )
    )
    make_update(conn, number, address, one)
    conn.execute(cache.update().where(cache.c.id == number).values(sync_status=SyncStatus.TODO))


def make_update(conn: Connection, number: int, address: str, one: dict[str, Any]) -> None:
    """An update that is open, or one that Mailchimp refused for the contact's latest change."""
    path, kind = f"members/{number:032x}", one["open"]
    if one["refused"] and one["history"]:
        body = {"email_address": address, "status": "subscribed"}
        cause = one["history"][-1][2]
        row_id = queue(conn, number, MemberOperation(OperationKind.MEMBER, "PUT", path, body, cause))
        problem = '{"status": 400, "title": "Member In Compliance State", "detail": "No."}'
        conn.execute(update.update().where(update.c.id == row_id).values(completed=1, error_response=problem))
    elif kind is not None and one["status"]:
        status = {"status": kind} if kind in ("subscribed", "unsubscribed") else {}
        name = kind if kind in ("email", "tags") else OperationKind.MEMBER
        row_id = queue(conn, number, MemberOperation(name, "PUT", path, {"email_address": address, **status}))
        if one["in_flight"]:
            conn.execute(update.update().where(update.c.id == row_id).values(mailchimpsync_batch_id=1))


def compact(moment: datetime) -> str:
    return CLOCK.write(moment).replace("-", "").replace(":", "").replace(" ", "")


def snapshot(conn: Connection) -> dict[str, Any]:
    """Each row as it is, who is in which group, and the open updates of each row."""
    waiting = (
        select(update.c.mailchimpsync_cache_id, update.c.data, update_detail.c.kind)
        .join(update_detail, update_detail.c.update_id == update.c.id)
        .where(update.c.completed == 0, update.c.mailchimpsync_batch_id.is_(None))
    )
    found: dict[int, list[tuple[str, str]]] = {}
    for cache_id, data, kind in conn.execute(waiting):
        found.setdefault(cache_id, []).append((kind, data))
    standing = conn.execute(select(group_contact.c.group_id, group_contact.c.contact_id, group_contact.c.status))
    return {
        "rows": {row.id: row for row in conn.execute(select(cache))},
        "groups": {(row.group_id, row.contact_id): row.status for row in standing},
        "updates": found,
    }


def explained(conn: Connection, link: Link, number: int, has_contact: bool, privacy: Privacy) -> dict[str, Any]:
    query = PersonQuery(number) if has_contact else PersonQuery(None, f"person{number}@example.org")
    [entry] = explain(conn, Config({}, {}, {}), [link], CLOCK, query, privacy=privacy, plugins=PLUGINS)
    return entry


def check_effect(kind: str, number: int, before: dict[str, Any], after: dict[str, Any]) -> None:
    """The database after the sync shows what a plan of this kind promised."""
    status = after["rows"][number].sync_status
    was, now = (one["groups"].get((GROUP, number)) for one in (before, after))
    sent = dict(after["updates"].get(number, ()))
    if kind in (categories.JOIN_GROUP, categories.LEAVE_GROUP):
        assert was != now == (GroupStatus.ADDED if kind == categories.JOIN_GROUP else GroupStatus.REMOVED)
    else:
        assert was == now
    if kind in (categories.SUBSCRIBE, categories.UNSUBSCRIBE):
        asked = '"status":"subscribed"' if kind == categories.SUBSCRIBE else '"status":"unsubscribed"'
        assert asked in sent["member"]
        assert status == SyncStatus.LIVE
    elif kind == categories.CANNOT:
        assert status == SyncStatus.FAIL
    elif kind == categories.IN_STEP:
        assert status == SyncStatus.OK
        assert not sent
    elif kind == categories.UNDER_WAY:
        assert status == SyncStatus.LIVE


def reconcile_as_a_run_does(conn: Connection, audience: Audience, ids: Sequence[int]) -> None:
    change_addresses(conn, audience, plan_rows(conn, audience, ids), AT)
    todo = select(cache.c.id).where(cache.c.sync_status == SyncStatus.TODO, cache.c.id.in_(ids))
    settle_plain_rows(conn, audience, Range(0, 1000, list(conn.execute(todo).scalars())), AT)
    reconcile_rows(conn, audience, list(conn.execute(todo).scalars()), AT)


@pytest.mark.parametrize("interests", [{}, {INTEREST: INTEREST_GROUP}], ids=["no interests", "an interest"])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=3),
    trust=st.sampled_from(({}, {SUBSCRIPTION: MAILCHIMP}, {SUBSCRIPTION: CIVICRM})),
    privacy=st.sampled_from(Privacy),
)
def test_explanation_brake_and_preview_say_what_the_sync_does(
    interests: dict[str, int], rows: list[dict[str, Any]], trust: dict[str, str], privacy: Privacy
) -> None:
    link = Link(LIST, GROUP, "key-us1", interests=interests, trust_override=trust)
    audience = link.audience(CLOCK, privacy=privacy)
    ids = list(range(1, len(rows) + 1))
    with a_world() as conn:
        for number, one in enumerate(rows, 1):
            make_row(conn, number, one)
        entries = {i: explained(conn, link, i, rows[i - 1]["has_contact"], privacy) for i in ids}
        counted, _ = count_plans(conn, audience, COUNTED, 0, 1000)
        reasons = why_failed(conn, audience, ids)
        before = snapshot(conn)

        watched: list[Plan] = []
        trial = conn.begin_nested()
        reconcile_rows(conn, audience, ids, AT, lambda _, plan: watched.append(plan))
        trial.rollback()
        reconcile_as_a_run_does(conn, audience, ids)
        after = snapshot(conn)

    previewed: dict[int, Plan] = {}
    for plan in watched:
        previewed.setdefault(plan.facts.cache_id, plan)
    for i in ids:
        first = previewed[i]
        assert (entries[i]["kind"], entries[i]["decision"]) == (kind_of(first), first.decision.name.lower()), rows[
            i - 1
        ]
        noted = load_data(after["rows"][i].civicrm_data).get("fail")
        if not first.is_address:
            check_effect(kind_of(first), i, before, after)
            assert (noted is not None) == (kind_of(first) == categories.CANNOT)
        if kind_of(first) == categories.CANNOT:
            assert noted == first.reason == entries[i]["reason"]
            assert rows[i - 1]["noted"] or reasons[i] == noted or reasons[i] == FAILED
    planned = Counter(kind_of(one) for one in previewed.values() if one.facts.contact_id is not None)
    for kind in (categories.LEAVE_GROUP, categories.UNSUBSCRIBE, categories.SUBSCRIBE):
        assert counted[kind] == planned[kind]


@pytest.mark.parametrize("waiting", ["subscribed", "email", "tags"])
def test_nothing_is_sent_for_a_contact_that_is_gone(waiting: str) -> None:
    one: dict[str, Any] = {
        "status": MemberStatus.UNSUBSCRIBED, "since": START, "echo": None, "interest": None, "interest_since": None,
        "history": [(GroupStatus.ADDED, "Admin", AT)], "interest_history": [], "addresses": "own",
        "opted_out": False, "open": waiting, "in_flight": False, "refused": False, "noted": False, "has_contact": True,
    }  # fmt: skip
    audience = Link(LIST, GROUP, "key-us1").audience(CLOCK)
    with a_world() as conn:
        make_row(conn, 1, one)
        assert has_ready(conn, LIST)
        conn.execute(contact.update().where(contact.c.id == 1).values(is_deleted=1))
        drop_dead_contacts(conn, audience, Range(0, 1))
        reconcile_rows(conn, audience, [1], AT)
        assert not has_ready(conn, LIST)
        assert conn.execute(select(cache.c.sync_status)).scalar_one() == SyncStatus.OK


def test_a_row_whose_address_was_given_up_is_planned_again_once_that_is_applied() -> None:
    one: dict[str, Any] = {
        "status": MemberStatus.SUBSCRIBED, "since": START, "echo": None, "interest": None, "interest_since": None,
        "history": [(GroupStatus.ADDED, "Admin", START)], "interest_history": [], "addresses": "other",
        "opted_out": False, "open": None, "in_flight": False, "refused": False, "noted": False, "has_contact": True,
    }  # fmt: skip
    audience = replace(Link(LIST, GROUP, "key-us1").audience(CLOCK))
    with a_world() as conn:
        make_row(conn, 1, one)
        watched: list[Plan] = []
        reconcile_rows(conn, audience, [1], AT, lambda _, plan: watched.append(plan))
    assert [kind_of(plan) for plan in watched] == [categories.CHANGE_ADDRESS, categories.UNDER_WAY]
