"""The connections of groups with audiences as the status pages show them, read by API calls made as the user.

Combines the answers into text; computes nothing that a call does not answer. Keys and webhook secrets, which the
configuration holds, are not passed on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from civiapi.runtime.wording import many
from civiapi.ui.config.model import group_titles, read_stored
from civiapi.ui.core.page import PageRequest
from civiapi.ui.jobs.pages import title_of
from civiapi.ui.status.problems import Problem, of_failed_sync
from sync.reports.checks import audience_of
from sync.reports.health import UNHEALTHY, Health
from sync.store.balance import MANY
from sync.store.runs.checkpoints import STAGE_TITLES

PEOPLE = "/civicrm/mailchimpsync/people"
REST = "readyToFetch"
BUSY = "busy"
ALERTS_SHOWN = 100
WAITING = "Nothing is changed on either side until you start the first sync. The schedule passes it over until then."
NO_HOOK = "A webhook is missing at Mailchimp. Set it up in Connections."
UNMAILABLE = {
    "opted_out": "opted out",
    "deceased": "deceased",
    "do_not_email": "do not email",
    "in_trash": "contact in the trash",
}


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """The state of a connection: a label, its colour, and a sentence that explains it."""

    label: str
    tone: str
    sentence: str


@dataclass(frozen=True, slots=True)
class SyncSchedule:
    """The job that syncs a connection, and its next run (site time)."""

    job: str = ""
    next_run: str = ""
    is_due: bool = False
    is_active: bool = False


@dataclass(slots=True)
class ConnectionView:
    """A group, the audience linked with it, and the state of their sync."""

    list_id: str
    group_id: str
    group: str
    audience: str
    account: str
    status: dict[str, Any]
    progress: dict[str, Any]
    schedule: SyncSchedule
    runs: list[dict[str, Any]] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)

    @property
    def stats(self) -> dict[str, Any]:
        """The counts of people on both sides, by name."""
        found: dict[str, Any] = self.status["stats"]
        return found

    @property
    def brake(self) -> dict[str, Any] | None:
        """The brake of a stopped run, if it is on."""
        return self.status.get("brake") or None

    @property
    def unmailable(self) -> str:
        """Why CiviCRM would not mail some of the members in the audience, with numbers."""
        counts = self.status["not_to_be_mailed"]
        return ", ".join(f"{counts[key]:,} {label}" for key, label in UNMAILABLE.items() if counts[key])

    @property
    def one_way(self) -> dict[str, Any] | None:
        """What is known of the smart group that is the source of a connection that is one way."""
        return self.status["one_way"] or None

    @property
    def arrow(self) -> str:
        """The sign between group and audience."""
        return "→" if self.one_way else "⇄"

    @property
    def campaigns(self) -> dict[str, Any] | None:
        """The last import of campaigns, if there was one."""
        return self.status["campaigns"] or None

    @property
    def is_running(self) -> bool:
        """Whether a process syncs it at this moment."""
        return bool(self.progress["running"])

    @property
    def is_waiting(self) -> bool:
        """Whether the schedule passes it over until somebody starts the first sync."""
        return bool(self.status["waiting"])

    @property
    def failures(self) -> int:
        """How many people failed."""
        return int(self.stats["cannot_subscribe"]) + int(self.stats["other_fails"])

    @property
    def problem(self) -> Problem | None:
        """Why the last run failed, if it did."""
        text = str(self.status["stopped"] or "")
        return of_failed_sync(text) if text else None

    @property
    def last_sync(self) -> str:
        """When the last sync that finished ended (site time); that of CiviCRM's extension began then."""
        return str(self.status["last_finished"] or self.status["lastSyncTime"] or "")

    @property
    def was_ever_synced(self) -> bool:
        """Whether a sync has finished."""
        return self.status["lastSyncTime"] is not None

    @property
    def was_ever_run(self) -> bool:
        """Whether a sync has begun."""
        return self.was_ever_synced or bool(self.status["log"])

    @property
    def stage(self) -> str:
        """The title of the current stage."""
        stage = str(self.progress["stage"])
        return STAGE_TITLES.get(stage, stage)

    @property
    def is_under_way(self) -> bool:
        """Whether a sync has begun and not ended, running now or paused."""
        return self.is_running or self.progress["stage"] != REST or self.progress["done"] > 0

    @property
    def state(self) -> ConnectionState:
        """What its card shows: label, tone and sentence."""
        return _state(self)

    @property
    def health(self) -> ConnectionState:
        """The health in one word; the reason where neither ``state`` nor the time of the last sync says it."""
        health = self.status["health"]
        is_said = health["state"] in (Health.HEALTHY, Health.RUNNING, Health.FAILED) or self.brake or self.is_waiting
        tone = "bad" if health["state"] in UNHEALTHY else ""
        why = NO_HOOK if health["why"] == self.status["webhooks"]["why"] else str(health["why"])
        return ConnectionState(str(health["state"]), tone, "" if is_said else why)

    def people(self, **sought: str | int) -> str:
        """The URL of the people of this audience that match."""
        return f"{PEOPLE}?{urlencode({'list_id': self.list_id, **sought})}"


