"""Seed files and snapshots: the state as records, JSON objects with a ``kind``.

A seed file has one record a line; a snapshot has them all in one JSON document. An account comes before its audiences,
an audience before its members; a record without ``account`` or ``list`` belongs to the latest one. Times are ISO 8601.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from typing import Any

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import from_text, to_wire
from sync.emulator.model.records import (
    STATUSES,
    SUBSCRIBED,
    Batch,
    Campaign,
    Delivery,
    EmulatedAccount,
    Hook,
    Interest,
    InterestCategory,
    Json,
    Member,
    MergeField,
    Recipient,
    Tag,
    User,
)
from sync.emulator.model.state import EmulatorState
from sync.mailchimp.wire import subscriber_hash

SNAPSHOT = "civiapi_mailchimp_emulator"
EXTRAS = ("contact_id", "web_id", "unique_email_id", "location", "last_note", "unsubscribe_reason", "unsubscribed_at")
PLAIN = ("ip_opt", "ip_signup", "email_type", "language", "vip", "rating", "source", "unsubscribed_by", "archived_from")
INSTANTS = ("last_changed", "timestamp_opt", "timestamp_signup")


class BadRecord(ValueError):
    """A seed record that cannot be loaded; the message names the key and the reason."""


@dataclass
class Seeder:
    """Loads records into a state; remembers the latest account and audience."""

    state: EmulatorState
    added: int = 0

    def __post_init__(self) -> None:
        self._account: EmulatedAccount | None = None
        self._audience: EmulatedAudience | None = None

    def add(self, record: Mapping[str, Any]) -> None:
        """Load one record. Raises BadRecord, having changed nothing."""
        kind = record.get("kind")
        loader = LOADERS.get(kind) if isinstance(kind, str) else None
        if loader is None:
            raise BadRecord(f"kind is one of {', '.join(LOADERS)}, not {kind!r}")
        try:
            loader(self, record)
        except KeyError as error:
            raise BadRecord(f"{kind} without {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise BadRecord(f"{kind}: {error}") from error
        self.added += 1

    def account(self, record: Mapping[str, Any]) -> EmulatedAccount:
        """Return the account of a record."""
        if "account" in record:
            return self.state.account(record["account"])
        return self._account or self.state.default_account

    def audience(self, record: Mapping[str, Any]) -> EmulatedAudience:
        """Return the audience of a record."""
        if "list" in record:
            return self.state.find_audience(record["list"])[1]
        return self._audience or self.state.find_audience()[1]

    def add_account(self, record: Mapping[str, Any]) -> None:
        """Add an account, or update the one with its id."""
        account_id = record.get("id")
        account = self.state.accounts.get(account_id or "")
        if account is None:
            account = self.state.add_account(
                record.get("name", "Account"), key=record.get("key"), account_id=account_id
            )
        account.name = record.get("name", account.name)
        account.email = record.get("email", account.email)
        account.timezone = record.get("timezone", account.timezone)
        if "users" in record:
            account.users = [User(**user) for user in record["users"]]
            account.dc = account.users[0].keys[0].rpartition("-")[2]
        account.options.configure(record.get("knobs", {}))
        self._account = account

    def add_audience(self, record: Mapping[str, Any]) -> None:
        """Add an audience, with the four starting merge fields unless it lists its own."""
        permissions = _permissions_of(record)
        audience = self.state.add_audience(
            record.get("name", "Newsletter"), list_id=record.get("id"), account=self.account(record)
        )
        audience.created_at = _instant(record, "date_created", audience.created_at)
        for name in ("web_id", "double_optin", "email_type_option"):
            setattr(audience, name, record.get(name, getattr(audience, name)))
        audience.marketing_permissions = permissions
        audience.last_sub_at = _instant(record, "last_sub_date", 0)
        audience.last_unsub_at = _instant(record, "last_unsub_date", 0)
        if "merge_fields" in record:
            audience.merge_fields = {one["merge_id"]: MergeField(**one) for one in record["merge_fields"]}
        self._audience = audience

    def add_merge_field(self, record: Mapping[str, Any]) -> None:
        """Add a merge field."""
        audience = self.audience(record)
        known = {f.name for f in fields(MergeField)}
        values = {key: value for key, value in record.items() if key in known}
        values.setdefault("merge_id", max(audience.merge_fields, default=0) + 1)
        values.setdefault("name", values["tag"])
        audience.merge_fields[values["merge_id"]] = MergeField(**values)

    def add_category(self, record: Mapping[str, Any]) -> None:
        """Add an interest category with its interests."""
        audience = self.audience(record)
        category = InterestCategory(record.get("id") or self.state.new_id(), record["title"])
        category.type = record.get("type", "checkboxes")
        category.display_order = record.get("display_order", len(audience.categories))
        for order, one in enumerate(record.get("interests", ()), start=1):
            key = one.get("id") or self.state.new_id()
            category.interests[key] = Interest(key, category.id, one["name"], one.get("display_order", order))
        audience.categories[category.id] = category

    def add_tag(self, record: Mapping[str, Any]) -> None:
        """Add a tag with its id."""
        created = _instant(record, "created_at", self.state.clock.seconds())
        tag = Tag(record["id"], record["name"], created, _instant(record, "updated_at", created))
        self.audience(record).tags[tag.id] = tag

    def add_member(self, record: Mapping[str, Any]) -> None:
        """Add a member, hidden facts included, without webhooks or compliance checks."""
        audience = self.audience(record)
        email, status = record["email_address"].strip(), record.get("status", SUBSCRIBED)
        if "@" not in email:
            raise BadRecord(f"{email!r} is not an address")
        if status not in STATUSES:
            raise BadRecord(f"status is one of {', '.join(STATUSES)}, not {status!r}")
        now = self.state.clock.seconds()
        member = Member(audience.members.next_serial(), record.get("id") or subscriber_hash(email), email, status, now)
        for name in INSTANTS:
            setattr(member, name, _instant(record, name, getattr(member, name)))
        for name in PLAIN:
            if name in record:
                setattr(member, name, record[name])
        member.merges = {tag: value for tag, value in (record.get("merge_fields") or {}).items() if value != ""}
        member.interests = _interests(record.get("interests") or ())
        member.tags = _tags(audience, record.get("tags") or (), now)
        member.extra = {name: record[name] for name in EXTRAS if record.get(name)} or None
        audience.members.add(member)

    def add_forgotten(self, record: Mapping[str, Any]) -> None:
        """Mark an address as permanently deleted."""
        self.audience(record).members.forgotten.add(record.get("id") or subscriber_hash(record["email_address"]))

    def add_hook(self, record: Mapping[str, Any]) -> None:
        """Add a webhook of an audience."""
        audience = self.audience(record)
        hook = _build(Hook, record, id=record.get("id") or self.state.new_id(), list_id=audience.id)
        audience.hooks[hook.id] = hook

    def add_batch_hook(self, record: Mapping[str, Any]) -> None:
        """Add a batch webhook of the account."""
        hook = _build(Hook, record, id=record.get("id") or self.state.new_id())
        self.account(record).batch_hooks[hook.id] = hook

    def add_batch(self, record: Mapping[str, Any]) -> None:
        """Add a batch in any status."""
        batch = _build(Batch, record, archive=base64.b64decode(record.get("archive", "")))
        self.account(record).batches[batch.id] = batch

    def add_campaign(self, record: Mapping[str, Any]) -> None:
        """Add a campaign with its recipients: a list of addresses, or of records."""
        account = self.account(record)
        given: list[Any] = [
            one if isinstance(one, dict) else {"email": one, "email_id": subscriber_hash(one)}
            for one in record.get("recipients", ())
        ]
        recipients = {one["email_id"]: _build(Recipient, one) for one in given}
        campaign = _build(
            Campaign,
            record,
            id=record.get("id") or self.state.new_id(),
            web_id=record.get("web_id", len(account.campaigns) + 1),
            list_id=record.get("list_id") or self.audience(record).id,
            sent_at=_instant(record, "sent_at", 0),
            created_at=_instant(record, "created_at", 0),
            recipients=recipients,
        )
        account.campaigns[campaign.id] = campaign

    def add_delivery(self, record: Mapping[str, Any]) -> None:
        """Queue a webhook delivery again."""
        self.state.enqueue(_build(Delivery, record, state="queued"))

    def set_clock(self, record: Mapping[str, Any]) -> None:
        """Set the clock."""
        clock = self.state.clock
        clock.skew = float(record.get("skew", 0))
        clock.run_at(float(record.get("rate", 1)))
        clock.set(from_text(record["now"]) - clock.skew)
        clock.freeze(bool(record.get("frozen", False)))


LOADERS: dict[str, Callable[[Seeder, Mapping[str, Any]], None]] = {
    "clock": Seeder.set_clock,
    "account": Seeder.add_account,
    "audience": Seeder.add_audience,
    "merge_field": Seeder.add_merge_field,
    "interest_category": Seeder.add_category,
    "tag": Seeder.add_tag,
    "member": Seeder.add_member,
    "forgotten": Seeder.add_forgotten,
    "webhook": Seeder.add_hook,
    "batch_webhook": Seeder.add_batch_hook,
    "batch": Seeder.add_batch,
    "campaign": Seeder.add_campaign,
    "delivery": Seeder.add_delivery,
}


def snapshot(state: EmulatorState) -> Json:
    """Return the whole world as one JSON document."""
    return {SNAPSHOT: 1, "records": list(records_of(state))}


def restore(state: EmulatorState, document: Mapping[str, Any]) -> int:
    """Make *state* what a snapshot says; returns its number of records. Raises BadRecord, having changed nothing."""
    if document.get(SNAPSHOT) != 1 or not isinstance(document.get("records"), list):
        raise BadRecord(f"not a snapshot: it lacks {SNAPSHOT!r}: 1 and records")
    fresh = EmulatorState(seed=state.seed, key=state.key)
    if any(record.get("kind") == "account" for record in document["records"]):
        fresh.accounts.clear()
    seeder = Seeder(fresh)
    for record in document["records"]:
        seeder.add(record)
    state.replace_with(fresh)
    return seeder.added


def records_of(state: EmulatorState) -> Iterator[Json]:
    """Yield the records that restore *state* again."""
    clock = state.clock
    frozen = {"frozen": clock.is_frozen, "rate": clock.rate, "skew": clock.skew}
    yield {"kind": "clock", "now": to_wire(clock.now()), **frozen}
    for account in state.accounts.values():
        yield from _account_records(account)
    for delivery in state.queued.values():
        yield {"kind": "delivery", **asdict(delivery)}


def _account_records(account: EmulatedAccount) -> Iterator[Json]:
    users = [asdict(user) for user in account.users]
    named = {"id": account.id, "name": account.name, "email": account.email, "timezone": account.timezone}
    yield {"kind": "account", **named, "users": users, "knobs": account.options.as_json()}
    for hook in account.batch_hooks.values():
        yield {"kind": "batch_webhook", **asdict(hook)}
    for batch in account.batches.values():
        yield {"kind": "batch", **asdict(batch), "archive": base64.b64encode(batch.archive).decode()}
    for audience in account.audiences.values():
        yield from _audience_records(audience)
    for campaign in account.campaigns.values():
        yield {"kind": "campaign", "account": account.id, **_campaign_record(campaign)}


def _campaign_record(campaign: Campaign) -> Json:
    dated = {"sent_at": to_wire(campaign.sent_at), "created_at": to_wire(campaign.created_at)}
    return asdict(campaign) | dated | {"recipients": [asdict(one) for one in campaign.recipients.values()]}


def _audience_records(audience: EmulatedAudience) -> Iterator[Json]:
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
    for ctx, member in enumerate(audience.members):
        yield member_record(audience, member, moved=ctx != member.serial)


def member_record(audience: EmulatedAudience, member: Member, *, moved: bool = False) -> Json:
    """Return one member with hidden facts; *moved* includes ids that are otherwise computed."""
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
    return record | (member.extra or {})


def _interest_rows(category: InterestCategory) -> list[Json]:
    return [{"id": row.id, "name": row.name, "display_order": row.display_order} for row in category.interests.values()]


def _instant(record: Mapping[str, Any], name: str, default: int) -> int:
    value = record.get(name)
    return default if value is None else from_text(value)


def _permissions_of(record: Mapping[str, Any]) -> list[Json]:
    """The marketing permissions of an audience; Mailchimp itself says only whether there are any."""
    listed: list[Json] = record.get("marketing_permissions") or []
    if not isinstance(listed, list) or any(not isinstance(one["marketing_permission_id"], str) for one in listed):
        raise BadRecord("marketing_permissions is a list of objects with a marketing_permission_id, or false")
    return listed


def _interests(held: Mapping[str, bool] | Iterable[str]) -> frozenset[str]:
    return frozenset(key for key in held if held[key]) if isinstance(held, Mapping) else frozenset(held)


def _tags(audience: EmulatedAudience, names: Mapping[str, str] | Iterable[str], now: int) -> dict[int, int] | None:
    dated = names.items() if isinstance(names, Mapping) else ((name, "") for name in names)
    return {audience.tag_named(name, now).id: from_text(added) or now for name, added in dated} or None


def _build(kind: type[Any], record: Mapping[str, Any], **given: Any) -> Any:
    """Return a *kind* from copies of the values in *record* for its fields."""
    known = {f.name for f in fields(kind)}
    return kind(**{key: deepcopy(value) for key, value in record.items() if key in known} | given)
