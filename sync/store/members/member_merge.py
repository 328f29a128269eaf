"""Merges a snapshot of a member into its stored data: each field, and when it last changed. Pure: no SQL, no clock.

A field whose value did not change keeps its timestamp, unless the member opted in since the last snapshot: it left and
came back (or the reverse), which is a change. A changed field gets the member's ``last_changed``; or, where the new
value is what the sync sent, the timestamp of the CiviCRM change behind it. So our own write, seen again at Mailchimp,
never wins against a CiviCRM change that was made before Mailchimp carried it out.

A member that leaves in the same second as it joined gets a timestamp a second later: a tie would subscribe it again,
though the order is known. A member that was out already and is archived or cleaned keeps the time at which it left.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeGuard

from sync.audience import Audience, compacted
from sync.field_rules import canonical
from sync.mailchimp.wire import Member, find_instant
from sync.model import RECEIVES_MAIL, MemberStatus
from sync.store.members.blobs import INTEREST, MERGE
from sync.store.members.member_codec import ECHO, SENT, Fields, entry, interests_entry

NAMES = (("first_name", "FNAME"), ("last_name", "LNAME"))
_NAME_OF = {tag: name for name, tag in NAMES}
EMAIL_LENGTH = 254
"""Characters of an address that CiviCRM's table can hold."""

VALUE_LENGTH = 255
"""Characters of a text merge value that Mailchimp keeps; more is a mistake."""

NO_TIME = "19700101000000"
PUT_AWAY = (MemberStatus.ARCHIVED, MemberStatus.CLEANED)
COMPACT = "%Y%m%d%H%M%S"


def merge_key(tag: str) -> str:
    """The field of ``mailchimp_data`` in which the value of a merge field is kept."""
    return _NAME_OF.get(tag) or f"{MERGE}{tag}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent to Mailchimp, and the time of the CiviCRM change behind it (aware UTC)."""

    status: str | None = None
    interests: Mapping[str, bool] = field(default_factory=dict)
    at: datetime | None = None

    @classmethod
    def from_body(cls, body: Mapping[str, Any], at: datetime | None) -> "Sent":
        """What the body of a member update asks for; that of an archiving (an empty body) is ``archived``."""
        status = body.get("status") if body else MemberStatus.ARCHIVED
        interests = body.get("interests") or {}
        return cls(status if isinstance(status, str) else None, {str(k): bool(v) for k, v in interests.items()}, at)

    def fields(self) -> Fields:
        """The fields it sets, as the member's data names them."""
        fields: Fields = {f"{INTEREST}{key}": value for key, value in self.interests.items()}
        if self.status is not None:
            fields["status"] = self.status
        return fields


class MemberSnapshot(NamedTuple):
    """A member as Mailchimp returned it, checked and converted. Times as the cache keeps them.

    A tuple, because one is made of every member of every page, at a third of what a frozen dataclass takes.
    """

    member_id: str
    email: str
    status: str
    updated: str | None
    stamp: str
    values: Fields
    contact_id: str | None
    opted: str
    """``timestamp_opt`` as Mailchimp returned it; parsed only where it can matter."""
    audience: Audience
    skew: timedelta

    def status_since(self, before: str | None) -> str | None:
        """Since when the member has its status, where it opted in after *before*; None where it did not.

        A member that left and came back between two snapshots has the same status, and yet changed it. Times as the
        cache keeps them; *before* by Mailchimp's clock, as ``last_changed`` is.
        """
        if not (before and self.opted and self.updated and compacted(self.updated) > before):
            return None
        updated, stamp = _times(self.audience, self.opted, self.skew)
        if updated is None or compacted(updated) <= before:
            return None
        return stamp if self.status in RECEIVES_MAIL else self.stamp


def read_snapshot(
    audience: Audience, member: Member, skew: timedelta, known: dict[str, tuple[str | None, str]]
) -> MemberSnapshot | None:
    """A member from the wire; None when it lacks what a row needs (an id, an address and a status that fit).

    *skew* is Mailchimp's clock minus ours. *known* remembers times already converted: a page has few of them.
    """
    member_id, email, status = member.get("id"), member.get("email_address"), member.get("status")
    if not (_fits(member_id, 32) and _fits(email, EMAIL_LENGTH) and _fits(status, 20)):
        return None
    last_changed = member.get("last_changed") or ""
    if last_changed not in known:
        known[last_changed] = _times(audience, last_changed, skew)
    updated, stamp = known[last_changed]
    merges = member.get("merge_fields")
    values: Fields = {"status": status}
    for name, tag in NAMES:
        value = merges.get(tag) if isinstance(merges, dict) else None
        values[name] = _as_name(value)
    for tag in audience.merge_fields:
        values[f"{MERGE}{tag}"] = canonical(merges.get(tag)) if isinstance(merges, dict) else ""
    interests = member.get("interests")
    if isinstance(interests, dict):
        for key, held in interests.items():
            values[f"{INTEREST}{key}"] = bool(held)
    contact_id = member.get("contact_id")
    # SQLite compares without regard to case in ASCII letters only: other addresses are kept in lower case.
    address = email if email.isascii() else email.lower()
    kept_id = contact_id if _fits(contact_id, 32) else None
    opted = member.get("timestamp_opt") or ""
    return MemberSnapshot(member_id, address, status, updated, stamp, values, kept_id, opted, audience, skew)


