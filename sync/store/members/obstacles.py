"""Who is not subscribed though that was decided: whom CiviCRM would not mail as it is now.

An undo asks, whatever the run did, and so do updates that are sent long after they were decided. What counts is the
contact that the cache row has today: after a merge it is another than the run's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from civiapi.store.civicrm.contacts import addresses_of
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact, subscription_history
from sync.audience import Audience, Privacy
from sync.model import GroupStatus
from sync.store.members.privacy import who_objects
from sync.store.sources import who_is_in
from sync.store.tables import cache

IN_PERSON = ("Email", "Web")
"""Methods of history rows by which people leave a group themselves."""


def find_obstacles(conn: Connection, audience: Audience, cache_ids: Sequence[int]) -> Mapping[int, str]:
    """Why the members of these cache rows are not to be subscribed again, by the id of the row; the others are left
    out."""
    if not cache_ids:
        return {}
    contacts = _contacts_of(conn, cache_ids)
    left = ("The contact left the group in person", _who_left_in_person(conn, audience, _ids_in(contacts)))
    found = _find(conn, audience, contacts, left, {row.id: row.mailchimp_email or "" for row in contacts})
    return {row_id: f"{why}: not subscribed again." for row_id, why in found.items()}


def find_changed_minds(conn: Connection, audience: Audience, addresses: Mapping[int, str]) -> Mapping[int, str]:
    """Why these are not to be subscribed any more, each by the id of its cache row and with the address that would be
    subscribed; the others are left out."""
    if not addresses:
        return {}
    contacts = _contacts_of(conn, list(addresses))
    ids = _ids_in(contacts)
    left = ("The contact left the group", set(ids) - who_is_in(conn, audience, ids))
    named = {row_id: address for row_id, address in addresses.items() if address}  # the extension's may name none
    found = _find(conn, audience, contacts, left, named)
    return {row_id: f"{why}: not subscribed." for row_id, why in found.items()}


def _contacts_of(conn: Connection, cache_ids: Sequence[int]) -> Sequence[Row[Any, Any, Any]]:
    columns = (cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_email)
    return conn.execute(select(*columns).where(in_list(cache.c.id, cache_ids))).all()


def _ids_in(contacts: Sequence[Row[Any, Any, Any]]) -> list[int]:
    return sorted({row.civicrm_contact_id for row in contacts if row.civicrm_contact_id is not None})


def _find(
    conn: Connection,
    audience: Audience,
    contacts: Sequence[Row[Any, Any, Any]],
    left: tuple[str, set[int]],
    addresses: Mapping[int, str],
) -> dict[int, str]:
    """What speaks against mail to these, by the id of the row; the others are left out. *left* as in `_of_contacts`;
    *addresses*: those that would be subscribed, where they are known."""
    ids = _ids_in(contacts)
    of_contacts = _of_contacts(conn, audience, ids, left)
    theirs = addresses_of(conn, ids)
    found = {}
    for row in contacts:
        why = of_contacts.get(row.civicrm_contact_id or 0, "The contact is deleted")
        if not why and row.id in addresses:
            why = _of_address(theirs.get(row.civicrm_contact_id, ()), addresses[row.id])
        if why:
            found[row.id] = why
    return found


def _of_contacts(
    conn: Connection, audience: Audience, ids: Sequence[int], left: tuple[str, set[int]]
) -> Mapping[int, str]:
    """What speaks against mail to these contacts, by their ids; those that do not exist are left out. *left*: how, and
    who."""
    there = conn.execute(select(contact.c.id, contact.c.is_deleted).where(in_list(contact.c.id, ids))).all()
    obstacles = (  # the first that applies is said
        ("The contact is in the trash", {row.id for row in there if row.is_deleted}),
        ("The contact is not to be mailed", set() if audience.privacy is Privacy.IGNORE else who_objects(conn, ids)),
        left,
    )
    return {row.id: next((why for why, ids_of in obstacles if row.id in ids_of), "") for row in there}


def _who_left_in_person(conn: Connection, audience: Audience, ids: Sequence[int]) -> set[int]:
    """Those of these contacts whose latest history row in the group is their own leaving it."""
    history = subscription_history.c
    latest = (
        select(func.max(history.id))
        .where(in_list(history.contact_id, ids), unindexed(history.group_id) == audience.group_id)
        .group_by(history.contact_id)
    )
    newest = list(conn.execute(latest).scalars())
    theirs = select(history.contact_id).where(
        in_list(history.id, newest),
        unindexed(history.status) == GroupStatus.REMOVED,
        unindexed(history.method).in_(IN_PERSON),
    )
    return {contact_id for contact_id in conn.execute(theirs).scalars() if contact_id is not None}


def _of_address(addresses: Iterable[Any], member_email: str) -> str:
    """What speaks against mail to a member's address, of a contact with these addresses."""
    mine = [one for one in addresses if one.email.strip().lower() == member_email.strip().lower()]
    if not mine:
        return "The contact does not have the member's address any more"
    return "The address is on hold" if all(one.on_hold for one in mine) else ""
