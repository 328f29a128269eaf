"""Commands of the server: ``init``, ``serve``, ``pipe``, ``token``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from civiapi.cli.common import DEFAULT_CONFIG, Config, announce_database, complete, fail, read_settings
from civiapi.settings import ROLES, WORKER, Settings, SettingsError, load_settings


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG,
    database: Annotated[
        str, typer.Option(metavar="URL", help="The database (default: a SQLite file beside the settings, created now).")
    ] = "",
) -> None:
    """Write a settings file with random keys, readable only by you, and create its database."""
    from civiapi.app import open_app
    from civiapi.cli.init import write_new_settings

    async def create() -> None:
        async with open_app(settings):
            pass

    try:
        write_new_settings(path, database)
        settings = load_settings(path, {})
    except SettingsError as error:
        fail(str(error))
    typer.echo(f"Wrote {path}. Next: civiapi doctor --config {path}, then civiapi serve --config {path}")
    if not database:
        settings = replace(settings, log=replace(settings.log, level="warning"))
        complete(create)
        typer.echo(f"Created the database {settings.database.file}")
    [user, *_] = settings.users
    key = user.api_key if sys.stdout.isatty() else f"in {path}"  # other outputs may be logs
    typer.echo(f"Then open http://127.0.0.1:{settings.server.port}/ and log in as {user.name} with the API key {key}")


def serve(
    config: Config = None,
    role: Annotated[str, typer.Option(help="The role: web, worker or all (default: [server] role).")] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The port to listen on (default: [server] port).")
    ] = None,
) -> None:
    """Run the server: API, pages, webhooks, scheduled jobs and syncs.

    A web process serves the API and pages and stores webhook events; a worker runs scheduled jobs and syncs. Any number
    of each may share one MariaDB.
    """
    from civiapi.server.lifecycle import CannotListen, serve_app

    settings = read_settings(config, quiet=False, creates=True)
    if role not in ("", *ROLES):
        fail(f"--role takes {', '.join(ROLES)}, not '{role}'.")
    server = replace(settings.server, role=role or settings.server.role)
    settings = replace(settings, server=server if port is None else replace(server, port=port))
    if not settings.server.site_key:
        fail("[server] site_key is not set; `civiapi init` writes a settings file with random keys.")
    announce_database(settings, config)
    try:
        complete(lambda: serve_app(settings, on_serving=_announce))
    except CannotListen as error:
        fail(str(error), 1)


def _announce(settings: Settings) -> None:
    server = settings.server
    host = "127.0.0.1" if server.host in ("", "0.0.0.0", "::") else server.host  # noqa: S104  # nosec B104
    address = server.base_url or f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    if server.role != WORKER:
        typer.echo(f"civiapi runs at {address.rstrip('/')}/ (Ctrl-C stops it)", err=True)


def pipe(config: Config = None) -> None:
    """Serve CiviCRM's pipe protocol (JSON-RPC, one message per line) on standard input and output."""
    from civiapi.server.lifecycle import serve_pipe

    settings = read_settings(config)
    complete(lambda: serve_pipe(settings))


def token(
    contact: Annotated[int, typer.Argument(min=1, help="The id of the contact.")],
    hours: Annotated[float, typer.Option(min=0.01, max=8784.0, help="Hours until it expires.")] = 24.0,
    config: Config = None,
) -> None:
    """Print a bearer token (JWT) that authenticates a contact without a key. Exit code 1: no such contact."""
    from civiapi.app import open_app
    from civiapi.auth.authenticator import AuthenticationFailed

    settings = read_settings(config)

    async def work() -> str:
        async with open_app(settings) as app:
            await app.auth.caller_of(contact)
            return await app.auth.issue_token(contact, hours * 3600)

    try:
        typer.echo(complete(work))
    except AuthenticationFailed as refusal:
        fail(f"{refusal.message}.", 1)


def rotate_signing_key(config: Config = None) -> None:
    """Replace the key that signs tokens and sessions, which ends all of them on every server of this database."""
    from civiapi.app import open_app

    settings = read_settings(config)

    async def work() -> None:
        async with open_app(settings) as app:
            await app.auth.rotate_signing_key()

    complete(work)
    typer.echo("All tokens and sessions have ended. `civiapi token` issues new tokens.")