def _state(one: ConnectionView) -> ConnectionState:
    """The most urgent state."""
    if one.brake and not one.is_running:
        return ConnectionState("stopped by the brake", "warn", describe_brake(one.brake))
    if one.status["crashed"]:
        return ConnectionState("crashed?", "bad", str(one.status["crashed"]))
    if one.is_running:
        return ConnectionState("running", "busy", f"Current step: {one.stage}.")
    if one.status["locks"]["fetchAndReconcile"] == BUSY:
        return ConnectionState("running in CiviCRM", "busy", "CiviCRM's own extension is at work on this audience.")
    if one.problem is not None:
        return ConnectionState("failed", "bad", f"{one.problem.what} {one.problem.at_risk}")
    if one.is_waiting:
        return ConnectionState("waiting for your first sync", "warn", WAITING)
    if not one.was_ever_run:
        return ConnectionState("never run", "", "Never synced. Preview the first sync to see what it would do.")
    if one.is_under_way:
        return ConnectionState("paused", "warn", f"Stopped before “{one.stage}”; the next run continues there.")
    at_mailchimp = one.stats["subscribed_at_mailchimp"]
    if one.status["in_sync"]:
        return ConnectionState("in sync", "good", f"In sync: {many(at_mailchimp, 'person', 'people')}.")
    pending = one.stats["mailchimp_updates_pending"]
    if pending:
        is_or_are = "is" if pending == 1 else "are"
        return ConnectionState("sending", "busy", f"{many(pending, 'update')} {is_or_are} in flight to Mailchimp.")
    in_group = one.stats["subscribed_at_civicrm"]
    sentence = f"{at_mailchimp:,} at Mailchimp, {in_group:,} in the group; the next sync reconciles what differs."
    return ConnectionState("not in sync", "warn", sentence)


def describe_brake(brake: Mapping[str, Any]) -> str:
    """What a braked sync would have done, and that it did nothing, without the API's instructions."""
    sentence = str(brake.get("sentence") or "")
    would = sentence.partition("would ")[2].partition(". ")[0]
    does = f"This sync would {would}" if would else "This sync would change more people than the limit allows"
    return f"{does}. It stopped before any change and waits for your decision."


async def read_connections(page: PageRequest) -> list[ConnectionView]:
    """All connections, sorted by group title. Raises ``CallFailed``."""
    statuses = await page.api_values("Mailchimpsync", "getstatus", {"health": 1})
    if not statuses:
        return []
    stored = await read_stored(page)
    progress = await page.api_values("Mailchimpsync", "getprogress")
    statuses = {list_id: one for list_id, one in statuses.items() if list_id in progress}  # not removed meanwhile
    known = {list_id: stored.find_audience(list_id) for list_id in statuses}
    group_ids = {list_id: str(progress[list_id]["group_id"]) for list_id in statuses}
    titles = await group_titles(page, group_ids.values())
    schedules = await _schedules(page)
    found = []
    for list_id, status in statuses.items():
        group_id, account_and_audience = group_ids[list_id], known[list_id]
        found.append(
            ConnectionView(
                list_id,
                group_id,
                titles.get(group_id, f"Group {group_id} (deleted)"),
                account_and_audience[1].name if account_and_audience else list_id,
                account_and_audience[0].name if account_and_audience else "",
                status,
                progress[list_id],
                _first([schedules[key] for key in (group_id, "") if key in schedules]),
            )
        )
    return sorted(found, key=lambda one: one.group.casefold())


async def find_connection(page: PageRequest, list_id: str) -> ConnectionView | None:
    """The connection of this audience."""
    return next((one for one in await read_connections(page) if one.list_id == list_id), None)


async def read_alerts(page: PageRequest, found: list[ConnectionView]) -> list[dict[str, Any]]:
    """The open alerts, the newest first, each with the ``connection`` that it is about, if it is about one."""
    asked = {"sequential": 1, "options": {"limit": ALERTS_SHOWN}}
    latest = await page.api_values("Mailchimpsync", "getalerts", asked)
    known = {one.list_id: one for one in found}
    return [one | {"connection": known.get(audience_of(one["code"]))} for one in latest if not one["ended"]]


async def read_failures(page: PageRequest, one: ConnectionView) -> list[dict[str, Any]]:
    """The failures of a connection by cause; none where there are too many to be counted for a page."""
    if not 0 < one.failures <= MANY:
        return []
    asked = {"group_id": one.group_id, "sequential": 1}
    found: list[dict[str, Any]] = list(await page.api_values("Mailchimpsync", "getfailures", asked))
    return found


async def _schedules(page: PageRequest) -> dict[str, SyncSchedule]:
    """The earliest schedule by group id; under ``""`` that of the job that syncs all groups."""
    asked = {"api_entity": "Mailchimpsync", "options": {"limit": 0}}
    jobs = [one for one in await page.rows("Job", asked) if _is_sync(one)]
    times = {str(one["id"]): one for one in await page.api_values("Job", "getschedule", {"sequential": 1})}
    found: dict[str, SyncSchedule] = {}
    for job in jobs:
        when = times.get(str(job["id"])) or {}
        active = str(job.get("is_active")) == "1"
        schedule = SyncSchedule(title_of(job), when.get("next_run") or "", bool(when.get("is_due")), active)
        group = _group_of(job)
        found[group] = _first([found.get(group, schedule), schedule])
    return found


def _first(schedules: list[SyncSchedule]) -> SyncSchedule:
    """The earliest one; disabled ones last."""
    return min(schedules, key=lambda one: (not one.is_active, one.next_run or "never"), default=SyncSchedule())


def _is_sync(job: dict[str, Any]) -> bool:
    return str(job.get("api_action") or "").lower() == "fetchandreconcile"


def _group_of(job: dict[str, Any]) -> str:
    lines = (line.partition("=") for line in str(job.get("parameters") or "").splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "group_id"), "")


async def read_runs(page: PageRequest, group_id: str, limit: int) -> list[dict[str, Any]]:
    """The latest runs, newest first."""
    asked = {"group_id": group_id, "sequential": 1, "options": {"limit": limit}}
    found: list[dict[str, Any]] = list(await page.api_values("Mailchimpsync", "getruns", asked))
    return found
