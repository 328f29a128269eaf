"""The two addresses that Mailchimp calls: something happened to a member, or a batch is finished.

Whoever calls is believed by the secret in the address alone, and only so far: what is posted is written down and
answered at once (Mailchimp waits ten seconds), and whoever works on it later asks Mailchimp what is true. Nothing of
that is known here.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from civiapi.adapters import forms
from civiapi.adapters.http import Answer, Incoming, Way
from civiapi.store.engine import Store
from sync.config import Config, read_config
from sync.errors import SyncError

log = structlog.get_logger(__name__)

PREFIX = "civicrm/mailchimpsync"
MEMBER_EVENTS = frozenset({"subscribe", "unsubscribe", "profile", "cleaned", "upemail"})
BATCH_EVENT = "batch_operation_completed"
BATCH_ID = re.compile(r"[0-9a-f]{10}", re.IGNORECASE)
TEXT = "text/plain; charset=utf-8"
OK = Answer(b"OK", TEXT)
TAKEN = Answer(b"", TEXT)
IGNORED = Answer(b"", TEXT, 204)


class Inbox(Protocol):
    """What the sync offers: an event is kept when these return; the same event kept twice is kept once."""

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> object:
        """Keep what happened to a member."""

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> object:
        """Keep that a batch is finished; one that is not ours is no error."""


def webhook_ways(store: Store, inbox: Inbox) -> dict[str, Way]:
    """The two pages by their path."""
    return {f"{PREFIX}/webhook": AudiencePage(store, inbox), f"{PREFIX}/batch-webhook": BatchPage(store, inbox)}


class _Page(ABC):
    """What both pages do: the secret first, then nothing for those who only look."""

    raw_body = False
    hello = TAKEN  # for who only looks

    def __init__(self, store: Store, inbox: Inbox) -> None:
        self._store = store
        self._inbox = inbox

    async def answer(self, incoming: Incoming) -> Answer:
        config = await self._store.read(read_config)
        secret = forms.scalar(incoming.query, "secret")
        if not secret or config.find_account_by_secret(secret) is None:
            log.warning("webhook with a wrong secret", address=incoming.address, path=incoming.path)
            return Answer(b"Unauthorized", TEXT, 401)
        event = {name: value for name, value in incoming.fields.items() if name not in ("secret", "q")}
        if incoming.is_get or not event:  # Mailchimp tries an address before it takes it
            return self.hello
        return await self.receive(event, config)

    @abstractmethod
    async def receive(self, event: forms.Fields, config: Config) -> Answer:
        """Keep the event; what to answer."""

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return Answer(message.encode(), TEXT, status)


class AudiencePage(_Page):
    """Events of members: 200 when kept, 204 for kinds that we do not follow, 400 for what cannot be understood."""

    async def receive(self, event: forms.Fields, config: Config) -> Answer:
        if forms.scalar(event, "type") not in MEMBER_EVENTS:
            return IGNORED
        wrong = what_is_wrong(event, config)
        if wrong:
            log.info("webhook not understood", reason=wrong, type=forms.scalar(event, "type"))
            return Answer(wrong.encode(), TEXT, 400)
        await self._inbox.receive_audience_webhook(event)
        return TAKEN


class BatchPage(_Page):
    """Finished batches: 200 whether ours or not, 500 when it could not be kept, so that Mailchimp tries again."""

    hello = OK

    async def receive(self, event: forms.Fields, config: Config) -> Answer:
        data = event.get("data")
        batch_id = forms.scalar(data, "id") if isinstance(data, dict) else ""
        if forms.scalar(event, "type") != BATCH_EVENT or BATCH_ID.fullmatch(batch_id) is None:
            return OK
        try:
            await self._inbox.receive_batch_webhook(event)
        except SyncError as error:
            return Answer(str(error).encode(), TEXT, 500)
        return OK


def what_is_wrong(event: forms.Fields, config: Config) -> str:
    """Why an event of a member says nothing we could act on; ``""`` if it does."""
    data = event.get("data")
    if not isinstance(data, dict):
        return "data is missing"
    list_id = forms.scalar(data, "list_id")
    if list_id not in config.links:
        return f"List '{list_id[:32]}' is not configured."
    names = ("old_email", "new_email") if forms.scalar(event, "type") == "upemail" else ("email",)
    missing = [name for name in names if not forms.scalar(data, name)]
    return f"data[{missing[0]}] is missing" if missing else ""
