"""Updates owed to Mailchimp: what is waiting, what is under way, and what a new wish does to either.

An update is one call that Mailchimp is still to carry out for one cache row. The extension's table holds its body;
``civiapi_update`` beside it holds what the extension has no room for. A row that the extension left has no such
detail and counts as a member update. An open update is *waiting* (no batch) or *in flight* (in a batch whose results
have not come). No Mailchimp here and no decisions: `batches` sends, `results` hears what became of it, and
`reconcile` wishes.

What a newcomer trips over: a row has up to three slots, ``email``, ``member`` (archiving is in it too) and ``tags``,
carried out in that order. In each at most one update waits and at most one is in flight; a new wish takes the waiting
one's place, and one that is in flight already is not wished again. Nothing is noted in the row's Mailchimp data here:
what was sent is noted when it is put into a batch, because only then can it echo.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, func, not_, select
from sqlalchemy import update as change

from civiapi.store.bulk import insert_rows
from civiapi.store.dialect import among, unindexed
from sync.mailchimp.wire import subscriber_hash
from sync.tables import cache, update, update_detail

CHUNK = 500  # keeps an IN list under every driver's limit
RECEIVES_MAIL = frozenset({"subscribed", "pending"})

SLOTS: Mapping[str, str] = {"email": "email", "member": "member", "archive": "member", "tags": "tags"}
SLOT_ORDER = ("email", "member", "tags")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One call that Mailchimp should carry out for a cache row.

    *kind* is ``member``, ``email``, ``archive`` or ``tags``; *path_tail* comes after ``/lists/LIST/``
    (``members/HASH``, ``members/HASH/tags``); *cause* is when CiviCRM spoke the word behind it (aware UTC).
    """

    kind: str
    method: str
    path_tail: str
    body: dict[str, Any] = field(default_factory=dict)
    cause: datetime | None = None

    @property
    def slot(self) -> str:
        """Which updates of the row this one takes the place of."""
        return SLOTS.get(self.kind, "member")


@dataclass(frozen=True, slots=True)
class OpenUpdate:
    """An update that is not completed. *batch_id* is our own batch row, None while it waits."""

    id: int
    cache_id: int
    batch_id: int | None
    wanted: Wanted
    tries: int = 0

    @property
    def in_flight(self) -> bool:
        """True once it belongs to a batch, sent or about to be."""
        return self.batch_id is not None


def queue(conn: Connection, cache_id: int, wanted: Wanted) -> int:
    """Owe *wanted* for a cache row, which is ``live`` afterwards; returns the update's id (see `queue_many`)."""
    return queue_many(conn, [(cache_id, wanted)])[0]


def queue_many(conn: Connection, wishes: Iterable[tuple[int, Wanted]]) -> list[int]:
    """Owe each wish for its cache row and return the update ids, one a wish, in order; the rows are ``live``.

    What is in flight with the same content is not owed again, and what waited in its slot is dropped, since the
    last wish stands. Otherwise the wish takes the place of the waiting update, or waits behind the one in flight. A
    wish for ``subscribed`` while ``pending`` is owed keeps ``pending``: Mailchimp has refused the other already.
    Tags alone make a row ``live`` only if it was at rest. Rows must exist; a row may be wished for in several slots,
    the later wish in one slot winning.
    """
    ids: list[int] = []
    todo = iter(wishes)
    while part := list(islice(todo, CHUNK)):
        ids += _queue_part(conn, part)
    return ids


def open_updates(
    conn: Connection, cache_ids: Sequence[int], *, but: Collection[int] = ()
) -> dict[int, list[OpenUpdate]]:
    """The open updates of these rows by cache id, oldest first, *but* these; rows that owe nothing are left out."""
    found: dict[int, list[OpenUpdate]] = defaultdict(list)
    for start in range(0, len(cache_ids), CHUNK):
        part = cache_ids[start : start + CHUNK]
        theirs = select_updates().where(
            among(update.c.mailchimpsync_cache_id, part), unindexed(update.c.completed) == 0
        )
        for row in conn.execute(theirs.where(not_(among(update.c.id, but))) if but else theirs).all():
            found[row.cache_id].append(read_update(row))
    return dict(found)


def owes_something() -> ColumnElement[bool]:
    """A cache row owes an open update, waiting or in flight; a condition for set statements."""
    still_open = unindexed(update.c.completed) == 0  # a row has few
    owed = select(update.c.id).where(update.c.mailchimpsync_cache_id == cache.c.id, still_open)
    return owed.correlate(cache).exists()


