"""Relationship and RelationshipType: how two contacts belong together (employer, household, family). Read only."""

from dataclasses import replace

from sqlalchemy import Connection

from civiapi.api import query
from civiapi.api.declaration.fields import BOOLEAN, DATE, INT, Field, FixedOptions, Option, OptionTable
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError
from civiapi.store.schema import tables
from entities.actions import crud

PERMISSION = FixedOptions(
    (
        Option("0", "None", "None"),
        Option("1", "View and update", "View and update"),
        Option("2", "View only", "View only"),
    )
)


def get(conn: Connection, request: Request) -> Result:
    """The rows that meet the filters; ``contact_id`` means those of a contact on either side."""
    contact_id = request.params.get("contact_id")
    if contact_id is None:
        return query.get(conn, request)
    sides = ("contact_id_a", "contact_id_b")
    if any(request.params.get(name) is not None for name in sides):
        raise ApiError("Relationship is filtered by 'contact_id' or by one of its sides, not by both", 2000)
    either = {"or": [*query.or_options(request), sides]}
    options = replace(request.options, raw={**request.options.raw, **either})
    both = request.with_params(**dict.fromkeys(sides, contact_id), contact_id=None)
    return query.get(conn, replace(both, options=options))


RELATIONSHIP_TYPE = Entity(
    "RelationshipType",
    table=tables.relationship_type,
    title="Relationship Type",
    description="How two contacts may belong together, named from both sides.",
    fields=(
        Field("id", INT, title="Relationship Type ID", writable=False),
        Field("name_a_b", title="Name, A to B", max_length=64),
        Field("label_a_b", title="Label, A to B", max_length=64),
        Field("name_b_a", title="Name, B to A", max_length=64),
        Field("label_b_a", title="Label, B to A", max_length=64),
        Field("description", title="Description", max_length=255),
        Field("contact_type_a", title="Contact Type of A", max_length=12),
        Field("contact_type_b", title="Contact Type of B", max_length=12),
        Field("contact_sub_type_a", title="Contact Subtype of A", max_length=64),
        Field("contact_sub_type_b", title="Contact Subtype of B", max_length=64),
        Field("is_reserved", BOOLEAN, title="Reserved?", default=0),
        Field("is_active", BOOLEAN, title="Active?", default=1),
    ),
    actions=(crud.GET,),
    permissions={"get": ("access CiviCRM",)},
    label_field="label_a_b",
)

RELATIONSHIP = Entity(
    "Relationship",
    table=tables.relationship,
    title="Relationship",
    description="Two contacts that belong together. Seen by those who see both.",
    fields=(
        Field("id", INT, title="Relationship ID", writable=False),
        Field("contact_id", INT, title="Contact on either side", fk="Contact", only={"get"}),
        Field("contact_id_a", INT, title="Contact A", fk="Contact"),
        Field("contact_id_b", INT, title="Contact B", fk="Contact"),
        Field(
            "relationship_type_id",
            INT,
            title="Relationship Type",
            fk="RelationshipType",
            options=OptionTable(tables.relationship_type, name="name_a_b", label="label_a_b"),
        ),
        Field("start_date", DATE, title="Start Date"),
        Field("end_date", DATE, title="End Date"),
        Field("is_active", BOOLEAN, title="Active?", default=1),
        Field("description", title="Description", max_length=255),
        Field("is_permission_a_b", INT, title="Permission of A for B", options=PERMISSION, default=0),
        Field("is_permission_b_a", INT, title="Permission of B for A", options=PERMISSION, default=0),
        Field("case_id", INT, title="Case ID"),
    ),
    actions=(Action("get", run=get, short=True, single=True),),
    own_filters=frozenset({"contact_id"}),
    permissions={"get": ("access CiviCRM",)},
    contact_field="contact_id_a",
    other_contact_field="contact_id_b",
    label_field="relationship_type_id.label_a_b",
    description_fields=("description",),
)
