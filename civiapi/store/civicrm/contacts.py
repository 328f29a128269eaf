"""Contacts and their addresses: the primary address, the address for mail, and the names of a contact.

The API and the sync share these rules. All functions take an open connection and do not commit; times are site times.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from civiapi.runtime.loop_priority import yielding_to_loop
from civiapi.store.civicrm.contact_names import (
    INDIVIDUAL,
    NAME_LIMIT,
    conventions,
    greeting_columns,
    name_columns,
    new_contact_columns,
)
from civiapi.store.civicrm.locations import apply_location_rules, clear_others, default_location_type
from civiapi.store.databases.bulk import insert_after, insert_rows
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.live_columns import live_columns
from civiapi.store.schema.tables import contact, email
from civiapi.store.text.encoded_text import cut

HASH_BYTES = 16
PART_LIMIT = 64  # stored characters of the first and the last name


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A contact to be created: an Individual with one address (lower case)."""

    first_name: str
    last_name: str
    email: str


def new_hash() -> str:
    """A contact's ``hash``: 32 random hex digits."""
    return new_hashes(1)[0]


def new_hashes(count: int) -> list[str]:
    """A hash for each of *count* contacts, asked of the system at once."""
    digits = secrets.token_hex(HASH_BYTES * count)
    length = 2 * HASH_BYTES
    return [digits[start : start + length] for start in range(0, len(digits), length)]


def create_individuals(conn: Connection, people: Sequence[NewPerson], at: str) -> list[int]:
    """Create an Individual with a primary address for each person; their ids in the same order."""
    location = default_location_type(conn)
    ids = _insert_people(conn, people, at)
    addresses = [(i, location, person.email.lower(), 1, 0) for i, person in zip(ids, people, strict=True)]
    insert_rows(conn, email, ("contact_id", "location_type_id", "email", "is_primary", "on_hold"), addresses)
    return ids


def _insert_people(conn: Connection, people: Sequence[NewPerson], at: str) -> list[int]:
    """Insert the contact rows; their ids are read by hash where rows of others may be among them."""
    rows: list[tuple[Any, ...]] = []
    site = conventions(conn)
    for digits, person in yielding_to_loop(zip(new_hashes(len(people)), people, strict=True)):
        first, last = cut(person.first_name, PART_LIMIT), cut(person.last_name, PART_LIMIT)
        row = {"contact_type": INDIVIDUAL, "first_name": first or None, "last_name": last or None}
        row |= new_contact_columns(site, row, person.email)
        rows.append((digits, at, at, *map(row.get, _NEW_PERSON)))
    columns = ("hash", "created_date", "modified_date", *_NEW_PERSON)
    before, ids = insert_after(conn, contact, columns, rows, adjacent=True)
    if ids or not rows:
        return list(ids)
    made = conn.execute(select(contact.c.hash, contact.c.id).where(contact.c.id > before))
    by_hash: dict[str, int] = dict(made.all())
    return [by_hash[row[0]] for row in rows]


_NEW_PERSON = (
    "contact_type",
    "first_name",
    "last_name",
    "display_name",
    "sort_name",
    "email_greeting_id",
    "email_greeting_display",
    "postal_greeting_id",
    "postal_greeting_display",
    "addressee_id",
    "addressee_display",
    "communication_style_id",
    "preferred_language",
)


def rename(conn: Connection, contact_id: int, names: Mapping[str, str], at: str) -> None:
    """Give an Individual these names, and the display name and greetings with them; other types are left alone."""
    alive = contact.c.id == contact_id, contact.c.is_deleted == 0
    row = conn.execute(select(*live_columns(conn, contact)).where(*alive)).mappings().one_or_none()
    if row is None or row["contact_type"] != INDIVIDUAL or all(row[name] == value for name, value in names.items()):
        return
    site, renamed = conventions(conn), {**row, **names}
    changed = {**names, **name_columns(site, renamed, None), **greeting_columns(site, renamed), "modified_date": at}
    conn.execute(update(contact).where(contact.c.id == contact_id).values(changed))


def addresses_of(conn: Connection, contact_ids: Sequence[int]) -> dict[int, list[Any]]:
    """The addresses of these contacts (rows with ``email``, ``on_hold``): bulk mail, then primary, then others.

    Addresses on hold are included.
    """
    found: dict[int, list[Any]] = defaultdict(list)
    rows = conn.execute(
        select(email.c.contact_id, email.c.email, email.c.on_hold)
        .where(in_list(email.c.contact_id, contact_ids), email.c.email.is_not(None), email.c.email != "")
        .order_by(email.c.contact_id, email.c.is_bulkmail.desc(), email.c.is_primary.desc(), email.c.id)
    )
    for row in rows.all():
        found[row.contact_id].append(row)
    return found


def best_email(addresses: Iterable[Any]) -> str | None:
    """The first usable address; None where all are on hold or none is valid."""
    return next((row.email.strip() for row in addresses if not row.on_hold and "@" in row.email), None)


def hold_dates(before: Mapping[str, Any], given: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The dates that change with ``on_hold``; *before* is the stored row, empty on insert."""
    if given.get("on_hold") is None:
        return {}
    if given["on_hold"]:
        return {} if before.get("hold_date") else {"hold_date": now} | ({"reset_date": None} if before else {})
    if before.get("hold_date") and not before.get("reset_date"):
        return {"hold_date": None, "reset_date": now}
    return {}


def apply_address_rules(
    conn: Connection, contact_id: int, saved: int | None, given: Mapping[str, Any], now: str
) -> None:
    """Apply the rules of addresses after one was stored (*saved*, with *given*) or removed.

    A contact has one primary address (the saved one if so requested) and at most one for bulk mail; a contact without
    a name is named after its primary address; the contact is marked as modified at site time *now*.
    """
    if saved is not None and given.get("is_bulkmail"):
        clear_others(conn, email, contact_id, saved, "is_bulkmail")
    apply_location_rules(conn, email, contact_id, saved, given, now)
    follow_primary(conn, contact_id)


def follow_primary(conn: Connection, contact_id: int) -> None:
    """Name an Individual without a name after its primary address."""
    primary = (
        select(func.max(email.c.email))
        .where(email.c.contact_id == contact.c.id, email.c.is_primary == 1)
        .scalar_subquery()
    )
    nameless = (
        contact.c.id == contact_id,
        contact.c.contact_type == "Individual",
        *(func.coalesce(contact.c[part], "") == "" for part in ("first_name", "last_name")),
        contact.c.prefix_id.is_(None),
        contact.c.suffix_id.is_(None),
    )
    named = case((primary.is_(None), contact.c.display_name), else_=func.substr(primary, 1, NAME_LIMIT))
    sorted_as = case((primary.is_(None), contact.c.sort_name), else_=func.substr(primary, 1, NAME_LIMIT))
    conn.execute(update(contact).where(*nameless).values(display_name=named, sort_name=sorted_as))