def drop_open(conn: Connection, cache_id: int, slots: Iterable[str] = ("member",)) -> int:
    """Forget what waits for a row in *slots*; what is in flight stays. Returns how many went.

    The row's sync status is the caller's to set: only it knows why nothing is owed any more.
    """
    wanted = set(slots)
    gone = [
        one.id
        for one in open_updates(conn, [cache_id]).get(cache_id, [])
        if not one.in_flight and one.wanted.slot in wanted
    ]
    delete_updates(conn, gone)
    return len(gone)


def delete_updates(conn: Connection, update_ids: Sequence[int]) -> None:
    """Delete updates and their details."""
    for start in range(0, len(update_ids), CHUNK):
        part = update_ids[start : start + CHUNK]
        conn.execute(delete(update_detail).where(among(update_detail.c.update_id, part)))
        conn.execute(delete(update).where(among(update.c.id, part)))


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
        update_detail.c.tries,
        cache.c.mailchimp_member_id,
        cache.c.mailchimp_email,
    )
    .select_from(update)
    .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
    .outerjoin(update_detail, update_detail.c.update_id == update.c.id)
    .order_by(update.c.id)
)
"""Made once: nearly every unit asks what its rows owe."""


def read_update(row: Row[*tuple[Any, ...]]) -> OpenUpdate:
    """An update from a row of `select_updates`; without a detail, the extension's member update."""
    body = read_body(row.data)
    if row.kind is None:
        wanted = Wanted("member", "PUT", f"members/{_member_of(body, row)}", body)
    else:
        cause = None if row.cause_s is None else datetime.fromtimestamp(row.cause_s, UTC)
        wanted = Wanted(row.kind, row.method, row.path_tail, body, cause)
    return OpenUpdate(row.id, row.cache_id, row.batch_id, wanted, row.tries or 0)


def read_body(text: str | None) -> dict[str, Any]:
    """The body of an update; nothing where it is no JSON object (the extension may have left anything)."""
    try:
        body = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def write_body(body: Mapping[str, Any]) -> str:
    """A body as the extension's ``data`` column keeps it."""
    return orjson.dumps(body).decode()


def _member_of(body: Mapping[str, Any], row: Row[Any]) -> str:
    """Whom the extension's update is about: the member we know, unless the body names another address."""
    email = str(body.get("email_address") or row.mailchimp_email or "")
    known = row.mailchimp_member_id
    if known and (not email or email.strip().lower() == str(row.mailchimp_email or "").strip().lower()):
        return str(known)
    return subscriber_hash(email)


# ── What a wish does to what is owed already ────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Changes:
    """What one chunk of wishes does to the tables; *fresh* updates have a negative stand-in for an id until written."""

    fresh: list[OpenUpdate] = field(default_factory=list)
    replaced: dict[int, OpenUpdate] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)


def _queue_part(conn: Connection, part: Sequence[tuple[int, Wanted]]) -> list[int]:
    cache_ids = list(dict.fromkeys(cache_id for cache_id, _ in part))
    slots: dict[tuple[int, str], list[OpenUpdate]] = defaultdict(list)
    for cache_id, owed in open_updates(conn, cache_ids).items():
        for one in owed:
            slots[cache_id, one.wanted.slot].append(one)
    changes = _Changes()
    ids = [_place(changes, slots[cache_id, wanted.slot], cache_id, wanted) for cache_id, wanted in part]
    known = _write(conn, changes)
    _set_live(conn, part)
    return [known.get(one, one) for one in ids]


def _set_live(conn: Connection, part: Sequence[tuple[int, Wanted]]) -> None:
    """Something is under way for these rows. Tags alone put no end to what else is to be thought about a row."""
    whole = {cache_id for cache_id, wanted in part if wanted.slot != "tags"}
    tags_only = {cache_id for cache_id, _ in part} - whole
    conn.execute(change(cache).where(among(cache.c.id, whole)).values(sync_status="live"))
    if tags_only:
        at_rest = cache.c.sync_status == "ok"
        conn.execute(change(cache).where(among(cache.c.id, tags_only), at_rest).values(sync_status="live"))


def _place(changes: _Changes, owed: list[OpenUpdate], cache_id: int, wanted: Wanted) -> int:
    """Fit one wish in with what its slot owes; *owed* is kept as it will stand. Returns the id that stands for it."""
    flying = next((one for one in owed if one.in_flight), None)
    all_waiting = [one for one in owed if not one.in_flight]
    for surplus in all_waiting[:-1]:  # the extension may leave several
        _drop(changes, owed, surplus)
    waiting = all_waiting[-1] if all_waiting else None
    wanted = _as_pending(wanted, waiting or flying)
    if flying is not None and covers(flying.wanted, wanted):
        if waiting is not None:
            _drop(changes, owed, waiting)
        return flying.id
    if waiting is None:
        fresh = OpenUpdate(-len(changes.fresh) - 1, cache_id, None, wanted)
        changes.fresh.append(fresh)
        owed.append(fresh)
        return fresh.id
    if waiting.wanted != wanted:
        owed[owed.index(waiting)] = _rewrite(changes, waiting, wanted)
    return waiting.id


