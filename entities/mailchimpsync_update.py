"""MailchimpsyncUpdate: changes owed to Mailchimp, as the extension's table has them. Plain create, get and delete."""

from civiapi.spec import BOOLEAN, INT, TEXT, Entity, Field
from entities import crud
from entities.sync_words import DELETE
from sync import tables

MAILCHIMPSYNC_UPDATE = Entity(
    "MailchimpsyncUpdate",
    table=tables.update,
    title="Mailchimp Sync Update",
    description="One change owed to Mailchimp, or made there.",
    fields=(
        Field("id", INT, title="Mailchimpsync Update ID", keeps=False),
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
            description="The batch it was sent in; empty while it waits.",
            fk="MailchimpsyncBatch",
        ),
        Field("data", TEXT, title="Data", description="The body sent to Mailchimp, as JSON.", required_by={"create"}),
        Field("completed", BOOLEAN, title="Completed", description="Whether Mailchimp has answered.", default=0),
        Field("error_response", TEXT, title="Error Response", description="Mailchimp's answer, if it refused."),
    ),
    actions=(crud.GET, crud.create_action(), DELETE),
)
