"""readyToProcessEmailChanges and readyToCleanUpDuplicates: one row, under one address, for each person."""

from sqlalchemy import Connection, select

from civiapi.store.tables import email
from sync.apply import apply_plans
from sync.audience import RECEIVES_MAIL
from sync.cache import absorb
from sync.context import OnPlan
from sync.facts import facts_for
from sync.kinds import kind_of_address
from sync.reconcile import plan_address
from sync.stages.base import ROWS_A_STATEMENT, Run, Step, count_rows, next_bound
from sync.tables import cache


async def process_email_changes(run: Run) -> None:
    """Have members whose address the contact gave up moved to the contact's best one."""
    watch = run.ctx.on_plan

    def process(conn: Connection, step: Step) -> None:
        _process(conn, step, watch)

    await run.repeat(process)


def _process(conn: Connection, step: Step, watch: OnPlan | None) -> None:
    cursor = step.position.cursor or {"after": 0, "changes": 0}
    after, full = int(cursor["after"]), step.question.is_full
    if not after:
        step.total = count_rows(conn, step.audience.list_id, only_todo=not full)
    upto, size = next_bound(conn, step.audience, after, ROWS_A_STATEMENT, only_todo=not full)
    if upto is None:
        step.say(f"Addresses: {cursor['changes']} members have another one in CiviCRM.")
        step.finish()
        return
    changes = _move_members(conn, step, after, upto, watch)
    step.counts.update(rows=size, changes=changes)
    step.stay(after=upto, changes=cursor["changes"] + changes)


def _move_members(conn: Connection, step: Step, after: int, upto: int, watch: OnPlan | None) -> int:
    owned = select(email.c.id).where(
        email.c.contact_id == cache.c.civicrm_contact_id, email.c.email == cache.c.mailchimp_email
    )
    given_up = select(cache.c.id).where(
        cache.c.mailchimp_list_id == step.audience.list_id,
        cache.c.id > after,
        cache.c.id <= upto,
        cache.c.mailchimp_member_id.is_not(None),
        cache.c.civicrm_contact_id.is_not(None),
        ~owned.correlate(cache).exists(),
    )
    if not step.question.is_full:
        given_up = given_up.where(cache.c.sync_status == "todo")
    ids = list(conn.execute(given_up).scalars())
    facts = facts_for(conn, step.audience, ids, with_person=True)
    plans = [plan for one in facts if (plan := plan_address(one, step.audience)) is not None]
    if watch is not None:
        for one in plans:
            watch(conn, one, kind_of_address(one))
    apply_plans(conn, step.audience, plans, step.at)
    return len(plans)


async def clean_up_duplicates(run: Run) -> None:
    """Take CRM-only rows into the member row of the same contact, with whatever is under way for them."""
    await run.repeat(_clean_up)


def _clean_up(conn: Connection, step: Step) -> None:
    cursor = step.position.cursor or {"after": 0, "removed": 0}
    after, full = int(cursor["after"]), step.question.is_full
    if not after:
        step.total = count_rows(conn, step.audience.list_id, only_todo=not full)
    upto, size = next_bound(conn, step.audience, after, ROWS_A_STATEMENT, only_todo=not full)
    if upto is None:
        step.say(f"Cache: {cursor['removed']} rows of contacts that turned out to be members removed.")
        step.finish()
        return
    removed = _absorb_crm_only(conn, step, after, upto)
    step.counts.update(rows=size, removed=removed)
    step.stay(after=upto, removed=cursor["removed"] + removed)


def _absorb_crm_only(conn: Connection, step: Step, after: int, upto: int) -> int:
    """Find the pairs from the member's side; of a contact's members one in the audience is preferred."""
    other = cache.alias("other")
    pairs = (
        select(other.c.id, cache.c.id, cache.c.mailchimp_status)
        .join(
            other,
            (other.c.civicrm_contact_id == cache.c.civicrm_contact_id)
            & (other.c.mailchimp_list_id == cache.c.mailchimp_list_id),
        )
        .where(
            cache.c.mailchimp_list_id == step.audience.list_id,
            cache.c.id > after,
            cache.c.id <= upto,
            cache.c.mailchimp_member_id.is_not(None),
            other.c.mailchimp_member_id.is_(None),
        )
    )
    if not step.question.is_full:
        pairs = pairs.where(cache.c.sync_status == "todo")
    keepers: dict[int, tuple[bool, int]] = {}
    for loser_id, keeper_id, status in conn.execute(pairs):
        candidate = (status not in RECEIVES_MAIL, keeper_id)
        keepers[loser_id] = min(keepers.get(loser_id, candidate), candidate)
    for loser_id, (_, keeper_id) in keepers.items():
        absorb(conn, loser_id, keeper_id)
    return len(keepers)
