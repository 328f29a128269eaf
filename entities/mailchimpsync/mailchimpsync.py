"""Mailchimpsync: the actions of the sync, each a few lines over ``sync/service.py`` (contract 9).

All need ``administer CiviCRM`` and answer with native JSON types.
"""

from collections.abc import Mapping
from typing import Any

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer, is_empty
from civiapi.store.text.php import as_json
from entities.mailchimpsync import campaigns, merge_fields, people, runs, views
from entities.mailchimpsync import plan as plans
from entities.mailchimpsync.shared import max_time_of, read_since
from sync.store.runs.checkpoints import STAGES

PROBLEMS = (
    "brake", "stopped", "late", "interests_gone", "merge_fields_gone", "merge_sources_gone", "refused_for_now",
    "without_address", "not_to_be_mailed", "one_way",
)  # fmt: skip
"""Keys of a status that the extension does not have; empty where there is no such problem."""


async def fetch_and_reconcile(request: Request, ctx: Context) -> Result:
    """Sync audiences and groups, as far as the time allows."""
    params = request.params
    group_id: Any = params.get("group_id")
    done = await ctx.sync.fetch_and_reconcile(
        group_id=None if is_empty(group_id) else int(group_id),
        max_time=max_time_of(request),
        since=read_since(params.get("since"), request.clock),
        stop_on=_stage(params.get("stop_on")),
        force_restart=not is_empty(params.get("force_restart")),
        with_data=not is_empty(params.get("with_data")),
        confirm=not is_empty(params.get("confirm")),
        is_scheduled=request.caller.is_schedule,
    )
    return Result(as_json(done), key=None)


def _stage(value: Any) -> str | None:
    if is_empty(value):
        return None
    if value not in STAGES:
        raise ApiError(f"stop_on param must be one of: {', '.join(STAGES)}")
    return str(value)


async def abort_sync(request: Request, ctx: Context) -> Result:
    """Stop a sync and cancel the batches in flight."""
    await ctx.sync.abort(int(request.params["group_id"]))
    return Result([], key=None)


async def get_status(request: Request, ctx: Context) -> Result:
    """Stage, log, balance and health of every linked audience."""
    shown = await ctx.sync.get_status(batches=not is_empty(request.params.get("batches")))
    if is_empty(request.params.get("health")):
        shown = {list_id: _compatible(status) for list_id, status in shown.items()}
    return Result(as_json(shown))


def _compatible(status: Mapping[str, Any]) -> dict[str, Any]:
    """A status with the extension's keys; additional ones only if they report a problem."""
    hooks = status["webhooks"]
    problems = {key: bool(status[key]) for key in PROBLEMS}
    problems |= dict.fromkeys(("waiting", "cannot_be_mailed", "last_finished", "health", "data"), False)
    problems["campaigns"] = bool(status["campaigns"]) and bool(status["campaigns"]["error"])
    problems["webhooks"] = bool(hooks["asked"]) and not hooks["ok"]
    return {key: value for key, value in status.items() if problems.get(key, True)}


async def fetch_account_info(request: Request, ctx: Context) -> Result:
    """The audiences and webhooks that a Mailchimp key gives access to."""
    return Result(as_json(await ctx.sync.fetch_account_info(str(request.params["api_key"]))))


async def update_config(request: Request, ctx: Context) -> Result:
    """Store the configuration; answers the cleaned one."""
    digest = request.params.get("digest")
    changed = await ctx.sync.update_config(request.params["config"], None if digest is None else str(digest))
    return Result({"config": changed})


async def update_webhook(request: Request, ctx: Context) -> Result:
    """Add or delete a webhook at Mailchimp."""
    params = request.params
    config = await ctx.sync.update_webhook(
        process=str(params["process"]),
        api_key=str(params["api_key"]),
        list_id=str(params.get("list_id") or ""),
        hook_id=str(params.get("id") or ""),
    )
    return Result({"config": config})


async def include_contact(request: Request, ctx: Context) -> Result:
    """Include these contacts in the next sync of every audience."""
    ids = read_contact_ids(request.params["contact_id"])
    return Result({"inputCount": len(ids), "affected": await ctx.sync.include_contacts(ids)})


def read_contact_ids(value: Any) -> list[int]:
    """Distinct contact ids of one id or a list of them. Raises ``ApiError``."""
    several = isinstance(value, list)
    found = [None if isinstance(one, bool | float) else integer(one) for one in (value if several else [value])]
    ids = [one for one in found if one]
    if len(ids) < len(found):
        raise ApiError(
            "At least one contact ID was not positive integer."
            if several
            else "At contact ID was not positive integer."
        )
    return list(dict.fromkeys(ids))


