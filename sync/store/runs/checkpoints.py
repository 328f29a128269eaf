"""How far a sync of an audience has got: its stage, the cursor within the stage, its log and its parameters.

Two rows: ``civicrm_mailchimpsync_status`` as the extension has it (PHP-serialized: lastSyncTime, locks, log, fetch),
and ``civiapi_run`` with what is ours alone. A stage loads the checkpoint inside its unit, moves it and saves it with
the rows it describes.

``locks.fetchAndReconcile`` is the lock that the extension goes by. While a run of ours holds the lease it is ``busy``,
so that the extension leaves the audience alone; at rest it is a stage that the extension 1.0 knows. Our own stage is in
``civiapi_run``, and counts while the newest line of the log is the one that we left: otherwise the extension has worked
since. A ``busy`` that is not ours is the extension at work, or killed at work (``sync/leases.py`` says which).
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, insert, select

from civiapi.store.clock import SiteClock
from civiapi.store.databases.dialect import upsert
from civiapi.store.text.php import BadSerial, dump_php, load_php
from sync.audience import Privacy
from sync.store.tables import cache
from sync.store.tables import run as run_table
from sync.store.tables import status as status_table

STAGES = (
    "readyToFetch",
    "readyToFixContactIds",
    "readyToCreateNewContactsFromMailchimp",
    "readyToProcessEmailChanges",
    "readyToCleanUpDuplicates",
    "readyToAddCiviOnly",
    "readyToCheckForGroupChanges",
    "readyToCheckForDataUpdates",
    "readyToReconcileQueue",
    "readyToSubmitUpdates",
)
STAGE_TITLES = dict(
    zip(
        STAGES,
        (
            "Fetch members", "Match contacts", "Create contacts", "Change addresses", "Remove duplicates",
            "Add group members", "Find changes", "Check tags", "Reconcile", "Send updates",
        ),
        strict=True,
    )
)  # fmt: skip
"""What people call each stage."""

READY_TO_FETCH = STAGES[0]
LOCK = "fetchAndReconcile"
LOG_KEPT = 100
CLOCK_TOLERANCE = timedelta(days=1)
BUSY = "busy"
BUSY_ENTRY = "Called but locks say process already busy."
"""How the log line of a call begins that found others at work: it reports no work."""

UNKNOWN_TO_EXTENSION = {
    "readyToProcessEmailChanges": "readyToCleanUpDuplicates",
    "readyToCheckForDataUpdates": "readyToReconcileQueue",
}
"""Stages that the extension 1.0 ends at with an error, and the next one that it knows, stored in their place."""

Cursor = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunParameters:
    """What the present run does, stored (as ``question``) so that a process that continues it does the same.

    `since`: Mailchimp's changes after this moment (UTC seconds since 1970), None for everything. `serial` numbers full
    fetches. `started` and `server_started`: the fetch's start by our clock and by Mailchimp's. `contacts_since`:
    contacts modified from then on are looked at (None: all). `skew`: Mailchimp's clock minus ours, seconds.
    `history_upto` is the last history row of this run, `history_mark` up to where none can be missing any more.
    `confirmed`: a person confirmed whatever it removes or adds; `confirmed_data`: what it changes of merge fields.
    `continued`: the ``fetch`` of the extension's that it goes on with.
    """

    since: int | None = None
    with_data: bool = False
    serial: int = 0
    started: int = 0
    server_started: int | None = None
    contacts_since: int | None = None
    skew: int = 0
    history_upto: int = 0
    history_mark: int = 0
    confirmed: bool = False
    confirmed_data: bool = False
    continued: dict[str, Any] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it fetches everything."""
        return self.since is None


