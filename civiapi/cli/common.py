"""Shared by the commands: reading arguments and standard input, printing answers, and ending with a sentence.

Exit codes: 0 success, 1 an error answer or an external failure, 2 a mistake in settings or arguments, 130 and 143
stopped by Ctrl-C or SIGTERM.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.runtime.forced_exit import end_process_later
from civiapi.runtime.loop_priority import priority_loop
from civiapi.settings import Settings, SettingsError, load_settings
from civiapi.store.errors import StoreError

if TYPE_CHECKING:
    from sync.reports.checks import Finding

T = TypeVar("T")
DEFAULT_CONFIG = Path("settings.ini")
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The settings file (default: settings.ini, if it exists).", envvar="CIVIAPI_CONFIG"
    ),
]
OPTION = "options."
_HIDDEN = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = dict.fromkeys((one for one in _HIDDEN if chr(one) not in "\t\n"), "\ufffd")
LABELS = ("ok", "note", "note", "WARN", "FAIL")  # by severity


def say(line: str) -> None:
    """Print a line that has names or texts of others in it, which must not steer the terminal or forge a line."""
    typer.echo(line.translate(_VISIBLE).replace("\n", "\ufffd"))


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one sentence on standard error and exit."""
    typer.echo(message.translate(_VISIBLE), err=True)
    raise typer.Exit(code)


def read_settings(path: Path | None, *, quiet: bool = True, creates: bool = False) -> Settings:
    """The settings of this command; exits with code 2 if they are invalid, with 1 if their SQLite file is missing.

    *quiet*: log errors only, where the level is the default; the lines are meant for servers. *creates*: the command
    makes a database where there is none (`announce_database`).
    """
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    try:
        settings = load_settings(path)
    except SettingsError as error:
        fail(str(error))
    file = settings.database.file
    if file is not None and not file.exists() and not creates:
        fail(f"There is no database at {file}. `civiapi serve`, `import` and `init` create one.", 1)
    if quiet and settings.log.level.lower() == "info":
        return replace(settings, log=replace(settings.log, level="error"))
    return settings


def announce_database(settings: Settings, config: Path | None) -> None:
    """Say where the database is about to be created, if it is not there yet; exits with code 1 if it is elsewhere."""
    file = settings.database.file
    if file is None or file.exists():
        return
    earlier = Path(file.name).absolute()  # earlier versions took the path from the working directory
    if file.parent == (config or DEFAULT_CONFIG).absolute().parent and earlier.exists():
        fail(
            f"There is no database at {file}, but one at {earlier}. Move it there, or set [database] url to its "
            "absolute path.",
            1,
        )
    typer.echo(f"Creating the database {file}", err=True)


def complete(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* to its end; an unusable database, Ctrl-C and SIGTERM end the command cleanly."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  we are running in one
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _stop, task)
        return await work()

    try:
        with asyncio.Runner(loop_factory=priority_loop) as runner:
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
    """``Entity.action`` as entity and action; exits with code 2 if it is not that."""
    entity, dot, action = target.partition(".")
    if not dot or not entity or not action:
        fail(f"'{target}' is not Entity.action, such as Contact.get.")
    return entity, action


def read_params(arguments: list[str], from_json: bool) -> dict[str, Any]:
    """Parameters from ``key=value`` arguments and, with ``--in=json``, an object on standard input (arguments win).

    An argument that is a JSON object gives several at once, as with ``cv``. ``options.limit=2`` sets one of the
    ``options`` and keeps the others; dots in other names (``contact_id.display_name``, ``api.Email.get``) are theirs.
    """
    params = _from_stdin() if from_json else {}
    options: dict[str, Any] = {}
    for argument in arguments:
        if argument.startswith("{"):
            given = _json(argument, f"'{argument}' begins like JSON but is not JSON.")
            params |= given
            continue
        key, sign, value = argument.partition("=")
        is_option = key.startswith(OPTION)
        if not sign or not key.removeprefix(OPTION):
            fail(f"'{argument}' is not a parameter; write key=value.")
        is_json = value[:1] in ("{", "[")
        read = _json(value, f"The value of '{key}' begins like JSON but is not JSON.") if is_json else value
        (options if is_option else params)[key.removeprefix(OPTION)] = read
    return _with_options(params, options) if options else params


def _with_options(params: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The parameters with these of their ``options`` set; the others stay."""
    others = params.get("options") or {}
    if not isinstance(others, dict):
        fail("The value of 'options' is not a JSON object; write options.limit=2 or options='{\"limit\": 2}'.")
    return params | {"options": others | options}


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
    """Print an answer as JSON, or its rows as a table. An error is always JSON."""
    if out == "table" and isinstance(answer, dict) and not answer.get("is_error"):
        _show_rows(answer.get("values", answer))
        return
    indent = None if out == "json-strict" else 4
    typer.echo(json.dumps(answer, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _show_rows(values: Any) -> None:
    """Print rows by id, a list of rows, one row or a single value as a table, unlimited in width if piped."""
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


def show_findings(findings: Iterable["Finding"], indent: str = "") -> bool:
    """Print a line for each finding, with what to do about it; returns whether nothing needs doing."""
    ok = True
    for one in findings:
        ok = ok and one.ok
        say(f"{indent}{LABELS[one.severity]:<4} {one.sentence}{f'  {one.remedy}' if not one.ok else ''}")
    return ok


def exit_code(answer: Any) -> int:
    """1 for an APIv3 error, else 0."""
    return 1 if isinstance(answer, dict) and answer.get("is_error") else 0
