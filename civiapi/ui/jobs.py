"""Scheduled jobs at ``/civicrm/mailchimpsync/jobs``: when each ran and runs next, how often, run it now, and its log.

CiviCRM's own addresses for them (``/civicrm/admin/job``, ``/civicrm/admin/joblog``) lead here too.
"""

from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from civiapi.ui.visit import CallFailed, Visit

PATH = "/civicrm/mailchimpsync/jobs"
LOG = f"{PATH}/log"
CIVICRM_PATH = "/civicrm/admin/job"
CIVICRM_LOG = "/civicrm/admin/joblog"
PERMISSION = "administer CiviCRM"
LOG_PAGE = 50
BLANK = dict.fromkeys(  # the API leaves out what is empty
    ("name", "description", "parameters", "run_frequency", "last_run", "last_run_end", "scheduled_run_date", "data"), ""
)

DONE = {
    "saved": "The job was saved.",
    "enabled": "The job is switched on and runs when it is due.",
    "disabled": "The job is switched off. It runs only when you run it.",
    "ran": "The job was run. What it said stands below.",
}


async def index(visit: Visit) -> web.Response:
    """Every job."""
    return await _show(visit)


async def change(visit: Visit) -> web.Response:
    """A posted form: ``do`` is ``run``, ``save``, ``enable`` or ``disable``, of the job ``id``."""
    job_id, do = visit.field("id"), visit.field("do")
    try:
        if do == "run":
            await visit.ask("Job", "execute", {"id": job_id})
            done = "ran"
        elif do in ("enable", "disable"):
            await visit.ask("Job", "create", {"id": job_id, "is_active": int(do == "enable")})
            done = f"{do}d"
        elif do == "save":
            given = {name: visit.field(name) for name in ("run_frequency", "parameters", "scheduled_run_date")}
            given["parameters"] = given["parameters"].replace("\r\n", "\n")
            given["scheduled_run_date"] = given["scheduled_run_date"].replace("T", " ")
            await visit.ask("Job", "create", {"id": job_id, **given})
            done = "saved"
        else:
            return await _show(visit, wrong="This form is not one of ours.", status=400)
    except CallFailed as failed:
        return await _show(visit, wrong=failed.message, status=422)
    return visit.go(f"{PATH}?{urlencode({'done': done, 'id': job_id})}#job-{job_id}")


async def log(visit: Visit) -> web.Response:
    """What jobs said, newest first; of one job with ``id`` (CiviCRM's link says ``jid``), before entry ``before``."""
    job_id = visit.field("id") or visit.field("jid")
    asked: dict[str, Any] = {"sequential": 1, "options": {"limit": LOG_PAGE + 1, "sort": "id DESC"}}
    if job_id:
        asked["job_id"] = job_id
    if before := visit.field("before"):
        asked["id"] = {"<": before}
    entries = [BLANK | one for one in (await visit.ask("JobLog", "get", asked))["values"]]
    more = entries[LOG_PAGE - 1]["id"] if len(entries) > LOG_PAGE else None
    named = await visit.ask("Job", "get", {"sequential": 1, "options": {"limit": 0}, "return": ["id", "name"]})
    context = {"entries": entries[:LOG_PAGE], "more": more, "job_id": job_id, "before": before, "jobs": named["values"]}
    return visit.show("jobs_log.html", **context)


async def _show(visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
    found = (await visit.ask("Job", "get", {"sequential": 1, "options": {"limit": 0, "sort": "name"}}))["values"]
    schedule = (await visit.ask("Job", "getschedule", {"sequential": 1}))["values"]
    last = {one["id"]: await _last_entry(visit, one["id"]) for one in found}
    return visit.show(
        "jobs.html",
        status,
        jobs=[BLANK | one for one in found],
        schedule={str(one["id"]): one for one in schedule},
        last=last,
        frequencies=(await visit.ask("Job", "getoptions", {"field": "run_frequency"}))["values"],
        wrong=wrong,
        done=DONE.get(visit.field("done"), "") if visit.incoming.is_get else "",
        changed=visit.field("id"),
        log=LOG,
    )


async def _last_entry(visit: Visit, job_id: str) -> dict[str, Any] | None:
    asked = {"job_id": job_id, "sequential": 1, "options": {"limit": 1, "sort": "id DESC"}}
    found = (await visit.ask("JobLog", "get", asked))["values"]
    return found[0] if found else None


ROUTES = (
    ("GET", PATH, index),
    ("POST", PATH, change),
    ("GET", LOG, log),
    ("GET", CIVICRM_PATH, index),
    ("POST", CIVICRM_PATH, change),
    ("GET", CIVICRM_LOG, log),
)