@dataclass(slots=True)
class Checkpoint:
    """The state of an audience's sync. `parameters` is None between runs; `cursor` is None at the start of a stage.

    `history_id` is the watermark of CiviCRM's history, `last_started` when the last finished run began (UTC seconds),
    `interests` which were linked then, `privacy` what became then of contacts that CiviMail would not mail.
    `progress` is for `sync/runs/progress.py`: how much of each stage is done.
    `brake`: why it stopped before reconciling (`sync/runs/brake.py`), None while it may continue.
    """

    list_id: str
    stage: str = READY_TO_FETCH
    cursor: Cursor | None = None
    history_id: int = 0
    parameters: RunParameters | None = None
    last_started: int | None = None
    serial: int = 0
    interests: dict[str, int] = field(default_factory=dict)
    privacy: str = Privacy.KEEP
    progress: dict[str, Any] = field(default_factory=dict)
    brake: dict[str, Any] | None = None
    last_sync_time: str | None = None
    log: list[dict[str, str]] = field(default_factory=list)
    fetch: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    is_held: bool = False
    """Whether a run of ours holds the lease, or was killed while it did: the lock is ours."""
    is_held_elsewhere: bool = False
    """Whether the extension holds the lock, or was killed while it did."""
    repeats_fetch: bool = False
    """Whether the extension was killed at work, so that its last fetch goes on or is done again."""
    is_waiting: bool | None = None
    """Whether nobody has started the first sync yet; None while that is not stored (`waits_for_first_sync` says so)."""

    @property
    def is_under_way(self) -> bool:
        """Whether a sync has begun and not ended."""
        return self.stage != READY_TO_FETCH or self.parameters is not None or self.is_fetching

    def last_sync(self, clock: SiteClock, now: datetime) -> datetime | None:
        """When the last sync began, aware; None where there was none, or where it is yet to come at *now* (aware): a
        clock was wrong, and whatever changes until then would be missed."""
        last = clock.read(self.last_sync_time)
        return last if last is not None and last < now + CLOCK_TOLERANCE else None

    @property
    def newest_entry(self) -> dict[str, str] | None:
        """The newest line of the log that reports work."""
        return next((one for one in reversed(self.log) if not one["message"].startswith(BUSY_ENTRY)), None)

    @property
    def is_fetching(self) -> bool:
        """Whether a fetch has begun and is not complete, by the extension's own account."""
        offset = self.fetch.get("offset")
        return self.stage == READY_TO_FETCH and isinstance(offset, int) and offset > 0

    def add_log_line(self, time: str, message: str) -> None:
        """Add a line to the log, at site time *time*; only the last hundred are kept."""
        self.log = [*self.log, {"time": time, "message": message}][-LOG_KEPT:]

    def move_to(self, stage: str, cursor: Cursor | None = None) -> None:
        """Go to a stage, by default to its start."""
        self.stage = stage
        self.cursor = cursor

    def restart(self) -> None:
        """Reset stage, cursor, parameters and log; the time of the last sync and the history watermark stay."""
        self.move_to(READY_TO_FETCH)
        self.parameters = None
        self.progress = {}
        self.brake = None
        self.log = []
        self.fetch = {}
        self.is_held = self.is_held_elsewhere = self.repeats_fetch = False

    def as_status(self) -> dict[str, Any]:
        """The status as ``fetchandreconcile`` and ``getstatus`` show it."""
        return {
            "lastSyncTime": self.last_sync_time,
            "locks": {LOCK: BUSY if self.is_held_elsewhere else self.stage},
            "log": [dict(entry) for entry in self.log],
            "fetch": dict(self.fetch),
        }


_STATUS = select(status_table.c.data).where(status_table.c.list_id == bindparam("list_id"))
_LOCKED_STATUS = _STATUS.with_for_update()
_RUN = select(run_table).where(run_table.c.list_id == bindparam("list_id"))
"""Made once: a stage loads its checkpoint with every commit."""


def load(conn: Connection, list_id: str, *, for_update: bool = False) -> Checkpoint:
    """The checkpoint of an audience; that of one never run where there is none. *for_update* locks it on MariaDB."""
    checkpoint = Checkpoint(list_id)
    mine = {"list_id": list_id}
    blob = conn.execute(_LOCKED_STATUS if for_update else _STATUS, mine).scalar_one_or_none()
    if blob is not None:
        _read_status(checkpoint, blob)
    row = conn.execute(_RUN, mine).one_or_none()
    if row is not None:
        state = _json(row.state)
        cursor = _json(row.cursor)
        is_ours = _is_ours(checkpoint, state)
        if is_ours and checkpoint.is_held_elsewhere:
            checkpoint.is_held, checkpoint.is_held_elsewhere = True, False
            checkpoint.stage = state["stage"]
        elif is_ours and UNKNOWN_TO_EXTENSION.get(state.get("stage", "")) == checkpoint.stage:
            checkpoint.stage = state["stage"]
        if cursor.pop("stage", None) == checkpoint.stage and is_ours:  # else the extension has moved the stage
            checkpoint.cursor = cursor
        checkpoint.history_id = row.history_id
        checkpoint.repeats_fetch = bool(state.get("repeats_fetch"))
        checkpoint.last_started = state.get("last_started")
        checkpoint.serial = state.get("serial", 0)
        checkpoint.interests = state.get("interests") or {}
        checkpoint.privacy = state.get("privacy") or Privacy.KEEP
        checkpoint.progress = state.get("progress") or {}
        checkpoint.brake = state.get("brake") if is_ours else None
        asked = state.get("question") if is_ours else None
        checkpoint.parameters = RunParameters(**asked) if asked else None
        checkpoint.is_waiting = state.get("waiting") if is_ours else False
    return checkpoint


def waits_for_first_sync(conn: Connection, list_id: str) -> bool:
    """Whether a connection is new and nobody has started its first sync: the schedule leaves it alone.

    One that the extension has synced, or whose rows were there before us, is not new.
    """
    checkpoint = load(conn, list_id)
    if checkpoint.is_waiting is not None:
        return checkpoint.is_waiting
    if checkpoint.last_sync_time is not None or checkpoint.newest_entry is not None or checkpoint.is_under_way:
        return False
    rows = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id).limit(1)
    return conn.execute(rows).first() is None


