"""A contact with its addresses: which one is primary, which one to write to, and what a contact is called.

These rules are shared by the API and the sync. All functions take an open connection and leave the commit to whoever
opened it; times are site times as text.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, func, select, update

from civiapi.store.bulk import insert_rows
from civiapi.store.dialect import among
from civiapi.store.tables import contact, email, location_type

CHUNK = 500  # keeps an IN list under every driver's limit
NAME_LIMIT = 128
_DEFAULT_LOCATION = select(location_type.c.id).order_by(location_type.c.is_default.desc(), location_type.c.id).limit(1)


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Someone to be made a contact: an Individual with one address (lower case)."""

    first_name: str
    last_name: str
    email: str


def individual_names(first: str | None, last: str | None, prefix: str = "", suffix: str = "") -> tuple[str, str]:
    """Display name and sort name of an Individual; both empty if no part is there."""
    given, family = (first or "").strip(), (last or "").strip()
    display = " ".join(part for part in (prefix, given, family, suffix) if part)
    return display[:NAME_LIMIT], ", ".join(part for part in (family, given) if part)[:NAME_LIMIT]


def new_hash() -> str:
    """A contact's ``hash``: 32 random hex digits."""
    return secrets.token_hex(16)


def default_location_type(conn: Connection) -> int | None:
    """The id of the location type that new addresses get."""
    return conn.execute(_DEFAULT_LOCATION).scalar()


def create_individuals(conn: Connection, people: Sequence[NewPerson], at: str) -> list[int]:
    """Make an Individual with a primary address of each person, at site time *at*; their ids in the same order."""
    ids: list[int] = []
    location = default_location_type(conn)
    for start in range(0, len(people), CHUNK):
        part = people[start : start + CHUNK]
        new = _insert_people(conn, part, at)
        addresses = [(i, location, person.email.lower(), 1, 0) for i, person in zip(new, part, strict=True)]
        insert_rows(conn, email, ("contact_id", "location_type_id", "email", "is_primary", "on_hold"), addresses)
        ids += new
    return ids


def _insert_people(conn: Connection, people: Sequence[NewPerson], at: str) -> list[int]:
    """Insert the contact rows; they are found again by their hash, which works on every driver."""
    hashes, rows = [new_hash() for _ in people], []
    for person, own_hash in zip(people, hashes, strict=True):
        first, last, address = person.first_name, person.last_name, person.email[:NAME_LIMIT]
        display, sort = individual_names(first, last)
        names = (first[:64] or None, last[:64] or None, display or address, sort or address)
        rows.append(("Individual", *names, own_hash, at, at))
    top = conn.execute(select(func.max(contact.c.id))).scalar() or 0
    insert_rows(conn, contact, _NEW_PERSON, rows)
    made = conn.execute(select(contact.c.hash, contact.c.id).where(contact.c.id > top))  # and whoever came meanwhile
    by_hash: dict[str, int] = dict(made.all())
    return [by_hash[own_hash] for own_hash in hashes]


_NEW_PERSON = (
    "contact_type",
    "first_name",
    "last_name",
    "display_name",
    "sort_name",
    "hash",
    "created_date",
    "modified_date",
)


def addresses_of(conn: Connection, contact_ids: Sequence[int]) -> dict[int, list[Any]]:
    """The addresses of these contacts (rows with ``email``, ``on_hold``), the one to write to first.

    Bulk mail, then primary, then any; those on hold are among them.
    """
    found: dict[int, list[Any]] = defaultdict(list)
    ids = list(dict.fromkeys(contact_ids))
    for start in range(0, len(ids), CHUNK):
        theirs = among(email.c.contact_id, ids[start : start + CHUNK])
        rows = conn.execute(
            select(email.c.contact_id, email.c.email, email.c.on_hold)
            .where(theirs, email.c.email.is_not(None), email.c.email != "")
            .order_by(email.c.contact_id, email.c.is_bulkmail.desc(), email.c.is_primary.desc(), email.c.id)
        )
        for row in rows.all():
            found[row.contact_id].append(row)
    return found


def best_email(addresses: Iterable[Any]) -> str | None:
    """The address to write to, of a contact's in order; None where all are on hold, or none looks like one."""
    return next((row.email.strip() for row in addresses if not row.on_hold and "@" in row.email), None)


def primary_flag(conn: Connection, contact_id: int, row_id: int | None, wanted: Any) -> int:
    """Whether an address will be primary: the only one is, whatever was asked for."""
    if wanted:
        return 1
    others = select(email.c.id).where(email.c.contact_id == contact_id)
    others = others if row_id is None else others.where(email.c.id != row_id)
    return 0 if conn.execute(others.limit(1)).first() is not None else 1


def hold_dates(before: Mapping[str, Any], given: Mapping[str, Any], now: str) -> dict[str, Any]:
    """The dates that a change of ``on_hold`` brings with it; *before* is the stored row, empty on insert."""
    if given.get("on_hold") is None:
        return {}
    if given["on_hold"]:
        return {} if before.get("hold_date") else {"hold_date": now} | ({"reset_date": None} if before else {})
    if before.get("hold_date") and not before.get("reset_date"):
        return {"hold_date": None, "reset_date": now}
    return {}


def settle_addresses(conn: Connection, contact_id: int, saved: int | None, given: Mapping[str, Any], now: str) -> None:
    """Make a contact's addresses obey the rules after one was stored (*saved*, with *given*) or removed.

    One primary address, the saved one if it was asked to be; one for bulk mail at most; a contact without a name
    follows its primary address; the contact counts as modified at site time *now*.
    """
    if saved is not None and given.get("is_primary"):
        _clear_others(conn, contact_id, saved, "is_primary")
    if saved is not None and given.get("is_bulkmail"):
        _clear_others(conn, contact_id, saved, "is_bulkmail")
    promote_primary(conn, contact_id, not_this=saved)
    follow_primary(conn, contact_id)
    touch(conn, [contact_id], now)


def _clear_others(conn: Connection, contact_id: int, saved: int, flag: str) -> None:
    theirs = email.c.contact_id == contact_id, email.c.id != saved, email.c[flag] != 0
    conn.execute(update(email).where(*theirs).values({flag: 0}))


def promote_primary(conn: Connection, contact_id: int, *, not_this: int | None = None) -> None:
    """Give a contact without a primary address one: the oldest, but *not_this* only if it is the only one."""
    asked = select(email.c.id, email.c.is_primary).where(email.c.contact_id == contact_id).order_by(email.c.id)
    rows = conn.execute(asked).all()
    if not rows or any(row.is_primary for row in rows):
        return
    chosen = next((row.id for row in rows if row.id != not_this), rows[0].id)
    conn.execute(update(email).where(email.c.id == chosen).values(is_primary=1))


def follow_primary(conn: Connection, contact_id: int) -> None:
    """Call an Individual without a name by its primary address."""
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


def touch(conn: Connection, contact_ids: Sequence[int], now: str) -> None:
    """Say that these contacts changed at site time *now*."""
    for start in range(0, len(contact_ids), CHUNK):
        part = contact_ids[start : start + CHUNK]
        conn.execute(update(contact).where(among(contact.c.id, part)).values(modified_date=now))
