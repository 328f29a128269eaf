"""The two endpoints that Mailchimp calls: for an event of a member, and for a finished batch.

A request is authenticated by the secret in its URL alone, so its content is not trusted: an event is stored and
acknowledged at once (Mailchimp waits ten seconds), and when it is processed, the state is read from Mailchimp.
"""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from civiapi.auth.login_throttle import Throttle, TooManyAttempts
from civiapi.http import forms
from civiapi.http.messages import Endpoint, HttpRequest, HttpResponse, too_many
from civiapi.store.engine import Store
from sync.connections.config import Config, read_config
from sync.connections.webhook_signatures import SIGNATURE_HEADER, find_signing_secrets, is_signed_by
from sync.errors import SyncError
from sync.inbox.events import MAX_TEXT, InboxFull

log = structlog.get_logger(__name__)

PREFIX = "civicrm/mailchimpsync"
MEMBER_EVENTS = frozenset({"subscribe", "unsubscribe", "profile", "cleaned", "upemail"})
BATCH_EVENT = "batch_operation_completed"
BATCH_ID = re.compile(r"[0-9a-f]{10}", re.IGNORECASE)
MAX_BODY = 65_536  # bytes; an event has a few kB
TEXT = "text/plain; charset=utf-8"
OK = HttpResponse(b"OK", TEXT)
UNAUTHORIZED = HttpResponse(b"Unauthorized", TEXT, 401)
ACCEPTED = HttpResponse(b"", TEXT)
IGNORED = HttpResponse(b"", TEXT, 204)


class WebhookReceiver(Protocol):
    """The part of the sync used here: stores an event before it returns, and a repeated event once."""

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> object:
        """Store an event of a member."""

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> object:
        """Store that a batch is finished; a batch of others is no error."""


def webhook_endpoints(store: Store, receiver: WebhookReceiver, throttle: Throttle) -> dict[str, Endpoint]:
    """The two endpoints by their path."""
    return {
        f"{PREFIX}/webhook": MemberEvents(store, receiver, throttle),
        f"{PREFIX}/batch-webhook": FinishedBatches(store, receiver, throttle),
    }


class _WebhookEndpoint(ABC):
    """Common to both: the secret is checked, and a request without an event is only acknowledged."""

    max_body: int | None = MAX_BODY
    raw_body = False
    reply_to_probe = ACCEPTED  # the response to a request without an event

    def __init__(self, store: Store, receiver: WebhookReceiver, throttle: Throttle) -> None:
        self._store = store
        self._inbox = receiver
        self._throttle = throttle

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        secret = forms.scalar(incoming.query, "secret")
        if not secret:
            return UNAUTHORIZED
        unsigned = {"secret", "q", *incoming.query}  # only the body is signed, and Mailchimp sends events there
        event = {name: value for name, value in incoming.fields.items() if name not in unsigned}
        try:
            async with self._throttle.attempt(incoming.address, may_wait=not incoming.has_large_body) as attempt:
                config = await self._store.read(read_config)
                if config.find_account_by_secret(secret) is None or not await self._is_genuine(incoming, event):
                    attempt.fail()
                    log.warning(
                        "webhook with a wrong secret or signature", address=incoming.address, path=incoming.path
                    )
                    return UNAUTHORIZED
        except TooManyAttempts as error:
            return too_many(HttpResponse(str(error).encode(), TEXT), error.retry_after)
        if not incoming.is_get and not incoming.may_write:
            return HttpResponse(b"Use POST", TEXT, 405, {"Allow": "GET, HEAD, POST"})
        if incoming.is_get or not event:  # Mailchimp probes a URL before it accepts it
            return self.reply_to_probe
        try:
            return await self.receive(event, config)
        except InboxFull as full:
            return HttpResponse(str(full).encode(), TEXT, 503, {"Retry-After": "600"})  # Mailchimp tries again

    async def _is_genuine(self, incoming: HttpRequest, event: forms.Fields) -> bool:
        """Whether the event is signed as it must be, besides the secret in the address."""
        return True

    @abstractmethod
    async def receive(self, event: forms.Fields, config: Config) -> HttpResponse:
        """Store the event; returns the response."""

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        return HttpResponse(message.encode(), TEXT, status)


class MemberEvents(_WebhookEndpoint):
    """Events of members: 200 when stored, 204 for types and audiences that are not used, 400 for invalid ones."""

    async def _is_genuine(self, incoming: HttpRequest, event: forms.Fields) -> bool:
        data = event.get("data")
        list_id = forms.scalar(data, "list_id") if isinstance(data, dict) else ""
        secrets = await self._store.read_single(find_signing_secrets, list_id) if list_id else []
        return not secrets or is_signed_by(secrets, incoming.header(SIGNATURE_HEADER), incoming.body, time.time())

    async def receive(self, event: forms.Fields, config: Config) -> HttpResponse:
        if forms.scalar(event, "type") not in MEMBER_EVENTS or _is_of_others(event, config):
            return IGNORED  # errors for long would make Mailchimp switch the webhook off
        problem = find_problem(event)
        if problem:
            log.info("webhook not understood", reason=problem, type=forms.scalar(event, "type"))
            return HttpResponse(problem.encode(), TEXT, 400)
        await self._inbox.receive_audience_webhook(event)
        return ACCEPTED


class FinishedBatches(_WebhookEndpoint):
    """Finished batches: 200 for ours and others, 500 when it could not be stored, so that Mailchimp retries."""

    reply_to_probe = OK

    async def receive(self, event: forms.Fields, config: Config) -> HttpResponse:
        data = event.get("data")
        batch_id = forms.scalar(data, "id") if isinstance(data, dict) else ""
        if forms.scalar(event, "type") != BATCH_EVENT or BATCH_ID.fullmatch(batch_id) is None:
            return OK
        try:
            await self._inbox.receive_batch_webhook(event)
        except InboxFull:
            raise
        except SyncError as error:
            return HttpResponse(str(error).encode(), TEXT, 500)
        return OK


def _is_of_others(event: forms.Fields, config: Config) -> bool:
    """Whether the event names an audience that is not linked."""
    data = event.get("data")
    list_id = forms.scalar(data, "list_id") if isinstance(data, dict) else ""
    return bool(list_id) and list_id not in config.links


def find_problem(event: forms.Fields) -> str:
    """Why an event of a member cannot be processed; ``""`` if it can."""
    data = event.get("data")
    if not isinstance(data, dict):
        return "data is missing"
    if not forms.scalar(data, "list_id"):
        return "data[list_id] is missing"
    names = ("old_email", "new_email") if forms.scalar(event, "type") == "upemail" else ("email",)
    missing = [name for name in names if not forms.scalar(data, name)]
    if missing:
        return f"data[{missing[0]}] is missing"
    long = [name for name in names if len(forms.scalar(data, name)) > MAX_TEXT]
    return f"data[{long[0]}] is too long" if long else ""
