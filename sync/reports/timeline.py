"""The timeline of a connection, or of all: runs, aborts, brakes, confirmations, webhooks, configuration, alerts.

Each entry stays where it is recorded: runs in the run log, alerts in their table, the rest among the events
(`sync/store/events.py`). The newest of each are found by index and merged by time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    literal_column,
    or_,
    select,
    union_all,
)

from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import alert, contact
from sync.reports.checks import audience_of
from sync.store import events
from sync.store.runs.run_log import outcomes
from sync.store.tables import event, run_log

RUN, ALERT = "run", "alert"
KINDS = (RUN, events.ABORT, events.BRAKE, events.CONFIRM, events.WEBHOOK, events.CONFIG, ALERT)

EVENT, RAN, BEGAN, ENDED = "event", "run", "alert", "alert-end"
_TABLES: Mapping[str, Table] = {EVENT: event, RAN: run_log, BEGAN: alert, ENDED: alert}
BY_JOB = "a scheduled job"
_AUTHORS = {
    "sync": "the sync",
    "job": BY_JOB,
    "system": "the command line",
    "outside": "another program",
}
"""What those are called that are no contact."""

_RUNS = {
    "finished": "The sync finished",
    "paused": "The sync ran out of time",
    "stopped": "The sync was stopped",
    "failed": "The sync failed",
    "braked": "The brake stopped the sync",
    "crashed": "The sync was cut off",
    "running": "The sync is running",
}


@dataclass(frozen=True, slots=True)
class TimelineFilter:
    """Which entries: of this audience (None: all), of these kinds (none: all), from *since* until *before* (aware)."""

    list_id: str | None = None
    kinds: tuple[str, ...] = ()
    since: datetime | None = None
    before: datetime | None = None
    limit: int = 25
    """0: all."""
    offset: int = 0


def read_timeline(
    conn: Connection, groups: Mapping[str, int], clock: SiteClock, wanted: TimelineFilter
) -> list[dict[str, Any]]:
    """The entries, newest first, with site times; *groups*: the group of each linked audience."""
    found = _newest(conn, wanted)
    rows = {source: _rows(conn, source, [one.id for one in found if one.source == source]) for source in _TABLES}
    authors = _names(conn, [*rows[EVENT].values(), *rows[RAN].values()])
    ran = outcomes(conn, rows[RAN].values(), leases.now_ms())
    shown = []
    for one in found:
        row = rows[one.source].get(one.id)
        if row is None:  # deleted since
            continue
        if one.source == EVENT:
            entry = _event(row, authors)
        elif one.source == RAN:
            entry = _run(row, ran[row.id], authors)
        else:
            entry = _alert(row, one.source)
        at = {"id": f"{one.source}-{one.id}", "at": clock.write_epoch(one.at_ms / 1000)}
        shown.append(at | entry | {"group_id": groups.get(entry["list_id"])})
    return shown


def _newest(conn: Connection, wanted: TimelineFilter) -> list[Any]:
    """When, where and by which id the entries are recorded."""
    upto = wanted.offset + wanted.limit if wanted.limit else 0
    parts = []
    for source, at, table, conditions in _sources(wanted):
        at_ms = at * 1000 if at is run_log.c.started_s else at
        part = select(at_ms.label("at_ms"), literal_column(f"'{source}'").label("source"), table.c.id.label("id"))
        part = part.where(*conditions).order_by(at.desc(), table.c.id.desc())  # as the indexes are ordered
        parts.append(select((part.limit(upto) if upto else part).subquery()))
    if not parts:
        return []
    merged = union_all(*parts).subquery()
    ordered: Select[Any] = select(merged).order_by(merged.c.at_ms.desc(), merged.c.source, merged.c.id.desc())
    return list(conn.execute(ordered.limit(wanted.limit or 2**31).offset(wanted.offset)))


def _sources(wanted: TimelineFilter) -> Iterator[tuple[str, Column[int], Table, list[ColumnElement[bool]]]]:
    """Where entries are recorded: the column of their time, the table, and what selects those wanted."""
    kinds, list_id = wanted.kinds or KINDS, wanted.list_id
    recorded = [kind for kind in kinds if kind not in (RUN, ALERT)]
    if recorded:
        mine = [event.c.list_id == list_id] if list_id is not None else []
        mine += [event.c.kind.in_(recorded)] if wanted.kinds else []
        yield EVENT, event.c.at_ms, event, [*mine, *_between(event.c.at_ms, wanted)]
    if RUN in kinds:
        mine = [run_log.c.list_id == list_id] if list_id is not None else []
        yield RAN, run_log.c.started_s, run_log, [*mine, *_between(run_log.c.started_s, wanted, ms=1)]
    if ALERT in kinds:
        mine = [_is_about(list_id)] if list_id is not None else []
        yield BEGAN, alert.c.began_ms, alert, [*mine, *_between(alert.c.began_ms, wanted)]
        yield ENDED, alert.c.ended_ms, alert, [*mine, alert.c.ended_ms > 0, *_between(alert.c.ended_ms, wanted)]


def _between(at: Column[int], wanted: TimelineFilter, *, ms: int = 1000) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        conditions.append(at >= int(wanted.since.timestamp() * ms))
    if wanted.before is not None:
        conditions.append(at < int(wanted.before.timestamp() * ms))
    return conditions


def _is_about(list_id: str) -> ColumnElement[bool]:
    """Whether an alert's code (`checks`) is of this audience: ``mailchimpsyncLate:LIST``, or that and a detail."""
    named = alert.c.code.startswith("mailchimpsync")
    ends = alert.c.code.endswith(f":{list_id}", autoescape=True)
    return named & or_(ends, alert.c.code.contains(f":{list_id}:", autoescape=True))


