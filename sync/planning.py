"""What a sync would do, before it does: ``Mailchimpsync.plan``.

The sync itself is run, its own stages over a scratch copy of what they read, up to where it would write to Mailchimp;
each plan it carries out there is noted with its kind. So there is no second copy of any rule. Mailchimp is only read,
and nothing of CiviCRM's tables or of the cache is touched. The plan is asked with a yes to the brake: it shows what
would come of confirming.

What was noted is kept for a while in tables of ours under the plan's id, so that any process can give out its pages.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select

from civiapi.store import tables as civicrm
from civiapi.store.bulk import insert_rows
from civiapi.store.clock import SiteClock
from civiapi.store.dialect import unindexed
from civiapi.store.engine import Store
from civiapi.store.scratch import Part, copy_part, scratch_store
from sync import claims
from sync.audience import Audience
from sync.context import SyncContext
from sync.engine import RunRequest, prepare, run_audience
from sync.errors import SyncError
from sync.holding import held
from sync.kinds import JOIN_GROUP, KINDS, NEW_CONTACT, QUIET, sentence
from sync.reconcile import Plan
from sync.tables import cache, member, plan, plan_person, run, status, update, update_detail

KEPT_SECONDS = 1800
CLAIM = "plan:"
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
class Wish:
    """Which people of a plan are wanted: of these kinds (none: all), with this in name or address; a page of them."""

    kinds: Sequence[str] = ()
    search: str = ""
    limit: int = 25
    offset: int = 0


@dataclass(slots=True)
class _Notes:
    """What a rehearsal comes to: counted by kind, and in the scratch store a line for each person it touches."""

    known_upto: int
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, conn: Connection, one: Plan, kind: str) -> None:
        """Keep what is planned for a row, in the unit that carries it out."""
        facts = one.facts
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


async def make_plan(ctx: SyncContext, audience: Audience, since: datetime | str | None) -> str:
    """Work out what a sync would do, and keep it; returns its id. Raises SyncError."""
    await ctx.store.read(prepare, audience)  # the group must be there
    async with held(ctx, CLAIM + audience.list_id, brief=True, patience=0.0) as claim:
        if claim is None:
            raise SyncError("A plan of this audience is being made at this moment; ask again once it is there.")
        if await ctx.store.read(claims.is_live, audience.list_id, claims.now_ms()):
            raise SyncError("A sync of this audience is under way; a plan can be made once it has stopped.")
        async with scratch_store(ctx.store.clock) as scratch:
            known_upto = 0
            for part in _parts(audience):
                await copy_part(ctx.store, scratch, part)
            known_upto = await scratch.read(_highest_contact)
            notes = _Notes(known_upto)
            await _rehearse(ctx, scratch, audience, since, notes)
            return await _keep(ctx.store, scratch, audience, notes)


async def _rehearse(
    ctx: SyncContext, scratch: Store, audience: Audience, since: datetime | str | None, notes: _Notes
) -> None:
    """Run the sync over the copy, up to where it would send."""
    options = replace(ctx.options, heartbeat_seconds=3600, claim_seconds=86_400)  # nobody else is there
    there = SyncContext(scratch, ctx.clients, options, ctx.plugins, holder="plan", on_plan=notes.note)
    await run_audience(there, audience, RunRequest(0, since, stop_on=BEFORE_SENDING, confirm=True))


def _parts(audience: Audience) -> list[Part]:
    """What the stages read: contacts, whom they may match, and all there is of this audience and its groups."""
    contact, email, group_contact = civicrm.contact, civicrm.email, civicrm.group_contact
    history, mine = civicrm.subscription_history, cache.c.mailchimp_list_id == audience.list_id
    theirs = select(cache.c.id).where(mine)
    newer = update.alias("newer")
    last = (
        select(func.max(newer.c.id))
        .where(newer.c.mailchimpsync_cache_id == update.c.mailchimpsync_cache_id)
        .correlate(update)
        .scalar_subquery()
    )
    owed = select(update.c.id).where(
        update.c.mailchimpsync_cache_id.in_(theirs), or_(update.c.completed == 0, update.c.id == last)
    )
    return [
        Part(contact, contact.c.id, columns=CONTACT),
        Part(email, email.c.id),
        Part(civicrm.location_type, civicrm.location_type.c.id),
        Part(civicrm.group, civicrm.group.c.id, [civicrm.group.c.id.in_(audience.group_ids)]),
        Part(group_contact, group_contact.c.id, [unindexed(group_contact.c.group_id).in_(audience.group_ids)]),
        Part(history, history.c.id, [unindexed(history.c.group_id).in_(audience.group_ids)]),
        Part(cache, cache.c.id, [unindexed(cache.c.mailchimp_list_id) == audience.list_id]),
        Part(member, member.c.cache_id, [member.c.cache_id.in_(theirs)]),
        Part(update, update.c.id, [update.c.id.in_(owed)]),
        Part(update_detail, update_detail.c.update_id, [update_detail.c.update_id.in_(owed)]),
        Part(status, status.c.list_id, [status.c.list_id == audience.list_id]),
        Part(run, run.c.list_id, [run.c.list_id == audience.list_id]),
    ]


def _highest_contact(conn: Connection) -> int:
    return conn.execute(select(func.max(civicrm.contact.c.id))).scalar() or 0


# ── Keeping it, and giving it out ───────────────────────────────────────────────────────────────────────────────────


async def _keep(store: Store, scratch: Store, audience: Audience, notes: _Notes) -> str:
    """Bring what was noted into the store, a page at a time; nobody knows the plan's id until all is there."""
    plan_id, after = secrets.token_hex(16), 0
    await forget_old_plans(store)
    await store.write(_note_plan, plan_id, audience.list_id, notes.counts)
    while True:
        people = await scratch.read(_noted, notes.known_upto, after)
        if not people:
            break
        after = people[-1][0]
        await store.write(insert_rows, plan_person, COLUMNS, [(plan_id, *one[1:]) for one in people])
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


