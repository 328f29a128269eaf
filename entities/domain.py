"""Domain: the site itself. Its version is shown as ``domain_version``; its sender is that of its contact."""

from typing import Any

from sqlalchemy import Connection, select

from civiapi.request import Request, is_empty
from civiapi.spec import BOOLEAN, INT, Action, Entity, Field, Result
from civiapi.store import tables
from entities import crud

CURRENT = 1


def get(conn: Connection, request: Request) -> Result:
    """The domains that meet the filters, each with its version and sender."""
    request = request.with_params(version=None)  # the caller's word for the API's version, no filter on the site's
    if not is_empty(request.params.get("current_domain")):
        request = request.with_params(id=CURRENT)
    wanted = crud.get(conn, request)
    for row in wanted.values if isinstance(wanted.values, list) else ():  # a count has no rows
        row |= _shown(conn, int(row["id"]))
        row.pop("version", None)
    return wanted


def _shown(conn: Connection, domain_id: int) -> dict[str, Any]:
    domain, contact, email = tables.domain, tables.contact, tables.email
    sender = domain.outerjoin(contact, contact.c.id == domain.c.contact_id).outerjoin(
        email, (email.c.contact_id == contact.c.id) & (email.c.is_primary == 1)
    )
    row = conn.execute(
        select(domain.c.name, domain.c.version, contact.c.display_name, email.c.email)
        .select_from(sender)
        .where(domain.c.id == domain_id)
    ).one()
    address = row.email or ""
    return {
        "name": row.name or "",
        "domain_version": row.version or "",
        "from_name": row.display_name or "",
        "from_email": address,
        "domain_email": address,
    }


DOMAIN = Entity(
    "Domain",
    table=tables.domain,
    title="Domain",
    description="The site itself.",
    fields=(
        Field("id", INT, title="Domain ID", keeps=False),
        Field("name", title="Domain Name", required_by={"create"}, max_length=64),
        Field("description", title="Domain Description", max_length=255),
        Field("version", title="CiviCRM Version", max_length=32),
        Field("contact_id", INT, title="Contact ID", fk="Contact"),
        Field("current_domain", BOOLEAN, title="Current Domain", description="Only the domain we are in."),
    ),
    actions=(Action("get", run=get), crud.create_action()),
    permissions={"get": ("access CiviCRM",)},
    label_field="name",
)
