"""One person, explained: where they stand at both ends and since when, who spoke last, and what the next sync will do.

Worked out by the sync's own functions, from the same facts. What a sync does before it decides (matching a member to
a contact, giving somebody in the group a row) is done here too, in a savepoint that is rolled back: nothing is
written, and nothing is asked of Mailchimp. What Mailchimp said is what the last fetch or webhook brought.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from civiapi.store.clock import SiteClock
from civiapi.store.dialect import unindexed
from civiapi.store.tables import contact, email, group, subscription_history
from sync import kinds, positions
from sync.audience import CIVICRM, MAILCHIMP, Audience
from sync.config import Config, Link
from sync.facts import ECHO_METHOD, facts_for
from sync.reconcile import LONG_AGO, Plan, RowFacts, Standing, mailchimp_spoke_last, plan, plan_address
from sync.single import match_row
from sync.stages.additions import make_rows, without_row
from sync.stored import data_as_json
from sync.tables import cache, update, update_detail
from sync.troubleshoot import last_updates

UPDATES, WORDS = 10, 20
"""How many updates and history rows are shown of each person."""
NOT_SEEN = "The sync knows nobody here by this name: not in the group, and not met at Mailchimp."
LATER = (
    "It is not due: the sync looks at it again when either side changes, in a full sync, or once it is included in "
    "the next sync."
)


@dataclass(frozen=True, slots=True)
class Whom:
    """Who is to be explained: a contact, an address, or both."""

    contact_id: int | None = None
    address: str = ""


def explain(
    conn: Connection, config: Config, links: Sequence[Link], clock: SiteClock, whom: Whom, *, respect_privacy: bool
) -> list[dict[str, Any]]:
    """What there is to say of this person in each of these connections: an entry for each cache row, at least one.

    Must run in a writing unit, for its savepoint; leaves no trace.
    """
    found: list[dict[str, Any]] = []
    for link in links:
        audience = link.audience(clock, respect_privacy=respect_privacy)
        with conn.begin_nested() as trial:
            rows = _rows(conn, audience, whom)
            found += [_explain_row(conn, audience, one) for one in rows] or [_explain_nobody(conn, audience, whom)]
            trial.rollback()
        names = _names(conn, config, link)
        found[-max(1, len(rows)) :] = [names | one for one in found[-max(1, len(rows)) :]]
    return found


def _names(conn: Connection, config: Config, link: Link) -> dict[str, Any]:
    account = config.accounts.get(link.api_key)
    known = account.audiences.get(link.list_id) if account else None
    title = conn.execute(select(group.c.title).where(group.c.id == link.group_id)).scalar_one_or_none()
    return {
        "list_id": link.list_id,
        "list_name": known.name if known else "",
        "group_id": link.group_id,
        "group_title": title or "",
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """A cache row as the next sync will have it, and as it is kept now (None: it has no row yet)."""

    id: int
    kept: Mapping[str, Any] | None


def _rows(conn: Connection, audience: Audience, whom: Whom) -> list[_Row]:
    """The person's rows, with what a sync does to them before it decides done to them."""
    mine = cache.c.mailchimp_list_id == audience.list_id
    contacts = [whom.contact_id] if whom.contact_id is not None else contacts_of(conn, whom)
    theirs = (  # one by one: joined by OR, SQLite would read the whole audience
        cache.c.civicrm_contact_id.in_(contacts),
        cache.c.mailchimp_email.in_([whom.address] if whom.address else []),
        cache.c.mailchimp_email.in_(_addresses(conn, contacts)) & cache.c.civicrm_contact_id.is_(None),
    )
    kept = {row.id: row._asdict() for one in theirs for row in conn.execute(select(cache).where(mine, one))}
    for cache_id in kept:
        match_row(conn, audience, cache_id)
    missing = without_row(conn, audience, contacts)
    make_rows(conn, audience, missing)
    new = conn.execute(select(cache.c.id).where(mine, cache.c.civicrm_contact_id.in_(missing))).scalars()
    still = conn.execute(select(cache.c.id).where(cache.c.id.in_(list(kept)))).scalars()
    return [_Row(cache_id, kept.get(cache_id)) for cache_id in sorted({*new, *still})]


