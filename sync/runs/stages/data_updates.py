"""readyToCheckForDataUpdates, only in runs with data: queues the members' names, merge fields and tags.

A full run, and the first one with data or after the rules changed, looks at every member. Others look at those who may
have changed, table by table (``data.changes``). The phases follow each other in the order of `_PHASES`; the marks of
the run, taken at its beginning, are stored at its end.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, select

from civiapi.store.databases.expressions import in_list
from sync.connections.config import note_merge_fields, read_config
from sync.data import changes
from sync.data.member_data import select_members
from sync.data.plugins import DataPlugins
from sync.data.queue import queue_data
from sync.data.sources import find_missing
from sync.field_rules import MergeField
from sync.runs.data_brake import check_data_brake
from sync.runs.run import Run, Step, next_todo
from sync.runs.stages.modified_contacts import modified_since, walk_modified
from sync.store.runs.checkpoints import Cursor
from sync.store.runs.data_due import forget_due, next_due, note_retries, read_marks, write_marks
from sync.store.tables import cache

Part = tuple[Sequence[Any], Any]
"""Rows of `select_members`, and where the phase continues; None at its end."""

log = structlog.get_logger(__name__)


async def prepare_data(run: Run) -> None:
    """Ask Mailchimp which merge fields there are, and check the brake. Raises SyncBraked."""
    if run.audience.merge_fields:
        await _read_fields(run)
        await check_data_brake(run)


async def check_for_data_updates(run: Run) -> None:
    """Queue the data that changed in CiviCRM since it was last sent."""
    plugins = run.ctx.plugins

    def check(conn: Connection, step: Step) -> None:
        _check(conn, step, plugins)

    await run.repeat(check)


async def _read_fields(run: Run) -> None:
    """Ask Mailchimp which merge fields there are, and use the rules as they are then."""
    fields = await run.client.get_merge_fields(run.audience.list_id)
    known = {one.tag: one for body in fields if (one := MergeField.from_wire(body)) is not None}
    await run.commit(_note_fields, known)
    run.audience = await run.ctx.store.read(_with_rules, run)


def _note_fields(conn: Connection, step: Step, fields: Mapping[str, MergeField]) -> None:
    gone = note_merge_fields(conn, step.audience.list_id, fields)
    if gone:
        step.log(f"Mailchimp has no merge field {', '.join(gone)} any more; what fills it is not sent.")
    rules = read_config(conn).link_for_list(step.audience.list_id).merge_fields
    missing = find_missing(conn, {rule.source for rule in rules.values()})
    for tag, rule in rules.items():
        if why := missing.get(rule.source):
            step.log(f"Nothing is sent for merge field {tag}, which keeps its values: its source {rule.source} {why}.")


def _with_rules(conn: Connection, run: Run) -> Any:
    return run.audience.with_rules(read_config(conn).link_for_list(run.audience.list_id).merge_fields)


def _check(conn: Connection, step: Step, plugins: DataPlugins) -> None:
    cursor = step.checkpoint.cursor or _begin(conn, step, plugins)
    phase = cursor["phases"][0]
    rows, following = _PHASES[phase.partition(":")[0]](conn, step, cursor)
    done = queue_data(conn, step.audience, rows, plugins, settle_names=step.parameters.is_full)
    step.counts.update(rows=done.rows, updates=done.updates)
    cursor |= {
        "after": following,
        "updates": cursor["updates"] + done.updates,
        "problems": cursor["problems"] + done.problems,
        "failed": {**cursor["failed"], **done.failed},
    }
    if following is None:
        cursor |= {"phases": cursor["phases"][1:], "after": None}
    if cursor["phases"]:
        step.continue_from(**cursor)
        return
    write_marks(conn, step.audience.list_id, cursor["marks"])
    _log(step, cursor, plugins)
    step.finish()


def _begin(conn: Connection, step: Step, plugins: DataPlugins) -> Cursor:
    before = read_marks(conn, step.audience.list_id)
    marks = changes.read_ends(conn, step.audience, plugins, int(step.at.timestamp()))
    phases = ["tags", "all"]
    if before is not None and not step.parameters.is_full and before.get(changes.RULES) == marks[changes.RULES]:
        tables = [one.name for one in changes.trails(conn, step.audience)]
        note_retries(conn, step.audience.list_id, int(step.at.timestamp()))
        phases = [
            "tags",
            "due",
            "todo",
            "modified",
            *(f"trail:{name}" for name in tables if marks[name] > before.get(name, 0)),
        ]
        marks[changes.SLICE] = before.get(changes.SLICE, 0)
        phases += ["slice"] if changes.has_traceless(step.audience, plugins, marks) else []
    counted = {"updates": 0, "problems": 0, "failed": {}}
    return {"phases": phases, "after": None, "marks": marks, "before": before or {}, **counted}


def _log(step: Step, cursor: Cursor, plugins: DataPlugins) -> None:
    step.log(f"Data: {cursor['updates']} members have changed data in CiviCRM.")
    if cursor["problems"]:
        step.log(f"Data: values of {cursor['problems']} members are left out; each person's page says which and why.")
    for name, error in {**plugins.broken, **cursor["failed"]}.items():
        step.log(f"The plugin {name} failed, and what it gives was left as it was: {error}")


# ── Phases: which members are looked at next ────────────────────────────────────────────────────────────────────────


def _tags(conn: Connection, step: Step, cursor: Cursor) -> Part:
    """Nobody yet: counts the rows of tags. Where some are missing that were there, everybody is looked at."""
    marks, before, size = cursor["marks"], cursor["before"], step.sizes.scanned_ids_per_unit
    known, end = int(before.get(changes.TAGS_TRAIL, 0)), int(marks[changes.TAGS_TRAIL])
    after = int(cursor["after"] or 0)
    upto = min(known if after < known else end, after + size)
    marks[changes.TAG_ROWS] = marks.get(changes.TAG_ROWS, 0) + changes.count_tags(conn, after, upto)
    if upto == known and marks[changes.TAG_ROWS] < before.get(changes.TAG_ROWS, 0):
        cursor["phases"] = [cursor["phases"][0], "all"]
    return (), upto if upto < max(end, known) else None


def _everybody(conn: Connection, step: Step, cursor: Cursor) -> Part:
    after = int(cursor["after"] or 0)
    return _members_after(conn, step, after, step.sizes.rows_per_unit)


def _members_after(conn: Connection, step: Step, after: int, size: int) -> Part:
    wanted = select_members(step.audience).where(cache.c.id > after).order_by(cache.c.id).limit(size)
    rows = conn.execute(wanted).all()
    return rows, rows[-1].id if len(rows) == size else None


def _due(conn: Connection, step: Step, cursor: Cursor) -> Part:
    """Members that joined or changed at Mailchimp."""
    size = step.sizes.rows_per_unit
    ids = next_due(conn, step.audience.list_id, int(cursor["after"] or 0), size)
    rows = conn.execute(select_members(step.audience).where(in_list(cache.c.id, ids)).order_by(cache.c.id)).all()
    forget_due(conn, ids)
    return rows, ids[-1] if len(ids) == size else None


def _todo(conn: Connection, step: Step, cursor: Cursor) -> Part:
    """Members that changed, or that a person includes in the next sync."""
    size = step.sizes.rows_per_unit
    found, _ = next_todo(conn, step.audience, int(cursor["after"] or 0), size)
    if found is None:
        return (), None
    wanted = select_members(step.audience).where(found.of(step.audience)).order_by(cache.c.id)
    return conn.execute(wanted).all(), found.upto


def _modified(conn: Connection, step: Step, cursor: Cursor) -> Part:
    since = modified_since(step.audience, int(cursor["before"][changes.CONTACTS]))
    size = step.sizes.rows_per_unit
    places, following = walk_modified(conn, step.audience.list_id, since, cursor["after"] or {}, size)
    return _of_contacts(conn, step, [place["id"] for place in places]), following


def _on_trail(conn: Connection, step: Step, cursor: Cursor) -> Part:
    name = cursor["phases"][0].partition(":")[2]
    one = next((one for one in changes.trails(conn, step.audience) if one.name == name), None)
    if one is None:  # the table is gone
        return (), None
    begin = max(0, int(cursor["before"].get(name, 0)) - changes.LAG_IDS)
    after = begin if cursor["after"] is None else int(cursor["after"])
    sizes = step.sizes
    ids, following = changes.next_on_trail(
        conn, one, after, cursor["marks"][name], sizes.rows_per_unit, sizes.scanned_ids_per_unit
    )
    return _of_contacts(conn, step, ids), following


def _slice(conn: Connection, step: Step, cursor: Cursor) -> Part:
    """The next members all round: those whose data changed without a trace are met sooner or later."""
    after, size = int(cursor["marks"].get(changes.SLICE, 0)), step.sizes.rows_per_unit
    rows, following = _members_after(conn, step, after, size)
    cursor["marks"][changes.SLICE] = following or 0
    return rows, None


def _of_contacts(conn: Connection, step: Step, contact_ids: Sequence[int]) -> Sequence[Any]:
    mine = select(cache.c.id).where(
        cache.c.mailchimp_list_id == step.audience.list_id, in_list(cache.c.civicrm_contact_id, contact_ids)
    )
    ids = list(conn.execute(mine).scalars()) if contact_ids else []
    wanted = select_members(step.audience).where(in_list(cache.c.id, ids)).order_by(cache.c.id)
    return conn.execute(wanted).all() if ids else ()


_PHASES: Mapping[str, Callable[[Connection, Step, Cursor], Part]] = {
    "tags": _tags,
    "all": _everybody,
    "due": _due,
    "todo": _todo,
    "modified": _modified,
    "trail": _on_trail,
    "slice": _slice,
}
