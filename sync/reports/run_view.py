"""A run that is opened: what it did to whom and why, what Mailchimp answered, its batches and its log; and what an undo
of it would do. Read only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import contact, email
from sync.errors import SyncError
from sync.model import OperationKind
from sync.reconcile.categories import CANNOT, DATA, DATA_LEFT_OUT, JOIN_GROUP, NEW_CONTACT, QUIET, summarize
from sync.reconcile.categories import KINDS as SYNC_KINDS
from sync.reports.people.troubleshoot import describe_problem
from sync.store.runs.run_log import read_runs
from sync.store.tables import batch, cache, run_change, run_log, update
from sync.undo.facts import count_failed
from sync.undo.planning import KINDS as UNDO_KINDS
from sync.undo.planning import UndoPlan

KINDS: Mapping[str, str] = {
    **{kind: text for kind, text in SYNC_KINDS.items() if kind not in (*QUIET, DATA, DATA_LEFT_OUT)},
    NEW_CONTACT: "were subscribed at Mailchimp and unknown to CiviCRM: a contact was made",
    OperationKind.FIELDS: "had other names or merge fields at Mailchimp; those were sent",
    OperationKind.TAGS: "had other tags at Mailchimp; those were sent",
    **UNDO_KINDS,
}
"""Each kind of what a run did, with what the people of that kind are or do, to follow "they"."""

REASONS: Mapping[str, str] = {
    NEW_CONTACT: "Subscribed at Mailchimp and unknown to CiviCRM: a contact was made.",
    JOIN_GROUP: "Subscribed at Mailchimp and never in the group: added to the group.",
}
"""The reasons of what is recorded for many at once."""


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Selects what a run did: of these kinds (none: all), to people with this text in name or address; a page of it.

    *seen*: the conditions under which the caller sees a person; on ``run_change.c.contact_id``.
    """

    kinds: Sequence[str] = ()
    search: str = ""
    limit: int = 25
    offset: int = 0
    seen: Sequence[ColumnElement[bool]] = ()


def list_of_run(conn: Connection, run_id: int) -> str:
    """The audience of a run. Raises SyncError where the run is not kept."""
    found = conn.execute(select(run_log.c.list_id).where(run_log.c.id == run_id)).scalar_one_or_none()
    if found is None:
        raise SyncError(f"There is no run {run_id}, or it is not kept any more.")
    return str(found)


def read_run(
    conn: Connection, run_id: int, list_id: str, group_id: int, clock: SiteClock, shown: ChangeFilter
) -> dict[str, Any]:
    """A run of a linked audience: its entry of the run log, numbers by kind, the people selected, batches and log."""
    [entry] = read_runs(conn, {list_id: group_id}, clock, leases.now_ms(), limit=1, offset=0, run_id=run_id)
    row = conn.execute(select(run_log).where(run_log.c.id == run_id)).one()
    counts: dict[str, int] = dict(conn.execute(_counted(run_id, shown)).all())
    people = conn.execute(_people(run_id, shown).limit(shown.limit or 2**31).offset(shown.offset)).all()
    counted = select(func.count()).select_from(_people(run_id, shown).order_by(None).subquery())
    return {
        **entry,
        "undoes": row.undoes,
        "undone_by": row.undone_by,
        "can_undo": row.undoes is None and _is_left(conn, row) and bool(set(counts) - {CANNOT}),
        "summary": summarize(counts, KINDS),
        "batches": _batches(conn, run_id),
        "log": orjson.loads(row.log) if row.log else [],
        "count": conn.execute(counted).scalar_one(),
        "people": [_person(one) for one in people],
    }


def _is_left(conn: Connection, row: Any) -> bool:
    """Whether an undo of a run has anything to look at: none has, or one came to nothing at Mailchimp for some."""
    return row.undone_by is None or count_failed(conn, row.id) > 0


def _counted(run_id: int, shown: ChangeFilter) -> Select[Any]:
    mine = (run_change.c.run_id == run_id, *shown.seen)
    return select(run_change.c.kind, func.count()).where(*mine).group_by(run_change.c.kind)


_PRIMARY = select(func.max(email.c.email)).where(email.c.contact_id == run_change.c.contact_id, email.c.is_primary == 1)
_ADDRESS = func.coalesce(cache.c.mailchimp_email, _PRIMARY.correlate(run_change).scalar_subquery())


