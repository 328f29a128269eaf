"""The command line: each command reads its words, calls one thing, and prints the answer.

A mistake in settings or arguments is one sentence on standard error and exit code 2; an APIv3 error is its JSON and
exit code 1. No rules here. What a command needs of the program is opened by ``civiapi.app`` and closed again; modules
are imported by the command that needs them, so that each starts fast.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from civiapi.adapters.terminal import (
    DEFAULT_CONFIG,
    complete,
    exit_code,
    fail,
    read_params,
    read_settings,
    show,
    split_target,
)
from civiapi.settings import ROLES, Settings, SettingsError, load_settings

OUTS = ("json", "json-pretty", "json-strict", "table")  # the first three are cv's words

cli = typer.Typer(
    name="civiapi",
    help="Answers CiviCRM's APIv3 and keeps CiviCRM groups and Mailchimp audiences in step, both ways.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # help is plain text; [section] is no markup
    context_settings={"help_option_names": ["-h", "--help"]},
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
    """Run the command line of this process; a word that is not understood is one sentence, exit code 2."""
    try:
        sys.exit(cli(standalone_mode=False))
    except typer.TyperException as error:
        message = error.format_message()
        typer.echo(message, err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)


# ---- answers ------------------------------------------------------------------------------------------------


async def call_once(settings: Settings, entity: str, action: str, params: dict[str, Any]) -> Any:
    """Answer one call with no server running, as someone who may do everything."""
    from civiapi.app import open_app
    from civiapi.call import Call

    async with open_app(settings) as app:
        return await app.api.respond(Call(entity, action, params))


Target = Annotated[str, typer.Argument(metavar="ENTITY.ACTION", help="For example Contact.get")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Parameters; a value may be JSON.")]
In = Annotated[str, typer.Option("--in", help="json: read a JSON object of parameters from standard input.")]
Out = Annotated[str, typer.Option("--out", help="json, json-strict (on one line) or table.")]


@cli.command()
def api3(target: Target, words: Words = None, in_: In = "args", out: Out = "json", config: Config = None) -> None:
    """Answer one APIv3 call, with no server running, as someone who may do everything.

    Exit code 1 if the answer is an error, which is printed as JSON.
    """
    entity, action = split_target(target)
    if in_ not in ("args", "json"):
        fail(f"--in takes args or json, not '{in_}'.")
    if out not in OUTS:
        fail(f"--out takes {', '.join(OUTS)}, not '{out}'.")
    params = read_params(words or [], in_ == "json")
    settings = read_settings(config)
    answer = complete(lambda: call_once(settings, entity, action, {"version": 3, **params}))
    show(answer, out)
    raise typer.Exit(exit_code(answer))


cv = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
cli.add_typer(cv, name="cv")
cv.command("api3")(api3)


@cv.callback()
def cv_options(
    cwd: Annotated[Path | None, typer.Option(help="The folder to work in; settings.ini is looked for there.")] = None,
) -> None:
    """What scripts call as `cv`: point them at `civiapi cv` instead."""
    if cwd is not None:
        try:
            os.chdir(cwd)
        except OSError as error:
            fail(f"{cwd} cannot be worked in: {error.strerror}.")


# ---- the server ----------------------------------------------------------------------------------------------


@cli.command()
def serve(
    config: Config = None,
    role: Annotated[str, typer.Option(help="What it does: web, worker or all; left out, [server] role says.")] = "",
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of [server] port.")] = None,
) -> None:
    """Serve the API, run scheduled jobs and watch batches, until told to stop.

    A web process answers calls and pages and stores webhooks; a worker does what runs by itself. Any number of each
    may share one MariaDB.
    """
    from civiapi.serving import CannotListen, serve_app

    settings = read_settings(config, quiet=False)
    if role not in ("", *ROLES):
        fail(f"--role takes {', '.join(ROLES)}, not '{role}'.")
    server = replace(settings.server, role=role or settings.server.role)
    settings = replace(settings, server=server if port is None else replace(server, port=port))
    if not settings.server.site_key:
        fail("[server] site_key is not set; `civiapi init` writes a settings file with fresh keys.")
    try:
        complete(lambda: serve_app(settings))
    except CannotListen as error:
        fail(str(error), 1)


@cli.command()
def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG) -> None:
    """Write a settings file with fresh random keys, readable by you alone."""
    from civiapi.newsettings import write_new_settings

    try:
        write_new_settings(path)
    except SettingsError as error:
        fail(str(error))
    typer.echo(f"Wrote {path}. Next: civiapi doctor --config {path}, then civiapi serve --config {path}")
    made = load_settings(path, {})
    [person, *_] = made.users
    key = person.api_key if sys.stdout.isatty() else f"that stands in {path}"  # what is no terminal may be a log
    typer.echo(f"Then open http://127.0.0.1:{made.server.port}/ and log in as {person.name} with the API key {key}")


@cli.command()
def pipe(config: Config = None) -> None:
    """Speak CiviCRM's pipe protocol (JSON-RPC, one line each way) on standard input and output."""
    from civiapi.serving import serve_pipe

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
    from civiapi.store.clock import site_clock

    settings = read_settings(config)

    async def work() -> ImportReport:
        async with open_app(settings) as app:
            return await import_folder(app.store, folder, zone=timezone)

    if not folder.is_dir():
        fail(f"{folder} is not a folder.")
    if timezone:
        try:
            site_clock(timezone)
        except ValueError as error:
            fail(f"--timezone: {error}.")
    try:
        for line in complete(work).lines():
            typer.echo(line)
    except ImportRefused as refused:
        fail(str(refused), 1)


