"""Read the facts that plans depend on, for many rows with a few set statements. Nothing is decided or written here.

Statuses, interests and open updates are read for all rows; addresses, privacy and refusals (`persons`) only for rows
whose sides disagree.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import group_contact, subscription_history
from sync.audience import SUBSCRIPTION, Audience, GroupLink, Privacy
from sync.model import RECEIVES_MAIL, GroupStatus, OpenUpdate, OperationKind
from sync.reconcile.conditions import gave_up_address
from sync.reconcile.decide import LONG_AGO, Decision, Held, InterestFacts, RowFacts, Standing, Stored, decision_for
from sync.reconcile.persons import read_persons, read_refusals
from sync.store.members.blobs import INTEREST
from sync.store.members.holds import STATUS, Hold, read_holds
from sync.store.members.member_codec import ECHO, Fields, decode, peek
from sync.store.members.privacy import who_objects
from sync.store.sources import read_sources, version_of
from sync.store.tables import cache
from sync.store.updates import open_updates

ECHO_METHOD, UNDO_METHOD = "MCsync", "MCundo"
"""The methods of history rows of ours; CiviCRM's column takes eight characters."""
SMART_METHOD = "Smart"
"""What stands for the method of a change that CiviCRM's search made."""

NO_ROW = "Deleted"

_ASKS_MAILCHIMP = (Decision.SUBSCRIBE, Decision.UNSUBSCRIBE)


def facts_for(
    conn: Connection, audience: Audience, cache_ids: Sequence[int], *, complete: bool = False
) -> list[RowFacts]:
    """The facts of these rows, by id; rows that are gone are left out.

    Facts that no plan depends on are left out unless *complete*: the dates of rows at rest, which most are, and the
    person of rows whose sides agree.
    """
    ids = sorted(cache_ids)
    whole = set(ids) if complete else set(conn.execute(_MOVED.where(in_list(cache.c.id, ids))).scalars())
    rows = conn.execute(
        _ROWS.where(in_list(cache.c.id, ids), unindexed(cache.c.mailchimp_list_id) == audience.list_id)
    ).all()
    rows = sorted(rows, key=lambda row: row.id)
    history = GroupHistory(
        conn, audience, list({row.civicrm_contact_id for row in rows if row.civicrm_contact_id is not None})
    )
    opened = open_updates(conn, ids)
    basics = [_basic(audience, row, history, opened.get(row.id, ()), lean=row.id not in whole) for row in rows]
    basics = _with_holds(conn, audience, basics, history)
    whole |= _who_objects(conn, audience, basics)
    persons = [
        one for one in basics if one.contact_id is not None and (one.cache_id in whole or _needs_person(one, audience))
    ]
    refusable = [
        one.cache_id
        for one in basics
        if one.contact_id is not None and (one.cache_id in whole or _asks_mailchimp(one, audience))
    ]
    about = read_persons(conn, audience, persons) if persons else {}
    refusals = read_refusals(conn, refusable) if refusable else {}
    if not about and not refusals:
        return basics
    return [
        replace(one, person=about.get(one.cache_id, one.person), refusal=refusals.get(one.cache_id))
        if one.cache_id in about or one.cache_id in refusals
        else one
        for one in basics
    ]


def _with_holds(
    conn: Connection, audience: Audience, basics: Sequence[RowFacts], history: "GroupHistory"
) -> list[RowFacts]:
    """The facts with what an undo holds, and which holds have lapsed: the contact, its group or the member changed.

    A side that takes precedence in this run does so over a hold as well.
    """
    holds = read_holds(conn, [one.cache_id for one in basics])
    found = []
    for one in basics:
        held: dict[str, Held] = {}
        lapsed: list[str] = []
        for a_hold in holds.get(one.cache_id, ()):
            field = a_hold.field
            if a_hold.value is not None:
                continue  # of data: it holds while CiviCRM has that value
            if not _still_applies(a_hold, one, audience, history):
                lapsed.append(field)
            elif audience.trust.get(SUBSCRIPTION if field == STATUS else field.removeprefix(INTEREST)) is None:
                held[field] = Held(a_hold.run_id, datetime.fromtimestamp(a_hold.at_s, UTC), a_hold.objects)
        found.append(replace(one, held=held, lapsed=tuple(lapsed)) if held or lapsed else one)
    return found