def _people(run_id: int, shown: ChangeFilter) -> Select[Any]:
    where: list[ColumnElement[bool]] = [run_change.c.run_id == run_id, *shown.seen]
    if shown.kinds:
        where.append(run_change.c.kind.in_(list(shown.kinds)))
    if shown.search:
        texts = (contact.c.display_name, cache.c.mailchimp_email, _ADDRESS)
        where.append(or_(*(one.contains(shown.search, autoescape=True) for one in texts)))
    return (
        select(
            run_change.c.id,
            run_change.c.kind,
            run_change.c.contact_id,
            run_change.c.group_id,
            run_change.c.was,
            run_change.c.reason,
            run_change.c.undone_by,
            contact.c.display_name,
            _ADDRESS.label("address"),
            update.c.id.label("update_id"),
            update.c.completed,
            update.c.error_response,
            batch.c.mailchimp_batch_id,
            case((run_change.c.update_id.is_not(None), 1), else_=0).label("has_update"),
        )
        .select_from(run_change)
        .outerjoin(contact, contact.c.id == run_change.c.contact_id)
        .outerjoin(cache, cache.c.id == run_change.c.cache_id)
        .outerjoin(update, update.c.id == run_change.c.update_id)
        .outerjoin(batch, batch.c.id == update.c.mailchimpsync_batch_id)
        .where(and_(*where))
        .order_by(run_change.c.id)
    )


def _person(row: Any) -> dict[str, Any]:
    return {
        "contact_id": row.contact_id,
        "name": row.display_name or "",
        "email": row.address or "",
        "kind": row.kind,
        "group_id": row.group_id,
        "was": row.was or "",
        "reason": row.reason or REASONS.get(row.kind, ""),
        "answer": _answer(row),
        "batch_id": row.mailchimp_batch_id or "",
        "undone_by": row.undone_by,
    }


def _answer(row: Any) -> str:
    """What became of the update of a change, in words; empty where there was none."""
    if not row.has_update:
        return ""
    if row.update_id is None:
        return "The update is no longer kept."
    if not row.completed:
        return "In flight." if row.mailchimp_batch_id else "Waiting to be sent."
    return describe_problem(row.error_response) if row.error_response else "Carried out."


def _batches(conn: Connection, run_id: int) -> list[dict[str, Any]]:
    """The batches that carried updates of a run, oldest first."""
    ids = (
        select(update.c.mailchimpsync_batch_id)
        .join(run_change, run_change.c.update_id == update.c.id)
        .where(run_change.c.run_id == run_id, update.c.mailchimpsync_batch_id.is_not(None))
        .distinct()
    )
    found = [int(one) for one in conn.execute(ids).scalars()]
    rows = conn.execute(select(batch).where(in_list(batch.c.id, found)).order_by(batch.c.id))
    return [
        {
            "id": row.id,
            "mailchimp_batch_id": row.mailchimp_batch_id or "",
            "status": row.status or "",
            "submitted_at": row.submitted_at,
            "completed_at": row.completed_at,
            "total": row.total_operations,
            "errored": row.errored_operations,
        }
        for row in rows
    ]


# ── The preview of an undo ──────────────────────────────────────────────────────────────────────────────────────────


class UndoPreview:
    """What an undo would do, gathered from its units: numbers by kind, and the people selected."""

    def __init__(self, shown: ChangeFilter) -> None:
        self._shown = shown
        self._counts: Counter[str] = Counter()
        self._count = 0
        self._people: list[dict[str, Any]] = []

    def add(self, conn: Connection, plans: Sequence[UndoPlan]) -> None:
        """The plans of one unit."""
        shown = self._shown
        seen = _seen_changes(conn, plans, shown) if shown.seen or shown.search else None
        visible = plans if seen is None else [one for one in plans if one.change.id in seen]
        chosen = [one for one in visible if not shown.kinds or one.kind in shown.kinds]
        begin = max(shown.offset - self._count, 0)
        part = chosen[begin : begin + shown.limit - len(self._people)] if shown.limit else chosen[begin:]
        rows = {row.id: row for row in conn.execute(_of_changes([one.change.id for one in part]))} if part else {}
        self._people += [_undone_person(one, rows[one.change.id]) for one in part if one.change.id in rows]
        self._counts.update(one.kind for one in visible)
        self._count += len(chosen)

    def as_values(self) -> dict[str, Any]:
        """What the API answers."""
        return {"summary": summarize(self._counts, KINDS), "count": self._count, "people": self._people}


def _undone_person(plan: UndoPlan, row: Any) -> dict[str, Any]:
    return {
        "contact_id": plan.change.contact_id,
        "name": row.display_name or "",
        "email": row.address or "",
        "kind": plan.kind,
        "group_id": plan.change.group_id,
        "reason": plan.reason,
    }


def _of_changes(ids: Sequence[int], *where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(run_change.c.id, contact.c.display_name, _ADDRESS.label("address"))
        .select_from(run_change)
        .outerjoin(contact, contact.c.id == run_change.c.contact_id)
        .outerjoin(cache, cache.c.id == run_change.c.cache_id)
        .where(in_list(run_change.c.id, ids), *where)
    )


def _seen_changes(conn: Connection, plans: Sequence[UndoPlan], shown: ChangeFilter) -> set[int]:
    """Those of the plans' changes that the caller sees and whose person has the text sought."""
    where = list(shown.seen)
    if shown.search:
        texts = (contact.c.display_name, _ADDRESS)
        where.append(or_(*(one.contains(shown.search, autoescape=True) for one in texts)))
    return set(conn.execute(_of_changes([one.change.id for one in plans], *where)).scalars())
