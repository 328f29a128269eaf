"""A process that can be killed at any commit and around any remote call, and one that makes such processes fast.

``python -m tests.reliability.crash.child`` loads the program once and then forks a process for each job it reads on
standard input (one JSON object a line), which takes milliseconds where a start takes a second. Of a job it knows the
database, where Mailchimp is, what to do (steps), and at which point to die or to stop. What is said on standard output,
a JSON object a line, comes from the forked process itself, the last line (``ended``) from its parent.

The hooks are put here into the store and the HTTP client; the program knows nothing of them.
"""

import asyncio
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import stamina
import time_machine
import typer
from httpx._transports import default
from sqlalchemy import Connection
from structlog.contextvars import get_contextvars

from civiapi.api.call import Call
from civiapi.app import App, open_app
from civiapi.cli.common import complete
from civiapi.metrics import Metrics
from civiapi.server.lifecycle import alert_watch, serve_app
from civiapi.settings import (
    AlertSettings,
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    SyncSettings,
    UserSettings,
)
from civiapi.store.databases import sqlite as sqlite_store
from civiapi.store.databases.mariadb import MariaStore
from civiapi.store.databases.sqlite import SqliteStore
from sync.context import UnitSizes
from sync.mailchimp.transport import CallRecord
from sync.runs.engine import BUSY_TEXT
from tests.support.processes import ADMIN_KEY, SITE_KEY

COMMIT_BEFORE, COMMIT_AFTER = "before the commit", "after the commit"
CALL_BEFORE, CALL_SENT = "before sending", "sent, no answer yet"
CALL_LOST, CALL_AFTER = "answer lost", "after the answer"
KINDS = (COMMIT_BEFORE, COMMIT_AFTER, CALL_BEFORE, CALL_SENT, CALL_LOST, CALL_AFTER)

OPERATIONS_A_BATCH = 2
SIZES = UnitSizes(
    rows_per_unit=10,
    scanned_rows_per_unit=12,
    members_per_page=8,
    members_per_lookup=1,
    results_per_unit=1,
)
"""So small that every stage has several commits."""


def main() -> None:
    """Fork a process for each job until standard input ends."""
    use_one_ssl_context()
    stamina.set_testing(True, attempts=2)
    install_hooks()
    asyncio.run(warm_up())
    gc.freeze()
    current.is_quiet = False
    report({"ready": os.getpid()})
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(run_job(job))
        _, status = os.waitpid(pid, 0)
        report({"ended": os.waitstatus_to_exitcode(status)})


def report(output: dict[str, Any]) -> None:
    """Write a line to the parent, whole or not at all."""
    if not current.is_quiet:
        os.write(1, json.dumps(output).encode() + b"\n")


def use_one_ssl_context() -> None:
    """Load the certificates once for all processes; the emulator needs none."""
    context = httpx.create_ssl_context()
    default.create_ssl_context = lambda **_: context  # type: ignore[attr-defined]


async def warm_up() -> None:
    """Run a sync of a few people once, so that later ones start with warm caches."""
    from tests.reliability.crash import scenarios
    from tests.support import databases

    with tempfile.TemporaryDirectory() as folder, time_machine.travel(scenarios.NOON, tick=False) as clock:
        prepared = await scenarios.prepare_site(Path(folder), clock, scenarios.people_at_both_ends)
        async with prepared.copy() as (url, emulator):
            emulator.configure(auto_batches=True)
            run = ["call", "Mailchimpsync", "fetchandreconcile", {"since": "ever", "with_data": 1}]
            quiet = {"database": url, "mailchimp": emulator.root_url, "quiet": True}
            await _work({**quiet, "steps": [run, ["settle", 10], run, ["settle", 10]]})
    databases.drop_all()


class Points:
    """Counts the points at which a process may die, and dies (or stops) at the one that was chosen."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.passed = 0
        self.around = ""
        self._kill_at, self._freeze = job.get("kill_at"), job.get("freeze")
        self._tell = job.get("tell", False)

    def at(self, kind: str, what: str, stage: str | None) -> None:
        self.passed += 1
        here = {"point": self.passed, "kind": kind, "what": what, "stage": stage or self.around}
        if self.passed == self._kill_at:
            report({"died": here})
            os.kill(os.getpid(), signal.SIGKILL)
        if self._freeze and all(str(here[key]).startswith(words) for key, words in self._freeze.items()):
            self._freeze = None
            report({"frozen": os.getpid(), **here})
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._tell:
            report({"passed": here})


@dataclass
class CurrentJob:
    """The job at hand."""

    points: Points
    is_quiet: bool = False


current = CurrentJob(Points({}))


def stage_of_run() -> str | None:
    """The stage that the present task is in, by what a run binds to its log lines; None outside a run's stages."""
    return get_contextvars().get("stage")


def install_hooks() -> None:
    """Make every commit and every remote call a point of the present job."""
    for store in (SqliteStore, MariaStore):
        _hook_commits(store)
    _hook_calls()


