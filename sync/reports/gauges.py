"""Gauges for monitoring, read from the database: the length of each queue and the age of its oldest entry.

Numbers only, no addresses. Every query uses an index, so the gauges can be read every few seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from civiapi.store.clock import SiteClock
from civiapi.store.schema.tables import lease
from sync.connections.config import read_config
from sync.model import SyncStatus
from sync.store.batches import OPEN
from sync.store.tables import batch, cache, run_log, update, webhook_event


@dataclass(slots=True)
class Gauges:
    """Queue lengths, and ages in seconds; dictionaries are by audience id."""

    updates_waiting: int = 0
    updates_sent: int = 0
    rows_todo: dict[str, int] = field(default_factory=dict)
    webhooks_waiting: int = 0
    webhook_lag: float = 0.0
    batches: dict[str, int] = field(default_factory=dict)
    oldest_batch: dict[str, float] = field(default_factory=dict)
    run_age: dict[str, float] = field(default_factory=dict)
    lease_left: dict[str, float] = field(default_factory=dict)


def read_gauges(conn: Connection, clock: SiteClock, now: datetime) -> Gauges:
    """The gauges of all linked audiences at *now* (aware)."""
    linked = list(read_config(conn).links)
    found = Gauges()
    sent = update.c.mailchimpsync_batch_id.is_not(None)
    for has_batch, count in conn.execute(select(sent, func.count()).where(update.c.completed == 0).group_by(sent)):
        if has_batch:
            found.updates_sent = count
        else:
            found.updates_waiting = count
    for list_id in linked:
        todo = select(func.count()).where(cache.c.mailchimp_list_id == list_id, cache.c.sync_status == SyncStatus.TODO)
        found.rows_todo[list_id] = int(conn.execute(todo).scalar_one())
    _read_webhooks(conn, found, now)
    _read_batches(conn, found, linked, clock, now)
    _read_leases(conn, found, linked, now)
    return found


def _read_webhooks(conn: Connection, found: Gauges, now: datetime) -> None:
    waiting = select(func.count(), func.min(webhook_event.c.received_s)).where(webhook_event.c.status == "new")
    count, oldest = conn.execute(waiting).one()
    found.webhooks_waiting = count
    found.webhook_lag = max(0.0, now.timestamp() - oldest) if oldest else 0.0


def _read_batches(conn: Connection, found: Gauges, linked: list[str], clock: SiteClock, now: datetime) -> None:
    rows = conn.execute(
        select(batch.c.mailchimp_list_id, func.count(), func.min(batch.c.submitted_at))
        .where(batch.c.mailchimp_list_id.in_(linked), batch.c.response_processed.in_(OPEN))
        .group_by(batch.c.mailchimp_list_id)
    )
    for list_id, count, oldest in rows:
        found.batches[list_id] = count
        moment = clock.read(str(oldest)) if oldest else None
        found.oldest_batch[list_id] = _age(moment, now)


def _read_leases(conn: Connection, found: Gauges, linked: list[str], now: datetime) -> None:
    unended = select(run_log.c.list_id, func.max(run_log.c.started_s)).where(
        run_log.c.list_id.in_(linked), run_log.c.ended_s.is_(None)
    )
    started: Mapping[str, int] = {row[0]: row[1] for row in conn.execute(unended.group_by(run_log.c.list_id))}
    known = {*linked, "scheduler"}
    for name, expires_ms in conn.execute(select(lease.c.name, lease.c.expires_ms)):
        left = expires_ms / 1000 - now.timestamp()
        if name in known and left > 0:
            found.lease_left[name] = left
            if name in started:
                found.run_age[name] = max(0.0, now.timestamp() - started[name])


def _age(moment: datetime | None, now: datetime) -> float:
    return max(0.0, (now.astimezone(UTC) - moment).total_seconds()) if moment else 0.0
