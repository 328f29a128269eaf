"""Writes the outcomes of operations: the update completed or waiting again, the cache row with its new status.

Each function is one step of a unit, and a unit is one chunk of results. Applying a chunk twice is the same as applying
it once: a completed update is not completed again, and an answer older than the row changes nothing. Classifying
results is in ``verdicts``, merging members into rows in ``merge_results`` and ``cache``.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy import update as change

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.dialect import upsert
from civiapi.store.databases.expressions import in_list
from sync.audience import Audience
from sync.data.sent_data import Sent, note_sent
from sync.field_rules import canonical
from sync.mailchimp.errors import is_temporary
from sync.model import RECEIVES_MAIL, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.outbox.merge_results import ResultContext, current_rows, merge_answers, merge_fetched, readdress
from sync.outbox.verdicts import Outcome, Verdict, is_as_wanted, refused_fields
from sync.reconcile.conditions import gave_up_address
from sync.store.daily import add_changes
from sync.store.members.cache import forget_sent
from sync.store.members.cache_merge import mark_gone
from sync.store.members.member_codec import decode, interests_of, peek
from sync.store.members.member_merge import merge_key
from sync.store.retries import forget_retries, now_s, put_off, read_retries
from sync.store.runs.data_due import note_cancelled
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, update, update_detail
from sync.store.updates import MEMBER_GONE, open_updates, overtake, queue, read_update, select_updates, write_body

MAX_TRIES = 5
"""How often an operation is sent before its update fails. One that failed so is tried once at a time from then on
(``retries``)."""


@dataclass(frozen=True, slots=True)
class OperationOutcome:
    """An update of a batch with its outcome."""

    update: OpenUpdate
    outcome: Outcome


@dataclass(slots=True)
class ResultCounts:
    """How many updates of a chunk were done, failed, and will be sent again."""

    done: int = 0
    failed: int = 0
    again: int = 0

    def add(self, other: "ResultCounts") -> None:
        """Add the counts of another chunk."""
        self.done += other.done
        self.failed += other.failed
        self.again += other.again


@dataclass(slots=True)
class _Changes:
    """Changes to updates and rows, gathered to be written at once."""

    completed: list[tuple[int, str | None, int]] = field(default_factory=list)
    rows: dict[SyncStatus, list[int]] = field(default_factory=lambda: defaultdict(list))
    refused: list[int] = field(default_factory=list)
    put_off: list[OpenUpdate] = field(default_factory=list)
    """Refused for now."""
    settled: dict[OperationKind, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Rows by the kind of update that was done or refused for good."""
    sent: list[Sent] = field(default_factory=list)
    """Data that Mailchimp has now, or refused."""
    due: list[int] = field(default_factory=list)
    """Rows whose data is to be compared again by the next run with data."""
    counts: ResultCounts = field(default_factory=ResultCounts)

    def complete(self, one: ResultContext, *, failed: bool, why: str | None = None) -> None:
        """Complete an update, with Mailchimp's problem document where it failed, or with *why* it came to nothing."""
        self.counts.failed += failed
        self.counts.done += not failed
        self.completed.append((1, _as_error(one.outcome.problem) if failed else why, one.update.id))
        is_data = one.operation.is_data  # wanted again by every sync, whatever Mailchimp said
        if failed and one.outcome.verdict in _REFUSALS and (is_data or is_temporary(one.outcome.problem)):
            self.put_off.append(replace(one.update, cache_id=one.row.id))
        else:
            self.settled[one.operation.kind_group].append(one.row.id)

    def set_status(self, one: ResultContext, status: SyncStatus) -> None:
        """Give the row a status; one that is ``todo`` anyway stays so."""
        was_todo = one.row.sync_status == SyncStatus.TODO
        self.rows[SyncStatus.TODO if was_todo else status].append(one.row.id)


