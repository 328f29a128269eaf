"""What became of updates, written down: the update completed or waiting again, the cache row as it stands now.

Each function is one step of a unit; the unit is one chunk of results. Doing a chunk twice leaves what doing it once
leaves: an update that is completed is not completed again, and news older than what the row knows already is no news.
Judging is `judging`'s business, and merging a member's news is `cache`'s.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, Row, select
from sqlalchemy import update as change

from civiapi.store.bulk import update_rows
from civiapi.store.dialect import among, upsert
from sync.answers import Case, interests_of, merge_answers, merge_seen, rows_now
from sync.audience import RECEIVES_MAIL, Audience
from sync.cache import forget_sent, mark_gone
from sync.daily import add_changes
from sync.judging import PENDING, SUBSCRIBED, Outcome, Verdict, as_pending, is_as_wanted
from sync.member_data import decode
from sync.stored import dump_data, load_data
from sync.tables import cache, update, update_detail
from sync.updates import CHUNK, OpenUpdate, delete_updates, open_updates, queue, read_update, select_updates

MAX_TRIES = 5
"""How often an operation is sent before we give it up."""

TODO, LIVE, OK, FAIL, REDO = "todo", "live", "ok", "fail", "redo"


@dataclass(frozen=True, slots=True)
class Told:
    """One update of a batch, and what became of it."""

    update: OpenUpdate
    outcome: Outcome


@dataclass(slots=True)
class Tally:
    """What a chunk did, by what became of the updates."""

    done: int = 0
    failed: int = 0
    again: int = 0

    def add(self, other: "Tally") -> None:
        """Count another chunk in."""
        self.done, self.failed, self.again = (
            self.done + other.done,
            self.failed + other.failed,
            self.again + other.again,
        )


@dataclass(slots=True)
class _Endings:
    """How updates and rows end, gathered to be written at once."""

    completed: list[tuple[int, str | None, int]] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    refused: list[int] = field(default_factory=list)


def apply_outcomes(
    conn: Connection,
    audience: Audience,
    row_id: int,
    told: Sequence[Told],
    *,
    at: datetime,
    skew: timedelta,
) -> Tally:
    """Write down what became of these updates of our batch *row_id*; those of another batch by now are left alone.

    *at* is when it happened where an answer holds no time of its own, by Mailchimp's clock; *skew* is that clock minus
    ours.
    """
    cases = _read_cases(conn, row_id, told)
    done = [one for one in cases if one.outcome.verdict is Verdict.DONE]
    merge_answers(conn, audience, done, at, skew)
    merge_seen(conn, audience, cases, skew)
    gone = [one.row.id for one in cases if one.outcome.verdict is Verdict.GONE and one.was_open]
    if gone:
        mark_gone(conn, audience, gone, at, skew=skew)
    still_open = [one for one in cases if one.was_open]
    endings, tally = _Endings(), Tally()
    others = _other_updates(conn, still_open)
    now = rows_now(conn, [one.row.id for one in still_open])
    for one in still_open:
        _END[one.outcome.verdict](conn, endings, tally, one, now.get(one.row.id), others.get(one.row.id, ()))
    _write(conn, endings)
    _count_changes(conn, audience, at, still_open, now)
    return tally


def _count_changes(
    conn: Connection, audience: Audience, at: datetime, cases: Sequence[Case], now: Mapping[int, Row[Any]]
) -> None:
    """Add to the day's figures who came into the audience and who left it by our updates."""
    moves: Counter[tuple[bool, bool]] = Counter()
    for one in {one.row.id: one for one in cases}.values():
        if one.outcome.verdict in (Verdict.DONE, Verdict.GONE) and one.row.id in now:
            moves[one.row.mailchimp_status in RECEIVES_MAIL, now[one.row.id].mailchimp_status in RECEIVES_MAIL] += 1
    add_changes(conn, audience, at, joined_mailchimp=moves[False, True], left_mailchimp=moves[True, False])


def send_again(conn: Connection, row_id: int, why: str, limit: int = CHUNK) -> int:
    """Let updates of our batch *row_id* that are still open wait again, at most *limit*; returns how many there were.

    One that was sent too often already fails, saying *why*; one whose place a later wish has taken is dropped.
    """
    rows = conn.execute(
        select_updates().where(update.c.mailchimpsync_batch_id == row_id, update.c.completed == 0).limit(limit)
    )
    outcome = Outcome(Verdict.AGAIN, problem={"title": "No result", "detail": why})
    told = [Told(read_update(row), outcome) for row in rows]
    cases = _read_cases(conn, row_id, told)
    endings, tally = _Endings(), Tally()
    others = _other_updates(conn, cases)
    for one in cases:
        _end_again(conn, endings, tally, one, None, others.get(one.row.id, ()))
    _write(conn, endings)
    return len(told)


