"""Members without an email address: people who gave Mailchimp a phone number only (SMS).

A row of the cache is an address in an audience, so these have none, and are never synced. They are noted, so that
nobody wonders why Mailchimp shows more people. Each is known by its contact id: once it has an address, or a full
fetch does not meet it, the note goes.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, func, select

from civiapi.store.databases.bulk import upsert_rows
from civiapi.store.databases.expressions import in_list
from sync.mailchimp.wire import Member
from sync.model import MemberStatus
from sync.store.tables import no_address

WHY = "Mailchimp has no email address of them (SMS only), so they are not synced."


def note_no_address(conn: Connection, list_id: str, members: Iterable[Member], serial: int | None) -> None:
    """Note those of these members that have no address, with the number of a full fetch; the others are no longer
    noted."""
    listed = {contact_id: one for one in members if isinstance(contact_id := one.get("contact_id"), str) and contact_id}
    without = [
        contact_id
        for contact_id, one in listed.items()
        if not one.get("email_address") and one.get("status") != MemberStatus.ARCHIVED
    ]
    if not without and not count_no_address(conn, list_id):
        return
    others = [contact_id for contact_id in listed if contact_id not in without]
    mine = no_address.c.list_id == list_id
    conn.execute(delete(no_address).where(mine, in_list(no_address.c.contact_id, others)))
    rows = [(list_id, contact_id, serial or 0) for contact_id in without]
    set_ = ("contact_id",) if serial is None else ("seen",)
    upsert_rows(conn, no_address, ("list_id", "contact_id", "seen"), rows, key=("list_id", "contact_id"), set_=set_)


def forget_unseen(conn: Connection, list_id: str, serial: int) -> None:
    """Forget those that the full fetch with this number did not meet."""
    conn.execute(delete(no_address).where(no_address.c.list_id == list_id, no_address.c.seen != serial))


def count_no_address(conn: Connection, list_id: str) -> int:
    """How many members of an audience have no address."""
    return conn.execute(select(func.count()).where(no_address.c.list_id == list_id)).scalar_one()
