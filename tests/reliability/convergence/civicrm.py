"""CiviCRM's side of the model: changes to contacts, addresses, groups and tags, made directly in its tables.

Each function is one unit over a Core connection, as a user's click would be; the extension's code is not used.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, insert, select, text
from sqlalchemy import update as change

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.schema.tables import (
    contact,
    email,
    entity_tag,
    group,
    group_contact,
    group_contact_cache,
    subscription_history,
    tag,
)
from sync.connections.config import read_config, write_config
from sync.store.tables import cache, update
from tests.support.linked_site import GROUP, TREES_GROUP, link

LIST_ID = "a1b2c3d4e5"
KEY = "0123456789abcdef0123456789abcdef-us1"
TREES = "9143cf3bd1"
MAIL, MAIL_GROUP = "aaaa000001", 14
CHOICES = {TREES: TREES_GROUP, MAIL: MAIL_GROUP}
"""What members choose at Mailchimp, an interest and a marketing permission, and the groups linked with them."""
TAG, TAG_NAME = 7, "Volunteers"

_NOTED = """
  INSERT INTO model_made SELECT NEW.contact_id, NEW.email, count(*) FROM civicrm_email AS e
    JOIN civicrm_contact AS c ON c.id = e.contact_id AND c.is_deleted = 0
    WHERE e.email = NEW.email AND e.contact_id != NEW.contact_id"""
MADE_TWICE = {
    "sqlite": [
        "CREATE TABLE model_made (contact_id INTEGER, email TEXT, others INTEGER)",
        f"CREATE TRIGGER model_email_made AFTER INSERT ON civicrm_email BEGIN {_NOTED}; END",
    ],
    "mariadb": [
        "CREATE TABLE model_made (contact_id INTEGER, email VARCHAR(254), others INTEGER)",
        "CREATE TRIGGER model_email_made AFTER INSERT ON civicrm_email FOR EACH ROW "
        f"IF @restoring IS NULL THEN {_NOTED}; END IF",
    ],
}
"""The database itself notes, for each address it is given, how many living contacts had it already."""


JOB = "JOB"
FILLED = {JOB: {"source": "contact:job_title", "clear": 1}}
"""A merge field that a rule fills with the contact's job, and empties with it."""


def set_up(conn: Connection) -> None:
    """Three groups, a tag, the audience linked with them."""
    conn.execute(insert(group).values(id=MAIL_GROUP, name="Mail", title="Mail"))
    link(conn, KEY, LIST_ID, {TREES: str(TREES_GROUP)}, permissions={MAIL: str(MAIL_GROUP)}, mergeFields=FILLED)
    conn.execute(insert(tag).values(id=TAG, name=TAG_NAME, label=TAG_NAME))


def unlink_choices(conn: Connection) -> None:
    """The audience's interest and permission are linked with no group."""
    link(conn, KEY, LIST_ID, mergeFields=FILLED)


def describe(conn: Connection, contact_id: int, first_name: str, job: str, at: str) -> None:
    """Give a contact a first name and a job."""
    values = {"first_name": first_name, "job_title": job, "modified_date": at}
    conn.execute(change(contact).where(contact.c.id == contact_id).values(values))


def add_contact(conn: Connection, address: str, at: str, first_name: str = "Ada") -> int:
    """A new Individual with one address."""
    values = {"contact_type": "Individual", "first_name": first_name, "last_name": "Byron"}
    made = conn.execute(insert(contact).values(**values, display_name="Ada Byron", created_date=at, modified_date=at))
    key = int(made.lastrowid)
    conn.execute(insert(email).values(contact_id=key, email=address, is_primary=1, location_type_id=1))
    _by_a_person(conn, key, address)
    return key


def _by_a_person(conn: Connection, contact_id: int, address: str) -> None:
    """This was no sync: people may give two contacts one address."""
    conn.execute(text("DELETE FROM model_made WHERE contact_id = :i AND email = :a"), {"i": contact_id, "a": address})


