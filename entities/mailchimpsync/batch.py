"""MailchimpsyncBatch: updates sent to Mailchimp together; its results can be fetched and applied by hand."""

from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, DATETIME, INT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer, is_empty
from entities.actions import crud
from entities.mailchimpsync.shared import DELETE
from sync.store import tables


async def process_completed(request: Request, ctx: Context) -> Result:
    """Fetch the results of a finished batch and apply them; answers the batch row."""
    row_id = integer(request.params.get("id"))
    if not row_id:
        raise ApiError("MailchimpsyncBatch.processCompleted requires id parameter")
    await ctx.sync.process_completed(row_id, force=not is_empty(request.params.get("force")))
    found = await ctx.call(request.entity.name, "get", {"id": row_id, "sequential": 1})
    return Result(found["values"])


_COUNTS = (
    ("finished_operations", "Number of operations that Mailchimp has completed."),
    ("errored_operations", "Number of operations that failed."),
    ("total_operations", "Number of operations in the batch."),
)

MAILCHIMPSYNC_BATCH = Entity(
    "MailchimpsyncBatch",
    table=tables.batch,
    title="Mailchimp Sync Batch",
    description="Updates that were sent to Mailchimp together.",
    fields=(
        Field("id", INT, title="Mailchimpsync Batch ID", writable=False),
        Field("mailchimp_list_id", title="Mailchimp List ID", description="The audience.", max_length=32),
        Field("mailchimp_batch_id", title="Mailchimp Batch ID", description="Mailchimp's own id.", max_length=32),
        Field("status", title="Status", description="Mailchimp's status, or aborted.", max_length=32),
        Field("submitted_at", DATETIME, title="Submitted At"),
        Field("completed_at", DATETIME, title="Completed At"),
        *(
            Field(name, INT, title=name.replace("_", " ").title(), description=text, default=0)
            for name, text in _COUNTS
        ),
        Field(
            "response_processed",
            INT,
            title="Response Processed",
            description="0: the results are not applied yet, 1: being applied, 2: applied.",
            default=0,
        ),
    ),
    actions=(
        crud.GET,
        crud.create_action(),
        DELETE,
        Action(
            "processcompleted",
            run_async=process_completed,
            long_running=True,
            params=(
                Field("id", INT, title="Mailchimpsync Batch ID", description="Our id of the batch."),
                Field("force", BOOLEAN, title="Force", description="Apply the results again if they were already."),
            ),
            title="Fetch and apply the results of a batch",
        ),
    ),
)