def merge(old: Fields, news: MemberSnapshot, *, before: str | None, sent: Iterable[tuple[Sent, str]] = ()) -> Fields:
    """The member's data after *news*.

    *before* is the time of those fields of *old* that have none of their own (the old form). *sent* is what was sent
    and may be reported now, each with its cause as a compact site time; what *old* notes as sent counts as well.
    """
    echoes: dict[str, list[tuple[Any, str]]] = {}
    for one, cause in sent:
        for key, value in one.fields().items():
            echoes.setdefault(key, []).append((value, cause))
    is_made_by_us = "status" not in old and ("status" in echoes or SENT + "status" in old)
    fields: Fields = {}
    for key, value in news.values.items():
        note = SENT + key
        noted = old.get(note)
        fields[key] = value
        if key in old and old[key] == value:
            is_echo = noted == value or any(value == ours for ours, _ in echoes.get(key, ()))
            changed_since = news.status_since(before) if key == "status" and not is_echo else None
            fields[key + "@"] = changed_since or old.get(key + "@") or before or news.stamp
        else:
            fields[key + "@"] = (
                (old.get(key + "@") if _is_put_away(key, old, value) and not news.status_since(before) else None)
                or _caused(echoes.get(key, ()), value)
                or (old.get(note + "@") if noted == value else None)
                or (_after(news.stamp, old.get(key + "@")) if _is_leaving(key, old, value) else None)
                or news.stamp
            )
        if noted is not None and noted != value:
            fields[note], fields[note + "@"] = noted, old.get(note + "@") or NO_TIME
    if is_made_by_us:
        clear_default_timestamps(fields, (*echoes, *(key.removeprefix(SENT) for key in old)))
    fields.update({key: value for key, value in old.items() if key.startswith(ECHO)})
    return fields


def clear_default_timestamps(fields: Fields, sent: Iterable[str]) -> None:
    """Unset interests of members that the sync created are defaults, not choices: they get no time.

    *sent* are the fields that were sent when the member was created.
    """
    named = set(sent)
    for key, value in list(fields.items()):
        if key.startswith(INTEREST) and value is False and key not in named:
            fields[key + "@"] = NO_TIME


def is_same(data: bytes, news: MemberSnapshot) -> bool:
    """True when *data* certainly equals the snapshot; False when it must be decoded to compare.

    A full fetch calls this for every member, and nearly always nothing changed.
    """
    nested = interests_entry(news.values)
    entries = 2 * len(news.values) + data.count(b'"' + ECHO.encode()) + bool(nested)
    return (
        data.startswith(b"a:%d:" % entries)
        and nested.encode("utf-8", "surrogatepass") in data
        and all(entry(key, value) in data for key, value in news.values.items())
    )


def with_notes(old: Fields, sent: Sent, cause: str) -> Fields:
    """The member's data with a note of what was sent."""
    fields = dict(old)
    for key, value in sent.fields().items():
        fields[SENT + key], fields[SENT + key + "@"] = value, cause
    return fields


def without_notes(old: Fields) -> Fields:
    """The member's data without notes of what was sent: Mailchimp refused it."""
    return {key: value for key, value in old.items() if not key.startswith(SENT)}


def is_different(old: Fields, new: Fields) -> bool:
    """True when the row must be synced: another status, another time of the status, or another interest."""
    if old.get("status@") and old["status@"] != new.get("status@"):
        return True
    keys = {key for key in (*old, *new) if key == "status" or (key.startswith(INTEREST) and not key.endswith("@"))}
    return any(old.get(key) != new.get(key) for key in keys)


def is_other_data(old: Fields, new: Fields) -> bool:
    """True when what CiviCRM sends of a member may have to be sent again: it joined, or has another name or value."""
    joined = new.get("status") in RECEIVES_MAIL and old.get("status") not in RECEIVES_MAIL
    names = [name for name, _ in NAMES]
    return joined or any(
        old.get(key) != value
        for key, value in new.items()
        if key in names or (key.startswith(MERGE) and not key.endswith("@"))
    )


def _is_leaving(key: str, old: Fields, value: object) -> bool:
    return key == "status" and old.get(key) in RECEIVES_MAIL and value not in RECEIVES_MAIL


def _is_put_away(key: str, old: Fields, value: object) -> bool:
    """Whether a member that was out already was archived or cleaned, by us too: not a new decision of the member."""
    return key == "status" and value in PUT_AWAY and bool(old.get(key)) and old[key] not in RECEIVES_MAIL


def _after(stamp: str, before: object) -> str:
    """*stamp*, but a second later where the value that it replaces, which we have seen, has the same time."""
    if stamp != before or stamp == NO_TIME:
        return stamp
    return (datetime.strptime(stamp, COMPACT) + timedelta(seconds=1)).strftime(COMPACT)


def _caused(echoes: Iterable[tuple[Any, str]], value: Any) -> str | None:
    causes = [cause for sent, cause in echoes if sent == value]
    return max(causes) if causes else None


def _as_name(value: object) -> str:
    """A merge value as a name: a number as text, nothing for a map or list, and never longer than Mailchimp's own."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    return value[:VALUE_LENGTH] if isinstance(value, str) else ""


def _fits(value: object, length: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= length


def _times(audience: Audience, last_changed: str, skew: timedelta) -> tuple[str | None, str]:
    moment = find_instant(last_changed)
    if moment is None:
        return None, NO_TIME
    updated = audience.clock.write(moment)
    return updated, compacted(updated) if not skew else audience.compact(moment - skew)