def contacts_of(conn: Connection, whom: Whom) -> list[int]:
    """The contacts that are meant, those in the trash left out."""
    if whom.contact_id is not None:
        alive = select(contact.c.id).where(contact.c.id == whom.contact_id, contact.c.is_deleted == 0)
        return list(conn.execute(alive).scalars())
    owners = (
        select(email.c.contact_id)
        .join(contact, contact.c.id == email.c.contact_id)
        .where(email.c.email == whom.address, contact.c.is_deleted == 0)
        .distinct()
    )
    return sorted(conn.execute(owners).scalars())


def _addresses(conn: Connection, contact_ids: Sequence[int]) -> list[str]:
    wanted = select(email.c.email).where(email.c.contact_id.in_(contact_ids), email.c.email.is_not(None))
    return list(conn.execute(wanted).scalars())


def _explain_row(conn: Connection, audience: Audience, row: _Row) -> dict[str, Any]:
    [facts] = facts_for(conn, audience, [row.id], with_person=True)
    moving = plan_address(facts, audience)
    decided = moving or plan(facts, audience)
    kind = kinds.kind_of_address(decided) if moving else kinds.kind_of(decided)
    words = _words(conn, audience, facts.contact_id)
    due = (
        row.kept is None
        or facts.stored is None
        or facts.stored.sync_status == "todo"
        or _is_news(conn, audience, words)
    )
    return {
        "contact_id": facts.contact_id,
        "display_name": _display_name(conn, facts.contact_id),
        "email": facts.member_email or facts.person.best_email or "",
        "civicrm": _civicrm(audience, facts.group, words),
        "mailchimp": _mailchimp(conn, audience, facts),
        "spoke_last": _spoke_last(facts),
        "interests": [
            {
                "interest_id": one.interest_id,
                "group_id": one.group_id,
                "civicrm": {"status": one.group.status, "since": _time(audience, one.group.since)}
                if one.group
                else None,
                "mailchimp": None if one.held is None else {"chosen": one.held, "since": _time(audience, one.since)},
            }
            for one in facts.interests
        ],
        "decision": decided.decision.name.lower(),
        "kind": kind,
        "reason": decided.reason,
        "due": due,
        "next_sync": _next(decided, kind, due),
        "cache": _shown(row.kept),
        "updates": last_updates(conn, [row.id], UPDATES)[row.id],
        "history": words,
    }


def _explain_nobody(conn: Connection, audience: Audience, whom: Whom) -> dict[str, Any]:
    """Somebody who has no row and will not get one."""
    contact_id = next(iter(contacts_of(conn, whom)), None)
    words = _words(conn, audience, contact_id)
    own = [one for one in words if one["group_id"] == audience.group_id]
    group_word = {key: own[0][key] for key in ("status", "since", "source")} if own else _NOBODY
    return {
        "contact_id": contact_id,
        "display_name": _display_name(conn, contact_id),
        "email": whom.address,
        "civicrm": group_word,
        "mailchimp": {**_NOBODY, "email": "", "member_id": "", "last_changed": None},
        "spoke_last": CIVICRM if own else None,
        "interests": [],
        "decision": "in_sync",
        "kind": kinds.IN_STEP,
        "reason": "Out on both sides." if own else NOT_SEEN,
        "due": False,
        "next_sync": "Nothing.",
        "cache": None,
        "updates": [],
        "history": words,
    }


_NOBODY: dict[str, Any] = {"status": None, "since": None, "source": None}