# ── Reading what there is ───────────────────────────────────────────────────────────────────────────────────────────


def _read_cases(conn: Connection, row_id: int, told: Sequence[Told]) -> list[Case]:
    """The updates that are still in the batch, with their rows."""
    by_id = {one.update.id: one for one in told}
    columns = update.c.id, update.c.mailchimpsync_cache_id, update.c.completed
    found: list[tuple[OpenUpdate, Outcome, bool]] = []
    ids = list(by_id)
    for start in range(0, len(ids), CHUNK):
        mine = among(update.c.id, ids[start : start + CHUNK]), update.c.mailchimpsync_batch_id == row_id
        for update_id, cache_id, completed in conn.execute(select(*columns).where(*mine)).all():
            one = by_id[update_id]  # its row may have been taken into another since it was read
            found.append((replace(one.update, cache_id=cache_id), one.outcome, not completed))
    rows = rows_now(conn, [one.cache_id for one, _, _ in found])
    return [Case(one, out, was_open, rows[one.cache_id]) for one, out, was_open in found if one.cache_id in rows]


def _other_updates(conn: Connection, cases: Sequence[Case]) -> dict[int, list[OpenUpdate]]:
    """What else the rows of these cases owe."""
    return open_updates(conn, [one.row.id for one in cases], but=[one.update.id for one in cases])


# ── How each ends ───────────────────────────────────────────────────────────────────────────────────────────────────


def _end_done(
    conn: Connection, endings: _Endings, tally: Tally, one: Case, now: Row[Any] | None, others: Sequence[OpenUpdate]
) -> None:
    tally.done += 1
    endings.completed.append((1, None, one.update.id))
    if now is None:  # the row was taken into another one
        return
    if one.wanted.kind == "tags":
        note_tags_sent(conn, now.id, one.wanted.body)
        if one.row.sync_status not in (LIVE, REDO):
            return  # tags say nothing about what else there is to think about
    if others:
        _still_owing(endings, one, others)
    elif one.wanted.kind == "email":
        endings.rows[TODO].append(now.id)  # what had to wait for the new address is thought about now
    elif one.row.sync_status == TODO:
        endings.rows[TODO].append(now.id)
    else:
        endings.rows[OK if _stands_as_wanted(one, now) else TODO].append(now.id)


def _stands_as_wanted(one: Case, now: Row[Any]) -> bool:
    if one.row.sync_status == FAIL:
        return False  # it failed for a reason of its own, which has to be looked at again
    if one.wanted.kind != "member":
        return True
    held = interests_of(decode(now.mailchimp_data))
    return is_as_wanted(one.wanted, now.mailchimp_status, held) and not _tells_more(one, now, held)


def _tells_more(one: Case, now: Row[Any], held: Mapping[str, bool]) -> bool:
    """Whether the member, as it stands now, says what we neither knew nor asked for: they left, or chose, meanwhile."""
    asked = one.wanted.body
    if "status" not in asked and now.mailchimp_status != one.row.mailchimp_status:
        return True
    chosen = asked.get("interests") or {}
    before = interests_of(decode(one.row.mailchimp_data)) if held else {}
    return any(value != before.get(key, False) for key, value in held.items() if key not in chosen)


def _end_gone(
    conn: Connection, endings: _Endings, tally: Tally, one: Case, now: Row[Any] | None, others: Sequence[OpenUpdate]
) -> None:
    tally.failed += 1
    endings.completed.append((1, _as_error(one.outcome.problem), one.update.id))


def _end_failed(
    conn: Connection, endings: _Endings, tally: Tally, one: Case, now: Row[Any] | None, others: Sequence[OpenUpdate]
) -> None:
    tally.failed += 1
    endings.completed.append((1, _as_error(one.outcome.problem), one.update.id))
    endings.refused.append(one.row.id)
    if one.wanted.slot == "member" and one.row.mailchimp_member_id is None:
        orphans = [other for other in others if other.wanted.kind == "tags" and not other.in_flight]
        delete_updates(conn, [other.id for other in orphans])
        others = [other for other in others if other not in orphans]
    if others:
        _still_owing(endings, one, others)
    elif one.outcome.member is not None or one.row.sync_status == TODO:
        endings.rows[TODO].append(one.row.id)  # there is something new to think about
    else:
        endings.rows[FAIL].append(one.row.id)


