"""Preview of a sync: ``Mailchimpsync.plan``.

The stages of the sync run over a scratch copy of the tables that they read, up to the first write to Mailchimp, and
each plan that they apply is recorded with its kind. So there is no second copy of any rule. Mailchimp is only read, and
neither CiviCRM's tables nor the cache are changed. The run is confirmed in advance, so that the brake does not stop it:
the preview shows the effect of confirming.

The result is stored for half an hour under the plan's id, so that any process can answer with its pages.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select
from sqlalchemy import update as update_rows_of

from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.databases.bulk import insert_rows
from civiapi.store.databases.expressions import unindexed
from civiapi.store.engine import Store
from civiapi.store.schema import tables as civicrm
from civiapi.store.scratch import TableCopy, copy_table, scratch_store
from sync.audience import Audience
from sync.connections.linked_groups import with_usable_groups
from sync.context import SyncContext
from sync.data.member_data import plan_data, select_members
from sync.errors import SyncError
from sync.leases import hold_lease
from sync.reconcile.categories import DATA, DATA_LEFT_OUT, JOIN_GROUP, NEW_CONTACT, QUIET, kind_of, summarize
from sync.reconcile.plan import Plan
from sync.runs.engine import run_audience
from sync.runs.run import RunRequest
from sync.store.tables import (
    cache,
    hold,
    member,
    plan,
    plan_person,
    run,
    run_log,
    source_contact,
    source_group,
    status,
    update,
    update_detail,
)

KEPT_SECONDS = 1800
UNFINISHED = ""
"""The counts of a plan whose people are being stored."""
LEASE = "plan:"
BEFORE_SENDING = "readyToSubmitUpdates"
COLUMNS = ("plan_id", "kind", "contact_id", "name", "email", "mailchimp_status", "civicrm_status", "reason")
CONTACT = (
    "id", "contact_type", "display_name", "first_name", "last_name", "is_deleted", "is_deceased", "is_opt_out",
    "do_not_email", "modified_date",
)  # fmt: skip
MADE = "CiviCRM does not know this address: a contact is made. "


class PlanGone(SyncError):
    """A plan is kept for half an hour."""

    def __init__(self) -> None:
        super().__init__("That plan is not kept any more; make a new one (leave plan_id out).")


@dataclass(frozen=True, slots=True)
class PlanFilter:
    """Selects people of a plan: of these kinds (none: all), with this text in name or address; a page of them."""

    kinds: Sequence[str] = ()
    search: str = ""
    limit: int = 25
    offset: int = 0


@dataclass(slots=True)
class _Notes:
    """The result of a trial run: counts by kind, and in the scratch store a row for each person with a change."""

    known_upto: int
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, conn: Connection, one: Plan) -> None:
        """Record the plan of a row, in the unit that applies it."""
        facts, kind = one.facts, kind_of(one)
        is_new = facts.contact_id is not None and facts.contact_id > self.known_upto
        if is_new and kind == JOIN_GROUP:
            kind = NEW_CONTACT
        self.counts[kind] += 1
        if kind in QUIET:
            return
        values = {
            "plan_id": "",
            "kind": kind,
            "contact_id": facts.contact_id,
            "email": facts.member_email or facts.person.best_email,
            "mailchimp_status": facts.member.status if facts.member else None,
            "civicrm_status": facts.group.status if facts.group else None,
            "reason": (MADE if is_new else "") + one.reason,
        }
        conn.execute(insert(plan_person).values(**values))


async def make_plan(
    ctx: SyncContext, audience: Audience, since: datetime | str | None, *, with_data: bool = False
) -> str:
    """Work out what a sync would do, and keep it; returns its id. *with_data*: also what it sends of members' data.

    Raises SyncError.
    """
    await ctx.store.read(with_usable_groups, audience)  # the group must be there
    async with hold_lease(ctx, LEASE + audience.list_id, brief=True, wait_seconds=0.0) as lease:
        if lease is None:
            raise SyncError("A plan of this audience is being made at this moment; ask again once it is there.")
        if await ctx.store.read(leases.is_live, audience.list_id, leases.now_ms()):
            raise SyncError("A sync of this audience is under way; a plan can be made once it has stopped.")
        async with scratch_store(ctx.store.clock) as scratch:
            known_upto = 0
            for part in _parts(audience):
                await copy_table(ctx.store, scratch, part)
            known_upto = await scratch.read(_highest_contact)
            notes = _Notes(known_upto)
            await _run_trial(ctx, scratch, audience, since, notes)
            if with_data:
                await _note_data(ctx, scratch, audience, notes)
            return await _keep(ctx.store, scratch, audience, notes)


async def _run_trial(
    ctx: SyncContext, scratch: Store, audience: Audience, since: datetime | str | None, notes: _Notes
) -> None:
    """Run the sync over the copy, up to where it would send."""
    unshared = replace(ctx.settings.sync, heartbeat_seconds=3600, claim_seconds=86_400)
    settings = replace(ctx.settings, sync=unshared)
    there = SyncContext(scratch, ctx.clients, settings, ctx.plugins, holder="plan", on_plan=notes.note)
    await run_audience(there, audience, RunRequest(0, since, stop_on=BEFORE_SENDING, confirm=True))


async def _note_data(ctx: SyncContext, scratch: Store, audience: Audience, notes: _Notes) -> None:
    """Record the data of present members that is to be sent, and what of it is left out."""
    after: int | None = 0
    while after is not None:
        rows, after = await ctx.store.read(_data_of, ctx, audience, after, ctx.sizes.rows_per_unit)
        notes.counts.update(row[1] for row in rows)
        await scratch.write(insert_rows, plan_person, COLUMNS, rows)


def _data_of(
    conn: Connection, ctx: SyncContext, audience: Audience, after: int, size: int
) -> tuple[list[tuple[Any, ...]], int | None]:
    members = conn.execute(select_members(audience).where(cache.c.id > after).order_by(cache.c.id).limit(size)).all()
    found: list[tuple[Any, ...]] = []
    for one in plan_data(conn, audience, members, ctx.plugins).plans:
        person = (one.row.civicrm_contact_id, None, one.row.mailchimp_email, None, None)
        found += [("", DATA, *person, one.sentence())] if not one.is_empty else []
        found += [("", DATA_LEFT_OUT, *person, " ".join(one.problems))] if one.problems else []
    return found, members[-1].id if len(members) == size else None


def _parts(audience: Audience) -> list[TableCopy]:
    """What the stages read: all contacts, any of which may match, and the rows of this audience and its groups."""
    contact, email, group_contact = civicrm.contact, civicrm.email, civicrm.group_contact
    history, mine = civicrm.subscription_history, cache.c.mailchimp_list_id == audience.list_id
    theirs = select(cache.c.id).where(mine)
    twins = [link.list_id for links in audience.also_linked.values() for link in links]
    newer = update.alias("newer")
    last = (
        select(func.max(newer.c.id))
        .where(newer.c.mailchimpsync_cache_id == update.c.mailchimpsync_cache_id)
        .correlate(update)
        .scalar_subquery()
    )
    needed = select(update.c.id).where(
        update.c.mailchimpsync_cache_id.in_(theirs), or_(update.c.completed == 0, update.c.id == last)
    )
    return [
        TableCopy(contact, contact.c.id, columns=CONTACT),
        TableCopy(email, email.c.id),
        TableCopy(civicrm.location_type, civicrm.location_type.c.id),
        TableCopy(civicrm.group, civicrm.group.c.id, [civicrm.group.c.id.in_(audience.group_ids)]),
        TableCopy(group_contact, group_contact.c.id, [unindexed(group_contact.c.group_id).in_(audience.group_ids)]),
        TableCopy(history, history.c.id, [unindexed(history.c.group_id).in_(audience.group_ids)]),
        TableCopy(
            cache,
            cache.c.id,
            [unindexed(cache.c.mailchimp_list_id).in_({audience.list_id, *twins})],
        ),
        TableCopy(member, member.c.cache_id, [member.c.cache_id.in_(theirs)]),
        TableCopy(hold, hold.c.cache_id, [hold.c.cache_id.in_(theirs)]),
        TableCopy(update, update.c.id, [update.c.id.in_(needed)]),
        TableCopy(update_detail, update_detail.c.update_id, [update_detail.c.update_id.in_(needed)]),
        *(_source_parts(audience) if audience.one_way else ()),
        TableCopy(status, status.c.list_id, [status.c.list_id == audience.list_id]),
        TableCopy(run, run.c.list_id, [run.c.list_id == audience.list_id]),
    ]


def _source_parts(audience: Audience) -> list[TableCopy]:
    """What a sync reads of a smart group, and what it knows of it."""
    cached, known = civicrm.group_contact_cache, source_contact
    return [
        TableCopy(cached, cached.c.id, [cached.c.group_id == audience.group_id]),
        TableCopy(known, known.c.id, [known.c.group_id == audience.group_id]),
        TableCopy(source_group, source_group.c.group_id, [source_group.c.group_id == audience.group_id]),
    ]


def _highest_contact(conn: Connection) -> int:
    return conn.execute(select(func.max(civicrm.contact.c.id))).scalar() or 0


# ── Storing and reading a plan ──────────────────────────────────────────────────────────────────────────────────────


async def _keep(store: Store, scratch: Store, audience: Audience, notes: _Notes) -> str:
    """Copy the result into the store, a page at a time; the plan's id is returned once all of it is stored."""
    plan_id, after = secrets.token_hex(16), 0
    await forget_old_plans(store)
    await store.write(_note_plan, plan_id, audience.list_id)
    while True:
        people = await scratch.read(_noted, notes.known_upto, after)
        if not people:
            break
        after = people[-1][0]
        await store.write(insert_rows, plan_person, COLUMNS, [(plan_id, *one[1:]) for one in people])
    await store.write(_complete_plan, plan_id, notes.counts)
    return plan_id