def _hook_commits(store: Any) -> None:
    write = store.write

    async def watched(self: Any, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name, stage = getattr(fn, "__qualname__", str(fn)), stage_of_run()

        def unit(conn: Connection, *args_: Any, **kwargs_: Any) -> Any:
            result = fn(conn, *args_, **kwargs_)
            current.points.at(COMMIT_BEFORE, name, stage)
            return result

        result = await write(self, unit, *args, **kwargs)
        current.points.at(COMMIT_AFTER, name, stage)
        return result

    store.write = watched


def _hook_calls() -> None:
    handle, count = httpx.AsyncHTTPTransport.handle_async_request, Metrics.count_mailchimp

    async def watched(self: Any, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {'/'.join(request.url.path.split('/')[2:])}"

        async def trace(event: str, info: Any) -> None:
            if event == "http11.receive_response_headers.started":
                current.points.at(CALL_SENT, name, stage_of_run())

        current.points.at(CALL_BEFORE, name, stage_of_run())
        before = request.extensions.get("trace")

        async def both(event: str, info: Any) -> None:
            if before is not None:
                await before(event, info)
            await trace(event, info)

        request.extensions["trace"] = both
        response = await handle(self, request)
        current.points.at(CALL_LOST, name, stage_of_run())
        return response

    def counted(self: Metrics, call: CallRecord) -> None:
        if call.status is not None:
            current.points.at(CALL_AFTER, f"{call.method} {call.route}", stage_of_run())
        count(self, call)

    httpx.AsyncHTTPTransport.handle_async_request = watched  # type: ignore[method-assign]
    Metrics.count_mailchimp = counted  # type: ignore[method-assign]


def serve(job: dict[str, Any]) -> int:
    """Run `civiapi serve` under the limits of the job; returns the exit code."""
    current.is_quiet = True
    os.dup2(os.open(job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sqlite_store.BUSY_TIMEOUT_MS = 200
    if job.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
    if job.get("uid"):
        os.setuid(job["uid"])
    try:
        complete(lambda: serve_app(settings_of(job), sizes=SIZES))
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def run_job(job: dict[str, Any]) -> int:
    """Do one job in this process; the exit code."""
    report({"pid": os.getpid()})
    if "stderr" in job:
        return serve(job)
    try:
        if job.get("now"):
            with time_machine.travel(datetime.fromisoformat(job["now"]), tick=False):
                asyncio.run(_work(job))
        else:
            asyncio.run(_work(job))
    except BaseException as error:
        report({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})
        return 1
    return 0


async def _work(job: dict[str, Any]) -> None:
    current.is_quiet = job.get("quiet", False)
    async with open_app(settings_of(job), sizes=SIZES) as app:
        current.points = points = Points(job)
        for step in job["steps"]:
            points.around = AROUND[step[0]]
            await STEPS[step[0]](app, *step[1:])
    report({"points": points.passed})


def settings_of(job: dict[str, Any]) -> Settings:
    return Settings(
        server=ServerSettings(
            port=job.get("port", 0), site_key=SITE_KEY, base_url=f"http://127.0.0.1:{job.get('port', 0)}"
        ),
        users=(UserSettings("admin", ADMIN_KEY, frozenset({"*"})),),
        database=DatabaseSettings(url=job["database"]),
        mailchimp=MailchimpSettings(
            base_url=job["mailchimp"], batch_size=job.get("batch_size", OPERATIONS_A_BATCH), poll_seconds=0.05
        ),
        sync=SyncSettings(
            claim_seconds=job.get("claim_seconds", 120), heartbeat_seconds=job.get("heartbeat_seconds", 30)
        ),
        scheduler=SchedulerSettings(enabled=False),
        alerts=AlertSettings(webhook_url=job.get("alerts_to", "")),
        log=LogSettings(level="error"),
    )


async def _call(app: App, entity: str, action: str, params: dict[str, Any]) -> None:
    report({"answer": await app.api.respond(Call(entity, action, params))})


async def _settle(app: App, seconds: float) -> None:
    report({"settled": await app.sync.wait_until_idle(seconds=seconds)})


async def _webhook(app: App, fields: dict[str, Any]) -> None:
    await app.sync.receive_audience_webhook(fields)
    report({"kept": fields["type"]})


async def _in_turn(app: App, params: dict[str, Any]) -> None:
    """A run as soon as nobody else holds the audience."""
    while True:
        [done] = await app.sync.fetch_and_reconcile(**params)
        log = done["status"]["log"]
        if not log or log[-1]["message"] != BUSY_TEXT:
            break
        report({"busy": True})
        await asyncio.sleep(0.1)
    report({"log": [entry["message"] for entry in log]})


async def _alerts(app: App) -> None:
    """What the scheduler does about alerts at a tick."""
    await alert_watch(app).check()
    report({"checked": "alerts"})


AROUND = {
    "alerts": "noting and sending alerts",
    "in turn": "around a run",
    "call": "around a run",
    "settle": "results and what follows",
    "webhook": "receiving a webhook",
}
"""The name of what is done outside the stages of a run."""

STEPS: dict[str, Callable[..., Awaitable[None]]] = {
    "call": _call,
    "settle": _settle,
    "webhook": _webhook,
    "in turn": _in_turn,
    "alerts": _alerts,
}

if __name__ == "__main__":
    main()
