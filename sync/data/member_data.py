"""What is to be sent of members' data: names, merge fields and tags, for a set of rows. Reads only.

The one road of data: runs, single members, explanations, previews and the brake go through `plan_data`. Mailchimp has
what it was last seen to have (``mailchimp_data``), else what was sent (``sent_data``); what is in flight counts as
done. Tags and merge fields that Mailchimp has from elsewhere are left alone.
"""

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from civiapi.store.databases.dialect import is_narrow
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import contact
from sync.audience import Audience, compacted
from sync.data.convert import Misfit, convert, is_empty
from sync.data.names import ContactNames, names_to_send, newer_names
from sync.data.plugins import PREFIX, Answers, DataMember, DataPlugins, MemberData
from sync.data.sent_data import (
    SentFields,
    read_sent_fields,
    read_sent_names,
    read_sent_tags,
    read_taken_off,
    read_wishes,
    with_wishes,
)
from sync.data.sources import Values, find_missing, read_values
from sync.field_rules import Source, canonical
from sync.mailchimp.wire import tag_key, tags_body
from sync.model import RECEIVES_MAIL, MemberOperation, OpenUpdate, OperationKind
from sync.store.members.blobs import MERGE, load_data
from sync.store.members.holds import read_data_holds
from sync.store.members.member_codec import decode
from sync.store.members.member_merge import NAMES
from sync.store.tables import cache
from sync.store.updates import open_updates

REFUSED = "{} is left out: Mailchimp refused “{}”. It is sent again once CiviCRM has another value."
MISSING = "{} is left out: its source {} {}."
NEWER = "Mailchimp has a newer name, “{}”; it is not replaced."


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What is to be sent of one member's data.

    *fields* are merge fields with their values, *tags* names of tags, on or off; *mapped* those of the fields that a
    rule fills. *problems*: what is left out, and why. *newer*: names that Mailchimp has later ones of, not sent.
    *holds*: what an undo took back and CiviCRM still has, by kind of operation: not sent again.
    """

    row: Row[Any]
    fields: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, bool] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    newer: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, Any] = field(default_factory=dict)
    """``civicrm_data`` as it is."""
    wished: Mapping[str, Any] = field(default_factory=dict)
    """``civicrm_data`` as it is to be: with what plugins ask for."""
    opened: Sequence[OpenUpdate] = ()
    holds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sent_tags: Set[str] = frozenset()
    """The tags that Mailchimp has from us."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be sent."""
        return not self.fields and not self.tags

    def operations(self) -> list[MemberOperation]:
        """The operations that carry it out."""
        path, found = f"members/{self.row.mailchimp_member_id}", []
        if self.fields:
            body = {"merge_fields": dict(self.fields)}
            found.append(MemberOperation(OperationKind.FIELDS, "PATCH", path, body))
        if self.tags:
            found.append(MemberOperation(OperationKind.TAGS, "POST", f"{path}/tags", tags_body(self.tags)))
        return found

    def sentence(self) -> str:
        """What is sent, for people."""
        parts = [f"{tag} becomes {_shown(value)}" for tag, value in self.fields.items()]
        parts += [f"the tag {name} is {'added' if on else 'taken off'}" for name, on in self.tags.items()]
        return f"Sent to Mailchimp: {'; '.join(parts)}." if parts else ""


@dataclass(frozen=True, slots=True)
class DataPlans:
    """The plans of some rows; *failed*: plugins that failed, with the error."""

    plans: Sequence[DataPlan]
    failed: Mapping[str, str] = field(default_factory=dict)


def select_members(audience: Audience) -> Select[Any]:
    """The members of an audience to whom data is sent, with the columns that a plan needs; add a WHERE."""
    columns = (cache.c.id, cache.c.civicrm_contact_id, cache.c.mailchimp_member_id, cache.c.mailchimp_data)
    return select(*columns, cache.c.mailchimp_email, cache.c.civicrm_data).where(
        cache.c.mailchimp_list_id == audience.list_id,
        cache.c.civicrm_contact_id.is_not(None),
        cache.c.mailchimp_member_id.is_not(None),
        unindexed(cache.c.mailchimp_status).in_(sorted(RECEIVES_MAIL)),  # in the order of ids
    )


