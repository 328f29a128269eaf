"""Rules that span imported rows, as set statements over the rows that this import created.

A contact has one primary address; a contact without a name is named by it; a group contact has a history.
"""

from sqlalchemy import Connection, and_, exists, func, insert, literal, select, update

from civiapi.importer.history import made
from civiapi.store.schema.tables import contact, email, group_contact, subscription_history


def finish(conn: Connection, source: str, now: str) -> None:
    """Apply all rules. *now* is a site time."""
    leave_one_primary(conn, source)
    choose_a_primary(conn, source)
    name_by_address(conn, source)
    begin_histories(conn, source, now)


def leave_one_primary(conn: Connection, source: str) -> None:
    """Of several primary addresses of one contact the one with the lowest id stays primary."""
    touched = select(email.c.contact_id).where(email.c.id.in_(made(source, "emails")))
    kept = (
        select(email.c.contact_id, func.min(email.c.id).label("keep"))
        .where(email.c.is_primary == 1, email.c.contact_id.in_(touched))
        .group_by(email.c.contact_id)
        .having(func.count() > 1)
        .subquery()
    )
    spare = (
        select(email.c.id)
        .join(kept, kept.c.contact_id == email.c.contact_id)
        .where(email.c.is_primary == 1, email.c.id != kept.c.keep)
        .subquery()  # MariaDB updates a table it reads from only through a derived table
    )
    conn.execute(update(email).where(email.c.id.in_(select(spare.c.id))).values(is_primary=0))


def choose_a_primary(conn: Connection, source: str) -> None:
    """A contact with addresses but no primary one gets its lowest id as primary."""
    touched = select(email.c.contact_id).where(email.c.id.in_(made(source, "emails")))
    first = (
        select(func.min(email.c.id).label("id"))
        .where(email.c.contact_id.in_(touched))
        .group_by(email.c.contact_id)
        .having(func.max(email.c.is_primary) == 0)
        .subquery()
    )
    conn.execute(update(email).where(email.c.id.in_(select(first.c.id))).values(is_primary=1))


def name_by_address(conn: Connection, source: str) -> None:
    """Name a contact without a name by its primary address."""
    address = (
        select(func.substr(func.min(email.c.email), 1, 128))
        .where(email.c.contact_id == contact.c.id, email.c.is_primary == 1)
        .scalar_subquery()
    )
    nameless = and_(contact.c.display_name.is_(None), contact.c.id.in_(made(source, "contacts")))
    conn.execute(update(contact).where(nameless).values(display_name=address, sort_name=address))


def begin_histories(conn: Connection, source: str, now: str) -> None:
    """Add a history row, dated now, for group contacts without one."""
    known = exists().where(
        subscription_history.c.contact_id == group_contact.c.contact_id,
        # not the bare column: SQLite would look through the group's whole history for each of its members
        func.coalesce(subscription_history.c.group_id, 0) == group_contact.c.group_id,
    )
    silent = select(
        group_contact.c.contact_id,
        group_contact.c.group_id,
        literal(now).label("date"),
        literal("Admin").label("method"),
        group_contact.c.status,
    ).where(group_contact.c.id.in_(made(source, "group_contacts")), ~known)
    names = ["contact_id", "group_id", "date", "method", "status"]
    conn.execute(insert(subscription_history).from_select(names, silent))
