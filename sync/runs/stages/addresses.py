"""readyToProcessEmailChanges and readyToCleanUpDuplicates: each contact has one row with one address."""

from sqlalchemy import Connection, select

from sync.model import RECEIVES_MAIL
from sync.reconcile.conditions import gave_up_address
from sync.reconcile.matching import Range
from sync.reconcile.planning import Watch, change_addresses, plan_rows
from sync.runs.run import Run, Step, next_range
from sync.store.members.cache import merge_into
from sync.store.tables import cache


async def process_email_changes(run: Run) -> None:
    """Queue a change of address for members whose contact no longer has their address."""
    watch = run.ctx.on_plan

    def process(conn: Connection, step: Step) -> None:
        _process(conn, step, watch)

    await run.repeat(process)


def _process(conn: Connection, step: Step, watch: Watch | None) -> None:
    cursor = step.checkpoint.cursor or {"after": 0, "changes": 0}
    after = int(cursor["after"])
    rows, size = next_range(conn, step, after)
    if rows is None:
        step.log(f"Addresses: {cursor['changes']} members have another one in CiviCRM.")
        step.finish()
        return
    changes = _move_members(conn, step, rows, watch)
    step.counts.update(rows=size, changes=changes)
    step.continue_from(after=rows.upto, changes=cursor["changes"] + changes)


def _move_members(conn: Connection, step: Step, rows: Range, watch: Watch | None) -> int:
    given_up = select(cache.c.id).where(rows.of(step.audience), gave_up_address())
    ids = list(conn.execute(given_up).scalars())
    plans = plan_rows(conn, step.audience, ids)
    return change_addresses(conn, step.audience, plans, step.at, watch)


async def clean_up_duplicates(run: Run) -> None:
    """Merge rows without a member into the member row of the same contact, with their open updates."""
    await run.repeat(_clean_up)


def _clean_up(conn: Connection, step: Step) -> None:
    cursor = step.checkpoint.cursor or {"after": 0, "removed": 0}
    after = int(cursor["after"])
    rows, size = next_range(conn, step, after)
    if rows is None:
        step.log(f"Cache: {cursor['removed']} duplicate rows of contacts that are members removed.")
        step.finish()
        return
    removed = _merge_duplicates(conn, step, rows)
    step.counts.update(rows=size, removed=removed)
    step.continue_from(after=rows.upto, removed=cursor["removed"] + removed)


def _merge_duplicates(conn: Connection, step: Step, rows: Range) -> int:
    """Merge them, preferring a member in the audience; returns how many."""
    other = cache.alias("other")
    pairs = (
        select(other.c.id, cache.c.id, cache.c.mailchimp_status)
        .join(
            other,
            (other.c.civicrm_contact_id == cache.c.civicrm_contact_id)
            & (other.c.mailchimp_list_id == cache.c.mailchimp_list_id),
        )
        .where(
            rows.of(step.audience),
            cache.c.mailchimp_member_id.is_not(None),
            other.c.mailchimp_member_id.is_(None),
        )
    )
    keepers: dict[int, tuple[bool, int]] = {}
    for loser_id, keeper_id, status in conn.execute(pairs):
        candidate = (status not in RECEIVES_MAIL, keeper_id)
        keepers[loser_id] = min(keepers.get(loser_id, candidate), candidate)
    for loser_id, (_, keeper_id) in keepers.items():
        merge_into(conn, loser_id, keeper_id)
    return len(keepers)
