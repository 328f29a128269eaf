"""What a member's news does to what we knew of it: each field, and when it last changed. Pure: no SQL, no clock.

A field whose value did not change keeps its time, unless Mailchimp says that they opted in since we last looked: they
were out, and came back (or came, and left again), and that is a word. A changed one gets the member's ``last_changed``,
or, when the new value is what we ourselves asked for, the time of the CiviCRM word that made us ask: our own write,
coming back to us, never outranks a word that CiviCRM spoke before Mailchimp carried it out. Who leaves within the
second that their being in has for its time leaves a second later: a tie would bring them back, though we saw which
came last. Who was out already and is archived, or bounces, has been out since then.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeGuard

from sync.audience import RECEIVES_MAIL, Audience, compacted
from sync.mailchimp.wire import Member, parse_instant
from sync.member_data import ECHO, INTEREST, SENT, Fields, entry

NAMES = (("first_name", "FNAME"), ("last_name", "LNAME"))
NO_TIME = "19700101000000"
PUT_AWAY = ("archived", "cleaned")
COMPACT = "%Y%m%d%H%M%S"


@dataclass(frozen=True, slots=True)
class Sent:
    """What we asked Mailchimp for, and when CiviCRM spoke the word behind it (aware UTC)."""

    status: str | None = None
    interests: Mapping[str, bool] = field(default_factory=dict)
    at: datetime | None = None

    @classmethod
    def from_body(cls, body: Mapping[str, Any], at: datetime | None) -> "Sent":
        """What the body of a member update asks for; that of an archiving (an empty body) is ``archived``."""
        status = body.get("status") if body else "archived"
        interests = body.get("interests") or {}
        return cls(status if isinstance(status, str) else None, {str(k): bool(v) for k, v in interests.items()}, at)

    def fields(self) -> Fields:
        """The fields it sets, as the member's data names them."""
        fields: Fields = {f"{INTEREST}{key}": value for key, value in self.interests.items()}
        if self.status is not None:
            fields["status"] = self.status
        return fields


class News(NamedTuple):
    """A member as Mailchimp told it, checked and in our own terms. Times as the cache keeps them.

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
    """When they last opted in, as Mailchimp told it; read only where it may matter."""
    audience: Audience
    skew: timedelta

    def status_since(self, before: str | None) -> str | None:
        """Since when they stand as they did at *before*, if they came in meanwhile; None where they did not.

        Who left and came back between two looks stands as before, and yet has spoken. Times as the cache keeps them;
        *before* by Mailchimp's clock, as ``last_changed`` is.
        """
        if not (before and self.opted and self.updated and compacted(self.updated) > before):
            return None
        updated, stamp = _times(self.audience, self.opted, self.skew)
        if updated is None or compacted(updated) <= before:
            return None
        return stamp if self.status in RECEIVES_MAIL else self.stamp


def read_news(
    audience: Audience, member: Member, skew: timedelta, known: dict[str, tuple[str | None, str]]
) -> News | None:
    """A member from the wire; None when it lacks what a row needs (an id, an address and a status that fit).

    *skew* is Mailchimp's clock minus ours. *known* remembers times already converted: a page has few of them.
    """
    member_id, email, status = member.get("id"), member.get("email_address"), member.get("status")
    if not (_fits(member_id, 32) and _fits(email, 255) and _fits(status, 20)):
        return None
    last_changed = member.get("last_changed") or ""
    if last_changed not in known:
        known[last_changed] = _times(audience, last_changed, skew)
    updated, stamp = known[last_changed]
    merges = member.get("merge_fields")
    values: Fields = {"status": status}
    for name, tag in NAMES:
        value = merges.get(tag) if isinstance(merges, dict) else None
        values[name] = value if isinstance(value, str) else "" if value is None else str(value)
    interests = member.get("interests")
    if isinstance(interests, dict):
        for key, held in interests.items():
            values[f"{INTEREST}{key}"] = bool(held)
    contact_id = member.get("contact_id")
    # SQLite compares without regard to case in ASCII letters only: other addresses are kept in lower case.
    address = email if email.isascii() else email.lower()
    kept_id = contact_id if _fits(contact_id, 32) else None
    opted = member.get("timestamp_opt") or ""
    return News(member_id, address, status, updated, stamp, values, kept_id, opted, audience, skew)


def merge(old: Fields, news: News, *, before: str | None, sent: Iterable[tuple[Sent, str]] = ()) -> Fields:
    """The member's data after *news*.

    *before* dates those fields of *old* that have no time of their own (the old form). *sent* is what we asked for
    and may see come back, each with its cause as a compact site time; what *old* notes as sent counts as well.
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
            anew = news.status_since(before) if key == "status" and not is_echo else None
            fields[key + "@"] = anew or old.get(key + "@") or before or news.stamp
        else:
            fields[key + "@"] = (
                _caused(echoes.get(key, ()), value)
                or (old.get(note + "@") if noted == value else None)
                or (_after(news.stamp, old.get(key + "@")) if _is_leaving(key, old, value) else None)
                or (old.get(key + "@") if _is_put_away(key, old, value) and not news.status_since(before) else None)
                or news.stamp
            )
        if noted is not None and noted != value:
            fields[note], fields[note + "@"] = noted, old.get(note + "@") or NO_TIME
    if is_made_by_us:
        unsay_defaults(fields, (*echoes, *(key.removeprefix(SENT) for key in old)))
    fields.update({key: value for key, value in old.items() if key.startswith(ECHO)})
    return fields


