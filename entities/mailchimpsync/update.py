"""MailchimpsyncUpdate: updates for Mailchimp, queued and sent, in the extension's table."""

from civiapi.api.declaration.fields import BOOLEAN, INT, TEXT, Field
from civiapi.api.declaration.spec import Entity
from entities.actions import crud
from entities.mailchimpsync.shared import DELETE
from sync.store import tables

MAILCHIMPSYNC_UPDATE = Entity(
    "MailchimpsyncUpdate",
    table=tables.update,
    title="Mailchimp Sync Update",
    description="One update for Mailchimp, queued or sent.",
    fields=(
        Field("id", INT, title="Mailchimpsync Update ID", writable=False),
        Field(
            "mailchimpsync_cache_id",
            INT,
            title="Mailchimpsync Cache ID",
            description="The cache row (person and audience) this is for.",
            fk="MailchimpsyncCache",
        ),
        Field(
            "mailchimpsync_batch_id",
            INT,
            title="Mailchimpsync Batch ID",
            description="The batch it was sent in; empty while it is queued.",
            fk="MailchimpsyncBatch",
        ),
        Field("data", TEXT, title="Data", description="The body sent to Mailchimp, as JSON.", required_by={"create"}),
        Field("completed", BOOLEAN, title="Completed", description="Whether Mailchimp has answered.", default=0),
        Field("error_response", TEXT, title="Error Response", description="Why it was refused or overtaken."),
    ),
    actions=(crud.GET, crud.create_action(), DELETE),
)
