"""Commands about runs of the sync: open one, undo one."""

import csv
from pathlib import Path
from typing import Annotated, Any

import typer

from civiapi.cli.common import Config, complete, exit_code, fail, read_settings, say, show

Run = Annotated[int, typer.Argument(metavar="RUN", help="The id of a run, as Mailchimpsync.getruns has it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
PAGE = 1000


def run(
    run_id: Run,
    config: Config = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write what it did to whom to this file.")] = None,
    json_: Json = False,
) -> None:
    """Show what a run did: numbers by kind, its batches and its log; each person as CSV."""
    from civiapi.http.csv_rows import RUN_COLUMNS, csv_row
    from civiapi.runtime.private_files import open_private

    answer = _call(config, "getrun", {"run_id": run_id, "options": {"limit": PAGE}})
    if json_:
        show(answer, "json")
        raise typer.Exit(exit_code(answer))
    found = _values(answer)
    ended = f", ended {found['ended']}" if found["ended"] else ""
    say(f"Run {run_id} of group {found['group_id']}, {found['outcome']}: started {found['started']}{ended}")
    if found["undoes"]:
        say(f"It is the undo of run {found['undoes']}.")
    if found["undone_by"]:
        say(f"It was undone by run {found['undone_by']}.")
    _say_summary(found["summary"])
    for one in found["batches"]:
        say(f"Batch {one['mailchimp_batch_id']}: {one['status']}, {one['total']} updates, {one['errored']} refused")
    for line in found["log"]:
        say(f"{line['time']} {line['message']}")
    if csv_file is None:
        return
    try:
        with open_private(csv_file) as out:
            writer = csv.writer(out)
            writer.writerow(RUN_COLUMNS)
            offset, people = 0, found["people"]
            while people:
                writer.writerows(csv_row(one, RUN_COLUMNS) for one in people)
                offset += len(people)
                page = {"run_id": run_id, "options": {"limit": PAGE, "offset": offset}}
                people = _values(_call(config, "getrun", page))["people"] if offset < found["count"] else []
    except OSError as error:
        fail(f"{csv_file} cannot be written: {error.strerror}.", 1)
    say(f"{offset:,} written to {csv_file}")


def undo(
    run_id: Run,
    config: Config = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_: Json = False,
) -> None:
    """Undo a run as far as nobody changed it since: groups, contacts it made, and members at Mailchimp."""
    if plan or not yes:
        answer = _call(config, "planundo", {"run_id": run_id, "options": {"limit": PAGE}})
        if plan and json_:
            show(answer, "json")
            raise typer.Exit(exit_code(answer))
        found = _values(answer)
        _say_summary(found["summary"])
        for one in found["people"] if plan else ():
            say(f"{one['kind']}\t{one['email'] or one['name'] or one['contact_id']}\t{one['reason']}")
        if plan and found["count"] > len(found["people"]):
            say(f"… and {found['count'] - len(found['people']):,} more; the page of the run has all of them as CSV.")
        if plan:
            return
        typer.confirm(f"Undo run {run_id}?", abort=True)
    answer = _call(config, "undorun", {"run_id": run_id})
    if json_:
        show(answer, "json")
        raise typer.Exit(exit_code(answer))
    done = _values(answer)
    _say_summary(done["summary"])
    say(f"Run {run_id} is undone by run {done['run_id']}; {done['sent']} updates were sent to Mailchimp.")


def _call(config: Path | None, action: str, params: dict[str, Any]) -> dict[str, Any]:
    from civiapi.cli.commands.api import call_once

    settings = read_settings(config)
    answer: dict[str, Any] = complete(lambda: call_once(settings, "Mailchimpsync", action, {"version": 3, **params}))
    return answer


def _values(answer: dict[str, Any]) -> dict[str, Any]:
    if exit_code(answer):
        fail(str(answer["error_message"]), 1)
    found: dict[str, Any] = answer["values"]
    return found


def _say_summary(summary: list[dict[str, Any]]) -> None:
    for one in summary:
        say(one["sentence"])
    if not summary:
        say("Nothing.")