def _end_as_pending(
    conn: Connection, endings: _Endings, tally: Tally, one: Case, now: Row[Any] | None, others: Sequence[OpenUpdate]
) -> None:
    """Ask for pending next, unless CiviCRM wants something else of this member by now."""
    waiting = next((other for other in others if other.wanted.slot == "member" and not other.in_flight), None)
    if waiting is not None and waiting.wanted.body.get("status", SUBSCRIBED) != SUBSCRIBED:
        _end_failed(conn, endings, tally, one, now, others)
        return
    tally.failed += 1
    endings.completed.append((1, _as_error(one.outcome.problem), one.update.id))
    queue(conn, one.row.id, as_pending(waiting.wanted if waiting is not None else one.wanted))
    endings.rows[TODO if one.row.sync_status == TODO else REDO].append(one.row.id)


def _end_again(
    conn: Connection, endings: _Endings, tally: Tally, one: Case, now: Row[Any] | None, others: Sequence[OpenUpdate]
) -> None:
    tries = one.update.tries + 1
    later = [other for other in others if other.wanted.slot == one.wanted.slot and not other.in_flight]
    if later:  # the wish that waits behind it says all there is to say by now
        delete_updates(conn, [one.update.id])
        tally.again += 1
    elif tries >= MAX_TRIES:
        last = one.outcome.problem or {}
        words = ": ".join(str(last[key]) for key in ("title", "detail") if last.get(key))
        problem = {"title": f"Given up after {tries} tries", "status": 0, "detail": words}
        _end_failed(conn, endings, tally, replace(one, outcome=replace(one.outcome, problem=problem)), now, others)
    else:
        _wait_again(conn, one.update, tries)
        tally.again += 1


def _wait_again(conn: Connection, one: OpenUpdate, tries: int) -> None:
    conn.execute(change(update).where(update.c.id == one.id).values(mailchimpsync_batch_id=None))
    wanted = one.wanted
    cause_s = None if wanted.cause is None else int(wanted.cause.timestamp())
    values = {"kind": wanted.kind, "method": wanted.method, "path_tail": wanted.path_tail, "cause_s": cause_s}
    upsert(conn, update_detail, [{"update_id": one.id, "tries": tries, **values}], key=("update_id",), set_=("tries",))


_End = Callable[[Connection, _Endings, Tally, Case, Row[Any] | None, Sequence[OpenUpdate]], None]
_END: Mapping[Verdict, _End] = {
    Verdict.DONE: _end_done,
    Verdict.GONE: _end_gone,
    Verdict.AGAIN: _end_again,
    Verdict.LOOK: _end_again,
    Verdict.AS_PENDING: _end_as_pending,
    Verdict.FAILED: _end_failed,
}


def _still_owing(endings: _Endings, one: Case, others: Iterable[OpenUpdate]) -> None:
    """The row of a case that owes more: ``todo`` stays, a compliance retry shows, anything else is under way."""
    if one.row.sync_status == TODO:
        status = TODO
    else:
        status = REDO if any(not o.in_flight and o.wanted.body.get("status") == PENDING for o in others) else LIVE
    endings.rows[status].append(one.row.id)


def note_tags_sent(conn: Connection, cache_id: int, body: Mapping[str, Any]) -> None:
    """Keep which tags Mailchimp has from us (``civicrm_data``, key ``tags``: name → true), so none is sent again."""
    stored = conn.execute(select(cache.c.civicrm_data).where(cache.c.id == cache_id)).scalar_one_or_none()
    known = load_data(stored)
    sent = known.get("tags")
    tags = dict(sent) if isinstance(sent, dict) else {}
    for one in body.get("tags") or ():
        if one.get("status") == "active":
            tags[str(one.get("name"))] = True
        else:
            tags.pop(str(one.get("name")), None)
    update_rows(conn, cache, ("civicrm_data",), [(dump_data({**known, "tags": tags}), cache_id)])


def _as_error(problem: Mapping[str, Any] | None) -> str:
    return orjson.dumps(dict(problem or {"title": "Unknown"})).decode()


def _write(conn: Connection, endings: _Endings) -> None:
    update_rows(conn, update, ("completed", "error_response"), endings.completed)
    forget_sent(conn, endings.refused)
    for status, ids in endings.rows.items():
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            conn.execute(change(cache).where(among(cache.c.id, part)).values(sync_status=status))
