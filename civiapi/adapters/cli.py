"""The command line: each command reads its words, calls one thing, and prints the answer.

A mistake in settings or arguments is one sentence on standard error and exit code 2; an APIv3 error is its JSON and
exit code 1. No rules here. What a command needs of the program is opened by ``civiapi.app`` and closed again.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from civiapi.settings import Settings, SettingsError, load_settings
from civiapi.store.errors import StoreError

T = TypeVar("T")
DEFAULT_CONFIG = Path("settings.ini")

cli = typer.Typer(
    name="civiapi",
    help="Answers CiviCRM's APIv3 and keeps CiviCRM groups and Mailchimp audiences in step, both ways.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The settings file (default: settings.ini here, if it is there).",
        envvar="CIVIAPI_CONFIG",
    ),
]


def run() -> None:
    """Run the command line of this process."""
    cli()


def fail(message: str, code: int = 2) -> NoReturn:
    """Say one sentence on standard error and leave."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def read_settings(path: Path | None) -> Settings:
    """The settings of this command; leaves with exit code 2 where they cannot be used."""
    if path is None and DEFAULT_CONFIG.exists():
        path = DEFAULT_CONFIG
    try:
        return load_settings(path)
    except SettingsError as error:
        fail(str(error))


def complete(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* to its end; a database that cannot be used, or Ctrl-C, ends the command with a sentence."""

    async def main() -> T:
        return await work()

    try:
        return asyncio.run(main())
    except StoreError as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


# ---- answers ------------------------------------------------------------------------------------------------


def read_params(words: list[str], from_json: bool) -> dict[str, Any]:
    """Parameters from ``key=value`` words and, with ``--in=json``, an object on standard input (words win)."""
    params: dict[str, Any] = {}
    if from_json:
        try:
            params = json.loads(sys.stdin.read() or "{}")
        except ValueError:
            fail("Standard input is not JSON.")
        if not isinstance(params, dict):
            fail("Standard input must be a JSON object of parameters.")
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            fail(f"'{word}' is not a parameter; write key=value.")
        params[key] = _value(value)
    return params


def _value(text: str) -> Any:
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            fail(f"'{text}' begins like JSON but is not JSON.")
    return text


def show(answer: Any, out: str) -> None:
    """Print an answer as JSON, or its rows as a table."""
    if out == "json" or not isinstance(answer, dict) or answer.get("is_error"):
        typer.echo(json.dumps(answer, indent=4, ensure_ascii=False))
        return
    values = answer.get("values", answer)
    rows = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(rows, list):
        rows = [{"result": rows}]
    rows = [row if isinstance(row, dict) else {"value": row} for row in rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def exit_code(answer: Any) -> int:
    """1 for an APIv3 error, else 0."""
    return 1 if isinstance(answer, dict) and answer.get("is_error") else 0


async def call_once(settings: Settings, entity: str, action: str, params: dict[str, Any]) -> Any:
    """Answer one call with no server running, as someone who may do everything."""
    from civiapi.app import open_app
    from civiapi.call import Call

    async with open_app(settings) as app:
        return await app.api.respond(Call(entity, action, params))


def split_target(target: str) -> tuple[str, str]:
    """``Entity.action`` in two; leaves with exit code 2 where it is not."""
    entity, dot, action = target.partition(".")
    if not dot or not entity or not action:
        fail(f"'{target}' is not Entity.action.")
    return entity, action


Target = Annotated[str, typer.Argument(metavar="ENTITY.ACTION", help="For example Contact.get")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Parameters; a value may be JSON.")]
In = Annotated[str, typer.Option("--in", help="json: read a JSON object of parameters from standard input.")]
Out = Annotated[str, typer.Option("--out", help="json or table.")]


@cli.command()
def api3(target: Target, words: Words = None, in_: In = "args", out: Out = "json", config: Config = None) -> None:
    """Answer one APIv3 call, with no server running."""
    entity, action = split_target(target)
    if in_ not in ("args", "json") or out not in ("json", "table"):
        fail("--in takes args or json, --out takes json or table.")
    params = read_params(words or [], in_ == "json")
    settings = read_settings(config)
    answer = complete(lambda: call_once(settings, entity, action, {"version": 3, **params}))
    show(answer, out)
    raise typer.Exit(exit_code(answer))


cv = typer.Typer(help="What scripts call as `cv`: point them at `civiapi cv` instead.", no_args_is_help=True)
cli.add_typer(cv, name="cv")
cv.command("api3")(api3)


# ---- the server ----------------------------------------------------------------------------------------------


@cli.command()
def serve(config: Config = None) -> None:
    """Serve the API, run scheduled jobs and watch batches, until told to stop."""
    from civiapi.app import serve_app

    settings = read_settings(config)
    if not settings.server.site_key:
        fail("[server] site_key is not set; `civiapi init` writes a settings file with fresh keys.")
    try:
        complete(lambda: serve_app(settings))
    except OSError as error:
        fail(f"{settings.server.host}:{settings.server.port} cannot be listened at: {error.strerror}.", 1)


@cli.command()
def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG) -> None:
    """Write a settings file with fresh random keys, readable by you alone."""
    from civiapi.newsettings import write_new_settings

    try:
        write_new_settings(path)
    except SettingsError as error:
        fail(str(error))
    typer.echo(f"Wrote {path}. Next: civiapi doctor --config {path}, then civiapi serve --config {path}")


@cli.command()
def pipe(config: Config = None) -> None:
    """Speak CiviCRM's pipe protocol (JSON-RPC, one line each way) on standard input and output."""
    from civiapi.app import serve_pipe

    settings = read_settings(config)
    complete(lambda: serve_pipe(settings))


# ---- data and syncs ------------------------------------------------------------------------------------------


@cli.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="The folder of CSV files.")],
    config: Config = None,
    timezone: Annotated[str, typer.Option(help="The zone of the files' times, if not the site's.")] = "",
) -> None:
    """Load CiviCRM data from CSV files with CiviCRM's column names: all of it or, where a row is bad, nothing."""
    from civiapi.app import open_app
    from civiapi.importer import ImportRefused, ImportReport, import_folder

    settings = read_settings(config)

    async def work() -> ImportReport:
        async with open_app(settings) as app:
            return await import_folder(app.store, folder, zone=timezone)

    try:
        typer.echo(str(complete(work)))
    except ImportRefused as refused:
        fail(str(refused), 1)
    except ValueError as error:
        fail(str(error))