def unsay_defaults(fields: Fields, said: Iterable[str]) -> None:
    """Of a member that we made, nobody chose to be without the interests that we did not name: no word, so no time.

    *said* are the fields that we did name.
    """
    named = set(said)
    for key, value in list(fields.items()):
        if key.startswith(INTEREST) and value is False and key not in named:
            fields[key + "@"] = NO_TIME


def is_same(data: bytes, news: News) -> bool:
    """True when *data* surely holds just what *news* says; False when it must be decoded to know.

    A full fetch asks this of every member, nearly always to learn that nothing changed.
    """
    entries = 2 * len(news.values) + data.count(b'"' + ECHO.encode())
    return data.startswith(b"a:%d:" % entries) and all(entry(key, value) in data for key, value in news.values.items())


def with_notes(old: Fields, sent: Sent, cause: str) -> Fields:
    """The member's data with a note of what was sent."""
    fields = dict(old)
    for key, value in sent.fields().items():
        fields[SENT + key], fields[SENT + key + "@"] = value, cause
    return fields


def without_notes(old: Fields) -> Fields:
    """The member's data with no note of anything sent: Mailchimp refused it."""
    return {key: value for key, value in old.items() if not key.startswith(SENT)}


def is_different(old: Fields, new: Fields) -> bool:
    """True when a sync has something to think about: another status, or one said anew, or another interest."""
    if old.get("status@") and old["status@"] != new.get("status@"):
        return True
    keys = {key for key in (*old, *new) if key == "status" or (key.startswith(INTEREST) and not key.endswith("@"))}
    return any(old.get(key) != new.get(key) for key in keys)


def _is_leaving(key: str, old: Fields, value: object) -> bool:
    return key == "status" and old.get(key) in RECEIVES_MAIL and value not in RECEIVES_MAIL


def _is_put_away(key: str, old: Fields, value: object) -> bool:
    """Whether somebody who was out already was archived, or bounced: no new word about whether they want to be in."""
    return key == "status" and value in PUT_AWAY and bool(old.get(key)) and old[key] not in RECEIVES_MAIL


def _after(stamp: str, before: object) -> str:
    """*stamp*, but a second later where the value that it replaces, which we have seen, has the same time."""
    if stamp != before or stamp == NO_TIME:
        return stamp
    return (datetime.strptime(stamp, COMPACT) + timedelta(seconds=1)).strftime(COMPACT)


def _caused(echoes: Iterable[tuple[Any, str]], value: Any) -> str | None:
    causes = [cause for sent, cause in echoes if sent == value]
    return max(causes) if causes else None


def _fits(value: object, length: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= length


def _times(audience: Audience, last_changed: str, skew: timedelta) -> tuple[str | None, str]:
    try:
        moment = parse_instant(last_changed)
    except ValueError:
        moment = None
    if moment is None:
        return None, NO_TIME
    updated = audience.clock.write(moment)
    return updated, compacted(updated) if not skew else audience.compact(moment - skew)
