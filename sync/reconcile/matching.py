"""Match members with contacts by address: five rules, each one statement over a range of cache rows.

Contacts in the trash do not count, and only rows without a contact are matched. The rules go from the most certain to
the least certain. After them come members whom an update in flight makes of a contact, whatever its address is by now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, and_, case, func, or_, select
from sqlalchemy import update as change

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list, same_address, unindexed, unlikely
from civiapi.store.schema.tables import contact, email
from sync.audience import Audience
from sync.model import RECEIVES_MAIL, GroupStatus, OperationKind, SyncStatus
from sync.store.members.cache import merge_into
from sync.store.members.member_codec import peek
from sync.store.sources import tables_of, who_is_in
from sync.store.tables import cache, update, update_detail
from sync.store.updates import read_update, select_updates


@dataclass(frozen=True, slots=True)
class Range:
    """Cache rows with ids from *after* (excluded) to *upto*; *todo*: of these only those, which are to be reconciled.

    They are named one by one, because no database knows beforehand that they are few among many.
    """

    after: int
    upto: int
    todo: Sequence[int] | None = None

    def of(self, audience: Audience) -> ColumnElement[bool]:
        """The condition that says so."""
        if self.todo is None:
            return and_(cache.c.mailchimp_list_id == audience.list_id, cache.c.id > self.after, cache.c.id <= self.upto)
        return and_(
            in_list(cache.c.id, self.todo),
            unindexed(cache.c.mailchimp_list_id) == audience.list_id,
            unindexed(cache.c.sync_status) == SyncStatus.TODO,
        )


def match_contacts(conn: Connection, audience: Audience, rows: Range) -> int:
    """Give each row without a contact the one it belongs to, by the five rules, else the one that is being subscribed
    as this member; returns how many got one."""
    matched = 0
    if _is_any_owned(conn, audience, rows):
        matched += _give(conn, audience, rows, only_owner())  # first: nearly all, and what is left is a family's
        matched += _match_namesakes(conn, audience, rows)
        for rule in (first_in_group(audience), first_with_history(audience), first_owner()):
            matched += _give(conn, audience, rows, rule)
    return matched + _match_awaited(conn, audience, rows)


def _match_awaited(conn: Connection, audience: Audience, rows: Range) -> int:
    """Match members in the audience whom an update in flight makes of a contact without a member; returns how many.

    They are left by the rules where the contact has another address by now. Open updates are searched by row for what
    is left of a whole range, so the rules come first: of a large push nothing is left.
    """
    left = (
        rows.of(audience),
        cache.c.civicrm_contact_id.is_(None),
        unindexed(cache.c.mailchimp_status).in_(sorted(RECEIVES_MAIL)),
    )
    in_flight = (unlikely(update.c.completed == 0), unindexed(update.c.mailchimpsync_batch_id).is_not(None))
    is_any = select(update.c.id).where(*in_flight).exists()
    if conn.execute(select(cache.c.id).where(*left, is_any).limit(1)).first() is None:
        return 0
    members = select(cache.c.mailchimp_member_id, cache.c.id).where(*left, cache.c.mailchimp_member_id.is_not(None))
    row_of: dict[str, int] = dict(conn.execute(members).all())
    paths = [f"members/{one}" for one in row_of]
    awaited = conn.execute(
        select_updates()
        .add_columns(cache.c.civicrm_contact_id)
        .join(contact, contact.c.id == cache.c.civicrm_contact_id)
        .where(
            *in_flight,
            or_(update_detail.c.path_tail.is_(None), in_list(update_detail.c.path_tail, paths)),
            unindexed(cache.c.mailchimp_list_id) == audience.list_id,
            unindexed(cache.c.mailchimp_member_id).is_(None),
            unindexed(contact.c.is_deleted) == 0,
        )
    )
    found = [
        (row.civicrm_contact_id, SyncStatus.TODO, row_of[operation.member])
        for row in awaited
        if (operation := read_update(row).operation).kind == OperationKind.MEMBER and operation.member in row_of
    ]
    update_rows(conn, cache, ("civicrm_contact_id", "sync_status"), found)
    return len(found)


def _give(conn: Connection, audience: Audience, rows: Range, rule: ScalarSelect[int]) -> int:
    """Give each row without a contact the one that *rule* finds; returns how many got one."""
    result = conn.execute(
        change(cache)
        .where(
            rows.of(audience),
            cache.c.civicrm_contact_id.is_(None),
            cache.c.mailchimp_email.is_not(None),
            rule.is_not(None),
        )
        .values(civicrm_contact_id=rule, sync_status=SyncStatus.TODO)
    )
    return result.rowcount


def _is_any_owned(conn: Connection, audience: Audience, rows: Range) -> bool:
    """Whether any of these rows can be matched: of a first sync of new people none, and the rules need not look."""
    owned = select(cache.c.id).where(
        rows.of(audience), cache.c.civicrm_contact_id.is_(None), first_owner().is_not(None)
    )
    return conn.execute(owned.limit(1)).first() is not None


def _match_namesakes(conn: Connection, audience: Audience, rows: Range) -> int:
    """Of several contacts with one address (a family's), match one that has the member's first name: of several
    namesakes one in the group, else one that ever was, else the lowest id."""
    several = _owners(func.min(email.c.contact_id) != func.max(email.c.contact_id))
    found = conn.execute(
        select(cache.c.id, cache.c.mailchimp_data, contact.c.id.label("contact_id"), contact.c.first_name)
        .join(email, same_address(email.c.email, cache.c.mailchimp_email))
        .join(contact, contact.c.id == email.c.contact_id)
        .where(
            rows.of(audience),
            cache.c.civicrm_contact_id.is_(None),
            unindexed(contact.c.is_deleted) == 0,
            several.correlate(cache).scalar_subquery(),
        )
    )
    families: dict[int, tuple[str, dict[int, str | None]]] = {}
    for row in found:
        name = peek(row.mailchimp_data, "first_name") or ""
        families.setdefault(row.id, (name, {}))[1][row.contact_id] = row.first_name
    namesakes = {
        cache_id: [i for i, one in names.items() if is_namesake(one, name)]
        for cache_id, (name, names) in families.items()
    }
    inside, ever = _group_ties(conn, audience, [i for ids in namesakes.values() if len(ids) > 1 for i in ids])
    linked = [
        (min(ids, key=lambda i: (i not in inside, i not in ever, i)), SyncStatus.TODO, cache_id)
        for cache_id, ids in namesakes.items()
        if ids
    ]
    update_rows(conn, cache, ("civicrm_contact_id", "sync_status"), linked)
    return len(linked)


def _group_ties(conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> tuple[set[int], set[int]]:
    """Those of these contacts that are in the subscription group, and those that ever were."""
    if not contact_ids:
        return set(), set()
    history = tables_of(audience)[1].c
    ever = select(history.contact_id).where(
        in_list(history.contact_id, contact_ids),
        unindexed(history.group_id) == audience.group_id,
    )
    return who_is_in(conn, audience, contact_ids), set(conn.execute(ever).scalars())


def representative(names: Mapping[int, str | None], member_name: str | None) -> int:
    """Of these contacts (id → first name) with a member's address, the one with its first name, else the lowest id."""
    return min(names, key=lambda i: (not is_namesake(names[i], member_name), i))


def why_chosen(
    contact_id: int, first_name: str | None, others: Mapping[int, str | None], member_name: str | None
) -> str:
    """Why of several contacts with a member's address this one represents it; *others*: contact id → first name."""
    namesakes = [i for i, name in others.items() if is_namesake(name, member_name)]
    if is_namesake(first_name, member_name):
        if len(namesakes) < len(others):
            tie = "" if not namesakes else f", as that of {len(namesakes)} of the others is"
            return f"its first name is the member's{tie}"
        return "it has the lowest ID of those" if contact_id < min(others) else "it was in the group first"
    return "it has the lowest ID of those" if contact_id < min(others) else "it was the one in the group"


def is_namesake(first_name: str | None, member_name: str | None) -> bool:
    """Whether a contact's first name is the member's, but for upper and lower case."""
    return bool(member_name and first_name) and str(first_name).strip().lower() == str(member_name).strip().lower()


def only_owner() -> ScalarSelect[int]:
    """The contact, where the address belongs to exactly one: to count different ones, a table is made for each row."""
    lowest = func.min(email.c.contact_id)
    return _owners(case((lowest == func.max(email.c.contact_id), lowest))).correlate(cache).scalar_subquery()


def first_in_group(audience: Audience) -> ScalarSelect[int]:
    """The lowest contact id of those that are in the subscription group."""
    members = tables_of(audience)[0].c
    inside = select(members.id).where(
        members.contact_id == email.c.contact_id,
        members.group_id == audience.group_id,
        members.status == GroupStatus.ADDED,
    )
    return _owners().where(inside.correlate(email).exists()).correlate(cache).scalar_subquery()


def first_with_history(audience: Audience) -> ScalarSelect[int]:
    """The lowest contact id of those that ever were in the subscription group."""
    history = tables_of(audience)[1].c
    ever = select(history.id).where(
        history.contact_id == email.c.contact_id,
        unindexed(history.group_id) == audience.group_id,  # a contact has a few rows
    )
    return _owners().where(ever.correlate(email).exists()).correlate(cache).scalar_subquery()


def first_owner() -> ScalarSelect[int]:
    """The lowest contact id of those the address belongs to."""
    return _owners().correlate(cache).scalar_subquery()


def _owners(which: ColumnElement[Any] | None = None) -> Select[Any]:
    return (
        select(func.min(email.c.contact_id) if which is None else which)
        .select_from(email.join(contact, contact.c.id == email.c.contact_id))
        .where(same_address(email.c.email, cache.c.mailchimp_email), unindexed(contact.c.is_deleted) == 0)
    )


def link_contact(conn: Connection, audience: Audience, cache_id: int, contact_id: int) -> None:
    """Give a member's row this contact, and take that contact's row without a member into it."""
    mine = cache.c.id == cache_id
    conn.execute(change(cache).where(mine).values(civicrm_contact_id=contact_id, sync_status=SyncStatus.TODO))
    absorb_crm_only(conn, audience, cache_id, contact_id)


def absorb_crm_only(conn: Connection, audience: Audience, cache_id: int, contact_id: int) -> None:
    """Take the contact's row without a member, if any, into this one."""
    others = conn.execute(
        select(cache.c.id).where(
            cache.c.mailchimp_list_id == audience.list_id,
            cache.c.civicrm_contact_id == contact_id,
            cache.c.mailchimp_member_id.is_(None),
        )
    )
    for other in others.scalars().all():
        merge_into(conn, other, cache_id)


@dataclass(frozen=True, slots=True)
class PersonQuery:
    """A person to look up: by contact, by address, or by both."""

    contact_id: int | None = None
    address: str = ""


def contacts_of(conn: Connection, query: PersonQuery) -> list[int]:
    """The contacts that the query names, by id; none in the trash."""
    if query.contact_id is not None:
        alive = select(contact.c.id).where(contact.c.id == query.contact_id, contact.c.is_deleted == 0)
        return list(conn.execute(alive).scalars())
    owners = (
        select(email.c.contact_id)
        .join(contact, contact.c.id == email.c.contact_id)
        .where(same_address(email.c.email, query.address), contact.c.is_deleted == 0)
        .distinct()
    )
    return sorted(conn.execute(owners).scalars())
