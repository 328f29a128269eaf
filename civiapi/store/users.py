"""Who may call, as rows: contacts with an API key, and the contacts that the settings' users stand for.

Nothing here knows permissions or HTTP. Keys come back with their contacts; whoever asked compares them, because the
databases compare without regard to case.
"""

import secrets
from dataclasses import dataclass, field

from sqlalchemy import Connection, exists, func, insert, select, update

from civiapi.store.tables import contact, domain, uf_match, user


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A living contact with an API key."""

    contact_id: int
    api_key: str = field(repr=False)


def find_key_holders(conn: Connection, api_key: str) -> list[KeyHolder]:
    """Contacts out of the trash whose key equals *api_key* as the database compares."""
    rows = conn.execute(
        select(contact.c.id, contact.c.api_key).where(contact.c.api_key == api_key, contact.c.is_deleted == 0)
    )
    return [KeyHolder(row.id, row.api_key) for row in rows]


def is_contact(conn: Connection, contact_id: int) -> bool:
    """Whether the contact exists and is not in the trash."""
    query = select(exists().where(contact.c.id == contact_id, contact.c.is_deleted == 0))
    return bool(conn.execute(query).scalar())


def contact_of_user(conn: Connection, name: str, now: str) -> int:
    """The contact that user *name* of the settings stands for, made at first use (*now* is the site time)."""
    known = conn.execute(select(user.c.contact_id).where(user.c.name == name)).scalar()
    return known if known is not None else _make_contact(conn, name, now)


def find_user_name(conn: Connection, contact_id: int) -> str | None:
    """The user of the settings for whom we made this contact."""
    return conn.execute(select(user.c.name).where(user.c.contact_id == contact_id)).scalar()


def find_uf_id(conn: Connection, contact_id: int) -> int | None:
    """The number of the contact's user account."""
    return conn.execute(select(uf_match.c.uf_id).where(uf_match.c.contact_id == contact_id)).scalar()


def find_account(conn: Connection, *, uf_id: int | None = None, uf_name: str | None = None) -> int | None:
    """The contact of a user account, by its number or its name."""
    account = uf_match.c.uf_id == uf_id if uf_id is not None else uf_match.c.uf_name == uf_name
    return conn.execute(select(uf_match.c.contact_id).where(account).limit(1)).scalar()


def _make_contact(conn: Connection, name: str, now: str) -> int:
    short = name[:64]
    made = conn.execute(
        insert(contact).values(
            contact_type="Individual",
            first_name=short,
            display_name=short,
            sort_name=short,
            source="civiapi user",
            hash=secrets.token_hex(16),
            created_date=now,
            modified_date=now,
        )
    )
    contact_id = int(made.inserted_primary_key[0]) if made.inserted_primary_key else 0
    conn.execute(insert(user).values(name=name, contact_id=contact_id))
    _make_account(conn, name, contact_id)
    return contact_id


def _make_account(conn: Connection, name: str, contact_id: int) -> None:
    """Give the contact a user account, unless accounts here belong to a CMS: its numbers are not ours to take."""
    ours = select(user.c.contact_id)
    foreign = conn.execute(select(uf_match.c.id).where(uf_match.c.contact_id.not_in(ours)).limit(1)).first()
    domain_id = conn.execute(select(func.min(domain.c.id))).scalar()
    if foreign is not None or domain_id is None:
        return
    orphan = uf_match.c.uf_name == name  # left behind by a contact that was deleted for good
    if conn.execute(update(uf_match).where(orphan).values(contact_id=contact_id)).rowcount:
        return
    highest = conn.execute(select(func.max(uf_match.c.uf_id))).scalar() or 0
    conn.execute(insert(uf_match).values(domain_id=domain_id, uf_id=highest + 1, uf_name=name, contact_id=contact_id))