def apply_outcomes(
    conn: Connection,
    audience: Audience,
    row_id: int,
    outcomes: Sequence[OperationOutcome],
    *,
    at: datetime,
    skew: timedelta,
) -> ResultCounts:
    """Write the outcomes of these updates of our batch *row_id*; updates that are in another batch by now are skipped.

    *at* dates answers without a time of their own, by Mailchimp's clock; *skew* is that clock minus ours.
    """
    contexts = _read_contexts(conn, row_id, outcomes)
    merge_answers(conn, audience, [one for one in contexts if one.outcome.verdict is Verdict.DONE], at, skew)
    merge_fetched(conn, audience, contexts, skew)
    gone = [
        one.row.id
        for one in contexts
        if one.outcome.verdict is Verdict.GONE and one.was_open and one.row.mailchimp_member_id is not None
    ]
    if gone:
        mark_gone(conn, audience, gone, at, skew=skew)
    still_open = [one for one in contexts if one.was_open]
    current = current_rows(conn, [one.row.id for one in still_open])
    still_open = [replace(one, current=current.get(one.row.id)) for one in still_open]
    counts = _handle(conn, still_open, at - skew)
    _requeue_moved(conn, still_open)
    _count_moves(conn, audience, at, still_open)
    return counts


def _requeue_moved(conn: Connection, contexts: Sequence[ResultContext]) -> None:
    """Reconcile again the rows whose contact gave up the address meanwhile: while an update was in flight, a change of
    address had to wait, and no later sync looks for it."""
    ids = [one.row.id for one in contexts if one.outcome.verdict is Verdict.DONE and not one.operation.is_data]
    moved = in_list(cache.c.id, ids), cache.c.sync_status == SyncStatus.OK, gave_up_address()
    if ids:
        conn.execute(change(cache).where(*moved).values(sync_status=SyncStatus.TODO))


def send_again(conn: Connection, row_id: int, why: str, limit: int) -> int:
    """Let updates of our batch *row_id* that are still open wait again, at most *limit*; returns how many there were.

    An update that was sent too often fails with *why*; one that a newer update replaces is deleted.
    """
    rows = conn.execute(
        select_updates().where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0).limit(limit)
    )
    outcome = Outcome(Verdict.AGAIN, problem={"title": "No result", "detail": why})
    outcomes = [OperationOutcome(read_update(row), outcome) for row in rows]
    _handle(conn, _read_contexts(conn, row_id, outcomes), None)
    return len(outcomes)


def _handle(conn: Connection, contexts: Sequence[ResultContext], at: datetime | None) -> ResultCounts:
    """Call the handler of each outcome, of results that came *at* this time, and write the changes."""
    ids = [one.update.id for one in contexts]
    row_ids = [one.row.id for one in contexts]
    others = open_updates(conn, row_ids, but=ids)
    retries = {kind: read_retries(conn, row_ids, kind) for kind in {one.operation.kind_group for one in contexts}}
    changes = _Changes()
    behind_ours: list[int] = []
    for one in contexts:
        was_put_off = one.row.id in retries[one.operation.kind_group]
        context = replace(one, others=tuple(others.get(one.row.id, ())), was_put_off=was_put_off)
        _HANDLERS[one.outcome.verdict](conn, changes, context)
        if one.outcome.verdict is Verdict.DONE:
            behind_ours += [other.id for other in context.others if other.operation.decided and not other.in_flight]
    _write(conn, changes)
    if at is not None and behind_ours:
        _decide_anew(conn, behind_ours, at)
    return changes.counts


def _decide_anew(conn: Connection, update_ids: Sequence[int], at: datetime) -> None:
    """Let updates of an undo that waited for another of their member count as decided *at* this time at the earliest:
    that one changed the member, and is no change that overrules them."""
    theirs = in_list(update_detail.c.update_id, update_ids), update_detail.c.decided_s < int(at.timestamp())
    conn.execute(change(update_detail).where(*theirs).values(decided_s=int(at.timestamp())))


