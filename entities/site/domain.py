"""Domain: the site. Its version is ``domain_version``; the sender of its mail is in an option list."""

from email.utils import parseaddr

from sqlalchemy import Connection, Integer, and_, bindparam, or_, select

from civiapi.api import query
from civiapi.api.declaration.fields import BOOLEAN, INT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.parameters.options import is_empty
from civiapi.api.permissions import contacts_seen
from civiapi.store.schema import tables
from entities.actions import crud

CURRENT = 1


def get(conn: Connection, request: Request) -> Result:
    """The domains that meet the filters, each with its version and sender."""
    if isinstance(current := request.params.get("current_domain"), dict):
        raise query.refused_filter(request.entity, "current_domain")
    request = request.with_params(version=None)  # the version of the API, not a filter on the site's
    if not is_empty(current):
        request = request.with_params(id=CURRENT)
    asked = request.returns
    found = query.get(conn, request)
    for row in found.values if isinstance(found.values, list) else ():  # a count has no rows
        more = _more(conn, request, int(row["id"]))
        if asked and "name" not in asked:
            del more["name"]
        row |= more  # the sender and the version as well where only columns are asked for, as in CiviCRM
        if "version" not in asked:
            row.pop("version", None)
    return found


def _more(conn: Connection, request: Request, domain_id: int) -> dict[str, str]:
    """What is not in the row of a domain as such: its version, the sender of its mail, and the address of its contact.

    The sender is the default of the option list ``from_email_address``; without one, the contact.
    """
    domain, contact, email = tables.domain, tables.contact, tables.email
    theirs = and_(contact.c.id == domain.c.contact_id, *contacts_seen(request, contact.c.id))
    of_contact = domain.outerjoin(contact, theirs).outerjoin(
        email, (email.c.contact_id == contact.c.id) & (email.c.is_primary == 1)
    )
    row = conn.execute(
        select(domain.c.name, domain.c.version, contact.c.display_name, email.c.email)
        .select_from(of_contact)
        .where(domain.c.id == domain_id)
    ).one()
    name, address = parseaddr(conn.execute(_SENDER, {"domain": domain_id}).scalar() or "")
    return {
        "name": row.name or "",
        "domain_version": row.version or "",
        "from_name": name if address else row.display_name or "",
        "from_email": address or row.email or "",
        "domain_email": row.email or "",
    }


_VALUE = tables.option_value.c
_SENDER = (
    select(_VALUE.label)
    .join(tables.option_group, tables.option_group.c.id == _VALUE.option_group_id)
    .where(tables.option_group.c.name == "from_email_address", _VALUE.is_active == 1, _VALUE.is_default == 1)
    .where(or_(_VALUE.domain_id.is_(None), _VALUE.domain_id == bindparam("domain", type_=Integer())))
    .order_by(_VALUE.domain_id.desc(), _VALUE.weight)
    .limit(1)
)


DOMAIN = Entity(
    "Domain",
    table=tables.domain,
    title="Domain",
    description="The site itself.",
    fields=(
        Field("id", INT, title="Domain ID", writable=False),
        Field("name", title="Domain Name", required_by={"create"}, max_length=64),
        Field("description", title="Domain Description", max_length=255),
        # Every call has a ``version``, the API's; CiviCRM takes the column as its database's and upgrades by it.
        Field("version", title="CiviCRM Version", max_length=32, writable=False),
        Field("contact_id", INT, title="Contact ID", fk="Contact"),
        Field("current_domain", BOOLEAN, title="Current Domain", description="Only the current domain."),
    ),
    actions=(Action("get", run=get, short=True), crud.create_action()),
    permissions={"get": ("access CiviCRM",)},
    own_filters=frozenset({"current_domain"}),
    label_field="name",
)
