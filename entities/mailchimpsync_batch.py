"""MailchimpsyncBatch: updates sent to Mailchimp together; its results can be fetched and applied by hand."""

from civiapi.dispatch import Context
from civiapi.errors import ApiError
from civiapi.request import Request, integer, is_empty
from civiapi.spec import BOOLEAN, DATETIME, INT, Action, Entity, Field, Result
from entities import crud
from entities.sync_words import DELETE, told
from sync import tables


async def process_completed(request: Request, ctx: Context) -> Result:
    """Fetch the results of a finished batch and apply them; the batch row as it stands then."""
    row_id = integer(request.params.get("id"))
    if not row_id:
        raise ApiError("MailchimpsyncBatch.processCompleted requires id parameter")
    with told():
        await ctx.sync.process_completed(row_id, force=not is_empty(request.params.get("force")))
    found = await ctx.call(request.entity.name, "get", {"id": row_id, "sequential": 1})
    return Result(found["values"])


_COUNTS = (
    ("finished_operations", "How many operations Mailchimp has dealt with."),
    ("errored_operations", "How many of them it refused."),
    ("total_operations", "How many operations there are."),
)

MAILCHIMPSYNC_BATCH = Entity(
    "MailchimpsyncBatch",
    table=tables.batch,
    title="Mailchimp Sync Batch",
    description="Updates that were sent to Mailchimp together.",
    fields=(
        Field("id", INT, title="Mailchimpsync Batch ID", keeps=False),
        Field("mailchimp_list_id", title="Mailchimp List ID", description="The audience.", max_length=32),
        Field("mailchimp_batch_id", title="Mailchimp Batch ID", description="Mailchimp's own id.", max_length=32),
        Field("status", title="Status", description="Mailchimp's word for it, or aborted.", max_length=32),
        Field("submitted_at", DATETIME, title="Submitted At"),
        Field("completed_at", DATETIME, title="Completed At"),
        *(
            Field(name, INT, title=name.replace("_", " ").title(), description=words, default=0)
            for name, words in _COUNTS
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
            arun=process_completed,
            params=(
                Field("id", INT, title="Mailchimpsync Batch ID", description="Our id of the batch."),
                Field("force", BOOLEAN, title="Force", description="Apply the results again if they were already."),
            ),
            title="Fetch and apply the results of a batch",
        ),
    ),
)