def _read_contexts(conn: Connection, row_id: int, outcomes: Sequence[OperationOutcome]) -> list[ResultContext]:
    """The updates that are still in the batch, with their rows."""
    by_id = {one.update.id: one for one in outcomes}
    columns = update.c.id, update.c.mailchimpsync_cache_id, update.c.completed
    found: list[tuple[OpenUpdate, Outcome, bool]] = []
    mine = in_list(update.c.id, list(by_id)), update.c.mailchimpsync_batch_id == row_id
    for update_id, cache_id, completed in conn.execute(select(*columns).where(*mine)).all():
        one = by_id[update_id]  # its row may have been merged into another since it was read
        found.append((replace(one.update, cache_id=cache_id), one.outcome, not completed))
    rows = current_rows(conn, [one.cache_id for one, _, _ in found])
    return [ResultContext(one, out, is_open, rows[one.cache_id]) for one, out, is_open in found if one.cache_id in rows]


def _count_moves(conn: Connection, audience: Audience, at: datetime, contexts: Sequence[ResultContext]) -> None:
    """Add to the daily figures who joined and who left the audience by our updates."""
    moves: Counter[tuple[bool, bool]] = Counter()
    for one in {one.row.id: one for one in contexts}.values():
        if one.outcome.verdict in (Verdict.DONE, Verdict.GONE) and one.current is not None:
            moves[one.row.mailchimp_status in RECEIVES_MAIL, one.current.mailchimp_status in RECEIVES_MAIL] += 1
    add_changes(conn, audience, at, joined_mailchimp=moves[False, True], left_mailchimp=moves[True, False])


# ── Handlers, one for each verdict ──────────────────────────────────────────────────────────────────────────────────


