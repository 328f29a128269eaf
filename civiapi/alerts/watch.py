"""Compares findings with stored alerts, and delivers queued messages. The scheduler calls it at every tick."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import orjson
import structlog
from sqlalchemy import Connection

from civiapi.alerts import messages, records
from civiapi.alerts.channels import Channel, NotDelivered, channels_of
from civiapi.alerts.messages import Message
from civiapi.settings import Settings
from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store
from civiapi.store.leases import now_ms
from sync.reports.checks import Finding

NAME = "alerts"
LEASE_S = 300.0
Find = Callable[[Connection, SiteClock, datetime], Iterable[Finding]]
DIGEST_MS = {"daily": 86_400_000, "weekly": 7 * 86_400_000}

log = structlog.get_logger(__name__)


class AlertWatch:
    """Alerts of one process. *find* gives the findings of the site."""

    def __init__(self, store: Store, settings: Settings, find: Find, channels: Sequence[Channel]) -> None:
        self._store = store
        self._find = find
        self._holder = leases.new_holder()
        self._base_url = settings.server.base_url
        self._digest_ms = DIGEST_MS.get(settings.alerts.digest, 0)
        self._channels = {one.name: one for one in channels}

    async def check(self) -> None:
        """Store which problems began or ended, and send what is due, unless another process does.

        Raises ``StoreError``.
        """
        lease = await self._store.write(leases.acquire, NAME, self._holder, LEASE_S, now_ms())
        if lease is None:
            return
        try:
            await self._check(now_ms())
        finally:
            await self._store.write(leases.release, lease)

    async def _check(self, at_ms: int) -> None:
        if await self._store.read(self._has_news, at_ms):
            await self._store.write(self._note, at_ms)
        for message_id in await self._store.read(records.due, at_ms):
            await self._deliver(message_id)

    def _has_news(self, conn: Connection, at_ms: int) -> bool:
        return records.differs(conn, self._problems(conn, at_ms)) or self._digest_is_due(conn, at_ms)

    def _problems(self, conn: Connection, at_ms: int) -> dict[str, Finding]:
        now = datetime.fromtimestamp(at_ms / 1000, UTC)
        return records.problems(self._find(conn, self._store.clock, now))

    def _digest_is_due(self, conn: Connection, at_ms: int) -> bool:
        if not self._digest_ms or not self._channels:
            return False
        return records.last_queued_ms(conn, messages.DIGEST) <= at_ms - self._digest_ms

    def _note(self, conn: Connection, at_ms: int) -> None:
        for alert in records.note_changes(conn, self._problems(conn, at_ms), at_ms):
            log.warning("an alert began" if not alert.ended_ms else "an alert ended", code=alert.code)
            self._queue(conn, messages.about(alert, self._store.clock, self._base_url), at_ms)
        if self._digest_is_due(conn, at_ms):
            ended = records.read_ended_since(conn, records.last_queued_ms(conn, messages.DIGEST))
            summary = messages.digest(records.read_open(conn), ended, self._store.clock, self._base_url)
            self._queue(conn, summary, at_ms)

    def _queue(self, conn: Connection, message: Message, at_ms: int) -> None:
        records.queue(conn, message.kind, list(self._channels), orjson.dumps(message).decode(), at_ms)

    async def _deliver(self, message_id: int) -> None:
        taken = await self._store.write(records.claim, message_id, now_ms())
        if taken is None:
            return
        channel = self._channels.get(taken.channel)
        if channel is None:
            await self._store.write(records.mark, taken.id, error=f"[alerts] has no {taken.channel} any more")
            return
        try:
            await channel.send(Message(**orjson.loads(taken.body)), f"alert-{taken.id}")
        except NotDelivered as error:
            log.warning("an alert could not be delivered", channel=channel.name, error=str(error))
            await self._store.write(records.mark, taken.id, error=str(error))
        else:
            await self._store.write(records.mark, taken.id, sent_ms=now_ms())


async def send_test(settings: Settings) -> list[tuple[str, str]]:
    """Send a test message through each channel; each channel with why it failed, or an empty text."""
    out = []
    for channel in channels_of(settings.alerts):
        try:
            await channel.send(messages.trial(settings.server.base_url), f"test-{now_ms()}")
            out.append((channel.name, ""))
        except NotDelivered as error:
            out.append((channel.name, str(error)))
    return out
