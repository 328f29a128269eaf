"""A frozen emulated Mailchimp with one audience, without HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import orjson

from sync.emulator.data.seeding import Seeder
from sync.emulator.model.clock import Clock
from sync.emulator.model.records import Hook, Interest, InterestCategory, Member
from sync.emulator.protocol.exchange import Request, Response
from sync.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
ADA = "ada@example.org"
LIST = "a1b2c3d4e5"


class Mailchimp:
    """A frozen world with one audience, and short ways to speak to it."""

    def __init__(self, **options: Any) -> None:
        self.world = World(seed=7, clock=Clock.frozen_at(NOON))
        self.audience = self.world.add_audience(list_id=LIST)
        self.world.configure(options)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Response:
        account = self.world.default_account
        return self.world.handle(Request(method, path, query, body, account))

    def put(self, email: str, **body: Any) -> Response:
        sent = {"email_address": email, "status_if_new": "subscribed", **body}
        return self.ask("PUT", member_path(email), sent)

    def members(self, **query: str) -> list[str]:
        query = {"fields": "members.email_address", "count": "1000", **query}
        answer = self.ask("GET", f"/lists/{LIST}/members", **query)
        assert answer.status == 200, answer.body
        return [row["email_address"] for row in answer.body["members"]]

    def member(self, email: str = ADA) -> Member:
        found = self.audience.members.find_address(email)
        assert found is not None
        return found

    def a_member(self, status: str, email: str = ADA, by: str = "") -> Member:
        """Place a member as it stands; *by* is who unsubscribed them."""
        record = {"kind": "member", "email_address": email, "status": status, "unsubscribed_by": by}
        Seeder(self.world).add(record)
        return self.member(email)

    def hook(self, **sources: bool) -> Hook:
        events = dict.fromkeys(("subscribe", "unsubscribe", "profile", "cleaned", "upemail"), True)
        hook = Hook(
            "hook", "http://crm.example/hook", LIST, events, {"user": True, "admin": True, "api": False} | sources
        )
        self.audience.hooks[hook.id] = hook
        return hook

    def heard(self) -> list[dict[str, str]]:
        return [
            {k: v[0] for k, v in parse_qs(one.body, keep_blank_values=True).items()} for one in self.world.deliveries
        ]

    def later(self, seconds: float = 60) -> None:
        self.world.clock.advance(seconds)


def member_path(email: str) -> str:
    return f"/lists/{LIST}/members/{subscriber_hash(email)}"


def with_interests(mailchimp: Mailchimp, kind: str = "checkboxes") -> None:
    category = InterestCategory("c" * 10, "Causes", kind)
    category.interests = {key: Interest(key, category.id, key.upper()) for key in ("trees", "seas")}
    mailchimp.audience.categories[category.id] = category


def operations(*emails: str) -> list[dict[str, Any]]:
    body = {"status_if_new": "subscribed"}
    return [
        {
            "method": "PUT",
            "path": member_path(email),
            "operation_id": email,
            "body": orjson.dumps(body | {"email_address": email}).decode(),
        }
        for email in emails
    ]


def submit(mailchimp: Mailchimp, sent: list[dict[str, Any]]) -> str:
    answer = mailchimp.ask("POST", "/batches", {"operations": sent})
    assert answer.status == 200, answer.body
    return str(answer.body["id"])