@cli.command()
def sync(
    config: Config = None,
    group: Annotated[int | None, typer.Option(help="Only the audience linked with this group.")] = None,
    since: Annotated[str, typer.Option(help="A date, or `ever` for everyone; left out: since the last sync.")] = "",
    with_data: Annotated[bool, typer.Option("--with-data", help="Send tags too.")] = False,
    max_time: Annotated[int, typer.Option(help="Seconds after which no new step starts; 0: no limit.")] = 0,
    stop_on: Annotated[str, typer.Option(help="Stop before this stage, such as readyToSubmitUpdates.")] = "",
) -> None:
    """Bring groups and audiences into step now, and wait until Mailchimp has done what it was sent."""
    from civiapi.progress import run_with_bars

    settings = read_settings(config)
    params: dict[str, Any] = {"max_time": max_time}
    params |= {"group_id": group} if group is not None else {}
    params |= {"since": since} if since else {}
    params |= {"stop_on": stop_on} if stop_on else {}
    params |= {"with_data": 1} if with_data else {}
    answer = complete(lambda: run_with_bars(settings, params, Console(stderr=True)))
    show(answer, "json")
    raise typer.Exit(exit_code(answer))


@cli.command()
def doctor(config: Config = None) -> None:
    """Look over settings, database, Mailchimp keys, webhooks and jobs; say what to do. Exit 1: something is wrong."""
    from civiapi.app import open_app
    from civiapi.doctor import examine

    settings = read_settings(config)

    async def work() -> bool:
        well = True
        async with open_app(settings) as app:
            async for finding in examine(app):
                well = well and finding.well
                advice = "" if finding.well else f"  {finding.advice}"
                typer.echo(f"{'ok  ' if finding.well else 'LOOK'} {finding.what}{advice}")
        return well

    raise typer.Exit(0 if complete(work) else 1)


# ---- trying it out -------------------------------------------------------------------------------------------


@cli.command("mailchimp-emulator")
def mailchimp_emulator(
    port: Annotated[int, typer.Option(help="Where it listens.")] = 8011,
    host: Annotated[str, typer.Option(help="The address it listens at.")] = "127.0.0.1",
    load: Annotated[
        list[Path] | None, typer.Option(help="A Mailchimp audience export or a snapshot: file or folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For everything random.")] = 0,
    members: Annotated[int, typer.Option(help="How many made-up members to add.")] = 0,
    key: Annotated[str, typer.Option(help="The API key of its account.")] = "",
    control: Annotated[bool, typer.Option("--control", help="Open the control addresses under /_emulator/.")] = False,
) -> None:
    """Run a local stand-in for Mailchimp, for rehearsals and tests."""
    from sync.mailchimp.emulator.__main__ import prepare
    from sync.mailchimp.emulator.running import serve as serve_emulator
    from sync.mailchimp.emulator.world import DEFAULT_KEY

    for path in load or []:
        if not path.exists():
            fail(f"{path} is not there.")
    world = prepare(seed=seed, key=key or DEFAULT_KEY, paths=load or [], members=members)
    try:
        complete(lambda: serve_emulator(world, host=host, port=port, control=control))
    except OSError as error:
        fail(f"{host}:{port} cannot be listened at: {error.strerror}.", 1)


@cli.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit afterwards; with 1 unless both ends agree.")] = False,
    folder: Annotated[Path, typer.Option(help="Where its database goes; made anew.")] = Path("demo-data"),
    port: Annotated[int, typer.Option(help="Where the server listens; 0: any free port.")] = 0,
) -> None:
    """Watch a made-up charity's CiviCRM group and Mailchimp audience being brought into step."""
    from civiapi.demo.story import play

    agreed = complete(lambda: play(folder, once=once, port=port, console=Console()))
    raise typer.Exit(0 if agreed else 1)
