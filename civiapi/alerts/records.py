"""The stored alerts and the messages queued for them. Every function is one step of a transaction; times are UTC ms."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from civiapi.store.clock import SiteClock
from civiapi.store.schema.tables import alert, alert_message
from sync.reports.checks import Finding, Severity

RETRIES_S = (60, 300, 900, 3_600, 14_400, 43_200, 86_400)
"""Seconds until a message that was not accepted is sent again; after the last it is given up."""

KEPT_MS = 90 * 86_400_000
"""For how long ended alerts and sent messages are kept."""

UNDELIVERED = "alertsUndelivered"


@dataclass(frozen=True, slots=True)
class Alert:
    """A problem: *code* as in ``Finding``; *ended_ms* 0 while it is open."""

    id: int
    code: str
    severity: str
    sentence: str
    remedy: str
    began_ms: int
    ended_ms: int


@dataclass(frozen=True, slots=True)
class Queued:
    """A message to be sent now: the channel, and the message as it was queued."""

    id: int
    channel: str
    body: str


def problems(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The findings that are worth an alert, by code."""
    return {one.code: one for one in findings if one.severity >= Severity.WARNING}


def read_open(conn: Connection) -> list[Alert]:
    """The open alerts, oldest first."""
    return _alerts(conn, alert.c.ended_ms == 0)


def read_ended_since(conn: Connection, since_ms: int) -> list[Alert]:
    """The alerts that ended after a time, oldest first."""
    return _alerts(conn, alert.c.ended_ms > since_ms)


def _alerts(conn: Connection, condition: Any) -> list[Alert]:
    return [_alert(row) for row in conn.execute(select(alert).where(condition).order_by(alert.c.id))]


def read_latest(conn: Connection, *, limit: int, offset: int = 0) -> list[Alert]:
    """Alerts, open ones first, then the newest; *limit* 0 for all."""
    wanted = select(alert).order_by(alert.c.ended_ms != 0, alert.c.id.desc()).offset(offset)
    return [_alert(row) for row in conn.execute(wanted.limit(limit or 2**31))]


def differs(conn: Connection, found: dict[str, Finding]) -> bool:
    """Whether other problems are stored as open than were found."""
    return {one.code for one in read_open(conn)} != found.keys()


def note_changes(conn: Connection, found: dict[str, Finding], at_ms: int) -> list[Alert]:
    """Open an alert for each new problem and end those that are over; returns the alerts that changed."""
    known = {one.code: one for one in read_open(conn)}
    changed = []
    for code, finding in found.items():
        if code not in known:
            conn.execute(
                insert(alert).values(
                    code=code,
                    severity=finding.severity.name.lower(),
                    sentence=finding.sentence,
                    remedy=finding.remedy,
                    began_ms=at_ms,
                    ended_ms=0,
                )
            )
            changed += _alerts(conn, (alert.c.code == code) & (alert.c.ended_ms == 0))
    for code, one in known.items():
        if code not in found:
            conn.execute(update(alert).where(alert.c.id == one.id).values(ended_ms=at_ms))
            changed += _alerts(conn, alert.c.id == one.id)
    conn.execute(delete(alert).where(alert.c.ended_ms > 0, alert.c.ended_ms < at_ms - KEPT_MS))
    conn.execute(delete(alert_message).where(alert_message.c.queued_ms < at_ms - KEPT_MS))
    return changed


def queue(conn: Connection, kind: str, channels: Sequence[str], body: str, at_ms: int) -> None:
    """Queue a message for each channel."""
    for channel in channels:
        conn.execute(
            insert(alert_message).values(
                kind=kind, channel=channel, body=body, queued_ms=at_ms, due_ms=at_ms, attempts=0, sent_ms=0
            )
        )


def last_queued_ms(conn: Connection, kind: str) -> int:
    """When a message of this kind was queued last; 0: never."""
    return conn.execute(select(func.max(alert_message.c.queued_ms)).where(alert_message.c.kind == kind)).scalar() or 0


def due(conn: Connection, at_ms: int) -> list[int]:
    """The ids of the messages to be sent now, oldest first."""
    waiting = alert_message.c.sent_ms == 0, alert_message.c.due_ms <= at_ms
    tried = alert_message.c.attempts <= len(RETRIES_S)
    return list(conn.execute(select(alert_message.c.id).where(*waiting, tried).order_by(alert_message.c.id)).scalars())


def claim(conn: Connection, message_id: int, at_ms: int) -> Queued | None:
    """Take a message that is due: it is not due for anybody else until its next retry. None: another process has it."""
    c = alert_message.c
    row = conn.execute(select(alert_message).where(c.id == message_id).with_for_update()).first()
    if row is None or row.sent_ms or row.due_ms > at_ms:
        return None
    pause = RETRIES_S[min(row.attempts, len(RETRIES_S) - 1)]
    later = {"attempts": row.attempts + 1, "due_ms": at_ms + pause * 1000}
    conn.execute(update(alert_message).where(c.id == message_id).values(later))
    return Queued(row.id, row.channel, row.body)


def mark(conn: Connection, message_id: int, *, sent_ms: int = 0, error: str = "") -> None:
    """Store that a message was accepted, or why not."""
    conn.execute(
        update(alert_message).where(alert_message.c.id == message_id).values(sent_ms=sent_ms, error=error[:500])
    )


def undelivered(conn: Connection) -> list[Finding]:
    """A notice if a message was not accepted at its latest attempt."""
    c = alert_message.c
    row = conn.execute(
        select(func.count().label("waiting"), func.max(c.error).label("error")).where(c.sent_ms == 0, c.attempts > 0)
    ).one()
    if not row.waiting:
        return []
    sentence = f"{row.waiting} alert message(s) could not be delivered: {row.error}"
    return [Finding(UNDELIVERED, Severity.NOTICE, sentence, "Check [alerts] in the settings with civiapi alerts test.")]


def as_dict(one: Alert, clock: SiteClock) -> dict[str, Any]:
    """An alert as ``Mailchimpsync.getalerts`` answers it, with site times; ``ended`` is empty while it is open."""
    return {
        "id": one.id,
        "code": one.code,
        "severity": one.severity,
        "sentence": one.sentence,
        "remedy": one.remedy,
        "began": clock.write_epoch(one.began_ms / 1000),
        "ended": clock.write_epoch(one.ended_ms / 1000) if one.ended_ms else "",
    }


def _alert(row: Row[Any]) -> Alert:
    return Alert(**row._mapping)
