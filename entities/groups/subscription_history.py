"""SubscriptionHistory: the append-only log of membership changes. Read only.

CiviCRM has no such entity in APIv3. The highest id of a contact and a group is the latest change.
"""

from civiapi.api.declaration.fields import DATETIME, INT, Field, FixedOptions
from civiapi.api.declaration.spec import Entity
from civiapi.store.civicrm.group_membership import GroupStatus
from civiapi.store.schema import tables
from entities.actions import crud

STATUS = FixedOptions.named(GroupStatus.ADDED, GroupStatus.REMOVED, GroupStatus.PENDING, GroupStatus.DELETED)

SUBSCRIPTION_HISTORY = Entity(
    "SubscriptionHistory",
    table=tables.subscription_history,
    title="Subscription History",
    description="Who joined and left which group, when and how.",
    fields=(
        Field("id", INT, title="Group Membership History ID", writable=False),
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