def _noted(conn: Connection, known_upto: int, after: int) -> list[tuple[Any, ...]]:
    contact = civicrm.contact
    rows = conn.execute(
        select(plan_person, contact.c.display_name)
        .outerjoin(contact, contact.c.id == plan_person.c.contact_id)
        .where(plan_person.c.id > after)
        .order_by(plan_person.c.id)
        .limit(1000)
    )
    return [
        (
            row.id,
            row.kind,
            row.contact_id if row.contact_id is not None and row.contact_id <= known_upto else None,
            row.display_name,
            row.email,
            row.mailchimp_status,
            row.civicrm_status,
            row.reason,
        )
        for row in rows
    ]


def _note_plan(conn: Connection, plan_id: str, list_id: str) -> None:
    made = leases.now_ms() // 1000
    conn.execute(insert(plan).values(id=plan_id, list_id=list_id, made_s=made, counts=UNFINISHED))


def _complete_plan(conn: Connection, plan_id: str, counts: Counter[str]) -> None:
    conn.execute(update_rows_of(plan).where(plan.c.id == plan_id).values(counts=orjson.dumps(dict(counts)).decode()))


def find_kept(conn: Connection, list_id: str) -> str:
    """The newest plan of this audience that is kept and that no run has followed; ``""`` if there is none."""
    since = leases.now_ms() // 1000 - KEPT_SECONDS
    ran = select(func.max(run_log.c.started_s)).where(run_log.c.list_id == list_id).scalar_subquery()
    mine = (plan.c.list_id == list_id, plan.c.made_s >= since, plan.c.counts != UNFINISHED)
    newest = select(plan.c.id).where(*mine, plan.c.made_s >= func.coalesce(ran, 0)).order_by(plan.c.made_s.desc())
    return conn.execute(newest.limit(1)).scalar() or ""


