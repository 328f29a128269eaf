"""The two addresses Mailchimp calls (contract/apiv3.md 9.10): who is heard, what is kept, what is answered."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.store.engine import Store
from sync.connections.config import write_config
from sync.errors import SyncError
from sync.inbox.events import InboxFull
from tests.support.http_server import HttpServer, Mirror, serving

AUDIENCE = "/civicrm/mailchimpsync/webhook"
BATCH = "/civicrm/mailchimpsync/batch-webhook"
SECRET = "?secret=the-secret-of-the-account"
CONFIG = {
    "accounts": {"k-us1": {"apiKey": "k-us1", "audiences": {}, "batchWebhookSecret": "the-secret-of-the-account"}},
    "lists": {"abc123": {"apiKey": "k-us1", "subscriptionGroup": "1"}},
}
MEMBER = {
    "type": "unsubscribe",
    "data[list_id]": "abc123",
    "data[email]": "ada@example.org",
    "data[merges][FNAME]": "A",
}
FINISHED = {"type": "batch_operation_completed", "data[id]": "123456789a"}


class Inbox:
    """Keeps what it is given, or fails."""

    def __init__(self) -> None:
        self.kept: list[Mapping[str, Any]] = []
        self.error: Exception | None = None

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> bool:
        return self._keep(fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> bool:
        return self._keep(fields)

    def _keep(self, fields: Mapping[str, Any]) -> bool:
        if self.error:
            raise self.error
        self.kept.append(fields)
        return True


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
async def site(store: Store, inbox: Inbox) -> AsyncIterator[HttpServer]:
    await store.write(write_config, CONFIG)
    async with serving(store, Mirror(), more=webhook_endpoints(store, inbox, Throttle())) as running:
        yield running


@pytest.mark.parametrize("path", [AUDIENCE, BATCH])
@pytest.mark.parametrize("secret", ["", "?secret=", "?secret=wrong", "?secret=the-secret-of-the-accoun"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_the_secret_nobody_is_heard(
    site: HttpServer, inbox: Inbox, path: str, secret: str, method: str
) -> None:
    fields = None if method == "GET" else {**MEMBER, "secret": "the-secret-of-the-account"}
    assert (await site.send(method, path + secret, data=fields)).status == 401
    assert inbox.kept == []


@pytest.mark.parametrize("path", [AUDIENCE, BATCH, "/index.php", "/drupal" + AUDIENCE])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_mailchimp_may_try_an_address_before_it_takes_it(site: HttpServer, path: str, method: str) -> None:
    query = SECRET + ("&q=civicrm/mailchimpsync/webhook" if path == "/index.php" else "")
    reply = await site.send(method, path + query)
    assert (reply.status, reply.text) == (200, "OK" if path == BATCH else "")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *((MEMBER | {"type": kind}, 200) for kind in ("subscribe", "unsubscribe", "profile", "cleaned")),
        (
            {
                "type": "upemail",
                "data[list_id]": "abc123",
                "data[new_email]": "new@example.org",
                "data[old_email]": "old@example.org",
            },
            200,
        ),
        (MEMBER | {"type": "campaign"}, 204),
        (MEMBER | {"type": "bogus"}, 204),
        ({"data[list_id]": "abc123"}, 204),
        ({"type": "unsubscribe", "data[list_id]": "abc123"}, 400),
        ({"type": "upemail", "data[list_id]": "abc123", "data[new_email]": "a@b.c"}, 400),
        ({"type": "unsubscribe", "data[email]": "ada@example.org"}, 400),
        (MEMBER | {"data[list_id]": "unknown"}, 204),
        ({"type": "unsubscribe"}, 400),
        ({"type": "unsubscribe", "data": "text"}, 400),
    ],
)
async def test_an_event_of_a_member_is_kept_or_told_why_not(
    site: HttpServer, inbox: Inbox, fields: dict[str, str], status: int
) -> None:
    assert (await site.post(AUDIENCE + SECRET, data=fields)).status == status
    assert len(inbox.kept) == (status == 200)


async def test_what_is_kept_is_nested_and_holds_no_secret(site: HttpServer, inbox: Inbox) -> None:
    await site.post(AUDIENCE + SECRET, data=MEMBER)
    data = {"list_id": "abc123", "email": "ada@example.org", "merges": {"FNAME": "A"}}
    assert inbox.kept == [{"type": "unsubscribe", "data": data}]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (FINISHED, True),
        (FINISHED | {"type": "other"}, False),
        (FINISHED | {"data[id]": "../../etc"}, False),
        ({"type": "batch_operation_completed"}, False),
    ],
)
async def test_a_finished_batch_is_kept_and_anything_else_is_no_error(
    site: HttpServer, inbox: Inbox, fields: dict[str, str], kept: bool
) -> None:
    assert (await site.post(BATCH + SECRET, data=fields)).status == 200
    assert bool(inbox.kept) is kept


@pytest.mark.parametrize("error", [SyncError("The database is full."), RuntimeError("a fault of ours")])
async def test_what_cannot_be_kept_is_500_so_that_mailchimp_tries_again(
    site: HttpServer, inbox: Inbox, error: Exception
) -> None:
    inbox.error = error
    assert (await site.post(BATCH + SECRET, data=FINISHED)).status == 500
    assert (await site.post(AUDIENCE + SECRET, data=MEMBER)).status == 500
    inbox.error = None
    assert (await site.post(AUDIENCE + SECRET, data=MEMBER)).status == 200


async def test_without_a_configuration_nobody_is_heard(store: Store, inbox: Inbox) -> None:
    async with serving(store, Mirror(), more=webhook_endpoints(store, inbox, Throttle())) as site:
        assert (await site.post(AUDIENCE + SECRET, data=MEMBER)).status == 401


@pytest.mark.parametrize(("path", "event"), [(AUDIENCE, MEMBER), (BATCH, FINISHED)], ids=["member", "batch"])
async def test_a_full_inbox_is_503_so_that_mailchimp_delivers_again(
    site: HttpServer, inbox: Inbox, path: str, event: dict[str, str]
) -> None:
    inbox.error = InboxFull()
    reply = await site.post(path + SECRET, data=event)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "600")


async def test_a_body_above_64_kb_is_413_and_not_stored(site: HttpServer, inbox: Inbox) -> None:
    for path in (AUDIENCE, BATCH):
        assert (await site.post(path + SECRET, data={**MEMBER, "data[x]": "x" * 66_000})).status == 413
    assert inbox.kept == []


async def test_an_address_too_long_for_one_is_400(site: HttpServer, inbox: Inbox) -> None:
    reply = await site.post(AUDIENCE + SECRET, data={**MEMBER, "data[email]": "a" * 300})
    assert (reply.status, reply.text) == (400, "data[email] is too long")
    assert inbox.kept == []
