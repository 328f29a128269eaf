"""Address: a contact's postal addresses, of which one is primary."""

from typing import Any

from sqlalchemy import Connection

from civiapi.api.declaration.fields import BOOLEAN, FLOAT, INT, Field, OptionTable
from civiapi.api.declaration.spec import Entity, Request
from civiapi.store.schema import tables
from entities.actions import crud
from entities.contacts.locations import location

COUNTRY = OptionTable(tables.country, name="iso_code", label="name")
STATE_PROVINCE = OptionTable(tables.state_province, name="abbreviation", label="name")


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store an address; the rules add to *given*, which ``create`` answers."""
    return location.store(conn, request, given, location.stored(conn, request, row_id))


ADDRESS = Entity(
    "Address",
    table=tables.address,
    title="Address",
    description="A postal address of a contact.",
    fields=(
        *location.fields_before("Address"),
        *location.flags("Address"),
        Field("street_address", title="Street Address", max_length=96),
        Field("street_number", INT, title="Street Number"),
        Field("street_number_suffix", title="Street Number Suffix", max_length=8),
        Field("street_number_predirectional", title="Street Direction Prefix", max_length=8),
        Field("street_name", title="Street Name", max_length=64),
        Field("street_type", title="Street Type", max_length=8),
        Field("street_number_postdirectional", title="Street Direction Suffix", max_length=8),
        Field("street_unit", title="Street Unit", max_length=16),
        Field("supplemental_address_1", title="Supplemental Address 1", max_length=96),
        Field("supplemental_address_2", title="Supplemental Address 2", max_length=96),
        Field("supplemental_address_3", title="Supplemental Address 3", max_length=96),
        Field("city", title="City", max_length=64),
        Field("county_id", INT, title="County"),
        Field("state_province_id", INT, title="State/Province", options=STATE_PROVINCE, aliases=("state_province",)),
        Field("postal_code_suffix", title="Postal Code Suffix", max_length=12),
        Field("postal_code", title="Postal Code", max_length=64),
        Field("usps_adc", title="USPS Code", max_length=32),
        Field("country_id", INT, title="Country", options=COUNTRY, aliases=("country",)),
        Field("geo_code_1", FLOAT, title="Latitude"),
        Field("geo_code_2", FLOAT, title="Longitude"),
        Field("manual_geo_code", BOOLEAN, title="Is Manually Geocoded?", default=0),
        Field("timezone", title="Timezone", max_length=8),
        Field("name", title="Address Name", max_length=255),
        Field(
            "master_id", INT, title="Master Address ID", description="The address that this one repeats.", fk="Address"
        ),
    ),
    actions=crud.actions(save, location.erase),
    permissions=location.PERMISSIONS,
    contact_field="contact_id",
    label_field="contact_id.sort_name",
    description_fields=("street_address", "postal_code", "city"),
)