async def forget_old_plans(store: Store) -> None:
    """Delete expired plans with their people, whose names and addresses they contain."""
    old = await store.read(_old_plans, leases.now_ms() // 1000)
    if old:
        await store.write(_forget, old)


def _old_plans(conn: Connection, now_s: int) -> list[str]:
    return list(conn.execute(select(plan.c.id).where(plan.c.made_s < now_s - KEPT_SECONDS)).scalars())


def _forget(conn: Connection, plan_ids: Sequence[str]) -> None:
    conn.execute(delete(plan_person).where(plan_person.c.plan_id.in_(plan_ids)))
    conn.execute(delete(plan).where(plan.c.id.in_(plan_ids)))


def read_plan(conn: Connection, plan_id: str, list_id: str, group_id: int, clock: SiteClock, shown: PlanFilter) -> Any:
    """A stored plan of this audience: its summary, and the people selected. Raises PlanGone."""
    row = conn.execute(select(plan).where(plan.c.id == plan_id, plan.c.list_id == list_id)).one_or_none()
    if row is None or row.made_s < leases.now_ms() // 1000 - KEPT_SECONDS:
        raise PlanGone
    where = _where(plan_id, shown)
    people = conn.execute(
        select(plan_person).where(*where).order_by(plan_person.c.id).limit(shown.limit or 2**31).offset(shown.offset)
    )
    return {
        "plan_id": plan_id,
        "list_id": list_id,
        "group_id": group_id,
        "made_at": clock.write_epoch(row.made_s),
        "summary": summarize(orjson.loads(row.counts)),
        "count": conn.execute(select(func.count()).select_from(plan_person).where(*where)).scalar_one(),
        "people": [
            {
                "contact_id": one.contact_id,
                "name": one.name or "",
                "email": one.email or "",
                "kind": one.kind,
                "mailchimp_status": one.mailchimp_status or "",
                "civicrm_status": one.civicrm_status or "",
                "reason": one.reason,
            }
            for one in people
        ],
    }


def _where(plan_id: str, shown: PlanFilter) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [plan_person.c.plan_id == plan_id]
    if shown.kinds:
        where.append(plan_person.c.kind.in_(list(shown.kinds)))
    if shown.search:
        found = [column.contains(shown.search, autoescape=True) for column in (plan_person.c.name, plan_person.c.email)]
        where.append(or_(*found))
    return where
