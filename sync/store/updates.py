"""Updates for Mailchimp: what waits, what is in flight, and how a new operation replaces either.

An update is one call that Mailchimp is to carry out for one cache row. The extension's table holds its body,
``civiapi_update`` the rest; an update of the extension has no such detail and counts as a member update. An open
update is *waiting* (no batch) or *in flight* (in a batch without results).

A row has up to four kind groups: ``email``, ``member`` (with archiving), ``names`` and ``tags``, sent in that order.
In each at most one update waits and one is in flight. A new operation overtakes the waiting one, which is completed
with that reason; one that is in flight already is not queued again. What was sent is noted in the member's data when it
is put into a batch: only then can it echo.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Select, func, not_, select
from sqlalchemy import update as change

from civiapi.store.databases.bulk import insert_rows
from civiapi.store.databases.expressions import in_list, unindexed
from sync.mailchimp.wire import body_from_wire, body_to_wire, subscriber_hash
from sync.model import MemberOperation, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, update, update_detail

OVERTAKEN = "Overtaken"


def queue(conn: Connection, cache_id: int, operation: MemberOperation) -> int:
    """Queue *operation* for a cache row, which is ``live`` afterwards; returns the update's id (see `queue_many`)."""
    return queue_many(conn, [(cache_id, operation)])[0]


def queue_many(conn: Connection, operations: Iterable[tuple[int, MemberOperation]]) -> list[int]:
    """Queue each operation for its cache row and return the update ids, in order; the rows are ``live`` afterwards.

    An operation in flight with the same content is not queued again; the waiting one of its kind group is overtaken.
    Otherwise the operation overtakes the waiting one, or waits behind the one in flight. ``subscribed`` becomes
    ``pending`` where that is queued: Mailchimp has refused the other. Data makes a row ``live`` only if it was ``ok``.
    Rows must exist; of several operations of one kind group for a row the last counts.
    """
    part = list(operations)
    cache_ids = list(dict.fromkeys(cache_id for cache_id, _ in part))
    slots: dict[tuple[int, str], list[OpenUpdate]] = defaultdict(list)
    for cache_id, opened in open_updates(conn, cache_ids).items():
        for one in opened:
            slots[cache_id, one.operation.kind_group].append(one)
    changes = _Changes()
    ids = [_place(changes, slots[cache_id, operation.kind_group], cache_id, operation) for cache_id, operation in part]
    overtake(conn, changes.dropped, "a newer update of the same member, or one on its way, replaces it.")
    known = _write_fresh(conn, list(changes.fresh.values()))
    _set_live(conn, part)
    return [known.get(one, one) for one in ids]


def open_updates(
    conn: Connection, cache_ids: Sequence[int], *, but: Collection[int] = ()
) -> dict[int, list[OpenUpdate]]:
    """The open updates of these rows by cache id, oldest first, *but* these; rows without one are left out."""
    if not cache_ids:
        return {}
    found: dict[int, list[OpenUpdate]] = defaultdict(list)
    theirs = select_updates().where(
        in_list(update.c.mailchimpsync_cache_id, cache_ids), unindexed(update.c.completed) == 0
    )
    for row in conn.execute(theirs.where(not_(in_list(update.c.id, but))) if but else theirs).all():
        found[row.cache_id].append(read_update(row))
    return dict(found)


def owes_something() -> ColumnElement[bool]:
    """A cache row has an open update, waiting or in flight; a condition for set statements."""
    still_open = unindexed(update.c.completed) == 0  # a row has few
    opened = select(update.c.id).where(update.c.mailchimpsync_cache_id == cache.c.id, still_open)
    return opened.correlate(cache).exists()


def overtake_waiting(conn: Connection, cache_id: int, why: str, groups: Iterable[str] = ("member",)) -> int:
    """Complete what waits for a row in *groups*; what is in flight stays. Returns how many updates that were.

    The row's sync status is the caller's to set: it depends on why nothing is open any more.
    """
    chosen = set(groups)
    gone = [
        one.id
        for one in open_updates(conn, [cache_id]).get(cache_id, [])
        if not one.in_flight and one.operation.kind_group in chosen
    ]
    overtake(conn, gone, why)
    return len(gone)