def make_smart(conn: Connection, at: str) -> None:
    """The subscription group is a smart group, linked one way."""
    conn.execute(change(group).where(group.c.id == GROUP).values(saved_search_id=1, cache_date=at))
    raw = read_config(conn).raw
    write_config(conn, {**raw, "lists": {LIST_ID: {**raw["lists"][LIST_ID], "oneWay": 1}}})


def compute_smart(conn: Connection, at: str) -> None:
    """CiviCRM computes the members of the smart group: those in the trash are left out."""
    trashed = select(contact.c.id).where(contact.c.is_deleted == 1)
    conn.execute(delete(group_contact_cache).where(group_contact_cache.c.contact_id.in_(trashed)))
    conn.execute(change(group).where(group.c.id == GROUP).values(cache_date=at))


def _is_smart(conn: Connection, group_id: int) -> bool:
    return bool(conn.execute(select(group.c.saved_search_id).where(group.c.id == group_id)).scalar())


def _set_found(conn: Connection, contact_id: int, is_found: bool, at: str) -> None:
    """The search finds a contact, or no longer does."""
    if is_found:
        conn.execute(insert(group_contact_cache).values(group_id=GROUP, contact_id=contact_id))
    else:
        conn.execute(delete(group_contact_cache).where(group_contact_cache.c.contact_id == contact_id))
    compute_smart(conn, at)


def written_to_smart(conn: Connection) -> int:
    """How many rows there are that a sync must not write: CiviCRM writes none of a smart group."""
    tables = [table for table in (group_contact, subscription_history) if _is_smart(conn, GROUP)]
    rows = [conn.execute(select(func.count()).where(table.c.group_id == GROUP)).scalar_one() for table in tables]
    return sum(rows)


def standing(conn: Connection, contact_id: int, group_id: int = GROUP) -> str | None:
    """A contact's status in a group; ``Added`` or None in a smart one."""
    if _is_smart(conn, group_id):
        found = select(group_contact_cache.c.id).where(group_contact_cache.c.contact_id == contact_id)
        return "Added" if conn.execute(found).first() is not None else None
    wanted = select(group_contact.c.status).where(
        group_contact.c.contact_id == contact_id, group_contact.c.group_id == group_id
    )
    return conn.execute(wanted).scalar()


def set_group(conn: Connection, contact_id: int, status: str, at: str, group_id: int = GROUP) -> bool:
    """A person puts a contact into a group or takes it out; False where nothing changes."""
    now = standing(conn, contact_id, group_id)
    if (now or "Deleted") == status:
        return False
    if _is_smart(conn, group_id):
        if (now == "Added") == (status == "Added"):
            return False
        _set_found(conn, contact_id, status == "Added", at)
        return True
    set_status(conn, group_id, [contact_id], status, method="Admin", at=at)
    return True


def addresses(conn: Connection, contact_id: int) -> list[Any]:
    """A contact's addresses, the oldest first."""
    return list(conn.execute(select(email).where(email.c.contact_id == contact_id).order_by(email.c.id)))


def owners(conn: Connection, some: Sequence[str]) -> set[int]:
    """The contacts that have one of these addresses."""
    return set(conn.execute(select(email.c.contact_id).where(email.c.email.in_(some))).scalars())


def hold(conn: Connection, contact_id: int, on: bool, at: str) -> None:
    """All of a contact's addresses go on hold, or come back."""
    conn.execute(change(email).where(email.c.contact_id == contact_id).values(on_hold=int(on)))
    touch(conn, contact_id, at)


def readdress(conn: Connection, contact_id: int, new: str, at: str) -> str | None:
    """A contact's oldest address becomes another; returns what it was."""
    mine = addresses(conn, contact_id)
    if not mine:
        return None
    conn.execute(change(email).where(email.c.id == mine[0].id).values(email=new, on_hold=0))
    touch(conn, contact_id, at)
    return str(mine[0].email)


