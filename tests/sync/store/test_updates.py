"""What is owed to Mailchimp: one waiting and one in flight for each row and slot, the last wish standing."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, insert, select
from sqlalchemy import update as change

from civiapi.store.engine import Store
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation, OpenUpdate
from sync.store.tables import batch, cache, update
from sync.store.updates import OVERTAKEN, open_updates, overtake_waiting, queue, queue_many
from tests.support.linked_site import subscribing, unsubscribing

ADA = "ada@example.org"
NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
TAGS = MemberOperation(
    "tags", "POST", f"members/{subscriber_hash(ADA)}/tags", {"tags": [{"name": "A", "status": "active"}]}
)
MOVE = MemberOperation("email", "PATCH", f"members/{subscriber_hash(ADA)}", {"email_address": "new@example.org"})
ARCHIVE = MemberOperation("archive", "DELETE", f"members/{subscriber_hash(ADA)}")
JOIN, LEAVE = subscribing(ADA, cause=NOON), unsubscribing(ADA, cause=NOON)


@pytest.fixture
async def row(store: Store) -> int:
    return await store.write(a_row)


def a_row(conn: Connection, status: str = "todo") -> int:
    values = {"mailchimp_list_id": "list_1", "mailchimp_email": ADA, "mailchimp_member_id": subscriber_hash(ADA)}
    return int(conn.execute(insert(cache).values(sync_status=status, **values)).lastrowid)


def send(conn: Connection, cache_id: int) -> int:
    """Put what waits for a row into a batch."""
    batch_id = int(conn.execute(insert(batch).values(mailchimp_list_id="list_1", status="pending")).lastrowid)
    waiting = (update.c.mailchimpsync_cache_id == cache_id) & update.c.mailchimpsync_batch_id.is_(None)
    conn.execute(change(update).where(waiting).values(mailchimpsync_batch_id=batch_id))
    return batch_id


async def owed(store: Store, row: int) -> list[OpenUpdate]:
    return (await store.read(open_updates, [row])).get(row, [])


async def sync_status(store: Store, row: int) -> str:
    wanted = select(cache.c.sync_status).where(cache.c.id == row)
    return str(await store.read(lambda conn: conn.execute(wanted).scalar()))


async def test_a_wish_is_owed_and_read_back_as_it_was(store: Store, row: int) -> None:
    update_id = await store.write(queue, row, JOIN)
    [one] = await owed(store, row)
    assert (one.id, one.operation, one.in_flight, one.tries) == (update_id, JOIN, False, 0)
    assert await sync_status(store, row) == "live"


async def test_the_last_wish_takes_the_place_of_one_that_waits_which_stays_with_the_reason(
    store: Store, row: int
) -> None:
    first = await store.write(queue, row, JOIN)
    second = await store.write(queue, row, LEAVE)
    assert [(one.id, one.operation) for one in await owed(store, row)] == [(second, LEAVE)]
    columns = (update.c.id, update.c.data, update.c.completed, update.c.error_response)
    [old, _] = await store.read(lambda conn: conn.execute(select(*columns).order_by(update.c.id)).all())
    assert (old.id, orjson.loads(old.data), old.completed) == (first, JOIN.body, 1)
    assert old.error_response.startswith(f"{OVERTAKEN}: a newer update")


async def test_a_wish_that_waits_already_is_not_queued_again(store: Store, row: int) -> None:
    assert await store.write(queue, row, JOIN) == await store.write(queue, row, JOIN)


async def test_what_is_in_flight_is_not_owed_again(store: Store, row: int) -> None:
    first = await store.write(queue, row, JOIN)
    await store.write(send, row)
    assert await store.write(queue, row, JOIN) == first
    assert len(await owed(store, row)) == 1


async def test_a_wish_for_less_than_is_in_flight_is_covered_by_it(store: Store, row: int) -> None:
    first = await store.write(queue, row, subscribing(ADA, interests={"i1": True}))
    await store.write(send, row)
    assert await store.write(queue, row, JOIN) == first


async def test_a_wish_for_more_than_is_in_flight_waits_behind_it(store: Store, row: int) -> None:
    await store.write(queue, row, JOIN)
    await store.write(send, row)
    await store.write(queue, row, subscribing(ADA, interests={"i1": True}))
    assert [one.in_flight for one in await owed(store, row)] == [True, False]


async def test_another_wish_waits_behind_the_one_in_flight(store: Store, row: int) -> None:
    await store.write(queue, row, JOIN)
    await store.write(send, row)
    await store.write(queue, row, LEAVE)
    assert [(one.operation, one.in_flight) for one in await owed(store, row)] == [(JOIN, True), (LEAVE, False)]


async def test_a_change_of_mind_back_to_what_is_in_flight_drops_what_waited(store: Store, row: int) -> None:
    flying = await store.write(queue, row, JOIN)
    await store.write(send, row)
    await store.write(queue, row, LEAVE)
    assert await store.write(queue, row, JOIN) == flying
    assert [one.id for one in await owed(store, row)] == [flying]


@pytest.mark.parametrize("is_sent", [False, True], ids=["waiting", "in flight"])
async def test_pending_is_not_turned_back_into_subscribed(store: Store, row: int, is_sent: bool) -> None:
    first = await store.write(queue, row, subscribing(ADA, status="pending", status_if_new="pending"))
    if is_sent:
        await store.write(send, row)
    again = await store.write(queue, row, JOIN)
    assert (again == first) is is_sent
    [one] = await owed(store, row)
    assert (one.operation.body["status"], one.operation.body["status_if_new"]) == ("pending", "pending")


async def test_tags_address_and_member_do_not_take_each_other_s_place(store: Store, row: int) -> None:
    ids = await store.write(queue_many, [(row, TAGS), (row, JOIN), (row, MOVE)])
    assert len(set(ids)) == 3
    assert {one.operation.kind for one in await owed(store, row)} == {"tags", "member", "email"}


async def test_archiving_takes_the_place_of_a_member_update(store: Store, row: int) -> None:
    await store.write(queue_many, [(row, JOIN), (row, ARCHIVE)])
    assert [one.operation for one in await owed(store, row)] == [ARCHIVE]


async def test_many_wishes_get_their_ids_in_order(store: Store) -> None:
    rows = [await store.write(a_row) for _ in range(5)]
    wishes = [(one, wanted) for one in rows for wanted in (JOIN, TAGS)]
    ids = await store.write(queue_many, wishes)
    stored = await store.read(open_updates, rows)
    by_id = {one.id: (cache_id, one.operation) for cache_id, found in stored.items() for one in found}
    assert [by_id[one] for one in ids] == wishes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("ok", "live", id="A row at rest is live while its tags are under way."),
        pytest.param("todo", "todo", id="A row to be thought about stays so: tags hide nothing."),
        pytest.param("fail", "fail", id="A failed row stays so."),
    ],
)
async def test_tags_alone(store: Store, before: str, after: str) -> None:
    row = await store.write(a_row, before)
    await store.write(queue, row, TAGS)
    assert await sync_status(store, row) == after


async def test_what_waits_can_be_dropped_and_what_is_in_flight_not(store: Store, row: int) -> None:
    await store.write(queue, row, JOIN)
    await store.write(send, row)
    await store.write(queue_many, [(row, LEAVE), (row, TAGS)])
    assert await store.write(overtake_waiting, row, "they left") == 1
    assert [one.operation for one in await owed(store, row)] == [JOIN, TAGS]


class TestRowsTheExtensionLeft:
    """Updates without a detail of ours."""

    @pytest.fixture
    async def left(self, store: Store, row: int) -> tuple[int, int]:
        def leave(conn: Connection) -> int:
            body = '{"email_address":"ada@example.org","status":"subscribed"}'
            return int(conn.execute(insert(update).values(mailchimpsync_cache_id=row, data=body)).lastrowid)

        return row, await store.write(leave)

    async def test_count_as_member_updates_of_the_member_we_know(self, store: Store, left: tuple[int, int]) -> None:
        [one] = await owed(store, left[0])
        assert (one.operation.kind, one.operation.method) == ("member", "PUT")
        assert one.operation.path_tail == f"members/{subscriber_hash(ADA)}"

    async def test_are_about_another_member_when_they_name_another_address(self, store: Store, row: int) -> None:
        def leave(conn: Connection) -> Any:
            body = '{"email_address":"other@example.org","status":"subscribed"}'
            conn.execute(insert(update).values(mailchimpsync_cache_id=row, data=body))

        await store.write(leave)
        [one] = await owed(store, row)
        assert one.operation.path_tail == f"members/{subscriber_hash('other@example.org')}"

    async def test_give_way_to_a_wish(self, store: Store, left: tuple[int, int]) -> None:
        row, update_id = left
        assert await store.write(queue, row, LEAVE) != update_id
        assert [one.operation for one in await owed(store, row)] == [LEAVE]

    async def test_stand_beside_tags(self, store: Store, left: tuple[int, int]) -> None:
        row, update_id = left
        assert await store.write(queue, row, TAGS) != update_id
        assert {one.operation.kind for one in await owed(store, row)} == {"member", "tags"}

    async def test_that_hold_no_json_are_empty(self, store: Store, row: int) -> None:
        await store.write(
            lambda conn: conn.execute(insert(update).values(mailchimpsync_cache_id=row, data="{broken")) and None
        )
        [one] = await owed(store, row)
        assert one.operation.body == {}


async def test_what_is_overtaken_stays_with_the_reason(store: Store, row: int) -> None:
    update_id = await store.write(queue, row, JOIN)
    await store.write(overtake_waiting, row, "they left")
    columns = (update.c.id, update.c.completed, update.c.error_response)
    rows = await store.read(lambda conn: conn.execute(select(*columns)).all())
    assert [tuple(one) for one in rows] == [(update_id, 1, f"{OVERTAKEN}: they left")]
