"""Mailchimpsync.plan: what a sync would do, in numbers and person by person, before it does. Needs
``administer CiviCRM``; nothing of it is the extension's."""

from typing import Any

from civiapi.dispatch import Context
from civiapi.errors import ApiError
from civiapi.request import Request, is_empty
from civiapi.spec import Action, Field, Result
from entities.mailchimpsync_views import group_field
from entities.sync_words import read_since, told
from sync.kinds import KINDS, QUIET
from sync.planning import Wish

SHOWN = tuple(kind for kind in KINDS if kind not in QUIET)


async def plan(request: Request, ctx: Context) -> Result:
    """Work out what a sync would do, or show more of what was worked out (``plan_id``)."""
    params, options = request.params, request.options
    search = params.get("search")
    wish = Wish(
        kinds=_kinds(params.get("kind")),
        search="" if is_empty(search) else str(search).strip(),
        limit=options.limit,
        offset=options.offset,
    )
    plan_id = params.get("plan_id")
    with told():
        found = await ctx.sync.plan(
            int(params["group_id"]),
            plan_id="" if is_empty(plan_id) else str(plan_id),
            since=read_since(params.get("since"), request.clock),
            wish=wish,
        )
    return Result(found)


def _kinds(value: Any) -> tuple[str, ...]:
    """One kind, a list, or ``{"IN": […]}``."""
    if isinstance(value, dict):
        value = value.get("IN")
    kinds = tuple(value if isinstance(value, list) else () if is_empty(value) else (value,))
    unknown = [one for one in kinds if one not in SHOWN]
    if unknown:
        raise ApiError(f"kind must be one of: {', '.join(SHOWN)}", 2001, error_field="kind")
    return kinds


_KINDS = "; ".join(f"{kind}: they {KINDS[kind]}" for kind in SHOWN)

ACTIONS = (
    Action(
        "plan",
        arun=plan,
        title="What a sync would do",
        params=(
            group_field("plan"),
            Field("plan_id", title="Plan", description="Show more of this plan, kept half an hour; none: make one."),
            Field("kind", title="Kind", description=f"Only people of this kind, or of these. {_KINDS}."),
            Field("search", title="Search", description="Only people with this in their name or address."),
            Field("since", title="Since", description="As for fetchandreconcile: a date, or 'ever' for everything."),
        ),
    ),
)
