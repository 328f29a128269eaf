"""Mailchimpsync's campaigns: their import as activities, and what was imported.

Additions to the extension's actions; all need ``administer CiviCRM`` and answer with native JSON types and site times.
"""

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer, is_empty
from entities.mailchimpsync.shared import group_field, group_of, max_time_of, read_since


async def import_campaigns(request: Request, ctx: Context) -> Result:
    """Import the campaigns that Mailchimp sent as activities."""
    params = request.params
    done = await ctx.sync.import_campaigns(
        group_id=group_of(request),
        since=read_since(params.get("since"), request.clock),
        figures=not is_empty(params.get("with_figures")),
        max_time=max_time_of(request),
    )
    return Result(done, key=None)


async def get_campaigns(request: Request, ctx: Context) -> Result:
    """Imported campaigns, newest first: of an audience, or those that a contact was sent."""
    options, given = request.options, request.params.get("contact_id")
    contact_id = None if is_empty(given) else integer(given)
    if contact_id is None and not is_empty(given):
        raise ApiError("contact_id is not a valid integer", 2001, error_field="contact_id")
    page = {"limit": options.limit, "offset": options.offset}
    found = await ctx.sync.get_campaigns(group_id=group_of(request), contact_id=contact_id, **page)
    return Result(found, key=None)


ACTIONS = (
    Action(
        "importcampaigns",
        run_async=import_campaigns,
        long_running=True,
        title="Import campaigns as activities",
        params=(
            group_field(),
            Field(
                "since",
                title="Since",
                description="Campaigns sent since this date, or 'ever' for all; without it those not known yet.",
            ),
            Field(
                "with_figures",
                BOOLEAN,
                title="With opens and clicks",
                description="Also read who opened each campaign and clicked its links, up to 30 days after sending.",
            ),
            Field("max_time", INT, title="Maximum time", description="Seconds; 0: no limit. Default 300."),
        ),
    ),
    Action(
        "getcampaigns",
        run_async=get_campaigns,
        title="Imported campaigns",
        params=(
            group_field(),
            Field("contact_id", INT, title="Contact ID", description="Only those that this contact was sent."),
        ),
    ),
)
