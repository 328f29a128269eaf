"""Mailchimpsync.plan: a preview of a sync, in numbers and by person. Needs ``administer CiviCRM``."""

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.parameters.options import is_empty
from entities.mailchimpsync.shared import SEARCH, group_field, read_kinds, read_since, search_of
from sync.reconcile.categories import KINDS, QUIET

SHOWN = tuple(kind for kind in KINDS if kind not in QUIET)


async def plan(request: Request, ctx: Context) -> Result:
    """Preview a sync, or show another page of a preview (``plan_id``)."""
    params, options = request.params, request.options
    plan_id = params.get("plan_id")
    found = await ctx.sync.plan(
        int(params["group_id"]),
        plan_id="" if is_empty(plan_id) else str(plan_id),
        kept=not is_empty(params.get("kept")),
        since=read_since(params.get("since"), request.clock),
        with_data=not is_empty(params.get("with_data")),
        kinds=read_kinds(params.get("kind"), SHOWN),
        search=search_of(request),
        limit=options.limit,
        offset=options.offset,
    )
    return Result(found)


_KINDS = "; ".join(f"{kind}: they {KINDS[kind]}" for kind in SHOWN)

ACTIONS = (
    Action(
        "plan",
        run_async=plan,
        long_running=True,
        title="What a sync would do",
        params=(
            group_field("plan"),
            Field("plan_id", title="Plan", description="Show more of this plan, kept half an hour; none: make one."),
            Field(
                "kept",
                BOOLEAN,
                title="Kept",
                description="Show the newest plan that is kept and that no sync has followed; empty if there is none.",
            ),
            Field("kind", title="Kind", description=f"Only people of this kind, or of these. {_KINDS}."),
            SEARCH,
            Field("with_data", BOOLEAN, title="With data", description="Also what is sent of members: names, tags …"),
            Field("since", title="Since", description="As for fetchandreconcile: a date, or 'ever' for everything."),
        ),
    ),
)