def plan_data(conn: Connection, audience: Audience, rows: Sequence[Row[Any]], plugins: DataPlugins) -> DataPlans:
    """What is to be sent of these members' data (rows of `select_members`)."""
    if not rows:
        return DataPlans(())
    ids, contact_ids = [row.id for row in rows], list(dict.fromkeys(row.civicrm_contact_id for row in rows))
    members = [DataMember(row.id, audience.list_id, row.civicrm_contact_id, row.mailchimp_email or "") for row in rows]
    answers = plugins.ask(conn, members)
    stored = {row.id: load_data(row.civicrm_data) for row in rows}
    names = read_names(conn, contact_ids)
    rules = audience.merge_fields.values()
    sources = {rule.source for rule in rules}
    missing = find_missing(conn, sources)
    values = read_values(conn, sources - missing.keys(), [one for one in contact_ids if one in names])
    sent_tags = read_sent_tags(conn, stored)
    opened = open_updates(conn, ids)
    holds = read_data_holds(conn, ids)
    return DataPlans(
        [
            _plan_row(
                _Facts(
                    audience,
                    row,
                    names.get(row.civicrm_contact_id),
                    decode(row.mailchimp_data),
                    stored[row.id],
                    sent_tags[row.id],
                    opened.get(row.id, ()),
                    missing,
                    {kind: one.value or {} for kind, one in holds.get(row.id, {}).items()},
                ),
                values,
                answers,
            )
            for row in rows
        ],
        answers.failed,
    )


def read_names(conn: Connection, contact_ids: Sequence[int]) -> dict[int, ContactNames]:
    """The names of these contacts; those in the trash are left out."""
    columns = (contact.c.id, contact.c.first_name, contact.c.last_name, contact.c.modified_date)
    rows = conn.execute(select(*columns).where(in_list(contact.c.id, contact_ids), contact.c.is_deleted == 0))
    narrow = is_narrow(conn)
    return {
        row.id: ContactNames(row.first_name or "", row.last_name or "", compacted(row.modified_date or ""), narrow)
        for row in rows
    }


# ── One row. Pure ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known of a row: the contact's *names* (None: in the trash), the *member*'s data, what was sent; and which
    sources of the rules are *missing*, with the reason."""

    audience: Audience
    row: Row[Any]
    names: ContactNames | None
    member: Mapping[str, Any]
    stored: Mapping[str, Any]
    sent_tags: set[str]
    opened: Sequence[OpenUpdate]
    missing: Mapping[Source, str]
    held: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _plan_row(facts: _Facts, values: Mapping[Source, Values], answers: Answers) -> DataPlan:
    theirs = answers.data.get(facts.row.id, {})
    wished = with_wishes(facts.stored, theirs, is_all=not answers.failed)
    wishes = read_wishes(wished)
    problems: list[str] = []
    newer: dict[str, str] = {}
    fields: dict[str, Any] = {}
    sent = read_sent_fields(facts.stored)
    if facts.names is not None and facts.audience.sends_names:
        sent_names = read_sent_names(facts.stored)
        newer = newer_names(facts.names, facts.member, sent_names)
        problems += [NEWER.format(name) for name in newer.values()]
        held = facts.held.get(OperationKind.FIELDS, {})
        fields |= names_to_send(facts.names, facts.member, sent_names, sent.kept, held)
    for one in wishes.values():
        fields |= _unsent(facts, sent, {tag: value for tag, value in one.merge_fields.items() if _can_send(value)})
    mapped: dict[str, Any] = {}
    if facts.names is not None:
        wanted = _mapped_values(facts, values, problems)
        mapped = _unsent(facts, sent, wanted)
        fields = {tag: value for tag, value in fields.items() if tag not in facts.audience.merge_fields} | mapped
    fields = _accepted(fields, sent, problems)
    names = set(answers.tags.get(facts.row.civicrm_contact_id, ()))
    if answers.failed:  # what a failing plugin gave before stays
        names |= {name for name in facts.sent_tags if not name.startswith(PREFIX)}
    holds = _holds_of(facts, wishes, names, {} if facts.names is None else wanted) if facts.held else {}
    held_fields, held_tags = holds.get(OperationKind.FIELDS, {}), holds.get(OperationKind.TAGS, {})
    tags = _tags_to_send(facts, names, wishes)
    return DataPlan(
        facts.row,
        {
            tag: value
            for tag, value in fields.items()
            if not _is_in_flight(facts.opened, tag, value)
            and not (tag in held_fields and canonical(held_fields[tag]) == canonical(value))
        },
        {name: on for name, on in tags.items() if held_tags.get(name) is not on},
        frozenset(mapped),
        tuple(problems),
        newer,
        facts.stored,
        wished,
        facts.opened,
        holds,
        facts.sent_tags,
    )


def _holds_of(
    facts: _Facts, wishes: Mapping[str, MemberData], tag_names: set[str], mapped: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What an undo holds of a row, as far as CiviCRM still asks for the same, or cannot be asked now."""
    wanted: dict[str, Any] = {}
    if facts.names is not None:
        given = facts.names.given()
        wanted = {tag: given[name] for name, tag in NAMES if name in given}
    for one in wishes.values():
        wanted |= one.merge_fields
    wanted |= mapped
    unknown = {tag for tag, rule in facts.audience.merge_fields.items() if rule.source in facts.missing}
    asked = {name: on for one in wishes.values() for name, on in one.tags.items()}
    fields = facts.held.get(OperationKind.FIELDS, {})
    tags = facts.held.get(OperationKind.TAGS, {})
    found: dict[str, dict[str, Any]] = {
        OperationKind.FIELDS: {
            tag: value
            for tag, value in fields.items()
            if tag in unknown or (tag in wanted and canonical(wanted[tag]) == canonical(value))
        },
        OperationKind.TAGS: {name: on for name, on in tags.items() if asked.get(name, name in tag_names) == on},
    }
    return {kind: values for kind, values in found.items() if values}


