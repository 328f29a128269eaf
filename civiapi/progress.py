"""A sync from the command line: a bar for each stage, then a wait until Mailchimp has done what it was sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from civiapi.app import App, open_app
from civiapi.call import Call
from civiapi.errors import ApiError
from civiapi.process import settle_in
from civiapi.settings import Settings
from civiapi.store.clock import site_clock
from entities.sync_words import read_since
from sync.engine import StageProgress
from sync.positions import STAGES
from sync.service import SyncService


@contextmanager
def stage_bars(sync: SyncService, console: Console) -> Iterator[None]:
    """While open, every stage of every run of this process has a bar on *console*."""
    columns = (TextColumn("{task.description:<38}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[tuple[str, str], TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def on_progress(event: StageProgress) -> None:
            key = (event.list_id, event.stage)
            if key not in tasks:
                tasks[key] = bars.add_task(event.stage, total=event.total)
            bars.update(tasks[key], completed=event.done, total=event.total or max(event.done, 1))

        with sync.listening(on_progress):
            yield


class Mistake(Exception):
    """What was asked for makes no sense; the text says why."""


async def run_with_bars(settings: Settings, params: dict[str, Any], console: Console) -> Any:
    """The answer of one fetchandreconcile, given once nothing is in flight any more. Raises ``Mistake``."""
    if params.get("stop_on") not in (None, *STAGES):
        raise Mistake(f"--stop-on takes one of {', '.join(STAGES)}.")
    try:
        read_since(params.get("since"), site_clock(settings.database.timezone))
    except ApiError as error:
        raise Mistake(f"--since '{params['since']}' is not a date; write 2026-01-31, '-2 days' or ever.") from error
    async with open_app(settings) as app:
        settle_in()
        with stage_bars(app.sync, console):
            answer = await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", {"version": 3, **params}))
        if not (isinstance(answer, dict) and answer.get("is_error")) and "stop_on" not in params:
            await _settle(app, console)
        return answer


async def _settle(app: App, console: Console) -> None:
    with console.status("Waiting for Mailchimp to work through its batches …"):
        await app.sync.settle()
