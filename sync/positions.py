"""How far a sync of an audience has got: its stage, its place in the stage, its log, and the question it answers.

Two rows: ``civicrm_mailchimpsync_status`` as the extension has it (PHP-serialized: lastSyncTime, locks, log, fetch),
and ``civiapi_run`` with what is ours alone. A stage loads a position inside its unit, moves it and saves it with the
rows it describes. ``locks.fetchAndReconcile`` holds the stage; ``busy`` is never stored, it is what callers are shown
while a claim lives.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
import phpserialize
from sqlalchemy import Connection, bindparam, select

from civiapi.store.dialect import upsert
from sync.tables import run as run_table
from sync.tables import status as status_table

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
READY_TO_FETCH = STAGES[0]
LOCK = "fetchAndReconcile"
LOG_KEPT = 100

Cursor = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What the present run was asked, kept so that whoever continues it answers the same.

    `since`: Mailchimp's changes after this moment (UTC seconds since 1970), None for everything. `serial` numbers full
    fetches. `started` and `server_started`: the fetch's start by our clock and by Mailchimp's. `contacts_since`:
    contacts modified from then on are looked at (None: all). `skew`: Mailchimp's clock minus ours, seconds.
    `history_upto` is the last history row of this run, `history_mark` up to where none can be missing any more.
    `confirmed`: a person has said yes to whatever it takes away.
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

    @property
    def is_full(self) -> bool:
        """True when everything was asked for."""
        return self.since is None


@dataclass(slots=True)
class Position:
    """Where an audience stands. `question` is None between runs; `cursor` is None at the start of a stage.

    `history_id` is the watermark of CiviCRM's history, `last_started` when the last finished run began (UTC seconds),
    `interests` which were linked then. `progress` is for `sync/progress.py`: how much of each stage is done.
    `brake`: why it stopped before reconciling (`sync/brake.py`), None while it is free to go on.
    """

    list_id: str
    stage: str = READY_TO_FETCH
    cursor: Cursor | None = None
    history_id: int = 0
    question: Question | None = None
    last_started: int | None = None
    serial: int = 0
    interests: dict[str, int] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    brake: dict[str, Any] | None = None
    last_sync_time: str | None = None
    log: list[dict[str, str]] = field(default_factory=list)
    fetch: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)

    def say(self, time: str, message: str) -> None:
        """Add a line to the log, at site time *time*; only the last hundred are kept."""
        self.log = [*self.log, {"time": time, "message": message}][-LOG_KEPT:]

    def move_to(self, stage: str, cursor: Cursor | None = None) -> None:
        """Go to a stage, by default to its start."""
        self.stage = stage
        self.cursor = cursor

    def restart(self) -> None:
        """Forget stage, place, question and log; what was synced when, and what history was read, stays."""
        self.move_to(READY_TO_FETCH)
        self.question = None
        self.progress = {}
        self.brake = None
        self.log = []
        self.fetch = {}

    def as_status(self) -> dict[str, Any]:
        """The status as ``fetchandreconcile`` and ``getstatus`` show it."""
        return {
            "lastSyncTime": self.last_sync_time,
            "locks": {LOCK: self.stage},
            "log": [dict(entry) for entry in self.log],
            "fetch": dict(self.fetch),
        }


_STATUS = select(status_table.c.data).where(status_table.c.list_id == bindparam("list_id"))
_LOCKED_STATUS = _STATUS.with_for_update()
_RUN = select(run_table).where(run_table.c.list_id == bindparam("list_id"))
"""Made once: a stage loads its position with every commit."""


def load(conn: Connection, list_id: str, *, for_update: bool = False) -> Position:
    """The position of an audience; that of one never run where there is none. *for_update* locks it on MariaDB."""
    position = Position(list_id)
    mine = {"list_id": list_id}
    blob = conn.execute(_LOCKED_STATUS if for_update else _STATUS, mine).scalar_one_or_none()
    if blob is not None:
        _read_status(position, blob)
    row = conn.execute(_RUN, mine).one_or_none()
    if row is not None:
        state = _json(row.state)
        cursor = _json(row.cursor)
        if cursor.pop("stage", None) == position.stage:  # the extension may have moved the stage in between
            position.cursor = cursor
        position.history_id = row.history_id
        position.last_started = state.get("last_started")
        position.serial = state.get("serial", 0)
        position.interests = state.get("interests") or {}
        position.progress = state.get("progress") or {}
        position.brake = state.get("brake")
        asked = state.get("question")
        position.question = Question(**asked) if asked else None
    return position


def find_stage(conn: Connection, list_id: str) -> str:
    """The stage an audience stands at by the extension's table alone, where ours may not be yet."""
    position = Position(list_id)
    blob = conn.execute(select(status_table.c.data).where(status_table.c.list_id == list_id)).scalar_one_or_none()
    if blob is not None:
        _read_status(position, blob)
    return position.stage


def lock(conn: Connection, list_id: str) -> None:
    """Keep bits of work on this audience's rows one after the other, until this transaction ends (MariaDB).

    A run's bits lock its position as they load it. Whoever else gives rows other members calls this first: two that
    look before either wrote would each find the member missing.
    """
    conn.execute(select(status_table.c.list_id).where(status_table.c.list_id == list_id).with_for_update())


def save(conn: Connection, position: Position) -> None:
    """Store the position."""
    upsert(
        conn,
        status_table,
        [{"list_id": position.list_id, "data": _write_status(position)}],
        key=("list_id",),
        set_=("data",),
    )
    asked = position.question
    state = {
        "last_started": position.last_started,
        "serial": position.serial,
        "interests": position.interests,
        "progress": position.progress,
        "brake": position.brake,
        "question": {name: getattr(asked, name) for name in Question.__slots__} if asked else None,
    }
    cursor = None
    if position.cursor is not None:
        cursor = orjson.dumps({"stage": position.stage, **position.cursor}).decode()
    values = {
        "list_id": position.list_id,
        "history_id": position.history_id,
        "cursor": cursor,
        "state": orjson.dumps(state).decode(),
    }
    upsert(conn, run_table, [values], key=("list_id",), set_=("history_id", "cursor", "state"))


def _read_status(position: Position, blob: bytes) -> None:
    data = dict(_parse(bytes(blob)))
    locks = _map(data.pop("locks", None))
    stage = locks.get(LOCK)
    # The extension stores `busy` while it works. Only a claim makes us busy, so a stored one is a run that was killed.
    position.stage = stage if stage in STAGES else READY_TO_FETCH
    last = data.pop("lastSyncTime", None)
    position.last_sync_time = last if isinstance(last, str) and last else None
    entries = _map(data.pop("log", None)).values()
    position.log = [
        {"time": str(entry.get("time") or ""), "message": str(entry.get("message") or "")}
        for entry in entries
        if isinstance(entry, dict)
    ]
    position.fetch = {str(key): value for key, value in _map(data.pop("fetch", None)).items()}
    position.others = {str(key): value for key, value in data.items()}


@lru_cache(maxsize=64)
def _parse(blob: bytes) -> dict[Any, Any]:
    """A status as stored, to be copied: a run reads with each commit what it wrote with the one before."""
    try:
        data = phpserialize.loads(blob, decode_strings=True, errors="replace")
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def _write_status(position: Position) -> bytes:
    data = {**position.others, **position.as_status()}
    written: bytes = phpserialize.dumps(data, charset="utf-8", errors="surrogatepass")
    return written


def _map(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _json(text: str | None) -> dict[str, Any]:
    found = orjson.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
