"""What CiviCRM does when a member took another address at Mailchimp: the contact takes it, too."""

from sqlalchemy import Connection, select
from sqlalchemy import update as change

from civiapi.store.contacts import follow_primary, touch
from civiapi.store.tables import contact, email
from sync.audience import Audience


def follow_member(conn: Connection, audience: Audience, contact_id: int, old: str, new: str) -> None:
    """Change the contact's address *old* to *new*, wherever the contact still has it; nobody's may be taken.

    Otherwise the next sync would take the new address for one that the contact gave up, and change it back.
    """
    owners = select(email.c.id).join(contact, contact.c.id == email.c.contact_id)
    if conn.execute(owners.where(email.c.email == new, contact.c.is_deleted == 0)).first() is not None:
        return
    mine = conn.execute(
        select(email.c.id).where(email.c.contact_id == contact_id, email.c.email == old).order_by(email.c.id)
    ).first()
    if mine is None:
        return
    conn.execute(
        change(email).where(email.c.id == mine.id).values(email=new.lower(), on_hold=0, hold_date=None, reset_date=None)
    )
    follow_primary(conn, contact_id)
    touch(conn, [contact_id], audience.clock.now())
