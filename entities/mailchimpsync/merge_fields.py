"""Mailchimpsync.getmergefields and setmergefields: what fills Mailchimp's merge fields. Need ``administer CiviCRM``."""

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, TEXT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.parameters.options import is_empty
from entities.mailchimpsync.shared import group_field


async def get_merge_fields(request: Request, ctx: Context) -> Result:
    """The merge fields of an audience as Mailchimp describes them now, the rule of each, and what may fill them."""
    return Result(await ctx.sync.get_merge_fields(int(request.params["group_id"])))


async def set_merge_fields(request: Request, ctx: Context) -> Result:
    """Store the rules of a connection; answers like ``getmergefields``."""
    params = request.params
    names = params.get("names")
    found = await ctx.sync.set_merge_fields(
        int(params["group_id"]),
        rules=params.get("rules"),
        names=None if names is None or names == "" else not is_empty(names),
    )
    return Result(found)


ACTIONS = (
    Action(
        "getmergefields",
        run_async=get_merge_fields,
        long_running=True,
        title="Merge fields and what fills them",
        params=(group_field("getmergefields"),),
    ),
    Action(
        "setmergefields",
        run_async=set_merge_fields,
        long_running=True,
        title="Store what fills merge fields",
        params=(
            group_field("setmergefields"),
            Field(
                "rules",
                TEXT,
                title="Rules",
                description="All rules of the connection, as JSON: merge field → source, such as "
                '{"PHONE":"phone:phone","JOB":{"source":"contact:job_title","clear":1}}. Sources are those that '
                "getmergefields lists, and text:… for a fixed text. clear: an empty value empties the field at "
                "Mailchimp. Without this parameter the rules stay.",
            ),
            Field("names", BOOLEAN, title="Names", description="Whether first and last names are sent."),
        ),
    ),
)