def is_under_way(owed: Sequence[OpenUpdate], wanted: Wanted) -> bool:
    """True when a row that owes *owed* would owe nothing more for this wish: what is in flight brings it about."""
    mine = [one for one in owed if one.wanted.slot == wanted.slot]
    flying = next((one for one in mine if one.in_flight), None)
    waiting = next((one for one in reversed(mine) if not one.in_flight), None)
    return flying is not None and covers(flying.wanted, _as_pending(wanted, waiting or flying))


def covers(sent: Wanted, wanted: Wanted) -> bool:
    """True when carrying out *sent* brings about all that *wanted* asks: the same call, and no other value in it."""
    same_call = (sent.method, sent.path_tail) == (wanted.method, wanted.path_tail)
    return same_call and _contains(sent.body, wanted.body)


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and _contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


def _as_pending(wanted: Wanted, owed: OpenUpdate | None) -> Wanted:
    if owed is None or owed.wanted.body.get("status") != "pending" or wanted.body.get("status") != "subscribed":
        return wanted
    body = wanted.body | {"status": "pending"}
    if "status_if_new" in body:
        body["status_if_new"] = "pending"
    return replace(wanted, body=body)


def _drop(changes: _Changes, owed: list[OpenUpdate], waiting: OpenUpdate) -> None:
    owed.remove(waiting)
    if waiting.id < 0:
        changes.fresh = [one for one in changes.fresh if one.id != waiting.id]
    else:
        changes.replaced.pop(waiting.id, None)
        changes.dropped.append(waiting.id)


def _rewrite(changes: _Changes, waiting: OpenUpdate, wanted: Wanted) -> OpenUpdate:
    after = replace(waiting, wanted=wanted)
    if waiting.id < 0:
        changes.fresh = [after if one.id == waiting.id else one for one in changes.fresh]
    else:
        changes.replaced[waiting.id] = after
    return after


def _write(conn: Connection, changes: _Changes) -> dict[int, int]:
    """Carry out the changes; returns stand-in → id of the fresh updates."""
    delete_updates(conn, changes.dropped)
    _write_replaced(conn, list(changes.replaced.values()))
    return _write_fresh(conn, changes.fresh)


_REWRITE = change(update).where(update.c.id == bindparam("key")).values(data=bindparam("body"))


def _write_replaced(conn: Connection, replaced: Sequence[OpenUpdate]) -> None:
    if not replaced:
        return
    conn.execute(_REWRITE, [{"key": one.id, "body": write_body(one.wanted.body)} for one in replaced])
    ids = [one.id for one in replaced]
    conn.execute(delete(update_detail).where(among(update_detail.c.update_id, ids)))
    insert_rows(conn, update_detail, _DETAIL, [_detail(one, one.id) for one in replaced])


def _write_fresh(conn: Connection, fresh: Sequence[OpenUpdate]) -> dict[int, int]:
    if not fresh:
        return {}
    newest = conn.execute(select(func.max(update.c.id))).scalar() or 0
    bodies = [(one.cache_id, write_body(one.wanted.body)) for one in fresh]
    insert_rows(conn, update, ("mailchimpsync_cache_id", "data"), bodies)
    numbers = _ids_of_fresh(conn, {one.cache_id for one in fresh}, newest)
    ids = {one.id: numbers[one.cache_id].pop(0) for one in fresh}
    insert_rows(conn, update_detail, _DETAIL, [_detail(one, ids[one.id]) for one in fresh])
    return ids


def _ids_of_fresh(conn: Connection, cache_ids: set[int], newest: int) -> dict[int, list[int]]:
    """Ids given out to these rows after *newest*, each row's in the order written."""
    rows = conn.execute(
        select(update.c.mailchimpsync_cache_id, update.c.id)
        .where(among(update.c.mailchimpsync_cache_id, cache_ids), update.c.id > newest)
        .order_by(update.c.id)
    )
    found: dict[int, list[int]] = defaultdict(list)
    for cache_id, update_id in rows:
        found[cache_id].append(update_id)
    return found


_DETAIL = ("update_id", "kind", "method", "path_tail", "cause_s", "tries")


def _detail(one: OpenUpdate, update_id: int) -> tuple[Any, ...]:
    wanted = one.wanted
    cause_s = None if wanted.cause is None else int(wanted.cause.timestamp())
    return update_id, wanted.kind, wanted.method, wanted.path_tail, cause_s, one.tries
