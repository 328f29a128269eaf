"""Contacts that CiviMail would not mail, as conditions and counts; and contacts in the trash that were members.

CiviCRM has no date of when somebody opted out or died, so this is no change that could win or lose against another:
what becomes of it is a setting (``audience.Privacy``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, literal, literal_column, or_, select

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, same_address, unindexed
from civiapi.store.schema.tables import contact, email
from sync.model import RECEIVES_MAIL
from sync.store.members.blobs import dump_data, load_data
from sync.store.tables import cache

OBJECTIONS = (
    ("is_deceased", "deceased", "the contact is deceased"),
    ("is_opt_out", "opted_out", "opted out of bulk mail"),
    ("do_not_email", "do_not_email", "do not email"),
)
"""The columns of a contact that say so, the most serious first: column, the name it is counted under, the fact."""

IN_TRASH = "in_trash"
"""The key in ``civicrm_data`` of the contact in the trash in whose place the row's contact was made."""


def find_objection(row: Any) -> str | None:
    """Why CiviMail would not mail this contact, in words; *row* has the columns of `OBJECTIONS`."""
    return next((fact for column, _, fact in OBJECTIONS if getattr(row, column)), None)


def contact_objects() -> ColumnElement[bool]:
    """CiviMail would not mail a contact; a condition on contacts."""
    return or_(*(contact.c[column] != _NO for column, _, _ in OBJECTIONS))


def member_objects() -> ColumnElement[bool]:
    """The row is a member in the audience whose contact CiviMail would not mail; a condition on cache rows."""
    theirs = select(contact.c.id).where(contact.c.id == cache.c.civicrm_contact_id, contact_objects())
    return and_(_in_audience(cache.c.mailchimp_status), theirs.correlate(cache).exists())


def not_to_be_mailed() -> ColumnElement[bool]:
    """The row is a member in the audience, and its contact objects or was made in place of one in the trash."""
    return or_(member_objects(), and_(_in_audience(cache.c.mailchimp_status), _is_noted()))


def who_objects(conn: Connection, contact_ids: Sequence[int]) -> set[int]:
    """Those of these contacts that CiviMail would not mail."""
    if not contact_ids:
        return set()
    found = select(contact.c.id).where(in_list(contact.c.id, contact_ids), contact_objects())
    return set(conn.execute(found).scalars())


def find_owners(conn: Connection, cache_ids: Sequence[int]) -> tuple[list[int], dict[int, int]]:
    """Of these rows those whose member's address a contact has, and by row the latest contact in the trash with it."""
    rows = conn.execute(
        select(cache.c.id, contact.c.is_deleted, func.max(contact.c.id))
        .join(email, same_address(email.c.email, cache.c.mailchimp_email))
        .join(contact, contact.c.id == email.c.contact_id)
        .where(in_list(cache.c.id, cache_ids))
        .group_by(cache.c.id, contact.c.is_deleted)
    ).all()
    owned = sorted(cache_id for cache_id, is_deleted, _ in rows if not is_deleted)
    return owned, {cache_id: contact_id for cache_id, is_deleted, contact_id in rows if is_deleted}


def note_trashed(conn: Connection, trashed: Mapping[int, int]) -> None:
    """Note on rows whose contacts were just made the contact in the trash that has the member's address, by row."""
    if not trashed:
        return
    found = conn.execute(select(cache.c.id, cache.c.civicrm_data).where(in_list(cache.c.id, list(trashed))))
    noted = [(dump_data({**load_data(data), IN_TRASH: trashed[cache_id]}), cache_id) for cache_id, data in found.all()]
    update_rows(conn, cache, ("civicrm_data",), noted)


def read_trashed(conn: Connection, civicrm_data: Mapping[int, bytes | None]) -> dict[int, int]:
    """Of these rows (id → ``civicrm_data``) the contact in the trash that is noted, while it is there."""
    noted = {
        cache_id: contact_id
        for cache_id, data in civicrm_data.items()
        if data and IN_TRASH.encode() in data and isinstance(contact_id := load_data(data).get(IN_TRASH), int)
    }
    if not noted:
        return {}
    there = select(contact.c.id).where(in_list(contact.c.id, list(noted.values())), contact.c.is_deleted == 1)
    trashed = set(conn.execute(there).scalars())
    return {cache_id: contact_id for cache_id, contact_id in noted.items() if contact_id in trashed}


def count_not_to_be_mailed(conn: Connection, list_id: str) -> dict[str, int]:
    """How many members in the audience should not be mailed by CiviCRM, by reason; a member counts once."""
    reason = case(*((contact.c[column] != _NO, literal(name)) for column, name, _ in OBJECTIONS))
    mine = and_(
        cache.c.mailchimp_list_id == list_id,
        _in_audience(unindexed(cache.c.mailchimp_status)),  # most rows of the audience
    )
    rows = conn.execute(
        select(reason, func.count())
        .select_from(cache.join(contact, contact.c.id == cache.c.civicrm_contact_id))
        .where(mine, contact_objects())
        .group_by(reason)
    )
    counts = {name: 0 for _, name, _ in OBJECTIONS} | dict(iter(rows))
    noted = conn.execute(select(cache.c.id, cache.c.civicrm_data).where(mine, _is_noted(), ~member_objects()))
    return {**counts, IN_TRASH: len(read_trashed(conn, {row.id: row.civicrm_data for row in noted}))}


_NO: ColumnElement[int] = literal_column("0")
"""Not a parameter, as all values in these conditions: statements that are kept (``api.query``) have their own only."""


def _in_audience(status: ColumnElement[Any]) -> ColumnElement[bool]:
    return status.in_([literal_column(f"'{one}'") for one in sorted(RECEIVES_MAIL)])


def _is_noted() -> ColumnElement[bool]:
    return func.coalesce(func.instr(cache.c.civicrm_data, literal_column(f"'{IN_TRASH}'")), _NO) > _NO
