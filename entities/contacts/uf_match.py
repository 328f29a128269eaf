"""UFMatch: the contacts of user accounts."""

from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Entity
from civiapi.store.schema import tables
from entities.actions import crud

UF_MATCH = Entity(
    "UFMatch",
    table=tables.uf_match,
    title="User Account",
    description="The contacts of user accounts.",
    fields=(
        Field("id", INT, title="UF Match ID", writable=False),
        Field("domain_id", INT, title="Domain ID", default_by={"create": 1}, fk="Domain"),
        Field("uf_id", INT, title="CMS ID", description="The number of the account.", required_by={"create"}),
        Field("uf_name", title="CMS Unique Identifier", required_by={"create"}, max_length=255),
        Field("contact_id", INT, title="Contact ID", required_by={"create"}, fk="Contact"),
        Field("language", title="Preferred Language", max_length=5),
    ),
    actions=crud.actions(),
    label_field="uf_name",
)
