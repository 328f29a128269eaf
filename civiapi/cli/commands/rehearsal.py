"""Commands that need no Mailchimp account: ``demo``, ``rehearse`` and ``mailchimp-emulator``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from civiapi.cli.common import Config, complete, fail, read_settings, say


def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit afterwards; exit code 1 unless both sides agree.")] = False,
    folder: Annotated[Path, typer.Option(help="The folder of its database, which is recreated.")] = Path("demo-data"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of the server; 0: any free port.")] = 0,
) -> None:
    """Sync the CiviCRM group and the Mailchimp audience of a made-up charity."""
    from civiapi.cli.demo.site import CallFailed
    from civiapi.cli.demo.story import play
    from civiapi.server.lifecycle import CannotListen

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
        fail("The demo stopped: the sync did not finish in time.", 1)
    raise typer.Exit(0 if agreed else 1)


def rehearse(
    export: Annotated[
        Path, typer.Argument(metavar="EXPORT_FOLDER", help="The folder of an audience's export, unpacked.")
    ],
    config: Config = None,
    group: Annotated[
        int | None, typer.Option(help="The group to sync the audience with (default: the linked one).")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for the report; created if missing.")] = Path("rehearsal"),
    rows: Annotated[int, typer.Option(min=0, help="How many people of each kind the HTML page lists.")] = 200,
) -> None:
    """Rehearse the first sync on a copy of the database, with an emulated Mailchimp that has an export's members.

    Writes report.html and CSV files with everybody for whom something would change. Neither the database nor your
    Mailchimp account is touched. A MariaDB is copied into a temporary SQLite file.
    """
    from civiapi.cli.rehearse.database_copy import describe
    from civiapi.cli.rehearse.export_folder import BadExport, load_export
    from civiapi.cli.rehearse.rehearsal import Rehearsal, RehearsalFailed
    from civiapi.cli.rehearse.report import HTML, Report
    from civiapi.runtime.private_files import open_private
    from civiapi.server.process import tune_process

    settings = read_settings(config)
    console = Console(stderr=True)
    try:
        loaded = load_export(export)
        out.mkdir(parents=True, exist_ok=True)
        open_private(out / HTML).close()  # before minutes of work
        tune_process()
        report = Report(out, describe(settings.database), export, loaded, rows)
        done = complete(lambda: Rehearsal(settings, loaded, console, rows=rows).run(group, report))
    except (BadExport, RehearsalFailed) as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.filename or out} cannot be used: {error.strerror}.", 1)
    for one in done:
        say(f"{one.group} (group {one.pair.group_id}) and audience {one.pair.list_id}:")
        for kind in one.summary:
            say(f"  {kind['sentence']}")
        if one.brake:
            say(f"  {one.brake}")
    if loaded.bad:
        say(f"{len(loaded.bad):,} rows of the export were left out, the first: {loaded.bad[0]}")
    say(f"Wrote {out / HTML}. Nothing else was changed.")


def mailchimp_emulator(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: any free port.")] = 8011,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    load: Annotated[
        list[Path] | None,
        typer.Option(metavar="<path>", help="A Mailchimp audience export or a snapshot (file or folder)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The random seed.")] = 0,
    members: Annotated[int, typer.Option(min=0, help="The number of made-up members to add.")] = 0,
    key: Annotated[str, typer.Option(help="The API key of its account.")] = "",
    control: Annotated[bool, typer.Option("--control", help="Enable the control endpoints under /_emulator/.")] = False,
) -> None:
    """Run a local emulator of Mailchimp, for rehearsals and tests."""
    from sync.emulator.__main__ import has_members, prepare
    from sync.emulator.model.state import DEFAULT_KEY
    from sync.emulator.server.running import serve as serve_emulator

    for path in load or []:
        if not path.exists():
            fail(f"{path} does not exist.")
    try:
        world = prepare(seed=seed, key=key or DEFAULT_KEY, paths=load or [], members=members)
    except (OSError, ValueError) as error:
        fail(f"The emulator cannot start: {error}.")
    if load and not members and not has_members(world):
        fail("The emulator cannot start: the loaded files contain no members.")
    try:
        complete(lambda: serve_emulator(world, host=host, port=port, control=control))
    except OSError as error:
        fail(f"Cannot listen on {host}:{port}: {error.strerror}.", 1)
