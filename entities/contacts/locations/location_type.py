"""LocationType: what an address is for (Home, Work…)."""

from civiapi.api.declaration.fields import BOOLEAN, INT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.store.schema import tables
from entities.actions import crud

LOCATION_TYPE = Entity(
    "LocationType",
    table=tables.location_type,
    title="Location Type",
    description="What an address is for.",
    fields=(
        Field("id", INT, title="Location Type ID", writable=False),
        Field("name", title="Location Type", required_by={"create"}, max_length=64),
        Field("display_name", title="Display Name", required_by={"create"}, max_length=64),
        Field("vcard_name", title="vCard Location Type", max_length=64),
        Field("description", title="Description", max_length=255),
        Field("is_reserved", BOOLEAN, title="Location Type is Reserved?", default=0),
        Field("is_active", BOOLEAN, title="Location Type is Active?", default=1),
        Field("is_default", BOOLEAN, title="Default Location Type?", default=0),
    ),
    actions=crud.actions(),
    permissions={"get": ("access CiviCRM",)},
    label_field="display_name",
)
