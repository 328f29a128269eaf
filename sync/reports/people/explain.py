"""Explain one person: the status on both sides and since when, which side changed last, and what the next sync does.

`plan_rows` decides, as in a sync. What a sync does before (matching a member with a contact, creating a row for a
contact in the group) is done in a savepoint that is rolled back: nothing is written, and Mailchimp is not asked. Its
side is as the last fetch or webhook left it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, select

from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import same_address, unindexed
from civiapi.store.schema.tables import contact, email, group, subscription_history
from sync.audience import CIVICRM, MAILCHIMP, Audience, Privacy, is_permission
from sync.connections.config import Config, Link
from sync.data.member_data import plan_data, select_members
from sync.data.plugins import DataPlugins
from sync.mailchimp.wire import PERMISSION
from sync.model import SyncStatus
from sync.reconcile import categories, reasons
from sync.reconcile.conditions import gave_up_address
from sync.reconcile.dead_contacts import match_row
from sync.reconcile.decide import LONG_AGO, InterestFacts, RowFacts, Standing, mailchimp_changed_last
from sync.reconcile.facts import ECHO_METHOD, SMART_METHOD
from sync.reconcile.matching import PersonQuery, contacts_of
from sync.reconcile.planning import plan_rows
from sync.reports.people.troubleshoot import last_updates
from sync.runs.stages.civi_only import make_rows, without_row
from sync.store.members.blobs import data_as_json
from sync.store.members.consents import known_permissions, read_consents
from sync.store.runs import checkpoints
from sync.store.sources import read_sources
from sync.store.tables import cache, update, update_detail

UPDATES, HISTORY_ROWS = 10, 20
"""How many updates and history rows an explanation shows."""
NOT_SEEN = "Not in the group, and not known at Mailchimp."
LATER = (
    "It is not queued: a sync reconciles it when either side changes, in a full sync, or once it is included in the "
    "next sync."
)


def explain(
    conn: Connection,
    config: Config,
    links: Sequence[Link],
    clock: SiteClock,
    query: PersonQuery,
    *,
    privacy: Privacy,
    plugins: DataPlugins,
) -> list[dict[str, Any]]:
    """An explanation of this person in each of these connections: an entry for each cache row, at least one.

    Must run in a writing unit, for its savepoint; leaves no trace.
    """
    found: list[dict[str, Any]] = []
    for link in links:
        audience = link.audience(clock, privacy=privacy)
        with conn.begin_nested() as trial:
            rows = _rows(conn, audience, query)
            entries = [_explain_row(conn, audience, one, plugins) for one in rows]
            found += entries or [_explain_nobody(conn, audience, query)]
            trial.rollback()
        names = _names(conn, config, link)
        found[-max(1, len(rows)) :] = [names | one for one in found[-max(1, len(rows)) :]]
    return found


def _names(conn: Connection, config: Config, link: Link) -> dict[str, Any]:
    account = config.accounts.get(link.api_key)
    title = conn.execute(select(group.c.title).where(group.c.id == link.group_id)).scalar_one_or_none()
    return {
        "list_id": link.list_id,
        "list_name": account.audiences.get(link.list_id, "") if account else "",
        "group_id": link.group_id,
        "group_title": title or "",
    }


@dataclass(frozen=True, slots=True)
class _Row:
    """A cache row: its id once the next sync has prepared it, and its stored columns (None: it has no row yet)."""

    id: int
    kept: Mapping[str, Any] | None


def _rows(conn: Connection, audience: Audience, query: PersonQuery) -> list[_Row]:
    """The person's rows, with what a sync does to them before it decides done to them."""
    mine = cache.c.mailchimp_list_id == audience.list_id
    contacts = [query.contact_id] if query.contact_id is not None else contacts_of(conn, query)
    unlinked = cache.c.civicrm_contact_id.is_(None)
    theirs: list[ColumnElement[bool]] = [
        cache.c.civicrm_contact_id.in_(contacts)
    ]  # one by one: by OR, SQLite would read the whole audience
    theirs += [same_address(cache.c.mailchimp_email, query.address)] if query.address else []
    theirs += [and_(same_address(cache.c.mailchimp_email, one), unlinked) for one in _addresses(conn, contacts)]
    kept = {row.id: row._asdict() for one in theirs for row in conn.execute(select(cache).where(mine, one))}
    for cache_id in kept:
        match_row(conn, audience, cache_id)
    missing = without_row(conn, audience, contacts)
    make_rows(conn, audience, missing)
    new = conn.execute(select(cache.c.id).where(mine, cache.c.civicrm_contact_id.in_(missing))).scalars()
    still = conn.execute(select(cache.c.id).where(cache.c.id.in_(list(kept)))).scalars()
    return [_Row(cache_id, kept.get(cache_id)) for cache_id in sorted({*new, *still})]


