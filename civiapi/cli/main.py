"""The command line: the list of commands, and how errors end a command.

A mistake in settings or arguments is one sentence on standard error and exit code 2; an APIv3 error is JSON and exit
code 1. Commands contain no rules: each parses its arguments, calls one function and prints the result. They import what
they need when they run, so that each starts fast.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from civiapi.cli.commands import api, data, maintenance, rehearsal, runs, server
from civiapi.runtime.private_files import restrict_new_files


class Commands(TyperGroup):
    """The list of commands with whole first sentences; the default truncates them to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=200)) for name, one in commands if one])


cli = typer.Typer(
    name="civiapi",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is plain text; [section] is no markup
    context_settings={"help_option_names": ["-h", "--help"]},
)
cv = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"civiapi {version('civiapi')}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answers CiviCRM's APIv3 and keeps CiviCRM groups and Mailchimp audiences in sync, both ways."""


COMMANDS: dict[str, Callable[..., None]] = {
    "api3": api.api3,
    "init": server.init,
    "serve": server.serve,
    "pipe": server.pipe,
    "token": server.token,
    "rotate-signing-key": server.rotate_signing_key,
    "import": data.import_,
    "plan": data.plan,
    "sync": data.sync,
    "timeline": data.timeline,
    "run": runs.run,
    "undo": runs.undo,
    "campaigns": data.campaigns,
    "docs": data.docs,
    "doctor": maintenance.doctor,
    "check": maintenance.check,
    "alerts": maintenance.alerts,
    "backup": maintenance.backup,
    "adopt": maintenance.adopt,
    "release": maintenance.release,
    "mailchimp-emulator": rehearsal.mailchimp_emulator,
    "rehearse": rehearsal.rehearse,
    "demo": rehearsal.demo,
}
for name, command in COMMANDS.items():
    cli.command(name)(command)
cli.add_typer(cv, name="cv")
cv.command("api3")(api.api3)
cv.callback()(api.cv_options)


def run(arguments: list[str] | None = None) -> None:
    """Run a command (default: the arguments of this process) and exit; a usage error is one sentence and code 2."""
    restrict_new_files()
    try:
        sys.exit(cli(arguments, prog_name="civiapi", standalone_mode=False))
    except typer.TyperException as error:
        message = error.format_message()
        typer.echo(message, err=True)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(1)