def _civicrm(audience: Audience, standing: Standing | None, words: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where they stand in the group. An echo is dated by the Mailchimp word that it repeats."""
    if standing is None:
        return dict(_NOBODY)
    own = next((one for one in words if one["group_id"] == audience.group_id), None)
    source = "sync" if standing.is_echo else own["method"] if own else None
    return {"status": standing.status, "since": _time(audience, standing.since), "source": source}


def _mailchimp(conn: Connection, audience: Audience, facts: RowFacts) -> dict[str, Any]:
    """Where they stand at Mailchimp; the word is the sync's own where an update that was done bears its date."""
    member = facts.member
    if member is None:
        return {**_NOBODY, "email": "", "member_id": "", "last_changed": None}
    ours = (
        select(update.c.id)
        .join(update_detail, update_detail.c.update_id == update.c.id)
        .where(
            update.c.mailchimpsync_cache_id == facts.cache_id,
            update.c.completed == 1,
            update.c.error_response.is_(None),
            update_detail.c.cause_s == int(member.since.timestamp()),
        )
        .limit(1)
    )
    is_ours = member.since > LONG_AGO and conn.execute(ours).first() is not None
    changed = conn.execute(select(cache.c.mailchimp_updated).where(cache.c.id == facts.cache_id)).scalar()
    return {
        "status": member.status,
        "since": _time(audience, member.since),
        "source": "sync" if is_ours else MAILCHIMP,
        "email": facts.member_email or "",
        "member_id": facts.member_id or "",
        "last_changed": changed,
    }


def _spoke_last(facts: RowFacts) -> str | None:
    if facts.group is None or facts.member is None:
        return None if facts.group is facts.member else MAILCHIMP if facts.group is None else CIVICRM
    return MAILCHIMP if mailchimp_spoke_last(facts.group, facts.member) else CIVICRM


def _words(conn: Connection, audience: Audience, contact_id: int | None) -> list[dict[str, Any]]:
    """The contact's latest history in the groups that matter here, newest first."""
    history = subscription_history.c
    rows = conn.execute(
        select(history.id, history.group_id, history.date, history.status, history.method)
        .where(history.contact_id == (contact_id or 0), unindexed(history.group_id).in_(audience.group_ids))
        .order_by(history.id.desc())
        .limit(WORDS)
    )
    return [
        {
            "id": row.id,
            "group_id": row.group_id,
            "status": row.status,
            "since": row.date,
            "method": row.method or "",
            "source": "sync" if row.method == ECHO_METHOD else row.method or "",
        }
        for row in rows
    ]


def _is_news(conn: Connection, audience: Audience, words: Sequence[Mapping[str, Any]]) -> bool:
    """Whether CiviCRM said something that no sync has read yet."""
    if not words:
        return False
    read = positions.load(conn, audience.list_id).history_id
    return any(one["id"] > read and one["method"] != ECHO_METHOD for one in words)


def _next(decided: Plan, kind: str, due: bool) -> str:
    """What the next sync will do about the person."""
    if kind == kinds.IN_STEP:
        return "Nothing: both sides agree."
    if kind == kinds.UNDER_WAY:
        return "Nothing more: what is needed is under way at Mailchimp."
    does = "It cannot do anything about it." if kind == kinds.CANNOT else f"It will {_DOES[kind]}."
    return does if due else f"{does} {LATER}"


_DOES: Mapping[str, str] = {
    kinds.JOIN_GROUP: "add them to the group",
    kinds.NEW_CONTACT: "make a contact for this member and add it to the group",
    kinds.LEAVE_GROUP: "take them out of the group",
    kinds.SUBSCRIBE: "subscribe them at Mailchimp",
    kinds.UNSUBSCRIBE: "unsubscribe them at Mailchimp",
    kinds.INTERESTS: "bring their interests into step",
    kinds.CHANGE_ADDRESS: "tell Mailchimp their new address",
    kinds.ARCHIVE_ADDRESS: "take the address they gave up out of the audience",
    kinds.LET_GO: "let the address they gave up go, and begin anew with their present one",
    kinds.CALL_BACK: "take back what is under way at Mailchimp",
}


def _display_name(conn: Connection, contact_id: int | None) -> str:
    name = conn.execute(select(contact.c.display_name).where(contact.c.id == contact_id)).scalar()
    return name or ""


def _shown(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    data = ("mailchimp_data", "civicrm_data")
    return {name: data_as_json(value) if name in data else value for name, value in row.items()}


def _time(audience: Audience, moment: datetime) -> str | None:
    """A moment as the site writes it; None for "nobody noted it"."""
    return None if moment <= LONG_AGO else audience.clock.write(moment)