@cli.command()
def sync(
    config: Config = None,
    group: Annotated[int | None, typer.Option(help="Only the audience linked with this group.")] = None,
    since: Annotated[str, typer.Option(help="A date, or `ever` for everyone; left out: since the last sync.")] = "",
    with_data: Annotated[bool, typer.Option("--with-data", help="Send tags too.")] = False,
    max_time: Annotated[int, typer.Option(min=0, help="Seconds after which no new step starts; 0: no limit.")] = 0,
    stop_on: Annotated[str, typer.Option(help="Stop before this stage, such as readyToSubmitUpdates.")] = "",
    confirm: Annotated[bool, typer.Option("--confirm", help="Go on although the brake stopped it.")] = False,
) -> None:
    """Bring groups and audiences into step now, and wait until Mailchimp has done what it was sent."""
    from civiapi.progress import Mistake, run_with_bars

    settings = read_settings(config)
    params: dict[str, Any] = {"max_time": max_time}
    params |= {"group_id": group} if group is not None else {}
    params |= {"since": since} if since else {}
    params |= {"stop_on": stop_on} if stop_on else {}
    params |= {"with_data": 1} if with_data else {}
    params |= {"confirm": 1} if confirm else {}
    try:
        answer = complete(lambda: run_with_bars(settings, params, Console(stderr=True)))
    except Mistake as mistake:
        fail(str(mistake))
    show(answer, "json")
    raise typer.Exit(exit_code(answer))


@cli.command()
def plan(
    group: Annotated[int | None, typer.Argument(metavar="[GROUP]", help="Only the audience of this group.")] = None,
    config: Config = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every person to this file.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Only people of this kind; may be repeated.")
    ] = None,
    since: Annotated[str, typer.Option(help="A date, or `ever` for everyone; left out: since the last sync.")] = "",
) -> None:
    """Say what a sync would do, without doing it: numbers by kind, and every person with the reason."""
    from contextlib import nullcontext

    from civiapi.plans import PlanFailed, write_plans

    settings = read_settings(config)
    asked: dict[str, Any] = {**({"kind": kind} if kind else {}), **({"since": since} if since else {})}
    try:
        with csv.open("w", encoding="utf-8", newline="") if csv else nullcontext() as out:
            listed = complete(lambda: write_plans(settings, group, asked, Console(), out))
    except PlanFailed as failed:
        fail(str(failed), 1)
    except OSError as error:
        fail(f"{csv} cannot be written: {error.strerror}.", 1)
    typer.echo(f"{listed} people" + (f" written to {csv}" if csv else ""))


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


@cli.command()
def token(
    contact: Annotated[int, typer.Argument(min=1, help="The id of the contact it speaks for.")],
    hours: Annotated[float, typer.Option(min=0.01, max=8784.0, help="How long it holds.")] = 24.0,
    config: Config = None,
) -> None:
    """Print a bearer token (JWT) that speaks for a contact; whoever has it needs no key. Exit 1: no such contact."""
    from civiapi.app import open_app
    from civiapi.auth import Refused

    settings = read_settings(config)
    if not settings.server.site_key:
        fail("Tokens are signed with [server] site_key, which is not set.")

    async def work() -> str:
        async with open_app(settings) as app:
            await app.auth.caller_of(contact)
            return app.auth.tokens.issue(contact, hours * 3600)

    try:
        typer.echo(complete(work))
    except Refused as refusal:
        fail(f"{refusal.message}.", 1)


@cli.command()
def check(config: Config = None) -> None:
    """Verify the database: its file, references, and every row that the sync goes by. Exit 1: something is to mend."""
    from civiapi.integrity import check_database

    database = read_settings(config).database
    found = complete(lambda: check_database(database.url, database.timezone))
    for one in found:
        typer.echo(f"{'ok  ' if one.well else 'MEND'} {one.what}{'' if one.well else f'  {one.mend}'}")
    raise typer.Exit(0 if all(one.well for one in found) else 1)