def _addresses(conn: Connection, contact_ids: Sequence[int]) -> list[str]:
    wanted = select(email.c.email).where(email.c.contact_id.in_(contact_ids), email.c.email.is_not(None))
    return list(conn.execute(wanted).scalars())


def _explain_row(conn: Connection, audience: Audience, row: _Row, plugins: DataPlugins) -> dict[str, Any]:
    [decided] = plan_rows(conn, audience, [row.id], complete=True)
    facts, kind = decided.facts, categories.kind_of(decided)
    history = _history(conn, audience, facts.contact_id)
    due = (
        row.kept is None
        or facts.stored is None
        or facts.stored.sync_status == SyncStatus.TODO
        or _is_unread(conn, audience, history)
        or _gave_up_address(conn, row.id)
    )
    return {
        "contact_id": facts.contact_id,
        "display_name": _display_name(conn, facts.contact_id),
        "email": facts.member_email or facts.person.best_email or "",
        "civicrm": _civicrm(audience, facts.group, history),
        "mailchimp": _mailchimp(conn, audience, facts),
        "spoke_last": _changed_last(facts),
        "interests": [
            {
                "interest_id": one.interest_id,
                **_linked(audience, one),
                "mailchimp": None if one.held is None else {"chosen": one.held, "since": _time(audience, one.since)},
            }
            for one in facts.interests
            if not is_permission(one.interest_id)
        ],
        "one_way": audience.one_way,
        "permissions": _permissions(conn, audience, facts),
        "decision": decided.decision.name.lower(),
        "kind": kind,
        "reason": decided.reason,
        "due": due,
        "next_sync": _next(kind, due),
        "data": _data(conn, audience, row.id, plugins),
        "cache": _shown(row.kept),
        "updates": last_updates(conn, [row.id], UPDATES)[row.id],
        "history": history,
    }


def _linked(audience: Audience, one: InterestFacts) -> dict[str, Any]:
    """The group of an interest or a marketing permission, and the contact's status in it."""
    standing = {"status": one.group.status, "since": _time(audience, one.group.since)} if one.group else None
    return {"group_id": one.group_id, "civicrm": standing}


def _permissions(conn: Connection, audience: Audience, facts: RowFacts) -> list[dict[str, Any]]:
    """The marketing permissions of a member as last read, with the groups that they are linked with.

    Of a linked one ``since`` is the time that the sync compares. One of somebody who is no member is neither granted
    nor refused: ``granted`` is None.
    """
    alone = {"granted": None, "since": "", "group_id": None, "civicrm": None}
    found = {one["permission_id"]: alone | one for one in read_consents(conn, audience.list_id, facts.cache_id)}
    linked = {
        one.interest_id.removeprefix(PERMISSION): one for one in facts.interests if is_permission(one.interest_id)
    }
    texts = {one["permission_id"]: one["text"] for one in known_permissions(conn, audience.list_id)} if linked else {}
    for key, one in linked.items():
        shown = found.setdefault(key, alone | {"permission_id": key, "text": texts.get(key, "")})
        shown |= _linked(audience, one)
        if one.held is not None:
            shown |= {"granted": one.held, "since": _time(audience, one.since) or ""}
    return list(found.values())


def _data(conn: Connection, audience: Audience, cache_id: int, plugins: DataPlugins) -> dict[str, Any] | None:
    """What a sync with data sends of the person, and what it leaves out; None for who is not in the audience."""
    rows = conn.execute(select_members(audience).where(cache.c.id == cache_id)).all()
    plans = plan_data(conn, audience, rows, plugins).plans
    for one in plans:
        return {
            "merge_fields": dict(one.fields),
            "tags": dict(one.tags),
            "sentence": one.sentence(),
            "left_out": list(one.problems),
        }
    return None


def _explain_nobody(conn: Connection, audience: Audience, query: PersonQuery) -> dict[str, Any]:
    """The explanation of a person who has no row and gets none."""
    contact_id = next(iter(contacts_of(conn, query)), None)
    history = _history(conn, audience, contact_id)
    own = [one for one in history if one["group_id"] == audience.group_id]
    group_word = {key: own[0][key] for key in ("status", "since", "source")} if own else _NOBODY
    return {
        "contact_id": contact_id,
        "display_name": _display_name(conn, contact_id),
        "email": query.address,
        "civicrm": group_word,
        "mailchimp": {**_NOBODY, "email": "", "member_id": "", "last_changed": None},
        "spoke_last": CIVICRM if own else None,
        "interests": [],
        "one_way": audience.one_way,
        "permissions": [],
        "decision": "in_sync",
        "kind": categories.IN_STEP,
        "reason": _agreement(audience, own[0]) if own else NOT_SEEN,
        "due": False,
        "next_sync": "Nothing.",
        "data": None,
        "cache": None,
        "updates": [],
        "history": history,
    }


