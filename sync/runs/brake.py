"""The brake: a sync that would remove or add too many people stops before it reconciles, until a person confirms.

The brake and the confirmation are kept in the audience's checkpoint. A confirmed run that was killed continues without
asking again; a braked run that is started again without a confirmation fetches what is new and is checked again.
"""

from dataclasses import asdict, replace
from typing import Any, NoReturn

from sqlalchemy import Connection

from civiapi.store.author import Author
from sync.audience import Audience, interest_kind
from sync.errors import SyncBraked
from sync.runs.impact import ADDITIONS, DATA, GROUP, Impact, Limits, estimate_impact
from sync.runs.run import Run, Step
from sync.store.events import BRAKE, CONFIRM, record
from sync.store.runs.checkpoints import READY_TO_FETCH, Checkpoint


async def check_brake(run: Run) -> None:
    """Stop a run that would do too much, before it reconciles. Raises SyncBraked, with the brake stored."""
    if not run.parameters.confirmed:
        limits = Limits.of(run.ctx.settings.sync, run.audience.brake)
        impact = await estimate_impact(run, limits)
        kind = impact.exceeds(limits)
        if kind is not None:
            await stop_run(run, kind, impact, limits, _sentence(kind, impact, limits, run.audience))
    if run.checkpoint.brake is not None:
        await run.commit(_release)


async def resume_braked_run(run: Run) -> None:
    """Start a run of a braked audience: where it stopped with a confirmation, else at the beginning."""
    if run.request.confirm and run.checkpoint.parameters is not None:
        await run.commit(_confirm, run.request.by)
    elif run.checkpoint.brake is not None and run.checkpoint.stage != READY_TO_FETCH:
        await run.commit(_start_again)


def show_brake(checkpoint: Checkpoint) -> dict[str, Any] | bool:
    """The brake as ``getstatus`` shows it; False while it is off."""
    return dict(checkpoint.brake) if checkpoint.brake is not None else False


def _confirm(conn: Connection, step: Step, by: Author) -> None:
    is_data = step.checkpoint.brake is not None and step.checkpoint.brake.get("kind") == DATA
    asked = step.parameters  # people confirm what they were shown
    step.checkpoint.parameters = (
        replace(asked, confirmed_data=True) if is_data else replace(asked, confirmed=True, confirmed_data=True)
    )
    if step.checkpoint.brake is not None:
        step.log("Confirmed: the sync continues.")
        record(conn, CONFIRM, step.audience.list_id, "Confirmed: the sync goes on past the brake.", by)


def _start_again(conn: Connection, step: Step) -> None:
    """Drop the braked run's parameters; what it found out is in the rows, which stay ``todo``."""
    step.checkpoint.last_started = step.parameters.started
    step.checkpoint.move_to(READY_TO_FETCH)
    step.checkpoint.parameters = None


def _release(conn: Connection, step: Step) -> None:
    step.checkpoint.brake = None
    if not step.parameters.confirmed:
        record(conn, BRAKE, step.audience.list_id, "The brake is off: the sync is within the limits again.")


async def stop_run(run: Run, kind: str, impact: Impact, limits: Limits, sentence: str) -> NoReturn:
    """Store the brake, with why it is on. Raises SyncBraked with that *sentence*."""
    await run.commit(_engage, kind, impact, limits, sentence)
    raise SyncBraked(f"Audience {run.audience.list_id} stopped at {run.checkpoint.stage}: {sentence}")


def _engage(conn: Connection, step: Step, kind: str, impact: Impact, limits: Limits, sentence: str) -> None:
    since = (step.checkpoint.brake or {}).get("since") or step.site_time
    if (step.checkpoint.brake or {}).get("sentence") != sentence:  # else it is the same brake, met once more
        record(conn, BRAKE, step.audience.list_id, sentence)
    shown, allowed = asdict(impact), asdict(limits)
    if kind != DATA:
        del shown["data_changes"], allowed["data"]
    brake = {"kind": kind, **shown, "limits": allowed, "sentence": sentence, "since": since}
    step.checkpoint.brake = brake
    step.log(sentence)


def _sentence(kind: str, impact: Impact, limits: Limits, audience: Audience) -> str:
    if kind == ADDITIONS:
        would = f"add {impact.additions:,} people at Mailchimp; the limit is {limits.additions:,}"
    else:
        removals, size, where = (
            (impact.removals_group, impact.group_size, "the group")
            if kind == GROUP
            else (impact.removals_audience, impact.audience_size, "the audience at Mailchimp")
        )
        if kind == GROUP and impact.group_id != audience.group_id:
            linked = [interest_kind(one) for one, group_id in audience.interests.items() if group_id == impact.group_id]
            where = f"the {linked[0]} group {impact.group_id}"
        limit = f"{limits.percent:g} % and {limits.people:,} people"
        would = f"remove {removals:,} of {size:,} people from {where}; the limit is {limit}"
    return (
        f"The brake is on: this sync would {would}. Nobody was removed or added. "
        "Check Mailchimpsync.plan; to go ahead, call fetchandreconcile with confirm=1."
    )