def _still_applies(a_hold: Hold, one: RowFacts, audience: Audience, history: "GroupHistory") -> bool:
    """Whether neither side has changed since the undo; what it sent counts as carried out."""
    if a_hold.contact_id != one.contact_id:
        return False
    if a_hold.field == STATUS:
        group_id, inside = audience.group_id, will_be_inside(one)
    else:
        interest_id = a_hold.field.removeprefix(INTEREST)
        group_id, inside = audience.interests.get(interest_id, 0), will_be_chosen(one, interest_id)
    return history.newest(one.contact_id, group_id) <= a_hold.history_id and inside == a_hold.inside


def will_be_inside(one: RowFacts) -> bool:
    """Whether the member is in the audience once its open updates are carried out."""
    for update in reversed(one.open):
        if update.operation.kind == OperationKind.ARCHIVE:
            return False
        if update.operation.kind == OperationKind.MEMBER and update.operation.body.get("status"):
            return update.operation.body["status"] in RECEIVES_MAIL
    return one.member is not None and one.member.status in RECEIVES_MAIL


def will_be_chosen(one: RowFacts, interest_id: str) -> bool:
    """Whether the member has an interest once its open updates are carried out."""
    for update in reversed(one.open):
        chosen = update.operation.body.get("interests") or {}
        if update.operation.kind == OperationKind.MEMBER and interest_id in chosen:
            return bool(chosen[interest_id])
    return any(i.interest_id == interest_id and bool(i.held) for i in one.interests)


_ROWS = select(
    cache.c.id,
    cache.c.mailchimp_member_id,
    cache.c.mailchimp_email,
    cache.c.mailchimp_status,
    cache.c.mailchimp_updated,
    cache.c.mailchimp_data,
    cache.c.civicrm_data,
    cache.c.civicrm_groups,
    cache.c.civicrm_contact_id,
    cache.c.sync_status,
)
_MOVED = select(cache.c.id).where(gave_up_address())


def _who_objects(conn: Connection, audience: Audience, rows: Sequence[RowFacts]) -> set[int]:
    """The rows of members in the audience that are unsubscribed because their contact objects to mail."""
    if audience.privacy is not Privacy.UNSUBSCRIBE:
        return set()
    members = [one for one in rows if one.contact_id and one.member is not None and one.member.status in RECEIVES_MAIL]
    objecting = who_objects(conn, [one.contact_id for one in members if one.contact_id])
    return {one.cache_id for one in members if one.contact_id in objecting}


def _needs_person(one: RowFacts, audience: Audience) -> bool:
    decision = decision_for(one, audience)
    return decision is not Decision.IN_SYNC and decision is not Decision.JOIN_GROUP


def _asks_mailchimp(one: RowFacts, audience: Audience) -> bool:
    if decision_for(one, audience) in _ASKS_MAILCHIMP:
        return True
    return any(
        i.held is not None and i.held != (i.group is not None and i.group.status == GroupStatus.ADDED)
        for i in one.interests
    )


