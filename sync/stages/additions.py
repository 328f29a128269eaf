"""readyToAddCiviOnly: contacts in the group who are no members get a row, so that somebody thinks about them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select
from sqlalchemy import insert as insert_into
from sqlalchemy import update as change

from civiapi.store.contacts import addresses_of, best_email
from civiapi.store.dialect import among, unindexed
from civiapi.store.tables import contact, group_contact, subscription_history
from sync.audience import Audience
from sync.facts import LatestWords
from sync.reconcile import ADDED, LONG_AGO
from sync.stages.base import ROWS_A_BIT, ROWS_A_SET, Run, Step
from sync.stages.recent import next_modified
from sync.tables import cache

LAG_SECONDS = 600
"""History this young may still have older rows to come, from a transaction that began before and commits later."""


async def add_civi_only(run: Run) -> None:
    """Make rows for contacts in the group that have none: of everybody, or of those who changed since the last run."""
    await run.repeat(_add)


def _add(conn: Connection, step: Step) -> None:
    cursor = step.position.cursor
    if cursor is None:
        _fix_horizon(conn, step)
        cursor = {"phase": "all" if step.question.is_full else "history", "after": 0, "added": 0}
        if not step.question.is_full:
            cursor["after"] = step.position.history_id
    if cursor["phase"] == "all":
        ids, following = _everyone(conn, step, cursor)
    elif cursor["phase"] == "history":
        ids, following = _by_history(conn, step, cursor)
    else:
        ids, following = _recent(conn, step, cursor)
    added = make_rows(conn, step.audience, ids)
    step.counts.update(added=added)
    total = cursor["added"] + added
    if following is not None:
        step.stay(**following, added=total)
        return
    step.say(f"Group: {total} contacts in the group are not at Mailchimp yet.")
    step.finish()


def _fix_horizon(conn: Connection, step: Step) -> None:
    """Settle up to which history row this run has seen: what is said later is the next run's.

    Rows are not always committed in the order of their ids (MariaDB): the watermark stays behind the youngest rows,
    which are then simply read again.
    """
    history = subscription_history.c
    settled = step.audience.clock.write(datetime.fromtimestamp(step.at.timestamp() - LAG_SECONDS, UTC))
    newer = history.id > step.position.history_id
    horizon = conn.execute(select(func.max(history.id)).where(newer)).scalar() or step.position.history_id
    watermark = conn.execute(select(func.max(history.id)).where(newer, history.date <= settled)).scalar()
    step.position.question = replace(
        step.question, history_upto=horizon, history_mark=watermark or step.position.history_id
    )


Found = tuple[list[int], dict[str, Any] | None]


def _everyone(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    after = int(cursor["after"])
    part = select(group_contact.c.id).where(
        group_contact.c.group_id == step.audience.group_id, group_contact.c.id > after
    )
    bound = part.order_by(group_contact.c.id).limit(ROWS_A_SET).subquery()
    upto = conn.execute(select(func.max(bound.c.id))).scalar()
    if upto is None:
        return [], None
    missing = _added(step.audience).where(
        group_contact.c.id > after, group_contact.c.id <= upto, ~_has_row(step.audience)
    )
    return list(conn.execute(missing).scalars()), {"phase": "all", "after": upto}


def _by_history(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    history = subscription_history.c
    rows = conn.execute(
        select(history.id, history.contact_id)
        .where(
            history.id > cursor["after"],
            history.id <= step.question.history_upto,
            history.group_id == step.audience.group_id,
        )
        .order_by(history.id)
        .limit(ROWS_A_BIT)
    ).all()
    if not rows:
        return [], {"phase": "recent", "after": {}}
    return without_row(conn, step.audience, [row.contact_id for row in rows]), {
        "phase": "history",
        "after": rows[-1].id,
    }


def _recent(conn: Connection, step: Step, cursor: dict[str, Any]) -> Found:
    ids, following = next_modified(conn, step, cursor["after"], ROWS_A_BIT)
    return without_row(conn, step.audience, ids), {"phase": "recent", "after": following} if following else None


def without_row(conn: Connection, audience: Audience, contact_ids: list[int]) -> list[int]:
    wanted = _added(audience).where(
        among(group_contact.c.contact_id, list(dict.fromkeys(contact_ids))), ~_has_row(audience)
    )
    return list(conn.execute(wanted).scalars()) if contact_ids else []


def _added(audience: Audience) -> Select[Any]:
    return (
        select(group_contact.c.contact_id)
        .join(contact, contact.c.id == group_contact.c.contact_id)
        .where(
            group_contact.c.group_id == audience.group_id,
            group_contact.c.status == ADDED,
            unindexed(contact.c.is_deleted) == 0,
        )
    )


def _has_row(audience: Audience) -> Any:
    mine = select(cache.c.id).where(
        cache.c.mailchimp_list_id == audience.list_id, cache.c.civicrm_contact_id == group_contact.c.contact_id
    )
    return mine.correlate(group_contact).exists()


def make_rows(conn: Connection, audience: Audience, contact_ids: list[int]) -> int:
    """Give each contact a row: that of the member with their address if its contact has left, else one of their own."""
    added = 0
    for start in range(0, len(contact_ids), ROWS_A_BIT // 2):
        part = contact_ids[start : start + ROWS_A_BIT // 2]
        taken = set(_take_over(conn, audience, part))
        rest = [i for i in part if i not in taken]
        wanted = select(literal(audience.list_id), contact.c.id, literal("todo")).where(among(contact.c.id, rest))
        columns = ["mailchimp_list_id", "civicrm_contact_id", "sync_status"]
        conn.execute(insert_into(cache).from_select(columns, wanted))
        added += len(rest)
    return added


def _take_over(conn: Connection, audience: Audience, contact_ids: list[int]) -> list[int]:
    """Give contacts the member with their address where its own contact is out of the group and said so before them.

    Returns those contacts. Anybody else who shares an address stays with a row of their own, which fails with that
    reason.
    """
    best = {i: (best_email(mine) or "").lower() for i, mine in addresses_of(conn, contact_ids).items()}
    held = conn.execute(
        select(cache.c.id, cache.c.mailchimp_email, cache.c.civicrm_contact_id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            among(cache.c.mailchimp_email, [address for address in best.values() if address]),
            cache.c.mailchimp_member_id.is_not(None),
            unindexed(cache.c.civicrm_contact_id).is_not(None),
        )
    ).all()
    if not held:
        return []
    words = LatestWords(conn, audience, [*contact_ids, *(row.civicrm_contact_id for row in held)])
    taken: list[int] = []
    for row in held:
        holder = words.standing(row.civicrm_contact_id, audience.group_id, None)
        heirs = sorted(i for i, address in best.items() if address == row.mailchimp_email.lower())
        if not heirs or (holder is not None and holder.status == ADDED):
            continue
        heir = words.standing(heirs[0], audience.group_id, None)
        if heir is not None and heir.since > (holder.since if holder else LONG_AGO):
            conn.execute(
                change(cache).where(cache.c.id == row.id).values(civicrm_contact_id=heirs[0], sync_status="todo")
            )
            taken.append(heirs[0])
    return taken