def _mapped_values(facts: _Facts, values: Mapping[Source, Values], problems: list[str]) -> dict[str, Any]:
    """What the rules give for a contact, by tag; what does not fit, or has no source now, is added to *problems*."""
    found: dict[str, Any] = {}
    for tag, rule in facts.audience.merge_fields.items():
        if why := facts.missing.get(rule.source):
            problems.append(MISSING.format(tag, rule.source, why))
            continue
        value = values.get(rule.source, {}).get(facts.row.civicrm_contact_id)
        if is_empty(value):
            if rule.clear:
                found[tag] = ""
            continue
        converted = convert(rule.field, value)
        if isinstance(converted, Misfit):
            problems.append(str(converted))
        else:
            found[tag] = converted
    return found


def _unsent(facts: _Facts, sent: SentFields, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of these values those that Mailchimp does not have.

    Where it is not known what Mailchimp has, that is what was sent. A value that it keeps in a form of its own is as
    sent while it keeps that.
    """
    found = {}
    for tag, value in wanted.items():
        text, has = canonical(value), facts.member.get(f"{MERGE}{tag}")
        was_sent = sent.previous.get(tag) == text
        if has is None:
            if not was_sent and not (value == "" and tag not in sent.previous):
                found[tag] = value
        elif has != text and not (was_sent and sent.kept.get(tag) == has):
            found[tag] = value
    return found


def _accepted(fields: Mapping[str, Any], sent: SentFields, problems: list[str]) -> dict[str, Any]:
    """Of these values those that Mailchimp has not refused."""
    refused = {tag for tag, value in fields.items() if sent.refused.get(tag) == canonical(value)}
    problems += [REFUSED.format(tag, _shown(fields[tag])) for tag in sorted(refused)]
    return {tag: value for tag, value in fields.items() if tag not in refused}


def _can_send(value: Any) -> bool:
    """Whether Mailchimp can take a value of this type: it refuses null, as which JSON has NaN, and booleans."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int | dict) and not isinstance(value, bool)


def _is_in_flight(opened: Sequence[OpenUpdate], tag: str, value: Any) -> bool:
    flying = [one for one in opened if one.in_flight and one.operation.kind == OperationKind.FIELDS]
    body = flying[-1].operation.body.get("merge_fields") if flying else None
    return isinstance(body, dict) and tag in body and canonical(body[tag]) == canonical(value)


def _tags_to_send(facts: _Facts, names: set[str], wishes: Mapping[str, MemberData]) -> dict[str, bool]:
    """The tags to add (True) and to take off, besides what is in flight.

    A tag that no source wants any more is taken off if a sync added it. One that a source wants taken off is taken off
    once, even if a sync did not add it. One whose name only changes in case is the same tag at Mailchimp.
    """
    asked = {name: on for one in wishes.values() for name, on in one.tags.items()}
    unwanted = {tag_key(name) for name, on in asked.items() if not on}
    wanted = _by_key(names | {name for name, on in asked.items() if on})
    wanted = {key: name for key, name in wanted.items() if key not in unwanted}
    flying = [one for one in facts.opened if one.in_flight and one.operation.kind == OperationKind.TAGS]
    has, off = _after(_by_key(facts.sent_tags), _by_key(read_taken_off(facts.stored)), flying)
    change = {name: True for key, name in wanted.items() if key not in has}
    change |= {name: False for key, name in has.items() if key not in wanted}
    known = has.keys() | off.keys()
    return dict(sorted(change.items())) | {
        name: False for name, on in sorted(asked.items()) if not on and tag_key(name) not in known
    }


def _by_key(names: Collection[str]) -> dict[str, str]:
    """Names of tags by what Mailchimp knows them by."""
    return {tag_key(name): name for name in sorted(names)}


def _after(
    has: dict[str, str], off: dict[str, str], updates: Sequence[OpenUpdate]
) -> tuple[dict[str, str], dict[str, str]]:
    """The tags that are on, and off at somebody's request, once these updates are carried out; by key."""
    on, gone = dict(has), dict(off)
    for one in updates:
        for entry in one.operation.body.get("tags") or ():
            name, is_active = str(entry.get("name")), entry.get("status") == "active"
            put_in, take_out = (on, gone) if is_active else (gone, on)
            put_in[tag_key(name)] = name
            take_out.pop(tag_key(name), None)
    return on, gone


def _shown(value: Any) -> str:
    if value == "":
        return "empty"
    return ", ".join(str(one) for one in value.values() if one) if isinstance(value, dict) else str(value)
