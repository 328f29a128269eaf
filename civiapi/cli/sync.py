"""``civiapi sync``: a progress bar for each step, a wait until Mailchimp has finished, what was done in sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from civiapi.api.call import Call
from civiapi.api.errors import ApiError
from civiapi.app import App, open_app
from civiapi.server.process import tune_process
from civiapi.settings import Settings
from civiapi.store.clock import site_clock
from entities.mailchimpsync.shared import read_since
from sync.runs.progress import summarize_run
from sync.runs.run import StageProgress
from sync.service import SyncService
from sync.store.runs.checkpoints import STAGE_TITLES, STAGES

NOTHING_LINKED = "No group is linked with an audience."


@contextmanager
def stage_bars(sync: SyncService, console: Console) -> Iterator[None]:
    """Show a progress bar on *console* for each step of each run of this process; a step that is over is full."""
    name, count = TextColumn("{task.description:<18}"), TextColumn("{task.fields[done]:>16}")
    tasks: dict[tuple[str, str], TaskID] = {}
    with Progress(name, BarColumn(), count, TimeElapsedColumn(), console=console) as bars:

        def finish(list_id: str, but: str = "") -> None:
            for (audience, stage), task in tasks.items():
                if audience == list_id and stage != but:
                    bars.update(task, completed=1, total=1)
                    bars.stop_task(task)

        def on_progress(event: StageProgress) -> None:
            key = (event.list_id, event.stage)
            if key not in tasks:
                finish(event.list_id)
                tasks[key] = bars.add_task(STAGE_TITLES[event.stage], total=event.total, done="")
            done = f"{event.done:,}" + (f" of {event.total:,}" if event.total else "")
            bars.update(tasks[key], completed=event.done, total=event.total, done=done)

        with sync.listening(on_progress):
            yield
        for list_id in {audience for audience, _ in tasks}:
            finish(list_id)


class InvalidArguments(Exception):
    """The arguments are invalid; the text says why."""


async def run_with_bars(settings: Settings, params: dict[str, Any], console: Console) -> tuple[Any, list[str]]:
    """The answer of one fetchandreconcile, when nothing is in flight any more, and what it did in sentences.

    Raises ``InvalidArguments``.
    """
    if params.get("stop_on") not in (None, *STAGES):
        raise InvalidArguments(f"--stop-on takes one of {', '.join(STAGES)}.")
    try:
        read_since(params.get("since"), site_clock(settings.database.timezone))
    except ApiError as error:
        raise InvalidArguments(
            f"--since '{params['since']}' is not a date; write 2026-01-31, '-2 days' or ever."
        ) from error
    async with open_app(settings) as app:
        tune_process()
        with stage_bars(app.sync, console):
            answer = await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", {"version": 3, **params}))
        if isinstance(answer, dict) and answer.get("is_error"):
            return answer, []
        if "stop_on" not in params:
            await _wait(app, console)
        return answer, await _summary(app, answer["values"])


async def _wait(app: App, console: Console) -> None:
    with console.status("Waiting for Mailchimp to finish the batches …"):
        await app.sync.wait_until_idle()


async def _summary(app: App, synced: list[dict[str, Any]]) -> list[str]:
    """What the last run of each audience did, and how both sides are now; that nothing is linked, where it is so."""
    lines = [] if synced else [NOTHING_LINKED]
    statuses = await app.sync.get_status()
    for one in synced:
        group_id, status = one["group_id"], statuses.get(one["list_id"])
        [run, *_] = await app.sync.get_runs(group_id, limit=1) or [{"counts": {}}]
        lines.append(f"Group {group_id}: {summarize_run(run['counts'])}.")
        if status is not None:
            lines += _sides(status)
    return lines


def _sides(status: dict[str, Any]) -> list[str]:
    stats = status["stats"]
    subscribed, in_group = stats["subscribed_at_mailchimp"], stats["subscribed_at_civicrm"]
    lines = [f"Now {subscribed:,} are subscribed at Mailchimp, {in_group:,} are in the group."]
    if stats["cannot_subscribe"]:
        reasons = ", ".join(f"{one['count']:,} {one['label']}" for one in status["cannot_be_mailed"])
        lines.append(f"{stats['cannot_subscribe']:,} cannot be mailed{f': {reasons}' if reasons else ''}.")
    if stats["mailchimp_updates_pending"]:
        lines.append(f"{stats['mailchimp_updates_pending']:,} updates are still queued or in flight.")
    return lines