def add_address(conn: Connection, contact_id: int, new: str, at: str) -> None:
    """A contact gets one more address."""
    primary = 0 if addresses(conn, contact_id) else 1
    conn.execute(insert(email).values(contact_id=contact_id, email=new, is_primary=primary, location_type_id=1))
    _by_a_person(conn, contact_id, new)
    touch(conn, contact_id, at)


def drop_address(conn: Connection, contact_id: int, at: str) -> None:
    """A contact's youngest address goes; another becomes primary."""
    mine = addresses(conn, contact_id)
    if not mine:
        return
    conn.execute(delete(email).where(email.c.id == mine[-1].id))
    if len(mine) > 1 and mine[-1].is_primary:
        conn.execute(change(email).where(email.c.id == mine[0].id).values(is_primary=1))
    touch(conn, contact_id, at)


def trash(conn: Connection, contact_id: int, on: bool, at: str) -> None:
    """Into the trash, or out of it."""
    conn.execute(change(contact).where(contact.c.id == contact_id).values(is_deleted=int(on)))
    touch(conn, contact_id, at)


def opt_out(conn: Connection, contact_id: int, on: bool, at: str) -> None:
    """No bulk mail, or bulk mail again."""
    conn.execute(change(contact).where(contact.c.id == contact_id).values(is_opt_out=int(on)))
    touch(conn, contact_id, at)


def merge(conn: Connection, keeper: int, loser: int, at: str) -> None:
    """Merge two contacts as CiviCRM leaves its tables: addresses, memberships and history go to the keeper.

    Of two memberships in one group the keeper's own stands, and is what its newest history says.
    """
    conn.execute(change(email).where(email.c.contact_id == loser).values(contact_id=keeper, is_primary=0))
    if not any(row.is_primary for row in addresses(conn, keeper)):
        first = select(func.min(email.c.id)).where(email.c.contact_id == keeper).scalar_subquery()
        conn.execute(change(email).where(email.c.id == first).values(is_primary=1))
    history = subscription_history.c
    for group_id in (GROUP, *CHOICES.values()):
        mine, theirs = standing(conn, keeper, group_id), standing(conn, loser, group_id)
        conn.execute(
            change(subscription_history)
            .where(history.contact_id == loser, history.group_id == group_id)
            .values(contact_id=keeper)
        )
        conn.execute(
            delete(group_contact).where(group_contact.c.contact_id == loser, group_contact.c.group_id == group_id)
        )
        if _is_smart(conn, group_id):
            _set_found(conn, loser, False, at)
            if theirs and not mine:
                _set_found(conn, keeper, True, at)
        elif mine or theirs:
            set_status(conn, group_id, [keeper], mine or theirs or "", method="Admin", at=at)
    trash(conn, loser, True, at)
    touch(conn, keeper, at)


def is_linked(conn: Connection, address: str) -> bool:
    """Whether a sync has linked the member with this address to a contact."""
    wanted = select(cache.c.id).where(cache.c.mailchimp_email == address, cache.c.civicrm_contact_id.is_not(None))
    return conn.execute(wanted).first() is not None


def asks_to_be_in(conn: Connection, address: str) -> bool:
    """Whether an open update would put this address into the audience."""
    open_ = select(update.c.data).where(update.c.completed == 0)
    bodies = [orjson.loads(data) for data in conn.execute(open_).scalars()]
    mine = [one for one in bodies if str(one.get("email_address", "")).lower() == address.lower()]
    return any(one.get("status") in ("subscribed", "pending") for one in mine)


def set_tag(conn: Connection, contact_id: int, on: bool) -> None:
    """The contact gets the tag, or loses it."""
    mine = (entity_tag.c.entity_table == "civicrm_contact") & (entity_tag.c.entity_id == contact_id)
    conn.execute(delete(entity_tag).where(mine))
    if on:
        conn.execute(insert(entity_tag).values(entity_table="civicrm_contact", entity_id=contact_id, tag_id=TAG))


def touch(conn: Connection, contact_id: int, at: str) -> None:
    """CiviCRM notes when a contact was changed."""
    conn.execute(change(contact).where(contact.c.id == contact_id).values(modified_date=at))
