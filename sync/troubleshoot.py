"""What a person who wonders about a cache row needs beside it: both ends' words, the last updates, why it failed.

Adds keys to rows as ``search`` finds them (``MailchimpsyncCache.get troubleshoot=1``). A few statements for each
chunk of rows, however many rows there are. Reads only.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, func, select

from civiapi.store.clock import SiteClock
from civiapi.store.tables import contact
from sync.apply import FAIL
from sync.audience import CIVICRM, MAILCHIMP, Audience
from sync.config import Link
from sync.facts import facts_for
from sync.mailchimp.errors import is_member_exists
from sync.reconcile import plan
from sync.stored import load_data, read_time
from sync.tables import batch, update

CHUNK = 500  # keeps an IN list under every driver's limit
UPDATES_SHOWN = 3
UNKNOWN_NAME = "Unknown"
FAILED = "Mailchimp update error."
EXISTS_HINT = " (The address became a member in another way meanwhile; the next full sync settles this.)"


class GroupWord(NamedTuple):
    """CiviCRM's latest word on a contact and one group, as ``civicrm_groups`` keeps it."""

    group_id: str
    status: str
    date: str


def explain_rows(
    conn: Connection, link: Link, clock: SiteClock, rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows with what there is to know about each."""
    explained: list[dict[str, Any]] = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        names = display_names(conn, {row["civicrm_contact_id"] for row in part if row["civicrm_contact_id"]})
        updates = last_updates(conn, [row["id"] for row in part])
        failed = [row["id"] for row in part if row["sync_status"] == FAIL]
        reasons = why_failed(conn, link.audience(clock, respect_privacy=False), failed)
        explained += [_explain(row, link, clock, names, updates[row["id"]], reasons) for row in part]
    return explained


def why_failed(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> dict[int, str]:
    """Why each of these failed rows failed, in a sentence.

    The sync notes the reason of what it would not do. For rows that somebody else left it is worked out as a sync
    would; where neither says anything, Mailchimp refused an update, and the updates say why.
    """
    found = {}
    for facts in facts_for(conn, audience, cache_ids, with_person=True):
        noted = load_data(facts.stored.civicrm_data).get(FAIL) if facts.stored else None
        planned = plan(facts, audience)
        reason = noted or (planned.reason if planned.sync_status == FAIL else None)
        refused = facts.refusal is not None and reason == facts.refusal.words
        found[facts.cache_id] = FAILED if refused or not reason else str(reason)
    return found


def read_groups(text: str | None) -> list[GroupWord]:
    """``group;status;date|…`` in parts; what is not of this form is left out."""
    parts = (part.split(";") for part in (text or "").split("|"))
    return [GroupWord(*part) for part in parts if len(part) == 3]


def most_recent(clock: SiteClock, civicrm: str, mailchimp: str | None) -> str:
    """Which side spoke last, of two site times; a tie, and a Mailchimp that never spoke, go to CiviCRM."""
    theirs, ours = read_time(clock, mailchimp), read_time(clock, civicrm)
    return CIVICRM if theirs is None or (ours is not None and ours >= theirs) else MAILCHIMP


def describe_problem(text: str | None) -> str:
    """Mailchimp's problem document in words, each field error on a line of JSON; other text as it is."""
    if not text:
        return ""
    try:
        problem = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if not isinstance(problem, dict):
        return text
    title, detail = str(problem.get("title") or ""), str(problem.get("detail") or "")
    words = f"{title}: {detail}" if title and detail else title or detail or text
    if is_member_exists(problem):
        words += EXISTS_HINT
    if errors := problem.get("errors"):
        words += "\n" + orjson.dumps(errors).decode()
    return words


def _explain(
    row: dict[str, Any],
    link: Link,
    clock: SiteClock,
    names: Mapping[int, str],
    updates: list[dict[str, str]],
    reasons: Mapping[int, str],
) -> dict[str, Any]:
    words = {word.group_id: word for word in read_groups(row["civicrm_groups"])}
    own = words.get(str(link.group_id))
    changed = row["mailchimp_updated"]
    return row | {
        "civicrm_status": own.status if own else "",
        "civicrm_updated": own.date if own else "",
        "most_recent": most_recent(clock, own.date, changed) if own else MAILCHIMP,
        "civicrm_other_groups": {
            word.group_id: {
                "status": word.status,
                "updated": word.date,
                "mostRecent": most_recent(clock, word.date, changed),
            }
            for word in words.values()
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
    newest_first = func.row_number().over(partition_by=update.c.mailchimpsync_cache_id, order_by=update.c.id.desc())
    numbered = (
        select(update.c.id, newest_first.label("place"))
        .where(update.c.mailchimpsync_cache_id.in_(cache_ids))
        .subquery()
    )
    rows = conn.execute(
        select(
            update.c.mailchimpsync_cache_id,
            update.c.data,
            update.c.completed,
            update.c.error_response,
            batch.c.submitted_at,
            batch.c.completed_at,
            batch.c.status,
        )
        .select_from(
            numbered.join(update, update.c.id == numbered.c.id).outerjoin(
                batch, batch.c.id == update.c.mailchimpsync_batch_id
            )
        )
        .where(numbered.c.place <= shown)
        .order_by(update.c.id.desc())
    )
    found: dict[int, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        state = "pending" if not row.completed else "error" if row.error_response else "ok"
        found[row.mailchimpsync_cache_id].append(
            {
                "data": row.data,
                "completed": str(row.completed),
                "submitted_at": row.submitted_at or "",
                "completed_at": row.completed_at or "",
                "status": state,
                "error": describe_problem(row.error_response),
                "batch_status": row.status or "",
            }
        )
    return found


def _pretty(text: str) -> str:
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode() if text else ""