def overtaken(why: str) -> str:
    """What an update that came to nothing has in place of Mailchimp's error."""
    return f"{OVERTAKEN}: {why}"


MEMBER_GONE = overtaken("the member is no longer at Mailchimp.")


def overtake(conn: Connection, update_ids: Sequence[int], why: str) -> None:
    """Complete updates that will not be sent, with the reason: nothing queued is deleted without a trace."""
    if update_ids:
        values = {"completed": 1, "error_response": overtaken(why)}
        conn.execute(change(update).where(in_list(update.c.id, update_ids)).values(values))


def was_overtaken() -> ColumnElement[bool]:
    """A completed update was not refused but overtaken; a condition on the table of updates."""
    return func.coalesce(func.substr(update.c.error_response, 1, len(OVERTAKEN)), "") == OVERTAKEN


def select_updates() -> Select[Any]:
    """Every update with its detail and what its cache row says of the member, oldest first; add a WHERE."""
    return _UPDATES


_UPDATES = (
    select(
        update.c.id,
        update.c.mailchimpsync_cache_id.label("cache_id"),
        update.c.mailchimpsync_batch_id.label("batch_id"),
        update.c.data,
        update_detail.c.kind,
        update_detail.c.method,
        update_detail.c.path_tail,
        update_detail.c.cause_s,
        update_detail.c.decided_s,
        update_detail.c.tries,
        cache.c.mailchimp_member_id,
        cache.c.mailchimp_email,
    )
    .select_from(update)
    .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
    .outerjoin(update_detail, update_detail.c.update_id == update.c.id)
    .order_by(update.c.id)
)
"""Built once: it is used often."""


def read_update(row: Row[*tuple[Any, ...]]) -> OpenUpdate:
    """An update from a row of `select_updates`; without a detail, the extension's member update."""
    body = read_body(row.data)
    if row.kind is None:
        operation = MemberOperation(OperationKind.MEMBER, "PUT", f"members/{_member_of(body, row)}", body)
    else:
        cause, decided = _moment(row.cause_s), _moment(row.decided_s)
        operation = MemberOperation(row.kind, row.method, row.path_tail, body, cause, decided)
    return OpenUpdate(row.id, row.cache_id, row.batch_id, operation, row.tries or 0)


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def read_body(text: str | None) -> dict[str, Any]:
    """The body of an update, permissions among its interests; nothing where it is no JSON object (the extension may
    have left anything)."""
    try:
        body = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return body_from_wire(body) if isinstance(body, dict) else {}


def write_body(body: Mapping[str, Any]) -> str:
    """A body as the extension's ``data`` column keeps it: as it is sent, because the extension sends what it finds."""
    return orjson.dumps(body_to_wire(body)).decode()


def _member_of(body: Mapping[str, Any], row: Row[Any]) -> str:
    """The member id of an update of the extension: that of the row, unless the body has another address."""
    email = str(body.get("email_address") or row.mailchimp_email or "")
    known = row.mailchimp_member_id
    if known and (not email or email.strip().lower() == str(row.mailchimp_email or "").strip().lower()):
        return str(known)
    return subscriber_hash(email)


# ── What a new operation replaces ───────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Changes:
    """What operations change: *fresh* updates by a negative number that stands for their id until they are inserted."""

    fresh: dict[int, OpenUpdate] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)


def _set_live(conn: Connection, part: Sequence[tuple[int, MemberOperation]]) -> None:
    """Mark these rows ``live``; one for which only data is queued, only if it was ``ok``: it may have to be
    reconciled."""
    whole = {cache_id for cache_id, operation in part if not operation.is_data}
    data_only = {cache_id for cache_id, _ in part} - whole
    set_sync_status(conn, whole, SyncStatus.LIVE)
    set_sync_status(conn, data_only, SyncStatus.LIVE, only=(SyncStatus.OK,))


