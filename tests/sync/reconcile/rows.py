"""Rows to decide about: a person, and where they are on each side."""

from datetime import UTC, datetime, timedelta
from typing import Any

from civiapi.store.clock import site_clock
from sync.audience import Audience
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation, OpenUpdate
from sync.reconcile.decide import (
    Person,
    RowFacts,
    Standing,
)

NOON = datetime(2026, 1, 9, 12, 0, 0, tzinfo=UTC)
BEFORE, AFTER = NOON - timedelta(seconds=1), NOON + timedelta(seconds=1)
ADA = "ada@example.org"
HASH = subscriber_hash(ADA)


def added(at: datetime = NOON, *, echo: bool = False) -> Standing:
    return Standing("Added", at, is_echo=echo)


def removed(at: datetime = NOON, *, echo: bool = False) -> Standing:
    return Standing("Removed", at, is_echo=echo)


def member(status: str, at: datetime = NOON) -> Standing:
    return Standing(status, at)


def an_audience(**more: Any) -> Audience:
    return Audience("abc123", 12, site_clock("UTC"), **more)


def a_row(group: Standing | None, of_member: Standing | None, **more: Any) -> RowFacts:
    known = {} if of_member is None else {"member_id": HASH, "member_email": ADA}
    person = more.pop("person", Person("Ada", "Byron", emails=1, best_email=ADA))
    return RowFacts(7, contact_id=3, group=group, member=of_member, person=person, **{**known, **more})


def in_flight(body: dict[str, Any], kind: str = "member", batch_id: int | None = 1) -> OpenUpdate:
    method = {"email": "PATCH", "archive": "DELETE"}.get(kind, "PUT")
    return OpenUpdate(5, 7, batch_id, MemberOperation(kind, method, f"members/{HASH}", body, NOON))