async def submit_batches(request: Request, ctx: Context) -> Result:
    """Send queued updates to Mailchimp: list id → number of updates."""
    return Result(await ctx.sync.submit_batches())


_KEY_DESCRIPTION = "The Mailchimp API key. Over REST it must travel inside the json parameter."

ACTIONS = (
    Action(
        "fetchandreconcile",
        run_async=fetch_and_reconcile,
        long_running=True,
        title="Sync Mailchimp audiences and CiviCRM groups",
        params=(
            Field(
                "group_id",
                INT,
                title="Subscription group",
                description="Sync the audience of this group only; without it each configured audience in turn.",
                aliases=("id",),
            ),
            Field(
                "max_time",
                INT,
                title="Maximum time",
                description="Seconds after which no new step starts; 0: no limit. Default 300.",
            ),
            Field(
                "since",
                title="Since",
                description="Changes since this date, or 'ever' for everything; without it since the last sync.",
            ),
            Field("stop_on", title="Stop before", description="Stop before this state: " + ", ".join(STAGES) + "."),
            Field(
                "force_restart",
                BOOLEAN,
                title="Force restart",
                description="Emergencies only: discard the position and log of a sync and start again.",
            ),
            Field(
                "with_data",
                BOOLEAN,
                title="With data",
                description="Also send names, merge fields and tags to Mailchimp.",
            ),
            Field(
                "confirm",
                BOOLEAN,
                title="Confirm",
                description="Go on although more people would be removed or added than the brake allows; in a "
                "scheduled job, start the first sync of a new connection too.",
            ),
        ),
    ),
    Action(
        "abortsync",
        run_async=abort_sync,
        long_running=True,
        title="Abort a sync",
        params=(
            Field(
                "group_id",
                INT,
                title="Subscription group",
                description="The group whose sync is to be called off.",
                required_by={"abortsync"},
            ),
        ),
    ),
    Action(
        "getstatus",
        run_async=get_status,
        title="Status of every connection",
        validated=False,
        params=(
            Field("batches", BOOLEAN, title="Batches", description="Also ask Mailchimp about unfinished batches."),
            Field(
                "health",
                BOOLEAN,
                title="Health",
                description="Include health, brake, stopped, late and webhooks also without a problem.",
            ),
        ),
    ),
    Action(
        "fetchaccountinfo",
        run_async=fetch_account_info,
        title="Get information about a Mailchimp account",
        params=(Field("api_key", title="API key", description=_KEY_DESCRIPTION, required_by={"fetchaccountinfo"}),),
    ),
    Action(
        "updateconfig",
        run_async=update_config,
        long_running=True,
        title="Store the configuration",
        params=(
            Field(
                "config",
                TEXT,
                title="Configuration",
                description="JSON text: accounts by key, lists by id. A list has apiKey, subscriptionGroup, and in "
                "interests and (marketing) permissions the group of each, by its id at Mailchimp.",
                required_by={"updateconfig"},
            ),
            Field(
                "digest",
                title="Digest",
                description="SHA-256 (hex) of the setting's text that was edited, empty if there was none: "
                "the call is refused if another is stored by now.",
            ),
        ),
    ),
    Action(
        "updatewebhook",
        run_async=update_webhook,
        long_running=True,
        title="Add or delete a webhook",
        params=(
            Field(
                "process",
                title="Process",
                description="add_batch_webhook, delete_batch_webhook, add_webhook or delete_webhook.",
                required_by={"updatewebhook"},
            ),
            Field("api_key", title="API key", description=_KEY_DESCRIPTION, required_by={"updatewebhook"}),
            Field("list_id", title="Audience", description="For add_webhook and delete_webhook."),
            Field("id", title="Webhook ID", description="Mailchimp's id of the webhook to delete."),
        ),
    ),
    Action(
        "includecontact",
        run_async=include_contact,
        long_running=True,
        title="Include contacts in the next sync",
        validated=False,
        params=(
            Field(
                "contact_id",
                INT,
                title="Contact ID",
                description="One contact ID or a list of them.",
                required_by={"includecontact"},
            ),
        ),
    ),
    Action(
        "submitbatches",
        run_async=submit_batches,
        long_running=True,
        title="Send queued updates to Mailchimp",
        params=(),
    ),
)

MAILCHIMPSYNC = Entity(
    "Mailchimpsync",
    title="Mailchimp Sync",
    description="Keeps CiviCRM groups and Mailchimp audiences in step.",
    actions=(
        *ACTIONS,
        *campaigns.ACTIONS,
        *views.ACTIONS,
        *people.ACTIONS,
        *plans.ACTIONS,
        *merge_fields.ACTIONS,
        *runs.ACTIONS,
    ),
)
