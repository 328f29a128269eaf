"""What every command shares: reading words and standard input, printing answers, and ending with a sentence.

Exit codes: 0 it went well, 1 the answer is an error or something outside stands in the way, 2 a mistake in settings or
arguments, 130 and 143 stopped by Ctrl-C or SIGTERM.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from civiapi.jsontext import NotRead, read_json
from civiapi.lastresort import end_process_later
from civiapi.settings import Settings, SettingsError, load_settings
from civiapi.store.courtesy import courteous_loop
from civiapi.store.errors import StoreError

T = TypeVar("T")
DEFAULT_CONFIG = Path("settings.ini")


def fail(message: str, code: int = 2) -> NoReturn:
    """Say one sentence on standard error and leave."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def read_settings(path: Path | None, *, quiet: bool = True) -> Settings:
    """The settings of this command; leaves with exit code 2 where they cannot be used.

    *quiet*: what is said at level info is for those who run a server, and left out.
    """
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    try:
        settings = load_settings(path)
    except SettingsError as error:
        fail(str(error))
    if quiet and settings.log.level.lower() == "info":
        return replace(settings, log=replace(settings.log, level="warning"))
    return settings


def complete(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* to its end; a database that cannot be used, Ctrl-C or SIGTERM ends the command cleanly."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  we are running in one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stop, task)
        return await work()

    try:
        with asyncio.Runner(loop_factory=courteous_loop) as runner:
            return runner.run(main())
    except StoreError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except asyncio.CancelledError:
        raise typer.Exit(143) from None


def _stop(task: asyncio.Task[Any]) -> None:
    task.cancel()
    end_process_later()


def split_target(target: str) -> tuple[str, str]:
    """``Entity.action`` in two; leaves with exit code 2 where it is not."""
    entity, dot, action = target.partition(".")
    if not dot or not entity or not action:
        fail(f"'{target}' is not Entity.action, such as Contact.get.")
    return entity, action


def read_params(words: list[str], from_json: bool) -> dict[str, Any]:
    """Parameters from ``key=value`` words and, with ``--in=json``, an object on standard input (words win).

    A word that is a JSON object gives several at once, as with ``cv``.
    """
    params = _from_stdin() if from_json else {}
    for word in words:
        if word.startswith("{"):
            given = _json(word, f"'{word}' begins like JSON but is not JSON.")
            params |= given
            continue
        key, sign, value = word.partition("=")
        if not sign or not key:
            fail(f"'{word}' is not a parameter; write key=value.")
        is_json = value[:1] in ("{", "[")
        params[key] = _json(value, f"The value of '{key}' begins like JSON but is not JSON.") if is_json else value
    return params


def _from_stdin() -> dict[str, Any]:
    params = _json(sys.stdin.buffer.read() or b"{}", "Standard input is not JSON.")
    if not isinstance(params, dict):
        fail("Standard input must be a JSON object of parameters.")
    return params


def _json(text: str | bytes, otherwise: str) -> Any:
    try:
        return read_json(text)
    except NotRead:
        fail(otherwise)


def show(answer: Any, out: str) -> None:
    """Print an answer as JSON, or its rows as a table. An error is JSON always."""
    if out == "table" and isinstance(answer, dict) and not answer.get("is_error"):
        _show_rows(answer.get("values", answer))
        return
    indent = None if out == "json-strict" else 4
    typer.echo(json.dumps(answer, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _show_rows(values: Any) -> None:
    """Rows keyed by id or in a list, one row, or a lone value, as a table as wide as it needs to be where piped."""
    if isinstance(values, dict):
        several = bool(values) and all(isinstance(row, dict) for row in values.values())
        rows = list(values.values()) if several or not values else [values]
    else:
        rows = values if isinstance(values, list) else [values]
    rows = [row if isinstance(row, dict) else {"value": row} for row in rows]
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    console = Console(width=None if sys.stdout.isatty() else 10_000, markup=False, highlight=False)
    if not rows:
        console.print("(none)")
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in columns))
    console.print(table)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def exit_code(answer: Any) -> int:
    """1 for an APIv3 error, else 0."""
    return 1 if isinstance(answer, dict) and answer.get("is_error") else 0
