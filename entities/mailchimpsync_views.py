"""Mailchimpsync's own views: what the pages show of a sync, each by a call that any script can make.

Nothing the extension has; all need ``administer CiviCRM`` and answer with native JSON types, times as the site writes
them.
"""

from typing import Any

from civiapi.dispatch import Context
from civiapi.errors import ApiError
from civiapi.request import Request, integer, is_empty
from civiapi.spec import INT, Action, Field, Result
from entities.sync_words import told
from sync.daily import DAYS, LONGEST


async def get_progress(request: Request, ctx: Context) -> Result:
    """How far each sync has got, by list id."""
    with told():
        return Result(await ctx.sync.get_progress(group_of(request)))


async def get_runs(request: Request, ctx: Context) -> Result:
    """The run log, newest first."""
    options = request.options
    with told():
        found = await ctx.sync.get_runs(group_of(request), limit=options.limit, offset=options.offset)
    return Result(found, key=None)


async def get_daily(request: Request, ctx: Context) -> Result:
    """What each day brought, oldest first."""
    asked = request.params.get("days")
    days = DAYS if asked in (None, "") else integer(asked)
    if days is None or not 1 <= days <= LONGEST:
        raise ApiError(f"days must be from 1 to {LONGEST}", error_field="days")
    with told():
        return Result(await ctx.sync.get_daily(int(request.params["group_id"]), days), key=None)


async def count_removal(request: Request, ctx: Context) -> Result:
    """What goes when a connection is removed."""
    with told():
        return Result(await ctx.sync.count_removal(int(request.params["group_id"])))


def group_of(request: Request) -> int | None:
    """The group that was named, if any."""
    given: Any = request.params.get("group_id")
    if is_empty(given):
        return None
    found = integer(given)
    if found is None:
        raise ApiError("group_id is not a valid integer", 2001, error_field="group_id")
    return found


def group_field(*actions: str) -> Field:
    """The parameter that says which connection is meant; *actions* cannot do without."""
    words = "The group of the connection." if actions else "Only the connection of this group."
    return Field("group_id", INT, title="Subscription group", description=words, required_by=frozenset(actions))


ACTIONS = (
    Action("getprogress", arun=get_progress, title="How far each sync has got", params=(group_field(),)),
    Action("getruns", arun=get_runs, title="The run log", params=(group_field(),)),
    Action(
        "getdaily",
        arun=get_daily,
        title="Members and changes of each day",
        params=(
            group_field("getdaily"),
            Field("days", INT, title="Days", description=f"How many days back, today included. Default {DAYS}."),
        ),
    ),
    Action(
        "countremoval",
        arun=count_removal,
        title="What goes when a connection is removed",
        params=(group_field("countremoval"),),
    ),
)