def _place(changes: _Changes, opened: list[OpenUpdate], cache_id: int, operation: MemberOperation) -> int:
    """Combine one operation with *opened*, the open updates of its kind group, and return the update's id."""
    flying = next((one for one in opened if one.in_flight), None)
    all_waiting = [one for one in opened if not one.in_flight]
    for surplus in all_waiting[:-1]:  # the extension may leave several
        _drop(changes, opened, surplus)
    waiting = all_waiting[-1] if all_waiting else None
    operation = _keep_pending(operation, waiting or flying)
    if flying is not None and covers(flying.operation, operation):
        if waiting is not None:
            _drop(changes, opened, waiting)
        return flying.id
    if waiting is not None and waiting.operation == operation:
        return waiting.id
    number = min(changes.fresh, default=0) - 1
    if waiting is not None:
        if waiting.id < 0:  # of this very call: it was never owed
            number = waiting.id
        _drop(changes, opened, waiting)
    fresh = OpenUpdate(number, cache_id, None, operation)
    changes.fresh[number] = fresh
    opened.append(fresh)
    return number


def is_under_way(opened: Sequence[OpenUpdate], operation: MemberOperation) -> bool:
    """True when an operation in flight among the open updates *opened* has the same effect as this operation."""
    mine = [one for one in opened if one.operation.kind_group == operation.kind_group]
    flying = next((one for one in mine if one.in_flight), None)
    waiting = next((one for one in reversed(mine) if not one.in_flight), None)
    return flying is not None and covers(flying.operation, _keep_pending(operation, waiting or flying))


def covers(sent: MemberOperation, operation: MemberOperation) -> bool:
    """True when carrying out *sent* brings about all that *operation* asks: the same call, and no other value in it."""
    same_call = (sent.method, sent.path_tail) == (operation.method, operation.path_tail)
    return same_call and _contains(sent.body, operation.body)


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


def _keep_pending(operation: MemberOperation, opened: OpenUpdate | None) -> MemberOperation:
    """The operation, asking for pending where that is queued already: Mailchimp refused to subscribe the member."""
    is_pending = opened is not None and opened.operation.body.get("status") == MemberStatus.PENDING
    return (
        operation.as_pending() if is_pending and operation.body.get("status") == MemberStatus.SUBSCRIBED else operation
    )


def _drop(changes: _Changes, opened: list[OpenUpdate], waiting: OpenUpdate) -> None:
    opened.remove(waiting)
    if waiting.id < 0:
        del changes.fresh[waiting.id]
    else:
        changes.dropped.append(waiting.id)


def _write_fresh(conn: Connection, fresh: Sequence[OpenUpdate]) -> dict[int, int]:
    """Insert these updates with their details; returns stand-in → id."""
    if not fresh:
        return {}
    newest = conn.execute(select(func.max(update.c.id))).scalar() or 0
    bodies = [(one.cache_id, write_body(one.operation.body)) for one in fresh]
    insert_rows(conn, update, ("mailchimpsync_cache_id", "data"), bodies)
    numbers = _ids_of_fresh(conn, {one.cache_id for one in fresh}, newest)
    ids = {one.id: numbers[one.cache_id].pop(0) for one in fresh}
    insert_rows(conn, update_detail, _DETAIL, [_detail(one, ids[one.id]) for one in fresh])
    return ids


def _ids_of_fresh(conn: Connection, cache_ids: set[int], newest: int) -> dict[int, list[int]]:
    """Ids given out to these rows after *newest*, each row's in the order written."""
    rows = conn.execute(
        select(update.c.mailchimpsync_cache_id, update.c.id)
        .where(in_list(update.c.mailchimpsync_cache_id, cache_ids), update.c.id > newest)
        .order_by(update.c.id)
    )
    found: dict[int, list[int]] = defaultdict(list)
    for cache_id, update_id in rows:
        found[cache_id].append(update_id)
    return found


_DETAIL = ("update_id", "kind", "method", "path_tail", "cause_s", "tries", "decided_s")


def _detail(one: OpenUpdate, update_id: int) -> tuple[Any, ...]:
    operation = one.operation
    cause_s, decided_s = _seconds(operation.cause), _seconds(operation.decided)
    return update_id, operation.kind, operation.method, operation.path_tail, cause_s, one.tries, decided_s


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
