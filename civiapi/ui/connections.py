"""The connections of groups with audiences as the status pages show them, gathered by API calls of the visitor's.

What each call answers is put side by side and into words here; nothing is worked out that a call could not tell.
Mailchimp's keys and the secrets in webhook addresses are in the configuration; none of them gets into what is shown.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from civiapi.ui.config_view import read_stored
from civiapi.ui.visit import Visit

PEOPLE = "/civicrm/mailchimpsync/people"
REST = "readyToFetch"
BUSY = "busy"
STAGE_TITLES = {
    "readyToFetch": "Fetch members",
    "readyToFixContactIds": "Match people",
    "readyToCreateNewContactsFromMailchimp": "Create contacts",
    "readyToProcessEmailChanges": "Change addresses",
    "readyToCleanUpDuplicates": "Tidy duplicates",
    "readyToAddCiviOnly": "Add the group",
    "readyToCheckForGroupChanges": "Find changes",
    "readyToCheckForDataUpdates": "Gather data",
    "readyToReconcileQueue": "Reconcile",
    "readyToSubmitUpdates": "Send updates",
}


@dataclass(frozen=True, slots=True)
class State:
    """How a connection stands: a word for it, its colour, and a sentence that says what it means."""

    word: str
    tone: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a connection is synced by itself: by which job, and when next (site time)."""

    job: str = ""
    next_run: str = ""
    is_due: bool = False
    is_active: bool = False


@dataclass(slots=True)
class Connection:
    """A group and the audience it is in step with, or not."""

    list_id: str
    group_id: str
    group: str
    audience: str
    account: str
    status: dict[str, Any]
    progress: dict[str, Any]
    schedule: Schedule
    runs: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status["stats"]
        return found

    @property
    def brake(self) -> dict[str, Any] | None:
        """What the brake says, where it is on."""
        return self.status.get("brake") or None

    @property
    def is_running(self) -> bool:
        return bool(self.progress["running"])

    @property
    def was_ever_synced(self) -> bool:
        return self.status["lastSyncTime"] is not None

    @property
    def was_ever_run(self) -> bool:
        return self.was_ever_synced or bool(self.status["log"])

    @property
    def stage(self) -> str:
        """The title of the stage it is at."""
        stage = str(self.progress["stage"])
        return STAGE_TITLES.get(stage, stage)

    @property
    def is_under_way(self) -> bool:
        """Whether a sync has begun and not ended, at work now or not."""
        return self.is_running or self.progress["stage"] != REST or self.progress["done"] > 0

    @property
    def state(self) -> State:
        return _state(self)

    def people(self, **sought: str) -> str:
        """The address of the people of this audience who stand so."""
        return f"{PEOPLE}?{urlencode({'list_id': self.list_id, **sought})}"


def _state(one: Connection) -> State:
    """The most pressing thing there is to say."""
    if one.brake and not one.is_running:
        return State("stopped by the brake", "warn", str(one.brake.get("sentence") or "The brake stopped the sync."))
    if one.status["crashed"]:
        return State("crashed?", "bad", str(one.status["crashed"]))
    if one.is_running:
        return State("running", "busy", f"At work: {one.stage}.")
    if one.status["stopped"]:
        return State("failed", "bad", str(one.status["stopped"]))
    if not one.was_ever_run:
        return State("never run", "", "No sync was ever run. Preview the first one to see what it would do.")
    if one.is_under_way:
        return State("paused", "warn", f"Stopped before “{one.stage}”; the next run continues there.")
    pending = one.stats["mailchimp_updates_pending"]
    if one.status["in_sync"]:
        return State("in sync", "good", "Both ends agree.")
    if pending:
        return State("sending", "busy", f"{pending:,} updates are on their way to Mailchimp.")
    return State("not in sync", "warn", "The ends differ; the next sync brings them into step.")


async def read_connections(visit: Visit) -> list[Connection]:
    """Every connection, by the name of its group. Raises ``CallFailed``."""
    statuses = await _values(visit, "Mailchimpsync", "getstatus", {"health": 1})
    if not statuses:
        return []
    stored = await read_stored(visit)
    progress = await _values(visit, "Mailchimpsync", "getprogress")
    statuses = {list_id: one for list_id, one in statuses.items() if list_id in progress}  # not removed in between
    known = {list_id: stored.find_audience(list_id) for list_id in statuses}
    group_ids = {list_id: str(progress[list_id]["group_id"]) for list_id in statuses}
    titles = await _group_titles(visit, sorted(set(group_ids.values()) - {""}))
    schedules = await _schedules(visit)
    found = []
    for list_id, status in statuses.items():
        group_id, account_and_audience = group_ids[list_id], known[list_id]
        found.append(
            Connection(
                list_id,
                group_id,
                titles.get(group_id, f"Group {group_id}, which is not there any more"),
                account_and_audience[1].name if account_and_audience else list_id,
                account_and_audience[0].name if account_and_audience else "",
                status,
                progress[list_id],
                _first([schedules[key] for key in (group_id, "") if key in schedules]),
            )
        )
    return sorted(found, key=lambda one: one.group.casefold())


async def find_connection(visit: Visit, list_id: str) -> Connection | None:
    """The connection of this audience."""
    return next((one for one in await read_connections(visit) if one.list_id == list_id), None)


async def _values(visit: Visit, entity: str, action: str, params: dict[str, Any] | None = None) -> Any:
    return (await visit.ask(entity, action, params))["values"]


async def _group_titles(visit: Visit, ids: list[str]) -> dict[str, str]:
    asked = {"id": {"IN": ids}, "return": ["id", "title"], "sequential": 1, "options": {"limit": 0}}
    found = await _values(visit, "Group", "get", asked) if ids else []
    return {str(one["id"]): str(one.get("title") or one["id"]) for one in found}


async def _schedules(visit: Visit) -> dict[str, Schedule]:
    """By group what syncs it, under ``""`` what syncs every group; of several the one that comes first."""
    asked = {"api_entity": "Mailchimpsync", "sequential": 1, "options": {"limit": 0}}
    jobs = [one for one in await _values(visit, "Job", "get", asked) if _is_sync(one)]
    times = {str(one["id"]): one for one in await _values(visit, "Job", "getschedule", {"sequential": 1})}
    found: dict[str, Schedule] = {}
    for job in jobs:
        when = times.get(str(job["id"])) or {}
        active = str(job.get("is_active")) == "1"
        schedule = Schedule(str(job["name"]), when.get("next_run") or "", bool(when.get("is_due")), active)
        group = _group_of(job)
        found[group] = _first([found.get(group, schedule), schedule])
    return found


def _first(schedules: list[Schedule]) -> Schedule:
    """The one that comes first; those that are switched off never do."""
    return min(schedules, key=lambda one: (not one.is_active, one.next_run or "never"), default=Schedule())


def _is_sync(job: dict[str, Any]) -> bool:
    return str(job.get("api_action") or "").lower() == "fetchandreconcile"


def _group_of(job: dict[str, Any]) -> str:
    lines = (line.partition("=") for line in str(job.get("parameters") or "").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "group_id"), "")


async def read_runs(visit: Visit, group_id: str, limit: int) -> list[dict[str, Any]]:
    """The latest runs, newest first."""
    asked = {"group_id": group_id, "sequential": 1, "options": {"limit": limit}}
    found: list[dict[str, Any]] = list(await _values(visit, "Mailchimpsync", "getruns", asked))
    return found