def note_new(conn: Connection, list_id: str) -> None:
    """Store whether a connection waits for its first sync, before it gets rows otherwise; once."""
    if conn.execute(_RUN, {"list_id": list_id}).one_or_none() is None:
        newest = read_stored(conn, list_id).newest_entry
        state = {"waiting": waits_for_first_sync(conn, list_id), "newest": newest}
        conn.execute(insert(run_table).values(list_id=list_id, history_id=0, state=orjson.dumps(state).decode()))


def read_stored(conn: Connection, list_id: str) -> Checkpoint:
    """The checkpoint by the extension's table alone, where ours may not be yet."""
    checkpoint = Checkpoint(list_id)
    blob = conn.execute(_STATUS, {"list_id": list_id}).scalar_one_or_none()
    if blob is not None:
        _read_status(checkpoint, blob)
    return checkpoint


def lock(conn: Connection, list_id: str) -> None:
    """Keep bits of work on this audience's rows one after the other, until this transaction ends (MariaDB).

    A run's bits lock its checkpoint as they load it. Other code that gives rows other members calls this first: two
    that look before either wrote would each find the member missing.
    """
    conn.execute(select(status_table.c.list_id).where(status_table.c.list_id == list_id).with_for_update())


def save(conn: Connection, checkpoint: Checkpoint) -> None:
    """Store the checkpoint."""
    upsert(
        conn,
        status_table,
        [{"list_id": checkpoint.list_id, "data": _write_status(checkpoint)}],
        key=("list_id",),
        set_=("data",),
    )
    asked = checkpoint.parameters
    state = {
        "last_started": checkpoint.last_started,
        "serial": checkpoint.serial,
        "interests": checkpoint.interests,
        "privacy": checkpoint.privacy,
        "progress": checkpoint.progress,
        "brake": checkpoint.brake,
        "stage": checkpoint.stage,
        "held": checkpoint.is_held,
        "newest": checkpoint.newest_entry,
        "repeats_fetch": checkpoint.repeats_fetch,
        "waiting": checkpoint.is_waiting,
        "question": {name: getattr(asked, name) for name in RunParameters.__slots__} if asked else None,
    }
    cursor = None
    if checkpoint.cursor is not None:
        cursor = orjson.dumps({"stage": checkpoint.stage, **checkpoint.cursor}).decode()
    values = {
        "list_id": checkpoint.list_id,
        "history_id": checkpoint.history_id,
        "cursor": cursor,
        "state": orjson.dumps(state).decode(),
    }
    upsert(conn, run_table, [values], key=("list_id",), set_=("history_id", "cursor", "state"))


def _read_status(checkpoint: Checkpoint, blob: bytes) -> None:
    data = dict(_parse(bytes(blob)))
    locks = _map(data.pop("locks", None))
    stage = locks.get(LOCK)
    checkpoint.stage = stage if stage in STAGES else READY_TO_FETCH
    checkpoint.is_held_elsewhere = stage == BUSY
    last = data.pop("lastSyncTime", None)
    checkpoint.last_sync_time = last if isinstance(last, str) and last else None
    entries = _map(data.pop("log", None)).values()
    checkpoint.log = [
        {"time": str(entry.get("time") or ""), "message": str(entry.get("message") or "")}
        for entry in entries
        if isinstance(entry, dict)
    ]
    checkpoint.fetch = {str(key): value for key, value in _map(data.pop("fetch", None)).items()}
    checkpoint.others = {str(key): value for key, value in data.items()}


@lru_cache(maxsize=64)
def _parse(blob: bytes) -> dict[Any, Any]:
    """A status as stored, to be copied: a run reads with each commit what it wrote with the one before."""
    try:
        data = load_php(blob)
    except BadSerial:
        return {}
    return data if isinstance(data, dict) else {}


def _is_ours(checkpoint: Checkpoint, state: dict[str, Any]) -> bool:
    """Whether nobody has worked on the audience since we stored this state."""
    if "newest" not in state:  # stored by an earlier version, which never stored `busy`
        return not checkpoint.is_held_elsewhere
    held = bool(state.get("held"))
    return state["newest"] == checkpoint.newest_entry and held >= checkpoint.is_held_elsewhere


def _write_status(checkpoint: Checkpoint) -> bytes:
    is_busy = checkpoint.is_held or checkpoint.is_held_elsewhere
    lock = BUSY if is_busy else UNKNOWN_TO_EXTENSION.get(checkpoint.stage, checkpoint.stage)
    return dump_php({**checkpoint.others, **checkpoint.as_status(), "locks": {LOCK: lock}})


def _map(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _json(text: str | None) -> dict[str, Any]:
    found = orjson.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
