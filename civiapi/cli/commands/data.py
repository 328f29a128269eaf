"""Commands that import data, preview and run syncs, and write the reference."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from civiapi.cli.common import Config, announce_database, complete, exit_code, fail, read_settings, say, show
from civiapi.runtime.wording import many

Since = Annotated[str, typer.Option(help="A date, or `ever` for all members (default: since the last sync).")]


def import_(
    folder: Annotated[Path | None, typer.Argument(help="The folder of CSV files.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Import the made-up charity of the demo.")] = False,
    config: Config = None,
    timezone: Annotated[str, typer.Option(help="The time zone of the files (default: that of the site).")] = "",
) -> None:
    """Import CSV files with CiviCRM's column names. If a row is invalid, nothing is imported."""
    from civiapi.app import open_app
    from civiapi.cli.demo import SAMPLE
    from civiapi.importer.import_folder import ImportRefused, ImportReport, import_folder
    from civiapi.store.clock import site_clock

    if (folder is None) is not sample:
        fail("Give either a folder of CSV files or --sample.")
    source = folder or SAMPLE
    if not source.is_dir():
        fail(f"{source} is not a folder.")
    settings = read_settings(config, creates=True)

    async def work() -> ImportReport:
        async with open_app(settings) as app:
            return await import_folder(app.store, source, zone=timezone)

    if timezone:
        try:
            site_clock(timezone)
        except ValueError as error:
            fail(f"--timezone: {error}.")
    announce_database(settings, config)
    try:
        for line in complete(work).lines():
            say(line)
    except ImportRefused as refused:
        fail(str(refused), 1)


def sync(
    config: Config = None,
    group: Annotated[int | None, typer.Option(help="Sync only the audience of this group.")] = None,
    since: Since = "",
    with_data: Annotated[bool, typer.Option("--with-data", help="Also send names and tags.")] = False,
    max_time: Annotated[int, typer.Option(min=0, help="Start no new step after this many seconds; 0: no limit.")] = 0,
    stop_on: Annotated[str, typer.Option(help="Stop before this stage, such as readyToSubmitUpdates.")] = "",
    confirm: Annotated[bool, typer.Option("--confirm", help="Continue a sync that the brake has stopped.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the answer of the API call, for scripts.")] = False,
) -> None:
    """Sync groups and audiences now, wait until Mailchimp has finished, and say what was done.

    Exit code 1: it failed, or no group is linked with an audience.
    """
    from civiapi.cli.sync import NOTHING_LINKED, InvalidArguments, run_with_bars

    settings = read_settings(config)
    params: dict[str, Any] = {"max_time": max_time}
    params |= {"group_id": group} if group is not None else {}
    params |= {"since": since} if since else {}
    params |= {"stop_on": stop_on} if stop_on else {}
    params |= {"with_data": 1} if with_data else {}
    params |= {"confirm": 1} if confirm else {}
    try:
        answer, lines = complete(lambda: run_with_bars(settings, params, Console(stderr=True)))
    except InvalidArguments as error:
        fail(str(error))
    if json_:
        show(answer, "json")
    elif exit_code(answer):
        fail(str(answer["error_message"]), 1)
    elif lines != [NOTHING_LINKED]:
        typer.echo("\n".join(lines))
    if lines == [NOTHING_LINKED]:
        fail(f"{NOTHING_LINKED} Link one on the page Connections, or with Mailchimpsync.updateconfig.", 1)
    raise typer.Exit(exit_code(answer))


def campaigns(
    config: Config = None,
    group: Annotated[int | None, typer.Option(help="Only the audience of this group.")] = None,
    since: Annotated[str, typer.Option(help="A date, or `ever` (default: campaigns not known yet).")] = "",
    figures: Annotated[bool, typer.Option("--figures", help="Also read who opened and clicked.")] = False,
    max_time: Annotated[int, typer.Option(min=0, help="Stop after this many seconds; 0: no limit.")] = 0,
) -> None:
    """Import campaigns that Mailchimp sent as activities. Exit code 1: it failed, or no group is linked."""
    from civiapi.cli.commands.api import call_once

    params: dict[str, Any] = {"version": 3, "max_time": max_time, "with_figures": int(figures)}
    params |= {"group_id": group} if group is not None else {}
    params |= {"since": since} if since else {}
    settings = read_settings(config)
    answer = complete(lambda: call_once(settings, "Mailchimpsync", "importcampaigns", params))
    if exit_code(answer):
        fail(str(answer["error_message"]), 1)
    for one in answer["values"]:
        typer.echo(f"Group {one['group_id']}: {one['outcome']}, {one['campaigns']} campaigns imported.")
    if not answer["values"]:
        fail("No group is linked with an audience.", 1)


def plan(
    group: Annotated[
        int | None, typer.Argument(metavar="[GROUP]", help="Preview only the audience of this group.")
    ] = None,
    config: Config = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every person to this file.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="List only changes of this kind; may be repeated.")
    ] = None,
    since: Since = "",
) -> None:
    """Preview a sync: the number of changes of each kind, and every person with the reason. Changes nothing."""
    from civiapi.cli.plan import PlanFailed, write_plans
    from civiapi.runtime.private_files import open_private

    settings = read_settings(config)
    filters: dict[str, Any] = {**({"kind": kind} if kind else {}), **({"since": since} if since else {})}
    try:
        with open_private(csv) if csv else nullcontext() as out:
            listed = complete(lambda: write_plans(settings, group, filters, Console(), out))
    except PlanFailed as failed:
        fail(str(failed), 1)
    except OSError as error:
        fail(f"{csv} cannot be written: {error.strerror}.", 1)
    typer.echo(many(listed, "person", "people") + (f" written to {csv}" if csv else ""))


def timeline(
    group: Annotated[int | None, typer.Argument(metavar="[GROUP]", help="Only the connection of this group.")] = None,
    config: Config = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="KIND", help="Only this kind; may be repeated.")] = None,
    since: Annotated[str, typer.Option(help="Only what happened on this date or later.")] = "",
    before: Annotated[str, typer.Option(help="Only what happened before this date.")] = "",
    limit: Annotated[int, typer.Option(min=0, help="How many entries; 0: all.")] = 50,
    json_: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """List what happened to connections: runs, aborts, brakes, webhooks, changes of the configuration, alerts."""
    from civiapi.cli.commands.api import call_once

    asked = {"group_id": group, "kind": kind or None, "since": since or None, "before": before or None}
    params = {name: value for name, value in asked.items() if value is not None} | {"options": {"limit": limit}}
    settings = read_settings(config)
    answer = complete(lambda: call_once(settings, "Mailchimpsync", "gettimeline", {"version": 3, **params}))
    if json_:
        show(answer, "json")
    elif exit_code(answer):
        fail(str(answer["error_message"]), 1)
    else:
        for one in answer["values"]:
            whose = f" group {one['group_id']}" if one["group_id"] else f" {one['list_id']}".rstrip()
            by = f" ({one['by']})" if one["by"] else ""
            say(f"{one['at']}{whose} {one['kind']}: {one['sentence']}{by}")
        if not answer["values"]:
            typer.echo("Nothing happened.")
    raise typer.Exit(exit_code(answer))


def docs(
    out: Annotated[Path, typer.Option(help="The folder to write to; created if missing.")] = Path("api-docs"),
) -> None:
    """Write the reference of every entity, action and parameter, as HTML and JSON."""
    from civiapi.ui.explorer.export import write_reference
    from entities import catalogue

    try:
        written = write_reference(catalogue(), out)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror}.", 1)
    typer.echo(f"Wrote {len(written)} files; start with {out / 'index.html'}")
