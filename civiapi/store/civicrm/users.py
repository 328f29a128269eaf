"""The rows of callers: contacts with an API key, the contacts of the settings' users, and the epochs of sessions.

API keys are returned with their contacts, and the caller compares them: the databases compare case-insensitively.
"""

from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, exists, func, insert, select, update

from civiapi.store.civicrm.contact_names import INDIVIDUAL, conventions, new_contact_columns
from civiapi.store.civicrm.contacts import PART_LIMIT, new_hash
from civiapi.store.databases.dialect import insert_new
from civiapi.store.schema.live_columns import demanded_columns
from civiapi.store.schema.tables import contact, domain, session_epoch, uf_match, user
from civiapi.store.text.encoded_text import cut


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A contact with an API key."""

    contact_id: int
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """The state of a contact that its sessions are bound to."""

    user_name: str | None  # the user of the settings for whom this contact was created
    api_key: str = field(repr=False)
    epoch: int = 0


def find_key_holders(conn: Connection, api_key: str) -> list[KeyHolder]:
    """Undeleted contacts whose key equals *api_key*, ignoring case."""
    rows = conn.execute(
        select(contact.c.id, contact.c.api_key).where(contact.c.api_key == api_key, contact.c.is_deleted == 0)
    )
    return [KeyHolder(row.id, row.api_key) for row in rows]


def is_contact(conn: Connection, contact_id: int) -> bool:
    """Whether the contact exists and is not in the trash."""
    query = select(exists().where(contact.c.id == contact_id, contact.c.is_deleted == 0))
    return bool(conn.execute(query).scalar())


def contact_of_user(conn: Connection, name: str, now: str) -> int:
    """The contact of user *name* of the settings, created at first use (*now* is the site time)."""
    known = conn.execute(select(user.c.contact_id).where(user.c.name == name)).scalar()
    return known if known is not None else _make_contact(conn, name, now)


_ACCOUNT = (
    select(user.c.name, contact.c.api_key, session_epoch.c.epoch)
    .select_from(
        contact.outerjoin(user, user.c.contact_id == contact.c.id).outerjoin(
            session_epoch, session_epoch.c.contact_id == contact.c.id
        )
    )
    .where(contact.c.id == bindparam("contact_id"), contact.c.is_deleted == 0)
    .limit(1)
)


def find_contact_account(conn: Connection, contact_id: int) -> Account | None:
    """The account of an undeleted contact; None without one."""
    row = conn.execute(_ACCOUNT, {"contact_id": contact_id}).one_or_none()
    return None if row is None else Account(row.name, row.api_key or "", row.epoch or 0)


def end_sessions(conn: Connection, contact_id: int) -> None:
    """Increment the contact's epoch, which ends its sessions in every process."""
    insert_new(conn, session_epoch, [{"contact_id": contact_id, "epoch": 0}])
    epoch = session_epoch.c.epoch
    conn.execute(update(session_epoch).where(session_epoch.c.contact_id == contact_id).values(epoch=epoch + 1))


def find_uf_id(conn: Connection, contact_id: int) -> int | None:
    """The number of the contact's user account."""
    return conn.execute(select(uf_match.c.uf_id).where(uf_match.c.contact_id == contact_id)).scalar()


def find_account(conn: Connection, *, uf_id: int | None = None, uf_name: str | None = None) -> int | None:
    """The contact of a user account, by its number or its name."""
    account = uf_match.c.uf_id == uf_id if uf_id is not None else uf_match.c.uf_name == uf_name
    return conn.execute(select(uf_match.c.contact_id).where(account).limit(1)).scalar()


def _make_contact(conn: Connection, name: str, now: str) -> int:
    short = cut(name, PART_LIMIT)
    row = {"contact_type": INDIVIDUAL, "first_name": short, "source": "civiapi user", "hash": new_hash()}
    row |= new_contact_columns(conventions(conn), row, None) | {"created_date": now, "modified_date": now}
    made = conn.execute(insert(contact).values(row))
    contact_id = int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0
    conn.execute(insert(user).values(name=name, contact_id=contact_id))
    _make_account(conn, name, contact_id)
    return contact_id


def _make_account(conn: Connection, name: str, contact_id: int) -> None:
    """Give the contact a user account, unless the accounts belong to a CMS, which assigns their numbers, or to a
    CiviCRM that is its own (Standalone), whose accounts have names and passwords to log in with."""
    if uf_match.name in demanded_columns(conn):
        return
    ours = select(user.c.contact_id)
    foreign = conn.execute(select(uf_match.c.id).where(uf_match.c.contact_id.not_in(ours)).limit(1)).first()
    domain_id = conn.execute(select(func.min(domain.c.id))).scalar()
    if foreign is not None or domain_id is None:
        return
    orphan = uf_match.c.uf_name == name  # of a contact that was deleted permanently
    if conn.execute(update(uf_match).where(orphan).values(contact_id=contact_id)).rowcount:
        return
    highest = conn.execute(select(func.max(uf_match.c.uf_id))).scalar() or 0
    conn.execute(insert(uf_match).values(domain_id=domain_id, uf_id=highest + 1, uf_name=name, contact_id=contact_id))