def _done(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    changes.complete(one, failed=False)
    row = one.current
    if row is None:  # merged into another row
        return
    if one.operation.is_data:
        answer = (one.outcome.member or {}).get("merge_fields") or {}
        changes.sent.append(Sent(row.id, one.operation.body, answer))
        if _was_changed_since(row, answer):
            changes.due.append(row.id)
        if one.row.sync_status not in (SyncStatus.LIVE, SyncStatus.REDO):
            return  # data does not change whether the row is in sync
    others = _without_other_addresses(conn, one, row)
    if len(others) < len(one.others):
        changes.set_status(one, SyncStatus.TODO)  # what else the dropped ones would have changed is still to be done
    elif one.operation.kind == OperationKind.EMAIL:
        changes.set_status(one, SyncStatus.TODO)  # reconciled now under its new address, whatever else is open
    elif others:
        changes.set_status(one, _status_with_open_updates(others))
    else:
        changes.set_status(one, SyncStatus.OK if _is_in_sync(one, row) else SyncStatus.TODO)


def _without_other_addresses(conn: Connection, one: ResultContext, row: Row[Any]) -> tuple[OpenUpdate, ...]:
    """The row's other open updates, without those that would subscribe the contact a second time: their address changed
    while this was in flight. The member that it is now moves to the new one (`_requeue_moved`)."""
    own = {one.operation.path_tail, f"members/{row.mailchimp_member_id}"}
    if one.operation.kind != OperationKind.MEMBER:
        return one.others
    second = [other for other in _waiting(one, OperationKind.MEMBER) if other.operation.path_tail not in own]
    overtake(conn, [other.id for other in second], "the contact is a member by now, under an earlier address.")
    return tuple(other for other in one.others if other not in second)


def _was_changed_since(row: Row[Any], answer: Mapping[str, Any]) -> bool:
    """Whether a member has other merge fields by now than in this answer: while an update of a field is in flight, a
    change of that field at Mailchimp is not answered by another update."""
    member = decode(row.mailchimp_data) if answer else {}
    has = {tag: member.get(merge_key(tag)) for tag in answer}
    return any(has[tag] is not None and canonical(has[tag]) != canonical(value) for tag, value in answer.items())


def _is_in_sync(one: ResultContext, row: Row[Any]) -> bool:
    if one.row.sync_status == SyncStatus.FAIL:
        return False  # it failed for another reason, which is to be checked again
    if _left_undated(row):
        return False  # because of an objection: the contact is in the group still, and its row is to say why
    if one.operation.kind in (OperationKind.ARCHIVE, OperationKind.TAGS):
        return True
    interests = interests_of(decode(row.mailchimp_data))
    if not is_as_wanted(one.operation, row.mailchimp_status, interests):
        return False
    return not _has_other_changes(one, row, interests)


def _left_undated(row: Row[Any]) -> bool:
    """Whether a member out of the audience left at no known time (long ago, in whatever time zone)."""
    since = peek(row.mailchimp_data, "status@") or ""
    return row.mailchimp_status not in RECEIVES_MAIL and "" < since < "1971"


def _has_other_changes(one: ResultContext, row: Row[Any], interests: Mapping[str, bool]) -> bool:
    """Whether the member differs from the row in what the operation did not set: it left or chose an interest."""
    body = one.operation.body
    if "status" not in body and row.mailchimp_status != one.row.mailchimp_status:
        return True
    chosen = body.get("interests") or {}
    before = interests_of(decode(one.row.mailchimp_data)) if interests else {}
    return any(value != before.get(key, False) for key, value in interests.items() if key not in chosen)


def _gone(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    is_out = one.operation.status is not None  # who was to be out of the audience is
    changes.complete(one, failed=False, why=None if is_out else MEMBER_GONE)
    changes.set_status(one, SyncStatus.TODO)


def _moved(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    """Send the update to the member as it is now, except that another change of its address has to be decided anew."""
    if one.operation.kind == OperationKind.EMAIL or one.outcome.member is None:
        overtake(conn, [one.update.id], "the member's address was changed at Mailchimp.")
        changes.set_status(one, SyncStatus.TODO)
        return
    _again(conn, changes, replace(one, update=readdress(conn, one.update, one.operation.member, one.outcome.member)))


def _failed(conn: Connection, changes: _Changes, one: ResultContext, *, is_refused: bool = True) -> None:
    """*is_refused*: Mailchimp answered; otherwise it may have carried the operation out, and will report it then."""
    changes.complete(one, failed=True)
    if is_refused:
        changes.refused.append(one.row.id)
    if tags := refused_fields(one.operation, one.outcome.problem):
        changes.sent.append(Sent(one.row.id, one.operation.body, refused=tags))
        changes.due.append(one.row.id)  # the rest of what was sent with it is sent again
    others = one.others
    if one.operation.kind_group == OperationKind.MEMBER and one.row.mailchimp_member_id is None:
        orphans = [other for other in others if other.operation.is_data and not other.in_flight]
        overtake(conn, [other.id for other in orphans], "the member could not be created at Mailchimp.")
        others = tuple(other for other in others if other not in orphans)
    if others:
        changes.set_status(one, _status_with_open_updates(others))
    else:  # a fetched member may have changes to reconcile
        changes.set_status(one, SyncStatus.FAIL if one.outcome.member is None else SyncStatus.TODO)


def _as_pending(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    """Queue a request to confirm, unless CiviCRM wants another status for this member by now."""
    waiting = _waiting(one, OperationKind.MEMBER)
    if waiting and waiting[0].operation.body.get("status", MemberStatus.SUBSCRIBED) != MemberStatus.SUBSCRIBED:
        _failed(conn, changes, one)
        return
    changes.complete(one, failed=True)
    queue(conn, one.row.id, (waiting[0].operation if waiting else one.operation).as_pending())
    changes.set_status(one, SyncStatus.REDO)


def _again(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    tries = one.update.tries + 1
    if _waiting(one, one.operation.kind_group):  # a newer update replaces this one
        overtake(conn, [one.update.id], "it failed, and a newer update of the same member replaces it.")
        changes.counts.again += 1
    elif one.outcome.without:
        _send_without(conn, changes, one)
    elif tries >= (1 if one.was_put_off and _is_server_error(one.outcome) else MAX_TRIES):
        last = one.outcome.problem or {}
        detail = ": ".join(str(last[key]) for key in ("title", "detail") if last.get(key))
        problem = {"title": f"Given up after {tries} tries", "status": 0, "detail": detail}
        given_up = replace(one, outcome=replace(one.outcome, problem=problem))
        _failed(conn, changes, given_up, is_refused=bool(last.get("status")))
    else:
        _requeue(conn, one.update, tries)
        changes.counts.again += 1


def _send_without(conn: Connection, changes: _Changes, one: ResultContext) -> None:
    """Send an update again without the interests that Mailchimp no longer has; complete it if nothing is left of it."""
    body = dict(one.operation.body)
    interests = {key: value for key, value in body.pop("interests").items() if key not in one.outcome.without}
    changes.counts.again += 1
    if not interests and "status" not in body:
        overtake(conn, [one.update.id], "Mailchimp no longer has the interests that it would have set.")
        changes.set_status(one, SyncStatus.TODO)
        return
    body |= {"interests": interests} if interests else {}
    values = {"data": write_body(body), "mailchimpsync_batch_id": None}
    conn.execute(change(update).where(update.c.id == one.update.id).values(values))


def _is_server_error(outcome: Outcome) -> bool:
    status = (outcome.problem or {}).get("status")
    return isinstance(status, int) and status >= 500


_REFUSALS = frozenset({Verdict.FAILED, Verdict.AGAIN, Verdict.FETCH_MEMBER})
"""Verdicts whose failure is Mailchimp's answer, not a step to be tried next."""

_Handler = Callable[[Connection, _Changes, ResultContext], None]
_HANDLERS: Mapping[Verdict, _Handler] = {
    Verdict.DONE: _done,
    Verdict.GONE: _gone,
    Verdict.MOVED: _moved,
    Verdict.AGAIN: _again,
    Verdict.FETCH_MEMBER: _again,
    Verdict.AS_PENDING: _as_pending,
    Verdict.FAILED: _failed,
}


def _waiting(one: ResultContext, kind_group: OperationKind) -> list[OpenUpdate]:
    """The row's other updates of a kind group that wait."""
    return [other for other in one.others if other.operation.kind_group == kind_group and not other.in_flight]


def _requeue(conn: Connection, one: OpenUpdate, tries: int) -> None:
    conn.execute(change(update).where(update.c.id == one.id).values(mailchimpsync_batch_id=None))
    operation = one.operation
    cause_s = None if operation.cause is None else int(operation.cause.timestamp())
    values = {"kind": operation.kind, "method": operation.method, "path_tail": operation.path_tail, "cause_s": cause_s}
    upsert(conn, update_detail, [{"update_id": one.id, "tries": tries, **values}], key=("update_id",), set_=("tries",))


def _status_with_open_updates(others: Iterable[OpenUpdate]) -> SyncStatus:
    """The status of a row with other open updates: ``redo`` while a request to confirm waits, else ``live``."""
    confirms = any(not one.in_flight and one.operation.body.get("status") == MemberStatus.PENDING for one in others)
    return SyncStatus.REDO if confirms else SyncStatus.LIVE


def _as_error(problem: Mapping[str, Any] | None) -> str:
    return orjson.dumps(dict(problem or {"title": "Unknown"})).decode()


def _write(conn: Connection, changes: _Changes) -> None:
    update_rows(conn, update, ("completed", "error_response"), changes.completed)
    note_sent(conn, changes.sent)
    if changes.due:
        note_cancelled(conn, select(cache.c.id).where(in_list(cache.c.id, changes.due)))
    forget_sent(conn, changes.refused)
    for kind, ids in changes.settled.items():
        forget_retries(conn, ids, kind)
    for one in changes.put_off:
        cause = one.operation.cause
        put_off(
            conn, one.cache_id, one.operation.kind_group, None if cause is None else int(cause.timestamp()), now_s()
        )
    for status, ids in changes.rows.items():
        set_sync_status(conn, ids, status)
