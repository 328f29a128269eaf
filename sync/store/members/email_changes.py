"""What CiviCRM does when an address changes or bounces at Mailchimp."""

from typing import Any

from sqlalchemy import Connection, Select, insert, select
from sqlalchemy import update as change

from civiapi.store.civicrm.contacts import apply_address_rules
from civiapi.store.civicrm.locations import default_location_type, touch
from civiapi.store.databases.expressions import same_address
from civiapi.store.schema.tables import contact, email
from sync.audience import Audience


def follow_member(conn: Connection, audience: Audience, contact_id: int, old: str, new: str) -> None:
    """Give the contact the address *new* for bulk mail; *old* stays with it, no longer for bulk mail.

    Nothing changes if the contact has given up *old* in CiviCRM, or another contact has *new*. An address for bulk mail
    is the one that a sync compares with Mailchimp's: without it, the next one would change the address back.
    """
    owners = select(email.c.contact_id).join(contact, contact.c.id == email.c.contact_id)
    others = owners.where(same_address(email.c.email, new), contact.c.is_deleted == 0, email.c.contact_id != contact_id)
    if conn.execute(others).first() is not None or conn.execute(_mine(contact_id, old)).first() is None:
        return
    found = conn.execute(_mine(contact_id, new)).first()
    if found is not None:
        if found.is_bulkmail:
            return
        saved = int(found.id)
        conn.execute(change(email).where(email.c.id == saved).values(is_bulkmail=1))
    else:
        row = {"contact_id": contact_id, "email": new.lower(), "is_primary": 0, "is_bulkmail": 1}
        made = conn.execute(insert(email).values(**row, location_type_id=default_location_type(conn)))
        saved = int(made.inserted_primary_key[0])  # type: ignore[index]
    now = audience.clock.now()
    apply_address_rules(conn, contact_id, saved, {"is_bulkmail": 1}, now)
    touch(conn, [contact_id], now)


def hold_bounced(conn: Connection, audience: Audience, contact_id: int, address: str) -> None:
    """Put this address of the contact on hold, with the date; its other addresses are left."""
    now = audience.clock.now()
    mine = (email.c.contact_id == contact_id) & same_address(email.c.email, address) & (email.c.on_hold == 0)
    held = conn.execute(change(email).where(mine).values(on_hold=1, hold_date=now, reset_date=None))
    if held.rowcount:
        touch(conn, [contact_id], now)


def _mine(contact_id: int, address: str) -> Select[Any]:
    mine = email.c.contact_id == contact_id, same_address(email.c.email, address)
    return select(email.c.id, email.c.is_bulkmail).where(*mine).order_by(email.c.is_bulkmail.desc(), email.c.id)
