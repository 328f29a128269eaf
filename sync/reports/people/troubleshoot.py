"""Troubleshooting of cache rows: the latest change on each side, the last updates, and the reason of a failure.

Adds keys to rows as ``search`` finds them (``MailchimpsyncCache.get troubleshoot=1``). A few statements for each
chunk of rows, however many rows there are. Reads only.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Row, Select, func, select

from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import contact
from sync.audience import CIVICRM, MAILCHIMP, Audience, Privacy
from sync.mailchimp.errors import is_member_exists
from sync.model import SyncStatus
from sync.reconcile.planning import plan_rows
from sync.store.members.blobs import load_data
from sync.store.members.privacy import not_to_be_mailed
from sync.store.tables import batch, cache, update

UPDATES_SHOWN = 3
UNKNOWN_NAME = "Unknown"
FAILED = "Mailchimp update error."
EXISTS_HINT = " (The address became a member in another way meanwhile; the next full sync settles this.)"


class GroupChange(NamedTuple):
    """The latest change of a contact in one group, as ``civicrm_groups`` stores it."""

    group_id: str
    status: str
    date: str


def explain_rows(conn: Connection, audience: Audience, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with the statuses on both sides, the last updates and the reason of a failure, as a sync of *audience*
    gives it; and of members that CiviCRM would not mail what a sync says of them."""
    names = display_names(conn, {row["civicrm_contact_id"] for row in rows if row["civicrm_contact_id"]})
    updates = last_updates(conn, [row["id"] for row in rows])
    failed = [row["id"] for row in rows if row["sync_status"] == SyncStatus.FAIL]
    reasons = why_failed(conn, audience, failed) | _why_not_mailed(conn, audience, [row["id"] for row in rows])
    return [_explain(row, audience, names, updates[row["id"]], reasons) for row in rows]


def why_failed(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> dict[int, str]:
    """Why each of these failed rows failed, in a sentence.

    A sync stores the reason of what it does not do. For rows that another program left, the reason is that of a sync;
    where there is none either, Mailchimp refused an update, and the updates contain its answer.
    """
    found = {}
    for planned in plan_rows(conn, audience, cache_ids):
        facts = planned.facts
        noted = load_data(facts.stored.civicrm_data).get(SyncStatus.FAIL) if facts.stored else None
        reason = noted or (planned.reason if planned.is_address or planned.sync_status == SyncStatus.FAIL else None)
        refused = facts.refusal is not None and reason == facts.refusal.text
        found[facts.cache_id] = FAILED if refused or not reason else str(reason)
    return found


def _why_not_mailed(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> dict[int, str]:
    """What a sync says of those of these members that CiviCRM would not mail."""
    if audience.privacy is Privacy.IGNORE:
        return {}
    found = conn.execute(select(cache.c.id).where(in_list(cache.c.id, cache_ids), not_to_be_mailed())).scalars()
    return {one.facts.cache_id: one.reason for one in plan_rows(conn, audience, list(found), complete=True)}


def read_groups(text: str | None) -> list[GroupChange]:
    """``group;status;date|…`` in parts; what is not of this form is left out."""
    parts = (part.split(";") for part in (text or "").split("|"))
    return [GroupChange(*part) for part in parts if len(part) == 3]


def most_recent(clock: SiteClock, civicrm: str, mailchimp: str | None) -> str:
    """The side with the latest change, of two site times; CiviCRM on a tie and where Mailchimp has none."""
    theirs, ours = clock.read(mailchimp), clock.read(civicrm)
    return CIVICRM if theirs is None or (ours is not None and ours >= theirs) else MAILCHIMP


def describe_problem(text: str | None) -> str:
    """Mailchimp's problem document as text, the field errors as a line of JSON; other text as it is."""
    if not text:
        return ""
    try:
        problem = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(problem, dict):
        return text
    title, detail = str(problem.get("title") or ""), str(problem.get("detail") or "")
    described = f"{title}: {detail}" if title and detail else title or detail or text
    if is_member_exists(problem):
        described += EXISTS_HINT
    if errors := problem.get("errors"):
        described += "\n" + orjson.dumps(errors).decode()
    return described


def _explain(
    row: dict[str, Any],
    audience: Audience,
    names: Mapping[int, str],
    updates: list[dict[str, str]],
    reasons: Mapping[int, str],
) -> dict[str, Any]:
    clock = audience.clock
    latest = {one.group_id: one for one in read_groups(row["civicrm_groups"])}
    own = latest.get(str(audience.group_id))
    changed = row["mailchimp_updated"]
    return row | {
        "civicrm_status": own.status if own else "",
        "civicrm_updated": own.date if own else "",
        "most_recent": most_recent(clock, own.date, changed) if own else MAILCHIMP,
        "civicrm_other_groups": {
            one.group_id: {
                "status": one.status,
                "updated": one.date,
                "mostRecent": most_recent(clock, one.date, changed),
            }
            for one in latest.values()
        }
        or [],  # PHP's empty map
        "mailchimp_data": _pretty(row["mailchimp_data"]),
        "civicrm_data": _pretty(row["civicrm_data"]),
        "civicrm_display_name": names.get(row["civicrm_contact_id"], UNKNOWN_NAME),
        "updates": updates,
        "errors": reasons.get(row["id"], ""),
    }


def display_names(conn: Connection, contact_ids: Iterable[int]) -> dict[int, str]:
    """What contacts are called, by id."""
    rows = conn.execute(select(contact.c.id, contact.c.display_name).where(contact.c.id.in_(list(contact_ids))))
    return {row.id: row.display_name or UNKNOWN_NAME for row in rows}


def last_updates(
    conn: Connection, cache_ids: Sequence[int], shown: int = UPDATES_SHOWN
) -> dict[int, list[dict[str, str]]]:
    """The last few updates of each row with what Mailchimp answered, newest first."""
    found: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in conn.execute(_select_last_updates(cache_ids, shown)):
        found[row.mailchimpsync_cache_id].append(_describe_update(row))
    return found


def _select_last_updates(cache_ids: Sequence[int], shown: int) -> Select[Any]:
    newest_first = func.row_number().over(partition_by=update.c.mailchimpsync_cache_id, order_by=update.c.id.desc())
    numbered = (
        select(update.c.id, newest_first.label("place"))
        .where(update.c.mailchimpsync_cache_id.in_(cache_ids))
        .subquery()
    )
    with_batch = numbered.join(update, update.c.id == numbered.c.id).outerjoin(
        batch, batch.c.id == update.c.mailchimpsync_batch_id
    )
    return (
        select(
            update.c.mailchimpsync_cache_id,
            update.c.data,
            update.c.completed,
            update.c.error_response,
            batch.c.submitted_at,
            batch.c.completed_at,
            batch.c.status,
        )
        .select_from(with_batch)
        .where(numbered.c.place <= shown)
        .order_by(update.c.id.desc())
    )


def _describe_update(row: Row[*tuple[Any, ...]]) -> dict[str, str]:
    return {
        "data": row.data,
        "completed": str(row.completed),
        "submitted_at": row.submitted_at or "",
        "completed_at": row.completed_at or "",
        "status": "pending" if not row.completed else "error" if row.error_response else "ok",
        "error": describe_problem(row.error_response),
        "batch_status": row.status or "",
    }


def _pretty(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode() if text else ""
