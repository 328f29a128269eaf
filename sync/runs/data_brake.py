"""The brake of merge fields: rules that would change the fields of too many members stop a run before anything is sent.

They are counted when a run looks at everybody by rules that no run has sent by yet: a new connection between a merge
field and a source, or another one. A member counts if at least one mapped field would be sent. What changes later by
the same rules is CiviCRM's everyday work.
"""

from sqlalchemy import Connection

from sync.audience import Audience
from sync.data.changes import RULES, fingerprint
from sync.data.member_data import plan_data, select_members
from sync.data.plugins import DataPlugins
from sync.runs.brake import stop_run
from sync.runs.impact import DATA, Impact, Limits
from sync.runs.run import Run
from sync.store.runs.data_due import read_marks
from sync.store.tables import cache


async def check_data_brake(run: Run) -> None:
    """Stop a run whose new rules would change too many members. Raises SyncBraked, with the brake stored."""
    plugins = run.ctx.plugins
    limits = Limits.of(run.ctx.settings.sync, run.audience.brake)
    is_confirmed = run.parameters.confirmed or run.parameters.confirmed_data
    if is_confirmed or not limits.data or not run.audience.merge_fields:
        return
    if not await run.ctx.store.read(_has_new_rules, run.audience, plugins):
        return
    changed, members = 0, 0
    after: int | None = 0
    while after is not None:
        more, seen, after = await run.ctx.store.read(
            count_changed, run.audience, plugins, after, run.ctx.sizes.rows_per_unit
        )
        changed, members = changed + more, members + seen
    impact = Impact(data_changes=changed, audience_size=members)
    if impact.exceeds(limits) == DATA:
        await stop_run(run, DATA, impact, limits, _sentence(impact, limits))


def count_changed(
    conn: Connection, audience: Audience, plugins: DataPlugins, after: int, size: int
) -> tuple[int, int, int | None]:
    """Of the next members: for how many a mapped field would be sent, how many they are, and the row to continue
    after."""
    rows = conn.execute(select_members(audience).where(cache.c.id > after).order_by(cache.c.id).limit(size)).all()
    plans = plan_data(conn, audience, rows, plugins).plans
    changed = sum(not one.mapped.isdisjoint(one.fields) for one in plans)
    return changed, len(rows), rows[-1].id if len(rows) == size else None


def _has_new_rules(conn: Connection, audience: Audience, plugins: DataPlugins) -> bool:
    marks = read_marks(conn, audience.list_id)
    return marks is None or marks.get(RULES) != fingerprint(conn, audience, plugins)


def _sentence(impact: Impact, limits: Limits) -> str:
    return (
        f"The brake is on: this sync would change merge fields of {impact.data_changes:,} of {impact.audience_size:,} "
        f"members at Mailchimp; the limit is {limits.data:g} % and {limits.people:,} people. Nothing was sent. "
        "Check Mailchimpsync.plan with_data=1; to go ahead, call fetchandreconcile with confirm=1."
    )
