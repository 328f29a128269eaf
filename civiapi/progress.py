"""A sync from the command line: a bar for each stage, then a wait until Mailchimp has done what it was sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from sync.engine import StageProgress
from sync.service import SyncService

from civiapi.app import App, open_app
from civiapi.call import Call
from civiapi.settings import Settings


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


async def run_with_bars(settings: Settings, params: dict[str, Any], console: Console) -> Any:
    """The answer of one fetchandreconcile, given once nothing is in flight any more."""
    async with open_app(settings) as app:
        with stage_bars(app.sync, console):
            answer = await app.api.respond(Call("Mailchimpsync", "fetchandreconcile", {"version": 3, **params}))
        if not (isinstance(answer, dict) and answer.get("is_error")) and "stop_on" not in params:
            await _settle(app, console)
        return answer


async def _settle(app: App, console: Console) -> None:
    with console.status("Waiting for Mailchimp to work through its batches …"):
        await app.sync.settle()