def _note_plan(conn: Connection, plan_id: str, list_id: str, counts: Counter[str]) -> None:
    made = claims.now_ms() // 1000
    values = {"id": plan_id, "list_id": list_id, "made_s": made, "counts": orjson.dumps(dict(counts)).decode()}
    conn.execute(insert(plan).values(**values))


async def forget_old_plans(store: Store) -> None:
    """Let plans go whose time is over, with their people: they are named in them."""
    old = await store.read(_old_plans, claims.now_ms() // 1000)
    if old:
        await store.write(_forget, old)


def _old_plans(conn: Connection, now_s: int) -> list[str]:
    return list(conn.execute(select(plan.c.id).where(plan.c.made_s < now_s - KEPT_SECONDS)).scalars())


def _forget(conn: Connection, plan_ids: Sequence[str]) -> None:
    conn.execute(delete(plan_person).where(plan_person.c.plan_id.in_(plan_ids)))
    conn.execute(delete(plan).where(plan.c.id.in_(plan_ids)))


def read_plan(conn: Connection, plan_id: str, list_id: str, group_id: int, clock: SiteClock, wish: Wish) -> Any:
    """A kept plan of this audience: its summary, and the people wanted of it. Raises PlanGone."""
    row = conn.execute(select(plan).where(plan.c.id == plan_id, plan.c.list_id == list_id)).one_or_none()
    if row is None or row.made_s < claims.now_ms() // 1000 - KEPT_SECONDS:
        raise PlanGone
    counts = orjson.loads(row.counts)
    where = _where(plan_id, wish)
    people = conn.execute(
        select(plan_person).where(*where).order_by(plan_person.c.id).limit(wish.limit or 2**31).offset(wish.offset)
    )
    return {
        "plan_id": plan_id,
        "list_id": list_id,
        "group_id": group_id,
        "made_at": clock.write(datetime.fromtimestamp(row.made_s, UTC)),
        "summary": [
            {"kind": kind, "count": counts[kind], "sentence": sentence(kind, counts[kind])}
            for kind in KINDS
            if counts.get(kind)
        ],
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


def _where(plan_id: str, wish: Wish) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [plan_person.c.plan_id == plan_id]
    if wish.kinds:
        where.append(plan_person.c.kind.in_(list(wish.kinds)))
    if wish.search:
        found = [column.contains(wish.search, autoescape=True) for column in (plan_person.c.name, plan_person.c.email)]
        where.append(or_(*found))
    return where
