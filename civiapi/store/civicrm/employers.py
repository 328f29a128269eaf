"""The employer of a contact: the relationship "Employee of" behind ``employer_id``, and the employer's name.

A former employer's relationship stays when another employer is set; it ends when there is none any more.
"""

from sqlalchemy import Connection, insert, select, update

from civiapi.store.civicrm.contact_names import INDIVIDUAL, ORGANIZATION
from civiapi.store.schema.tables import contact, relationship, relationship_type

EMPLOYEE_OF = "Employee of"


def relate_employer(conn: Connection, contact_id: int, employer_id: int | None, former_id: int | None) -> None:
    """Store the relationship of an Individual with the organization that employs it; None: it ended."""
    other_id = employer_id or former_id
    kind = select(relationship_type.c.id).where(relationship_type.c.name_a_b == EMPLOYEE_OF)
    type_id = conn.execute(kind.order_by(relationship_type.c.id).limit(1)).scalar()
    employs = select(contact.c.id).where(contact.c.id == other_id, contact.c.contact_type == ORGANIZATION)
    if type_id is None or conn.execute(employs).first() is None:
        return
    with_employer = (
        relationship.c.contact_id_a == contact_id,
        relationship.c.contact_id_b == other_id,
        relationship.c.relationship_type_id == type_id,
    )
    if employer_id is None:
        conn.execute(update(relationship).where(*with_employer).values(is_active=0))
        return
    known = conn.execute(select(relationship.c.id).where(*with_employer).order_by(relationship.c.id).limit(1)).scalar()
    if known is None:
        values = {"contact_id_a": contact_id, "contact_id_b": employer_id, "relationship_type_id": type_id}
        conn.execute(insert(relationship).values(is_active=1, **values))
    else:
        conn.execute(update(relationship).where(relationship.c.id == known).values(is_active=1, end_date=None))


def name_employer(conn: Connection, employer_id: int, name: str) -> None:
    """Give the employees of an organization its new name."""
    employees = contact.c.employer_id == employer_id, contact.c.contact_type == INDIVIDUAL
    conn.execute(update(contact).where(*employees).values(organization_name=name))
