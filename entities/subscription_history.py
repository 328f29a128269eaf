"""SubscriptionHistory: the append-only log of who joined and left which group, and how. Read only.

CiviCRM has no such entity in APIv3; ours lets a script see what a membership change wrote. The highest id of a contact
and a group is what was said last.
"""

from civiapi.spec import DATETIME, INT, Entity, Field, FixedOptions
from civiapi.store import tables
from entities import crud

STATUS = FixedOptions.words("Added", "Removed", "Pending", "Deleted")

SUBSCRIPTION_HISTORY = Entity(
    "SubscriptionHistory",
    table=tables.subscription_history,
    title="Subscription History",
    description="Who joined and left which group, when and how.",
    fields=(
        Field("id", INT, title="Group Membership History ID", keeps=False),
        Field("contact_id", INT, title="Contact ID", fk="Contact"),
        Field("group_id", INT, title="Group ID", fk="Group"),
        Field("date", DATETIME, title="Group Membership Action Date"),
        Field("method", title="Group Membership Action", description="Admin, Email, Web, API, MCsync…", max_length=8),
        Field("status", title="Group Membership Status", max_length=8, options=STATUS),
        Field("tracking", title="Group Membership Tracking", max_length=255),
    ),
    actions=(crud.GET,),
    permissions={"get": ("access CiviCRM",)},
    contact_field="contact_id",
)