class GroupHistory:
    """The status of contacts in the linked groups, and the latest history row of each."""

    def __init__(self, conn: Connection, audience: Audience, contact_ids: Sequence[int]) -> None:
        self._audience = audience
        self._group_ids = audience.group_ids
        self.now: dict[tuple[int, int], str] = {}
        self.latest: dict[tuple[int, int], tuple[str, str | None, str | None, int]] = {}
        self.never: set[tuple[int, int]] = set()
        """Contact and group, where an undo took away what the sync had added: never in the group but for that."""
        self._echoes: dict[tuple[int, int], dict[GroupLink, datetime]] = {}
        """The Mailchimp changes that the sync copied to a group with several links, by contact and group."""
        self.left: dict[int, str] = {}
        """When contacts last left a source (site times)."""
        if not contact_ids:
            return
        statuses = select(group_contact.c.contact_id, group_contact.c.group_id, group_contact.c.status).where(
            in_list(group_contact.c.contact_id, contact_ids),
            unindexed(group_contact.c.group_id).in_(audience.group_ids),
        )
        for contact_id, group_id, status in conn.execute(statuses).all():
            self.now[contact_id, group_id] = status
        change = subscription_history.c
        rows = select(change.id, change.contact_id, change.group_id, change.date, change.status, change.method).where(
            in_list(change.contact_id, contact_ids), unindexed(change.group_id).in_(audience.group_ids)
        )
        found = conn.execute(rows).all()  # in order of ids MariaDB might read the whole table
        by_others: dict[tuple[int, int], tuple[str, str | None]] = {}
        taken_back = False
        for row_id, contact_id, group_id, date, status, method in sorted(found, key=itemgetter(0)):
            self.latest[contact_id, group_id] = (date, status, method, row_id)
            if method == UNDO_METHOD:
                taken_back = True
            elif method != ECHO_METHOD:
                by_others[contact_id, group_id] = (date, status)
        if taken_back:
            self._look_behind_undos(by_others)
        self._echoes = _shared_echoes(conn, audience, contact_ids) if audience.also_linked else {}
        if audience.one_way:
            self._read_source(conn, audience.group_id, contact_ids)

    def _read_source(self, conn: Connection, group_id: int, contact_ids: Sequence[int]) -> None:
        """The same of a source, in place of what CiviCRM's tables say of people who were put into the smart group."""
        for one in [key for key in (*self.now, *self.latest) if key[1] == group_id]:
            self.now.pop(one, None)
            self.latest.pop(one, None)
        for contact_id, known in read_sources(conn, group_id, contact_ids).items():
            version = version_of(known.since, self._audience.clock)
            self.now[contact_id, group_id] = known.status
            self.latest[contact_id, group_id] = (known.since, known.status, SMART_METHOD, version)
            if known.left_at:
                self.left[contact_id] = known.left_at

    def standing(
        self, contact_id: int, group_id: int, echoes: datetime | None, field: str = "status"
    ) -> Standing | None:
        """The status in a group, and since when; *echoes*: the Mailchimp change of *field* that a change of the sync
        mirrors."""
        status = self.now.get((contact_id, group_id))
        latest = self.latest.get((contact_id, group_id))
        if latest is None or (contact_id, group_id) in self.never:
            return None if status is None else Standing(status, LONG_AGO)
        date, said, method, _ = latest
        if status is None:
            if said == GroupStatus.ADDED:
                return None  # deleted without a history row: no change of anybody
            status = said or NO_ROW
        if method == ECHO_METHOD and status == said:
            other = self._latest_other(contact_id, group_id, GroupLink(self._audience.list_id, field))
            if other is not None and (echoes is None or other >= echoes):
                return Standing(status, other)
            return Standing(status, echoes or LONG_AGO, is_echo=True)
        return Standing(status, self._audience.clock.read(date) or LONG_AGO)

    def _look_behind_undos(self, by_others: Mapping[tuple[int, int], tuple[str, str | None]]) -> None:
        """Let a status that an undo restored count as the change that it restores: an undo is no change of anybody's
        mind, so once nothing holds it, the dates are those of before the run.

        *by_others*: the latest change that neither the sync nor an undo made; without one, the status is the sync's.
        """
        for key, (date, status, method, row_id) in self.latest.items():
            if method == UNDO_METHOD:
                said = by_others.get(key)
                if said is not None and said[1] == status:
                    self.latest[key] = (said[0], status, None, row_id)
                elif said is None and status == GroupStatus.DELETED:
                    self.never.add(key)
                else:
                    self.latest[key] = (date, status, ECHO_METHOD, row_id)

    def _latest_other(self, contact_id: int, group_id: int, own: GroupLink) -> datetime | None:
        """The latest Mailchimp change of another link of the group that the sync copied."""
        found = self._echoes.get((contact_id, group_id), {})
        return max((at for link, at in found.items() if link != own), default=None)

    def is_in(self, contact_id: int | None) -> bool:
        """True when the contact is in the subscription group."""
        return contact_id is not None and self.now.get((contact_id, self._audience.group_id)) == GroupStatus.ADDED

    def undated(self, contact_id: int) -> Standing | None:
        """The status in the subscription group, without a date."""
        status = self.now.get((contact_id, self._audience.group_id))
        return None if status is None else Standing(status, LONG_AGO)

    def newest(self, contact_id: int | None, *group_ids: int) -> int:
        """The id of the latest history row in any of these groups, or in any linked one but a source; 0: there is none.

        Of a source, which has no history: its version (`version_of`).
        """
        if contact_id is None:
            return 0
        groups = group_ids or [
            i for i in self._group_ids if not (self._audience.one_way and i == self._audience.group_id)
        ]
        return max((self.latest[contact_id, i][3] for i in groups if (contact_id, i) in self.latest), default=0)

    def of(self, contact_id: int) -> dict[int, tuple[str, str]]:
        """The latest history row in each group: group id → status and site time."""
        found = {}
        for group_id in self._group_ids:
            latest = self.latest.get((contact_id, group_id))
            if latest is not None:
                found[group_id] = (latest[1] or "", latest[0] or "")
        return found


