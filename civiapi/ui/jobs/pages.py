"""Scheduled jobs at ``/civicrm/mailchimpsync/jobs``: schedule, last and next run, "run now", and the log.

CiviCRM's own paths (``/civicrm/admin/job``, ``/civicrm/admin/joblog``) show the same pages.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.core.page import CallFailed, PageRequest
from sync.reports.timeline import BY_JOB

PATH = "/civicrm/mailchimpsync/jobs"
LOG = f"{PATH}/log"
CIVICRM_PATH = "/civicrm/admin/job"
CIVICRM_LOG = "/civicrm/admin/joblog"
PERMISSION = "administer CiviCRM"
LOG_PAGE = 50
LOOK_BACK = 20
"""Older entries that are read besides, because the entry with which a job starts is before the one that ends it."""
STARTS, ENDS = "Starting execution of ", ("Finished execution of ", "Error while executing ")
SYNC = "mailchimpsync.fetchandreconcile"

DONE = {
    "saved": "The job was saved.",
    "enabled": "The job is enabled and runs when it is due.",
    "disabled": "The job is disabled. It runs only when you start it.",
    "ran": "The job has run; its result is shown below.",
}


def title_of(job: Mapping[str, Any]) -> str:
    """What a job is called: by its own name, unless that only repeats the API call of the sync."""
    call = f"{job['api_entity']}.{job['api_action']}".lower()
    if call == SYNC and str(job["name"]).lower().startswith("call "):
        return f"{job['run_frequency'] or ''} Mailchimp sync".strip()
    return str(job["name"] or call)


async def change(page: PageRequest) -> web.Response:
    """A posted form: ``do`` is ``run``, ``save``, ``enable`` or ``disable``, of the job ``id``."""
    job_id, do = page.field("id"), page.field("do")
    try:
        if do == "run":
            await page.call_api("Job", "execute", {"id": job_id})
            done = "ran"
        elif do in ("enable", "disable"):
            await page.call_api("Job", "create", {"id": job_id, "is_active": int(do == "enable")})
            done = f"{do}d"
        elif do == "save":
            given = {name: page.field(name) for name in ("run_frequency", "parameters", "scheduled_run_date")}
            given["parameters"] = given["parameters"].replace("\r\n", "\n")
            given["scheduled_run_date"] = given["scheduled_run_date"].replace("T", " ")
            await page.call_api("Job", "create", {"id": job_id, **given})
            done = "saved"
        else:
            return await index(page, wrong="Unknown action.", status=400)
    except CallFailed as failed:
        return await index(page, wrong=failed.message, status=422)
    return page.redirect(f"{PATH}?{urlencode({'done': done, 'id': job_id})}#job-{job_id}")


async def log(page: PageRequest) -> web.Response:
    """The job log, newest first; of one job with ``id`` (CiviCRM's links have ``jid``), before entry ``before``."""
    job_id = page.field("id") or page.field("jid")
    asked: dict[str, Any] = {"options": {"limit": LOG_PAGE + LOOK_BACK, "sort": "id DESC"}}
    if job_id:
        asked["job_id"] = job_id
    if before := page.field("before"):
        asked["id"] = {"<": before}
    entries = await page.rows("JobLog", asked)
    more = entries[LOG_PAGE - 1]["id"] if len(entries) > LOG_PAGE else None
    jobs = await page.rows("Job", {"options": {"limit": 0}})
    context: dict[str, Any] = {
        "entries": entries[:LOG_PAGE],
        "runs": await _runs_of(page, entries),
        "more": more,
        "job_id": job_id,
        "before": before,
        "jobs": jobs,
        "title": title_of,
    }
    return page.render("jobs/log.html", **context)


async def _runs_of(page: PageRequest, entries: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The runs that sync jobs made, by the id of the log entry that ends the job: those that jobs asked for and that
    began while it ran."""
    spans: dict[str, tuple[str, str]] = {}
    for place, entry in enumerate(entries):
        if _is_sync(entry) and entry["description"].startswith(ENDS):
            before = (one for one in entries[place + 1 :] if one["job_id"] == entry["job_id"])
            start = next((one for one in before if one["description"].startswith(STARTS)), None)
            if start is not None:
                spans[entry["id"]] = start["run_time"], entry["run_time"]
    if not spans:
        return {}
    since, last = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    asked = {"kind": "run", "since": since, "before": str(datetime.fromisoformat(last) + timedelta(seconds=1))}
    ran = await page.api_values("Mailchimpsync", "gettimeline", {**asked, "options": {"limit": 0}})
    return {
        key: [one for one in reversed(ran) if one["by"] == BY_JOB and start <= one["at"] <= end]
        for key, (start, end) in spans.items()
    }


def _is_sync(entry: Mapping[str, Any]) -> bool:
    """Whether a log entry is of a job that syncs."""
    return all(part in (entry["command"] or "").lower() for part in SYNC.split("."))


async def index(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """Every job that runs here, not those of a CiviCRM's other domains; *wrong*: the message of a form that failed."""
    every = await page.rows("Job", {"options": {"limit": 0, "sort": "name"}})
    schedule = {str(one["id"]): one for one in await page.api_values("Job", "getschedule", {"sequential": 1})}
    found = [one for one in every if one["id"] in schedule]
    last = {one["id"]: await _last_entry(page, one["id"]) for one in found}
    return page.render(
        "jobs/index.html",
        status,
        jobs=found,
        schedule=schedule,
        last=last,
        frequencies=await page.api_values("Job", "getoptions", {"field": "run_frequency"}),
        wrong=wrong,
        done=DONE.get(page.field("done"), "") if page.incoming.is_get else "",
        changed=page.field("id"),
        log=LOG,
        title=title_of,
    )


async def _last_entry(page: PageRequest, job_id: str) -> dict[str, Any] | None:
    asked = {"job_id": job_id, "options": {"limit": 1, "sort": "id DESC"}}
    found = await page.rows("JobLog", asked)
    return found[0] if found else None


ROUTES = (
    ("GET", PATH, index),
    ("POST", PATH, change),
    ("GET", LOG, log),
    ("GET", CIVICRM_PATH, index),
    ("POST", CIVICRM_PATH, change),
    ("GET", CIVICRM_LOG, log),
)
