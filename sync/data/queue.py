"""Queues what is to be sent of members' data, and stores what plugins ask for.

What Mailchimp accepted is noted in the row's ``civicrm_data`` (``sent_data``), so that nothing is sent twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, select

from civiapi.store.civicrm.contacts import PART_LIMIT, rename
from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list
from civiapi.store.text.encoded_text import cut
from sync.audience import Audience
from sync.data.member_data import DataPlan, plan_data, select_members
from sync.data.plugins import DataPlugins
from sync.data.sent_data import is_sent_to
from sync.model import DATA_KINDS, MemberOperation, OperationKind
from sync.store.members.blobs import dump_data, load_data
from sync.store.members.holds import keep_data_holds
from sync.store.members.member_codec import decode
from sync.store.members.member_merge import merge_key
from sync.store.retries import forget_retries, now_s, read_retries
from sync.store.runs.data_due import forget_due, read_marks
from sync.store.runs.run_changes import RunChange, note_changes
from sync.store.tables import cache, update, update_detail
from sync.store.updates import overtake_waiting, queue_many, read_body


@dataclass(frozen=True, slots=True)
class Queued:
    """What was queued for some members: how many *rows* there were, how many have *updates*, what does not fit."""

    rows: int = 0
    updates: int = 0
    problems: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Plugins that failed: name → error."""


def queue_data(
    conn: Connection,
    audience: Audience,
    rows: Sequence[Row[Any]],
    plugins: DataPlugins,
    *,
    settle_names: bool = False,
) -> Queued:
    """Queue the data of these members (rows of `select_members`).

    *settle_names*: names that Mailchimp has newer ones of are changed in CiviCRM; otherwise they wait for the webhook.
    """
    planned = plan_data(conn, audience, rows, plugins)
    plans = planned.plans
    _store_wishes(conn, plans)
    if settle_names:
        for one in plans:
            if one.newer:
                names = {name: cut(text, PART_LIMIT) for name, text in one.newer.items()}
                rename(conn, one.row.civicrm_contact_id, names, audience.clock.now())
    refused = _refused_for_now(conn, [one.row.id for one in plans if not one.is_empty])
    queued: list[tuple[int, MemberOperation]] = []
    for one in plans:
        operations = one.operations()
        _overtake_others(conn, one, operations)
        waiting = [opened.operation for opened in one.opened if not opened.in_flight]
        queued += [
            (one.row.id, operation)
            for operation in operations
            if operation not in waiting and refused.get((one.row.id, operation.kind)) != operation.body
        ]
    _record(conn, audience, plans, queued, queue_many(conn, queued))
    keep_data_holds(conn, {one.row.id: one.holds for one in plans})
    _forget_vain_retries(conn, plans)
    forget_due(conn, [one.row.id for one in plans])
    problems = sum(bool(one.problems) for one in plans)
    return Queued(len(plans), len({cache_id for cache_id, _ in queued}), problems, planned.failed)


def queue_members_data(conn: Connection, audience: Audience, cache_ids: Sequence[int], plugins: DataPlugins) -> None:
    """Queue the data of single members, if this site sends data of this audience: it did before, or has rules."""
    rows = conn.execute(select_members(audience).where(in_list(cache.c.id, cache_ids)).order_by(cache.c.id)).all()
    if not (audience.merge_fields or read_marks(conn, audience.list_id) is not None):
        rows = [row for row in rows if is_sent_to(load_data(row.civicrm_data))]
    queue_data(conn, audience, rows, plugins)


def _record(
    conn: Connection,
    audience: Audience,
    plans: Sequence[DataPlan],
    queued: Sequence[tuple[int, MemberOperation]],
    update_ids: Sequence[int],
) -> None:
    """Record what is sent of whom in a run, and what it replaces, as far as that is known."""
    if not audience.run_id:
        return
    by_row = {one.row.id: one for one in plans}
    known = {opened.id for one in plans for opened in one.opened}
    changes = []
    for (cache_id, operation), update_id in zip(queued, update_ids, strict=True):
        if update_id in known:
            continue
        one = by_row[cache_id]
        replaced: dict[str, Any] | None = None
        if operation.kind == OperationKind.FIELDS:
            member = decode(one.row.mailchimp_data)
            had = {tag: member.get(merge_key(tag)) for tag in operation.body["merge_fields"]}
            replaced = {"merge_fields": {tag: value for tag, value in had.items() if isinstance(value, str)}}
        elif off := [name for name, is_on in one.tags.items() if not is_on and name in one.sent_tags]:
            replaced = {"tags": dict.fromkeys(off, True)}
        changes.append(
            RunChange(
                operation.kind,
                cache_id,
                one.row.civicrm_contact_id,
                update_id=update_id,
                replaced=replaced,
                reason=one.sentence(),
            )
        )
    note_changes(conn, audience.run_id, changes)


def _store_wishes(conn: Connection, plans: Sequence[DataPlan]) -> None:
    changed = [(dump_data(one.wished), one.row.id) for one in plans if dict(one.wished) != dict(one.stored)]
    update_rows(conn, cache, ("civicrm_data",), changed)


def _overtake_others(conn: Connection, one: DataPlan, operations: Sequence[MemberOperation]) -> None:
    """Complete what waits for a row though it is not needed any more."""
    waiting = {opened.operation.kind for opened in one.opened if not opened.in_flight and opened.operation.is_data}
    vain = waiting - {operation.kind for operation in operations}
    if vain:
        overtake_waiting(conn, one.row.id, "Mailchimp has this already, or CiviCRM does not want it any more.", vain)


def _forget_vain_retries(conn: Connection, plans: Sequence[DataPlan]) -> None:
    """Forget what Mailchimp refused for now and nobody wants any more."""
    for kind in map(OperationKind, sorted(DATA_KINDS)):
        idle = [
            one.row.id
            for one in plans
            if not (one.fields if kind == OperationKind.FIELDS else one.tags)
            and all(opened.operation.kind != kind for opened in one.opened)
        ]
        forget_retries(conn, list(read_retries(conn, idle, kind)), kind)


def _refused_for_now(conn: Connection, cache_ids: Sequence[int]) -> dict[tuple[int, str], dict[str, Any]]:
    """What Mailchimp refused for now, of each row and kind whose time to send it again has not come."""
    now = now_s()
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for kind in DATA_KINDS if cache_ids else ():
        ids = [i for i, one in read_retries(conn, cache_ids, OperationKind(kind)).items() if one.next.timestamp() > now]
        if not ids:
            continue
        rows = conn.execute(
            select(update.c.mailchimpsync_cache_id, update.c.data)
            .join(update_detail, update_detail.c.update_id == update.c.id)
            .where(in_list(update.c.mailchimpsync_cache_id, ids), update_detail.c.kind == kind, update.c.completed == 1)
            .order_by(update.c.id)
        )
        found |= {(cache_id, kind): read_body(data) for cache_id, data in rows}
    return found