def _shared_echoes(
    conn: Connection, audience: Audience, contact_ids: Sequence[int]
) -> dict[tuple[int, int], dict[GroupLink, datetime]]:
    lists = {link.list_id for links in audience.also_linked.values() for link in links}
    rows = conn.execute(
        select(cache.c.civicrm_contact_id, cache.c.mailchimp_list_id, cache.c.mailchimp_data).where(
            in_list(cache.c.civicrm_contact_id, contact_ids),
            unindexed(cache.c.mailchimp_list_id).in_(lists),  # a contact has a few rows
        )
    )
    found: dict[tuple[int, int], dict[GroupLink, datetime]] = defaultdict(dict)
    for contact_id, list_id, data in rows:
        for group_id, links in audience.also_linked.items():
            for link in links:
                echo = audience.read_compact(peek(data, f"{ECHO}{link.field}@")) if link.list_id == list_id else None
                if echo is not None:
                    known = found[contact_id, group_id]
                    known[link] = max(echo, known.get(link, echo))
    return found


def _basic(audience: Audience, row: Any, history: GroupHistory, opened: Sequence[OpenUpdate], lean: bool) -> RowFacts:
    contact_id, status = row.civicrm_contact_id, row.mailchimp_status
    group = member = None
    interests: tuple[InterestFacts, ...] = ()
    at_rest = lean and not opened and not audience.interests and history.is_in(contact_id) == (status in RECEIVES_MAIL)
    if status:
        since = LONG_AGO if at_rest else member_since(audience, row.mailchimp_data, row.mailchimp_updated)
        dated = None if at_rest else audience.read_compact(peek(row.mailchimp_data, "status@"))
        member = Standing(status, since, is_echo=dated == LONG_AGO)
    if contact_id is not None and not at_rest:
        echoes = peek(row.mailchimp_data, f"{ECHO}status@")
        group = history.standing(contact_id, audience.group_id, audience.read_compact(echoes))
    elif contact_id is not None:
        group = history.undated(contact_id)
    if contact_id is not None and audience.interests:
        interests = _interests(audience, contact_id, decode(row.mailchimp_data), history, member)
    return RowFacts(
        row.id,
        contact_id,
        row.mailchimp_member_id,
        row.mailchimp_email,
        group,
        member,
        interests,
        open=tuple(opened),
        left_at=audience.clock.read(history.left.get(contact_id)) if contact_id is not None else None,
        history=history.of(contact_id) if contact_id is not None else {},
        history_id=history.newest(contact_id),
        stored=Stored(row.sync_status, row.civicrm_groups, row.mailchimp_data, row.civicrm_data),
    )


def member_since(audience: Audience, data: bytes | None, updated: str | None) -> datetime:
    """When a member's status last changed; where that is unknown, when the member did (*updated*, a site time)."""
    return audience.read_compact(peek(data, "status@")) or audience.clock.read(updated) or LONG_AGO


def _interests(
    audience: Audience, contact_id: int, data: Fields, history: GroupHistory, member: Standing | None
) -> tuple[InterestFacts, ...]:
    found = []
    for interest_id, group_id in audience.interests.items():
        if group_id == audience.group_id:
            continue  # the subscription decides about that group, not an interest
        key = f"interest-{interest_id}"
        held = data.get(key)
        since = audience.read_compact(data.get(f"{key}@")) or (member.since if member else LONG_AGO)
        group = history.standing(contact_id, group_id, audience.read_compact(data.get(f"{ECHO}{key}@")), key)
        found.append(InterestFacts(interest_id, group_id, group, None if held is None else bool(held), since))
    return tuple(found)