def _agreement(audience: Audience, latest: Mapping[str, Any]) -> str:
    group = Standing(latest["status"], audience.clock.read(latest["since"]) or LONG_AGO)
    return reasons.of_agreement(RowFacts(0, group=group), audience.clock)


_NOBODY: dict[str, Any] = {"status": None, "since": None, "source": None}


def _civicrm(audience: Audience, standing: Standing | None, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The status in the group. A change by the sync has the time of the Mailchimp change that it mirrors."""
    if standing is None:
        return dict(_NOBODY)
    own = next((one for one in history if one["group_id"] == audience.group_id), None)
    source = "sync" if standing.is_echo else own["method"] if own else None
    return {"status": standing.status, "since": _time(audience, standing.since), "source": source}


def _mailchimp(conn: Connection, audience: Audience, facts: RowFacts) -> dict[str, Any]:
    """The status at Mailchimp; its source is the sync where an update that was carried out has the same time."""
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


def _changed_last(facts: RowFacts) -> str | None:
    if facts.group is None or facts.member is None:
        return None if facts.group is facts.member else MAILCHIMP if facts.group is None else CIVICRM
    return MAILCHIMP if mailchimp_changed_last(facts.group, facts.member) else CIVICRM


def _history(conn: Connection, audience: Audience, contact_id: int | None) -> list[dict[str, Any]]:
    """The contact's latest history in the groups that matter here, newest first."""
    history = subscription_history.c
    groups = [one for one in audience.group_ids if not (audience.one_way and one == audience.group_id)]
    rows = conn.execute(
        select(history.id, history.group_id, history.date, history.status, history.method)
        .where(history.contact_id == (contact_id or 0), unindexed(history.group_id).in_(groups))
        .order_by(history.id.desc())
        .limit(HISTORY_ROWS)
    )
    return _source_history(conn, audience, contact_id) + [
        {
            "id": row.id,
            "group_id": row.group_id,
            "status": row.status,
            "since": row.date if audience.clock.read(row.date) else None,
            "method": row.method or "",
            "source": "sync" if row.method == ECHO_METHOD else row.method or "",
        }
        for row in rows
    ]


def _source_history(conn: Connection, audience: Audience, contact_id: int | None) -> list[dict[str, Any]]:
    """When the contact last joined or left the smart group, as syncs saw it; none where the group is no source."""
    if not audience.one_way or contact_id is None:
        return []
    return [
        {
            "id": 0,
            "group_id": audience.group_id,
            "status": one.status,
            "since": one.since,
            "method": SMART_METHOD,
            "source": SMART_METHOD,
        }
        for one in read_sources(conn, audience.group_id, [contact_id]).values()
    ]


def _is_unread(conn: Connection, audience: Audience, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether CiviCRM said something that no sync has read yet."""
    if not history:
        return False
    read = checkpoints.load(conn, audience.list_id).history_id
    return any(one["id"] > read and one["method"] != ECHO_METHOD for one in history)


def _gave_up_address(conn: Connection, cache_id: int) -> bool:
    """Whether the row is one of those that every sync looks at for their address, queued or not."""
    return conn.execute(select(cache.c.id).where(cache.c.id == cache_id, gave_up_address())).first() is not None


def _next(kind: str, due: bool) -> str:
    """What the next sync will do about the person."""
    if kind == categories.IN_STEP:
        return "Nothing: both sides agree."
    if kind == categories.TAKEN_BACK:
        return "It will leave them as the undo left them."
    if kind == categories.UNDER_WAY:
        return "Nothing more: what is needed is in flight."
    does = "It cannot change anything." if kind == categories.CANNOT else f"It will {_DOES[kind]}."
    return does if due else f"{does} {LATER}"


_DOES: Mapping[str, str] = {
    categories.JOIN_GROUP: "add them to the group",
    categories.NEW_CONTACT: "make a contact for this member and add it to the group",
    categories.LEAVE_GROUP: "take them out of the group",
    categories.SUBSCRIBE: "subscribe them at Mailchimp",
    categories.UNSUBSCRIBE: "unsubscribe them at Mailchimp",
    categories.INTERESTS: "bring their interests and marketing permissions into step",
    categories.CHANGE_ADDRESS: "tell Mailchimp their new address",
    categories.ARCHIVE_ADDRESS: "take the address they gave up out of the audience",
    categories.HAND_OVER: "let the other contact with this address represent it",
    categories.LET_GO: "separate the contact from the address that it gave up, and start over with its present one",
    categories.CALL_BACK: "take back what is under way at Mailchimp",
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
