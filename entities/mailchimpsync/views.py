"""Mailchimpsync's views: the data of the status pages, as API calls.

Additions to the extension's actions; all need ``administer CiviCRM`` and answer with native JSON types and site times.
"""

from civiapi.api.context import Context
from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer
from entities.mailchimpsync.shared import group_field, group_of, read_date, read_kinds
from sync.reports.timeline import KINDS
from sync.store.daily import DAYS, LONGEST


async def get_progress(request: Request, ctx: Context) -> Result:
    """The progress of each sync, by list id."""
    return Result(await ctx.sync.get_progress(group_of(request)))


async def get_runs(request: Request, ctx: Context) -> Result:
    """The run log, newest first."""
    options = request.options
    found = await ctx.sync.get_runs(group_of(request), limit=options.limit, offset=options.offset)
    return Result(found, key=None)


async def get_timeline(request: Request, ctx: Context) -> Result:
    """What happened to a connection, or to all, newest first."""
    params, options = request.params, request.options
    found = await ctx.sync.get_timeline(
        group_id=group_of(request),
        list_id=str(params.get("list_id") or ""),
        kinds=read_kinds(params.get("kind"), KINDS),
        since=read_date(params.get("since"), "since", request.clock),
        before=read_date(params.get("before"), "before", request.clock),
        limit=options.limit,
        offset=options.offset,
    )
    return Result(found, key=None)


async def get_alerts(request: Request, ctx: Context) -> Result:
    """Problems, those that are open first, then the newest."""
    options = request.options
    return Result(await ctx.sync.get_alerts(limit=options.limit, offset=options.offset), key=None)


async def clean_up(request: Request, ctx: Context) -> Result:
    """Delete what is older than the settings keep."""
    return Result(await ctx.sync.clean_up())


async def test_alerts(request: Request, ctx: Context) -> Result:
    """Send a test message through each channel of the settings."""
    return Result(await ctx.sync.test_alerts(), key=None)


async def get_daily(request: Request, ctx: Context) -> Result:
    """Members and changes of each day, oldest first."""
    asked = request.params.get("days")
    days = DAYS if asked in (None, "") else integer(asked)
    if days is None or not 1 <= days <= LONGEST:
        raise ApiError(f"days must be from 1 to {LONGEST}", error_field="days")
    return Result(await ctx.sync.get_daily(int(request.params["group_id"]), days), key=None)


async def get_failures(request: Request, ctx: Context) -> Result:
    """The people of an audience who failed, grouped by cause, the most frequent first."""
    return Result(await ctx.sync.get_failures(int(request.params["group_id"])), key=None)


async def get_permissions(request: Request, ctx: Context) -> Result:
    """The marketing permissions that members of an audience may give."""
    return Result(await ctx.sync.get_permissions(int(request.params["group_id"])), key=None)


async def count_removal(request: Request, ctx: Context) -> Result:
    """The number of rows that are deleted with a connection."""
    return Result(await ctx.sync.count_removal(int(request.params["group_id"])))


ACTIONS = (
    Action("getprogress", run_async=get_progress, title="Progress of each sync", params=(group_field(),)),
    Action("cleanup", run_async=clean_up, long_running=True, title="Delete what is older than [retention]", params=()),
    Action("getalerts", run_async=get_alerts, title="Alerts, open and over", params=()),
    Action("testalerts", run_async=test_alerts, long_running=True, title="Send a test alert", params=()),
    Action(
        "gettimeline",
        run_async=get_timeline,
        title="What happened to a connection",
        params=(
            group_field(),
            Field(
                "list_id",
                title="Audience",
                description="Only the audience with this ID, which may be linked with no group any more.",
            ),
            Field("kind", title="Kind", description=f"One or several of {', '.join(KINDS)}; default all."),
            Field("since", title="Since", description="Only what happened on this date or later."),
            Field("before", title="Before", description="Only what happened before this date."),
        ),
    ),
    Action("getruns", run_async=get_runs, title="The run log", params=(group_field(),)),
    Action(
        "getdaily",
        run_async=get_daily,
        title="Members and changes of each day",
        params=(
            group_field("getdaily"),
            Field("days", INT, title="Days", description=f"How many days back, today included. Default {DAYS}."),
        ),
    ),
    Action(
        "getpermissions",
        run_async=get_permissions,
        title="Marketing permissions of an audience",
        params=(group_field("getpermissions"),),
    ),
    Action(
        "getfailures",
        run_async=get_failures,
        long_running=True,
        title="Failures by cause",
        params=(group_field("getfailures"),),
    ),
    Action(
        "countremoval",
        run_async=count_removal,
        title="Rows deleted with a connection",
        params=(group_field("countremoval"),),
    ),
)
