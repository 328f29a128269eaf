"""Commands that check, back up, take over and hand back a database."""

from pathlib import Path
from typing import Annotated

import typer

from civiapi.cli.common import DEFAULT_CONFIG, Config, complete, fail, read_settings, say, show_findings


def doctor(config: Config = None) -> None:
    """Check settings, database, Mailchimp keys, webhooks and jobs, with remedies. Exit code 1: something is wrong."""
    from civiapi.app import open_app
    from civiapi.maintenance.doctor import examine
    from sync.reports.checks import Severity

    settings = read_settings(config)

    async def work() -> bool:
        async with open_app(settings) as app:
            found = [finding async for finding in examine(app, config or DEFAULT_CONFIG)]
            show_findings(found)
            return all(one.severity < Severity.WARNING for one in found)  # the rest is advice

    raise typer.Exit(0 if complete(work) else 1)


def alerts(
    test: Annotated[str, typer.Argument(help="`test` sends a message through each channel of [alerts].")] = "",
    config: Config = None,
) -> None:
    """List the problems that are open; `alerts test` sends a test message. Exit code 1: one is open, or not sent."""
    from civiapi.app import open_app

    if test not in ("", "test"):
        fail(f"'{test}' is not `test`.")
    settings = read_settings(config)

    async def work() -> bool:
        async with open_app(settings) as app:
            if test:
                sent = await app.sync.test_alerts()
                for one in sent:
                    say(f"{one['channel']}: {one['error'] or 'sent'}")
                if not sent:
                    typer.echo("Nothing was sent: [alerts] has neither email_to nor webhook_url.")
                return bool(sent) and not any(one["error"] for one in sent)
            found = [one for one in await app.sync.get_alerts(limit=0) if not one["ended"]]
            for one in found:
                say(f"{one['severity'].upper()} since {one['began']}: {one['sentence']} {one['remedy']}".strip())
            if not found:
                typer.echo("No open alerts.")
            return not found

    raise typer.Exit(0 if complete(work) else 1)


def check(config: Config = None) -> None:
    """Verify the database: storage, references and the rows of the sync. Exit code 1: a repair is needed."""
    from civiapi.maintenance.integrity import check_database

    database = read_settings(config).database
    found = complete(lambda: check_database(database.url, database.timezone))
    raise typer.Exit(0 if show_findings(found) else 1)


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")], config: Config = None
) -> None:
    """Copy a SQLite database while it is in use; for MariaDB, print the command. Exit code 1: no copy was made."""
    from civiapi.maintenance.backup import CannotBackUp, back_up

    try:
        size = back_up(read_settings(config).database.url, file)
    except CannotBackUp as error:
        fail(str(error), 1)
    typer.echo(f"Wrote {file} ({size / 1e6:.1f} MB) and verified it.")


def adopt(
    check: Annotated[bool, typer.Option("--check", help="Only report; write nothing.")] = False,
    config: Config = None,
) -> None:
    """Take over a database of CiviCRM and its mailchimpsync extension: report its state, then add our tables.

    Exit code 1: something must be corrected first; nothing was written.
    """
    from civiapi.maintenance.adopt import survey_database, take_over
    from sync.reports.checks import Severity

    settings = read_settings(config)

    async def work() -> bool:
        ok = True
        for section in await survey_database(settings):
            typer.echo(f"\n{section.title}")
            show_findings(section.findings, indent="  ")
            ok = ok and all(one.severity < Severity.WARNING for one in section.findings)
        if check:
            typer.echo("\nNothing was written.")
        elif ok:
            added = await take_over(settings)
            typer.echo(f"\nAdded: {', '.join(added) or 'nothing'}. Next: civiapi doctor, civiapi serve.")
        else:
            typer.echo("\nNothing was written: first resolve the lines marked WARN or FAIL.")
        return ok

    raise typer.Exit(0 if complete(work) else 1)


def release(config: Config = None) -> None:
    """Hand a CiviCRM's database back to its extension: end our locks, name what is left, say what comes next.

    Exit code 1: nothing was handed back, for the reason given.
    """
    from civiapi.maintenance.release import CannotRelease, hand_back

    settings = read_settings(config)
    try:
        for line in complete(lambda: hand_back(settings)):
            say(line)
    except CannotRelease as error:
        fail(str(error), 1)