@cli.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not be there.")], config: Config = None
) -> None:
    """Copy a SQLite database while it is in use; for MariaDB, say which command does. Exit 1: no copy was made."""
    from civiapi.store.backup import CannotBackUp, back_up

    try:
        size = back_up(read_settings(config).database.url, file)
    except CannotBackUp as error:
        fail(str(error), 1)
    typer.echo(f"Wrote {file} ({size / 1e6:.1f} MB), and looked it over.")


@cli.command()
def adopt(
    check: Annotated[bool, typer.Option("--check", help="Only look and report; write nothing.")] = False,
    config: Config = None,
) -> None:
    """Take over a database that CiviCRM and its mailchimpsync extension made: report what is there, then add tables.

    Exit 1: something must be put right first; nothing was written.
    """
    from civiapi.adopt import look_over, take_over

    settings = read_settings(config)

    async def work() -> bool:
        well = True
        for section in await look_over(settings):
            typer.echo(f"\n{section.title}")
            for finding in section.findings:
                well = well and finding.well
                advice = "" if finding.well else f"  {finding.advice}"
                typer.echo(f"  {'ok  ' if finding.well else 'LOOK'} {finding.what}{advice}")
        if check:
            typer.echo("\nNothing was written.")
        elif well:
            made = await take_over(settings)
            typer.echo(f"\nAdded: {', '.join(made) or 'nothing, all is there'}. Next: civiapi doctor, civiapi serve.")
        else:
            typer.echo("\nNothing was written: see the lines that begin with LOOK.")
        return well

    raise typer.Exit(0 if complete(work) else 1)


@cli.command()
def docs(
    out: Annotated[Path, typer.Option(help="The folder to write to; made if missing.")] = Path("api-docs"),
) -> None:
    """Write the reference of every entity, action and parameter, as HTML and JSON."""
    from civiapi.ui.docs import write_reference
    from entities import catalogue

    try:
        written = write_reference(catalogue(), out)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.", 1)
    typer.echo(f"Wrote {len(written)} files; begin at {out / 'index.html'}")


# ---- trying it out -------------------------------------------------------------------------------------------


@cli.command("mailchimp-emulator")
def mailchimp_emulator(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where it listens; 0: any free port.")] = 8011,
    host: Annotated[str, typer.Option(help="The address it listens at.")] = "127.0.0.1",
    load: Annotated[
        list[Path] | None,
        typer.Option(metavar="<path>", help="An audience as Mailchimp exports it, or a snapshot: file or folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="For everything random.")] = 0,
    members: Annotated[int, typer.Option(min=0, help="How many made-up members to add.")] = 0,
    key: Annotated[str, typer.Option(help="The API key of its account.")] = "",
    control: Annotated[bool, typer.Option("--control", help="Open the control addresses under /_emulator/.")] = False,
) -> None:
    """Run a local stand-in for Mailchimp, for rehearsals and tests."""
    from sync.mailchimp.emulator.__main__ import holds_anyone, prepare
    from sync.mailchimp.emulator.running import serve as serve_emulator
    from sync.mailchimp.emulator.world import DEFAULT_KEY

    for path in load or []:
        if not path.exists():
            fail(f"{path} is not there.")
    try:
        world = prepare(seed=seed, key=key or DEFAULT_KEY, paths=load or [], members=members)
    except (OSError, ValueError) as error:
        fail(f"The emulator cannot start: {error}.")
    if load and not members and not holds_anyone(world):
        fail("The emulator cannot start: there is no member in what was to be loaded.")
    try:
        complete(lambda: serve_emulator(world, host=host, port=port, control=control))
    except OSError as error:
        fail(f"{host}:{port} cannot be listened at: {error.strerror}.", 1)


@cli.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit afterwards; with 1 unless both ends agree.")] = False,
    folder: Annotated[Path, typer.Option(help="Where its database goes; made anew.")] = Path("demo-data"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where the server listens; 0: any free port.")] = 0,
) -> None:
    """Watch a made-up charity's CiviCRM group and Mailchimp audience being brought into step."""
    from civiapi.demo.site import CallFailed
    from civiapi.demo.story import play
    from civiapi.serving import CannotListen

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{folder} cannot be written to: {error.strerror}.")

    try:
        agreed = complete(lambda: play(folder, once=once, port=port, console=Console()))
    except CallFailed as error:
        fail(f"The demo stopped: {error}", 1)
    except CannotListen as error:
        fail(str(error), 1)
    except TimeoutError:
        fail("The demo stopped: the two ends were not in step in time.", 1)
    raise typer.Exit(0 if agreed else 1)
