"""UFMatch: which contact a user account is."""

from civiapi.spec import INT, Entity, Field
from civiapi.store import tables
from entities import crud

UF_MATCH = Entity(
    "UFMatch",
    table=tables.uf_match,
    title="User Account",
    description="Which contact a user account is.",
    fields=(
        Field("id", INT, title="UF Match ID", keeps=False),
        Field("domain_id", INT, title="Domain ID", default_by={"create": 1}, fk="Domain"),
        Field("uf_id", INT, title="CMS ID", description="The number of the account.", required_by={"create"}),
        Field("uf_name", title="CMS Unique Identifier", required_by={"create"}, max_length=255),
        Field("contact_id", INT, title="Contact ID", required_by={"create"}, fk="Contact"),
        Field("language", title="Preferred Language", max_length=5),
    ),
    actions=crud.actions(),
    label_field="uf_name",
    unique={"UI_uf_name_domain_id": ("uf_name", "domain_id"), "UI_contact_domain_id": ("contact_id", "domain_id")},
)
