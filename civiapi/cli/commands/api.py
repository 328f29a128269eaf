"""Commands that answer API calls without a server: ``civiapi api3`` and ``civiapi cv``."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from civiapi.cli.common import Config, complete, exit_code, fail, read_params, read_settings, show, split_target
from civiapi.settings import Settings

FORMATS = ("json", "json-pretty", "json-strict", "table")  # the first three are those of cv

Target = Annotated[str, typer.Argument(metavar="ENTITY.ACTION", help="For example Contact.get")]
Params = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Parameters, also options.limit=5; a value may be JSON."),
]
In = Annotated[str, typer.Option("--in", help="json: read a JSON object of parameters from standard input.")]
Out = Annotated[str, typer.Option("--out", help="json, json-strict (on one line) or table.")]


async def call_once(settings: Settings, entity: str, action: str, params: dict[str, Any]) -> Any:
    """The answer of one call, made with all permissions."""
    from civiapi.api.call import Call
    from civiapi.app import open_app

    async with open_app(settings) as app:
        return await app.api.respond(Call(entity, action, params))


def api3(target: Target, params: Params = None, in_: In = "args", out: Out = "json", config: Config = None) -> None:
    """Answer one APIv3 call without a server, with all permissions.

    Exit code 1 if the answer is an error, which is printed as JSON.
    """
    entity, action = split_target(target)
    if in_ not in ("args", "json"):
        fail(f"--in takes args or json, not '{in_}'.")
    if out not in FORMATS:
        fail(f"--out takes {', '.join(FORMATS)}, not '{out}'.")
    given = read_params(params or [], in_ == "json")
    settings = read_settings(config)
    answer = complete(lambda: call_once(settings, entity, action, {"version": 3, **given}))
    show(answer, out)
    raise typer.Exit(exit_code(answer))


def cv_options(
    cwd: Annotated[Path | None, typer.Option(help="The working directory, where settings.ini is searched.")] = None,
) -> None:
    """A replacement for the commands of `cv` that scripts use."""
    if cwd is not None:
        try:
            os.chdir(cwd)
        except OSError as error:
            fail(f"{cwd} cannot be the working directory: {error.strerror}.")
