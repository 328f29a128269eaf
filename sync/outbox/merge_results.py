"""Merges Mailchimp's answers to operations into cache rows.

An answer is the member after the operation and is merged like a fetched member. Two things are particular: which row it
belongs to, and that it may be older than the row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Connection, Row, select
from sqlalchemy import update as change

from civiapi.store.databases.bulk import update_rows
from civiapi.store.databases.expressions import in_list
from sync.audience import Audience
from sync.mailchimp.wire import Member, find_instant, format_instant
from sync.model import MemberOperation, MemberStatus, OpenUpdate, OperationKind, SyncStatus
from sync.outbox.verdicts import Outcome, Verdict
from sync.store.members.blobs import MERGE
from sync.store.members.cache import forget_sent, merge_into
from sync.store.members.cache_merge import member_operations_in_flight, merge_member, merge_page
from sync.store.members.member_codec import decode, interests_of, values_of
from sync.store.members.member_merge import Sent
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, update, update_detail
from sync.store.updates import open_updates, write_body


@dataclass(frozen=True, slots=True)
class ResultContext:
    """An update of a batch: its outcome, and its row before and (*current*) after answers were merged.

    *was_open*: not completed before this unit. *others*: the other open updates of the row. *was_put_off*: it was
    refused for now before (``retries``).
    """

    update: OpenUpdate
    outcome: Outcome
    was_open: bool
    row: Row[Any]
    current: Row[Any] | None = None
    others: tuple[OpenUpdate, ...] = ()
    was_put_off: bool = False

    @property
    def operation(self) -> MemberOperation:
        """What the update was to do at Mailchimp."""
        return self.update.operation


def current_rows(conn: Connection, cache_ids: Sequence[int]) -> dict[int, Row[Any]]:
    """These cache rows, locked until the transaction ends where the database locks rows (MariaDB)."""
    query = select(
        cache.c.id,
        cache.c.mailchimp_member_id,
        cache.c.mailchimp_email,
        cache.c.mailchimp_status,
        cache.c.mailchimp_updated,
        cache.c.mailchimp_data,
        cache.c.sync_status,
        cache.c.civicrm_contact_id,
    ).where(in_list(cache.c.id, cache_ids))
    found: Sequence[Any] = conn.execute(query.with_for_update()).all()
    return {row.id: row for row in found}


def merge_answers(
    conn: Connection, audience: Audience, done: Sequence[ResultContext], at: datetime, skew: timedelta
) -> None:
    """Bring the rows up to date with the answers, all at once where each row is clearly its member's.

    *at* dates an answer without a time (Mailchimp's clock); *skew* is that clock minus ours.
    """
    answers = [(one, member) for one in done if (member := _member_after(one, at)) is not None]
    holders = _holders(conn, audience, [str(member["id"]) for _, member in answers])
    plain: list[Member] = []
    special: list[tuple[ResultContext, Member]] = []
    adopted: list[tuple[str, int]] = []
    in_flight = member_operations_in_flight(audience, {one.row.id: [one.update] for one, _ in answers})
    for one, member in answers:
        member_id, known = str(member["id"]), one.row.mailchimp_member_id
        holder = holders.get(member_id)
        if not _is_newer(audience, one.row, member):
            continue
        if holder is not None and holder.id != one.row.id and not _is_newer(audience, holder, member):
            _merge_into_holder(conn, one, holder)
        elif one.operation.kind in (OperationKind.MEMBER, OperationKind.FIELDS) and known == member_id:
            plain.append(member)  # a member is never in two open batches: nothing else of it is in flight
        elif one.operation.kind == OperationKind.MEMBER and known is None and holder is None:
            holders[member_id] = one.row
            adopted.append((member_id, one.row.id))
            plain.append(member)
        else:
            special.append((one, member))
    update_rows(conn, cache, ("mailchimp_member_id",), adopted)
    merge_page(conn, audience, plain, skew=skew, in_flight=in_flight)
    for one, member in special:
        merge_member(conn, audience, member, skew=skew, sent=_sent(one.operation), into=one.row.id)
        if one.operation.kind == OperationKind.EMAIL:
            _update_waiting(conn, one, member)


def merge_fetched(conn: Connection, audience: Audience, contexts: Sequence[ResultContext], skew: timedelta) -> None:
    """Merge members that were fetched because an operation did not succeed; each has a row of its own, except that one
    who moved is the row's."""
    for one in contexts:
        member = one.outcome.member
        if one.outcome.verdict is Verdict.MOVED and member is not None:
            merge_member(conn, audience, member, skew=skew, into=one.row.id)
            _update_waiting(conn, one, member)
        elif one.outcome.verdict is not Verdict.DONE and member is not None:
            merge_member(conn, audience, member, skew=skew)


def _member_after(one: ResultContext, at: datetime) -> Member | None:
    """The member after the operation; computed for an archiving, which has no answer; None where it is not known."""
    if one.outcome.member is not None:
        return one.outcome.member
    if one.operation.kind != OperationKind.ARCHIVE or one.row.mailchimp_member_id is None:
        return None
    known = decode(one.row.mailchimp_data)
    names = {"FNAME": known.get("first_name", ""), "LNAME": known.get("last_name", "")}
    names |= values_of(known, MERGE)
    member = {
        "id": one.row.mailchimp_member_id,
        "email_address": one.row.mailchimp_email,
        "status": MemberStatus.ARCHIVED,
        "merge_fields": names,
        "interests": interests_of(known),
        "last_changed": format_instant(at),
    }
    return cast(Member, member)


def _is_newer(audience: Audience, row: Row[Any], member: Member) -> bool:
    """Whether the answer is not older than the row."""
    known = audience.clock.read(row.mailchimp_updated)
    changed = find_instant(member.get("last_changed"))
    return known is None or changed is None or changed >= known


def _holders(conn: Connection, audience: Audience, member_ids: Sequence[str]) -> dict[str, Row[Any]]:
    """The rows that have these members already, by member id; the older of two."""
    mine = (cache.c.mailchimp_list_id == audience.list_id) & in_list(cache.c.mailchimp_member_id, member_ids)
    ids = conn.execute(select(cache.c.id).where(mine)).scalars()
    rows = current_rows(conn, sorted(ids, reverse=True))
    return {rows[i].mailchimp_member_id: rows[i] for i in sorted(rows, reverse=True)}


def _merge_into_holder(conn: Connection, one: ResultContext, holder: Row[Any]) -> None:
    """Merge the row into the member's own row, which is newer than this answer."""
    merge_into(conn, one.row.id, holder.id)
    forget_sent(conn, [holder.id])
    unlinked = (cache.c.id == holder.id) & cache.c.civicrm_contact_id.is_(None)
    conn.execute(change(cache).where(unlinked).values(civicrm_contact_id=one.row.civicrm_contact_id))
    set_sync_status(conn, [holder.id], SyncStatus.TODO)


def _sent(operation: MemberOperation) -> Sent | None:
    return Sent.from_body(operation.body, operation.cause) if operation.kind_group == OperationKind.MEMBER else None


def _update_waiting(conn: Connection, one: ResultContext, member: Member) -> None:
    """Change the row's waiting updates to the member's new address."""
    old = one.row.mailchimp_member_id
    for waiting in open_updates(conn, [one.row.id]).get(one.row.id, ()):
        if not waiting.in_flight and old is not None:
            readdress(conn, waiting, old, member)


def readdress(conn: Connection, one: OpenUpdate, old_id: str, member: Member) -> OpenUpdate:
    """Change an update of the member whose id was *old_id* to its new address; the update as it is then."""
    operation = one.operation
    path, body = operation.path_tail.replace(old_id, str(member["id"])), operation.body
    if "email_address" in body and operation.kind == OperationKind.MEMBER:
        body = body | {"email_address": member["email_address"]}
    conn.execute(change(update).where(update.c.id == one.id).values(data=write_body(body)))
    conn.execute(change(update_detail).where(update_detail.c.update_id == one.id).values(path_tail=path))
    return replace(one, operation=replace(operation, path_tail=path, body=body))