def _rows(conn: Connection, source: str, ids: list[int]) -> dict[int, Row[Any]]:
    table = _TABLES[source]
    return {row.id: row for row in conn.execute(select(table).where(in_list(table.c.id, ids)))} if ids else {}


def _names(conn: Connection, rows: Iterable[Row[Any]]) -> dict[int, str]:
    """The names of the contacts that did it."""
    ids = sorted({row.contact_id for row in rows if row.contact_id is not None})
    if not ids:
        return {}
    found = conn.execute(select(contact.c.id, contact.c.display_name).where(in_list(contact.c.id, ids)))
    return {row.id: row.display_name or "" for row in found}


def _event(row: Row[Any], names: Mapping[int, str]) -> dict[str, Any]:
    return _entry(row.list_id, row.kind, row.sentence) | _by(row, names)


def _by(row: Row[Any], names: Mapping[int, str]) -> dict[str, Any]:
    if row.contact_id is not None:
        called = names.get(row.contact_id) or f"contact {row.contact_id}"
    else:
        called = _AUTHORS.get(row.author or "", row.author or "")
    return {"by": called, "contact_id": row.contact_id}


def _run(row: Row[Any], outcome: str, names: Mapping[int, str]) -> dict[str, Any]:
    said = _RUNS.get(outcome, f"The sync ended: {outcome}")
    if row.undoes is not None:
        said = said.replace("sync", f"undo of run {row.undoes}", 1)
    if row.ended_s is not None and outcome != "crashed":
        said += f" after {max(0, row.ended_s - row.started_s):,} s"
    sentence = f"{said}: {row.error}" if row.error else f"{said}."
    return _entry(row.list_id, RUN, sentence) | _by(row, names) | {"run_id": row.id, "outcome": outcome}


def _alert(row: Row[Any], source: str) -> dict[str, Any]:
    mended = "Mended: " if source == ENDED else ""
    entry = _entry(audience_of(row.code), ALERT, f"{mended}{row.sentence}")
    return entry | {"alert_id": row.id, "severity": row.severity}


def _entry(list_id: str, kind: str, sentence: str) -> dict[str, Any]:
    return {
        "list_id": list_id,
        "kind": kind,
        "sentence": sentence,
        "by": "",
        "contact_id": None,
        "run_id": None,
        "outcome": "",
        "alert_id": None,
        "severity": "",
    }
