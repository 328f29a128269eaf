"""Mailchimpsync's runs: open one, see what undoing it would do, undo it. All need ``administer CiviCRM``."""

from typing import Any

from civiapi.api.context import Context
from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer
from civiapi.api.permissions import contacts_seen
from entities.mailchimpsync.shared import SEARCH, read_kinds, search_of
from sync.reports.run_view import KINDS, ChangeFilter
from sync.store.tables import run_change
from sync.undo.planning import KINDS as UNDO_KINDS


async def get_run(request: Request, ctx: Context) -> Result:
    """A run: what it did to whom, with reasons and Mailchimp's answers, its batches and its log."""
    return Result(await ctx.sync.get_run(_run_id(request), _shown(request, tuple(KINDS))))


async def plan_undo(request: Request, ctx: Context) -> Result:
    """What undoing a run would do: numbers by kind, people with reasons."""
    return Result(await ctx.sync.plan_undo(_run_id(request), _shown(request, tuple(UNDO_KINDS))))


async def undo_run(request: Request, ctx: Context) -> Result:
    """Undo a run; answers what was done by kind, and the id of the undo's own run."""
    return Result(await ctx.sync.undo_run(_run_id(request)))


def _run_id(request: Request) -> int:
    found = integer(request.params["run_id"])
    if found is None or found < 1:
        raise ApiError("run_id is not a valid integer", 2001, error_field="run_id")
    return found


def _shown(request: Request, known: tuple[str, ...]) -> ChangeFilter:
    """The people that the call asks for and the caller may see."""
    params, options = request.params, request.options
    seen: Any = tuple(contacts_seen(request, run_change.c.contact_id))
    return ChangeFilter(read_kinds(params.get("kind"), known), search_of(request), options.limit, options.offset, seen)


def _run_field(*actions: str) -> Field:
    return Field(
        "run_id",
        INT,
        title="Run",
        description="The id of the run, as Mailchimpsync.getruns has it.",
        required_by=frozenset(actions),
    )


ACTIONS = (
    Action(
        "getrun",
        run_async=get_run,
        title="What a run did to whom",
        params=(
            _run_field("getrun"),
            Field("kind", title="Kind", description=f"One or several of {', '.join(KINDS)}; default all."),
            SEARCH,
        ),
    ),
    Action(
        "planundo",
        run_async=plan_undo,
        long_running=True,
        title="What undoing a run would do",
        params=(
            _run_field("planundo"),
            Field("kind", title="Kind", description=f"One or several of {', '.join(UNDO_KINDS)}; default all."),
            SEARCH,
        ),
    ),
    Action("undorun", run_async=undo_run, long_running=True, title="Undo a run", params=(_run_field("undorun"),)),
)
