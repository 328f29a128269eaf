"""A world from records, and records from a world: one JSON object a line, each with a ``kind``.

A seed file is such lines; a snapshot is the same records in one JSON document. Order matters as it does when typing:
an account before its audiences, an audience before its members. A record without ``account`` or ``list`` means the
latest one named before it. Times are ISO 8601.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from typing import Any

from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.clock import from_text, to_wire
from sync.mailchimp.emulator.model import (
    STATUSES,
    SUBSCRIBED,
    Account,
    Batch,
    Delivery,
    Hook,
    Interest,
    InterestCategory,
    Json,
    Member,
    MergeField,
    Tag,
    User,
)
from sync.mailchimp.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

SNAPSHOT = "civiapi_mailchimp_emulator"
RARE = ("contact_id", "web_id", "unique_email_id", "location", "last_note", "unsubscribe_reason", "unsubscribed_at")
PLAIN = ("ip_opt", "ip_signup", "email_type", "language", "vip", "rating", "source", "unsubscribed_by", "archived_from")
INSTANTS = ("last_changed", "timestamp_opt", "timestamp_signup")


class BadRecord(ValueError):
    """A seed record that cannot be taken in; the message says which key and why."""


@dataclass
class Seeder:
    """Takes records into a world, remembering which account and audience the last ones were about."""

    world: World
    taken: int = 0

    def __post_init__(self) -> None:
        self._account: Account | None = None
        self._audience: Audience | None = None

    def take(self, record: Mapping[str, Any]) -> None:
        """Take in one record. Raises BadRecord; the world then is as it was."""
        kind = record.get("kind")
        taker = TAKERS.get(kind) if isinstance(kind, str) else None
        if taker is None:
            raise BadRecord(f"kind is one of {', '.join(TAKERS)}, not {kind!r}")
        try:
            taker(self, record)
        except KeyError as error:
            raise BadRecord(f"{kind} without {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise BadRecord(f"{kind}: {error}") from error
        self.taken += 1

    def account(self, record: Mapping[str, Any]) -> Account:
        """Return the account a record is about."""
        if "account" in record:
            return self.world.account(record["account"])
        return self._account or self.world.default_account

    def audience(self, record: Mapping[str, Any]) -> Audience:
        """Return the audience a record is about."""
        if "list" in record:
            return self.world.find_audience(record["list"])[1]
        return self._audience or self.world.find_audience()[1]

    def take_account(self, record: Mapping[str, Any]) -> None:
        """Add an account, or lay the record over the one with its id."""
        account_id = record.get("id")
        account = self.world.accounts.get(account_id or "")
        if account is None:
            account = self.world.add_account(
                record.get("name", "Account"), key=record.get("key"), account_id=account_id
            )
        account.name = record.get("name", account.name)
        account.email = record.get("email", account.email)
        account.timezone = record.get("timezone", account.timezone)
        if "users" in record:
            account.users = [User(**user) for user in record["users"]]
            account.dc = account.users[0].keys[0].rpartition("-")[2]
        account.knobs.turn(record.get("knobs", {}))
        self._account = account

    def take_audience(self, record: Mapping[str, Any]) -> None:
        """Add an audience, with the four starting merge fields unless it lists its own."""
        audience = self.world.add_audience(
            record.get("name", "Newsletter"), list_id=record.get("id"), account=self.account(record)
        )
        audience.created_at = _instant(record, "date_created", audience.created_at)
        for name in ("web_id", "double_optin", "email_type_option", "marketing_permissions"):
            setattr(audience, name, record.get(name, getattr(audience, name)))
        audience.last_sub_at = _instant(record, "last_sub_date", 0)
        audience.last_unsub_at = _instant(record, "last_unsub_date", 0)
        if "merge_fields" in record:
            audience.merge_fields = {one["merge_id"]: MergeField(**one) for one in record["merge_fields"]}
        self._audience = audience

    def take_merge_field(self, record: Mapping[str, Any]) -> None:
        """Add a merge field."""
        audience = self.audience(record)
        known = {f.name for f in fields(MergeField)}
        values = {key: value for key, value in record.items() if key in known}
        values.setdefault("merge_id", max(audience.merge_fields, default=0) + 1)
        values.setdefault("name", values["tag"])
        audience.merge_fields[values["merge_id"]] = MergeField(**values)

    def take_category(self, record: Mapping[str, Any]) -> None:
        """Add an interest category with its interests."""
        audience = self.audience(record)
        category = InterestCategory(record.get("id") or self.world.new_id(), record["title"])
        category.type = record.get("type", "checkboxes")
        category.display_order = record.get("display_order", len(audience.categories))
        for order, one in enumerate(record.get("interests", ()), start=1):
            key = one.get("id") or self.world.new_id()
            category.interests[key] = Interest(key, category.id, one["name"], one.get("display_order", order))
        audience.categories[category.id] = category

    def take_tag(self, record: Mapping[str, Any]) -> None:
        """Add a tag with its id."""
        created = _instant(record, "created_at", self.world.clock.seconds())
        tag = Tag(record["id"], record["name"], created, _instant(record, "updated_at", created))
        self.audience(record).tags[tag.id] = tag

    def take_member(self, record: Mapping[str, Any]) -> None:
        """Add a member as it stands, hidden facts included; no webhook, no check of who may subscribe."""
        audience = self.audience(record)
        email, status = record["email_address"].strip(), record.get("status", SUBSCRIBED)
        if "@" not in email:
            raise BadRecord(f"{email!r} is not an address")
        if status not in STATUSES:
            raise BadRecord(f"status is one of {', '.join(STATUSES)}, not {status!r}")
        now = self.world.clock.seconds()
        member = Member(audience.members.next_serial(), record.get("id") or subscriber_hash(email), email, status, now)
        for name in INSTANTS:
            setattr(member, name, _instant(record, name, getattr(member, name)))
        for name in PLAIN:
            if name in record:
                setattr(member, name, record[name])
        member.merges = {tag: value for tag, value in (record.get("merge_fields") or {}).items() if value != ""}
        member.interests = _interests(record.get("interests") or ())
        member.tags = _tags(audience, record.get("tags") or (), now)
        member.rare = {name: record[name] for name in RARE if record.get(name)} or None
        audience.members.add(member)

    def take_forgotten(self, record: Mapping[str, Any]) -> None:
        """Remember an address as permanently deleted."""
        self.audience(record).members.forgotten.add(record.get("id") or subscriber_hash(record["email_address"]))

    def take_hook(self, record: Mapping[str, Any]) -> None:
        """Add a webhook of an audience."""
        audience = self.audience(record)
        hook = _made(Hook, record, id=record.get("id") or self.world.new_id(), list_id=audience.id)
        audience.hooks[hook.id] = hook

    def take_batch_hook(self, record: Mapping[str, Any]) -> None:
        """Add a batch webhook of the account."""
        hook = _made(Hook, record, id=record.get("id") or self.world.new_id())
        self.account(record).batch_hooks[hook.id] = hook

    def take_batch(self, record: Mapping[str, Any]) -> None:
        """Add a batch, wherever it had got to."""
        batch = _made(Batch, record, archive=base64.b64decode(record.get("archive", "")))
        self.account(record).batches[batch.id] = batch

    def take_delivery(self, record: Mapping[str, Any]) -> None:
        """Queue a webhook delivery again."""
        self.world.enqueue(_made(Delivery, record, state="queued"))

    def take_clock(self, record: Mapping[str, Any]) -> None:
        """Set the clock."""
        clock = self.world.clock
        clock.skew = float(record.get("skew", 0))
        clock.run_at(float(record.get("rate", 1)))
        clock.set(from_text(record["now"]) - clock.skew)
        clock.freeze(bool(record.get("frozen", False)))


TAKERS: dict[str, Callable[[Seeder, Mapping[str, Any]], None]] = {
    "clock": Seeder.take_clock,
    "account": Seeder.take_account,
    "audience": Seeder.take_audience,
    "merge_field": Seeder.take_merge_field,
    "interest_category": Seeder.take_category,
    "tag": Seeder.take_tag,
    "member": Seeder.take_member,
    "forgotten": Seeder.take_forgotten,
    "webhook": Seeder.take_hook,
    "batch_webhook": Seeder.take_batch_hook,
    "batch": Seeder.take_batch,
    "delivery": Seeder.take_delivery,
}


def snapshot(world: World) -> Json:
    """Return the whole world as one JSON document."""
    return {SNAPSHOT: 1, "records": list(records_of(world))}


def restore(world: World, document: Mapping[str, Any]) -> int:
    """Make *world* what a snapshot says; returns its number of records. Raises BadRecord, having changed nothing."""
    if document.get(SNAPSHOT) != 1 or not isinstance(document.get("records"), list):
        raise BadRecord(f"not a snapshot: it lacks {SNAPSHOT!r}: 1 and records")
    fresh = World(seed=world.seed, key=world.key)
    if any(record.get("kind") == "account" for record in document["records"]):
        fresh.accounts.clear()
    seeder = Seeder(fresh)
    for record in document["records"]:
        seeder.take(record)
    world.adopt(fresh)
    return seeder.taken


def records_of(world: World) -> Iterator[Json]:
    """Yield every record that makes *world* again."""
    clock = world.clock
    frozen = {"frozen": clock.is_frozen, "rate": clock.rate, "skew": clock.skew}
    yield {"kind": "clock", "now": to_wire(clock.now()), **frozen}
    for account in world.accounts.values():
        yield from _account_records(account)
    for delivery in world.queued.values():
        yield {"kind": "delivery", **asdict(delivery)}


def _account_records(account: Account) -> Iterator[Json]:
    users = [asdict(user) for user in account.users]
    named = {"id": account.id, "name": account.name, "email": account.email, "timezone": account.timezone}
    yield {"kind": "account", **named, "users": users, "knobs": account.knobs.as_json()}
    for hook in account.batch_hooks.values():
        yield {"kind": "batch_webhook", **asdict(hook)}
    for batch in account.batches.values():
        yield {"kind": "batch", **asdict(batch), "archive": base64.b64encode(batch.archive).decode()}
    for audience in account.audiences.values():
        yield from _audience_records(audience)


def _audience_records(audience: Audience) -> Iterator[Json]:
    yield {
        "kind": "audience",
        "id": audience.id,
        "name": audience.name,
        "date_created": to_wire(audience.created_at),
        "web_id": audience.web_id,
        "double_optin": audience.double_optin,
        "email_type_option": audience.email_type_option,
        "marketing_permissions": audience.marketing_permissions,
        "last_sub_date": to_wire(audience.last_sub_at),
        "last_unsub_date": to_wire(audience.last_unsub_at),
        "merge_fields": [asdict(merge) for merge in audience.merge_fields.values()],
    }
    for category in audience.categories.values():
        yield {"kind": "interest_category", **asdict(category), "interests": _interest_rows(category)}
    for tag in audience.tags.values():
        stamps = {"created_at": to_wire(tag.created_at), "updated_at": to_wire(tag.updated_at)}
        yield {"kind": "tag", "id": tag.id, "name": tag.name, **stamps}
    for hook in audience.hooks.values():
        yield {"kind": "webhook", **asdict(hook)}
    for forgotten in sorted(audience.members.forgotten):
        yield {"kind": "forgotten", "id": forgotten}
    for place, member in enumerate(audience.members):
        yield member_record(audience, member, moved=place != member.serial)


def member_record(audience: Audience, member: Member, *, moved: bool = False) -> Json:
    """Return one member with hidden facts; *moved* writes out ids that would otherwise be worked out anew."""
    record: Json = {"kind": "member", "id": member.id, "email_address": member.email, "status": member.status}
    record |= {name: to_wire(getattr(member, name)) for name in INSTANTS}
    record |= {name: getattr(member, name) for name in PLAIN if getattr(member, name) not in ("", False)}
    record["merge_fields"] = member.merges
    record["interests"] = sorted(member.interests)
    known = audience.tags
    record["tags"] = {known[key].name: to_wire(added) for key, added in (member.tags or {}).items() if key in known}
    if moved:
        record["contact_id"] = audience.members.contact_id(member)
        record["web_id"] = audience.members.web_id(member)
    return record | (member.rare or {})


def _interest_rows(category: InterestCategory) -> list[Json]:
    return [{"id": row.id, "name": row.name, "display_order": row.display_order} for row in category.interests.values()]


def _instant(record: Mapping[str, Any], name: str, default: int) -> int:
    value = record.get(name)
    return default if value is None else from_text(value)


def _interests(held: Mapping[str, bool] | Iterable[str]) -> frozenset[str]:
    return frozenset(key for key in held if held[key]) if isinstance(held, Mapping) else frozenset(held)


def _tags(audience: Audience, names: Mapping[str, str] | Iterable[str], now: int) -> dict[int, int] | None:
    dated = names.items() if isinstance(names, Mapping) else ((name, "") for name in names)
    return {audience.tag_named(name, now).id: from_text(added) or now for name, added in dated} or None


def _made(kind: type[Any], record: Mapping[str, Any], **given: Any) -> Any:
    """Return *kind* from copies of what *record* says under the names that it knows."""
    known = {f.name for f in fields(kind)}
    return kind(**{key: deepcopy(value) for key, value in record.items() if key in known} | given)
