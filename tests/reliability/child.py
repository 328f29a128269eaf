"""A process that can be killed at any commit and around any remote call, and one that makes such processes fast.

``python -m tests.reliability.child`` loads the program once and then forks a process for each job it reads on standard
input (one JSON object a line), which takes milliseconds where a start takes a second. Of a job it knows the database,
where Mailchimp is, what to do (steps), and at which point to die or to stop. What is said on standard output, a JSON
object a line, comes from the forked process itself, the last line (``ended``) from its parent.

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
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import stamina
import time_machine
import typer
from httpx._transports import default
from sqlalchemy import Connection, Engine, create_engine

from civiapi.adapters.terminal import complete
from civiapi.app import App, open_app
from civiapi.call import Call
from civiapi.serving import serve_app
from civiapi.settings import (
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    SyncSettings,
    UserSettings,
)
from civiapi.store import engine as store_engine
from civiapi.store.engine import MariaStore, SqliteStore
from sync import engine, results
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.transport import Transport
from sync.stages import additions, addresses, changes, contacts, data, fetch, queue
from tests.program import ADMIN_KEY, SITE_KEY

COMMIT_BEFORE, COMMIT_AFTER = "before the commit", "after the commit"
CALL_BEFORE, CALL_SENT = "before sending", "sent, no answer yet"
CALL_LOST, CALL_AFTER = "answer lost", "after the answer"
KINDS = (COMMIT_BEFORE, COMMIT_AFTER, CALL_BEFORE, CALL_SENT, CALL_LOST, CALL_AFTER)

ROWS_A_BIT, ROWS_A_STATEMENT, MEMBERS_A_PAGE, RESULTS_A_CHUNK, OPERATIONS_A_BATCH = 10, 12, 8, 1, 2


def main() -> None:
    """Fork a process for each job until standard input ends."""
    use_small_bits()
    use_one_ssl_context()
    use_one_dialect()
    stamina.set_testing(True, attempts=2)
    put_hooks()
    asyncio.run(warm_up())
    gc.freeze()
    present.is_quiet = False
    say({"ready": os.getpid()})
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(live(job))
        _, status = os.waitpid(pid, 0)
        say({"ended": os.waitstatus_to_exitcode(status)})


def say(told: dict[str, Any]) -> None:
    """A line to whoever reads us, whole or not at all."""
    if not present.is_quiet:
        os.write(1, json.dumps(told).encode() + b"\n")


def use_small_bits() -> None:
    """A few members to a page, a few rows to a bit, so that every stage has several commits."""
    for module in (additions, addresses, changes, contacts, data, queue):
        for name, size in (("ROWS_A_BIT", ROWS_A_BIT), ("ROWS_A_STATEMENT", ROWS_A_STATEMENT)):
            if hasattr(module, name):
                setattr(module, name, size)
    fetch.ASKED_A_BIT = 1
    results.CHUNK = RESULTS_A_CHUNK
    whole = MailchimpClient.iter_member_pages
    MailchimpClient.iter_member_pages = partialmethod(whole, count=MEMBERS_A_PAGE)  # type: ignore[method-assign]


def use_one_ssl_context() -> None:
    """Load the certificates once for all processes; Mailchimp is spoken to without them here."""
    context = httpx.create_ssl_context()
    default.create_ssl_context = lambda **_: context  # type: ignore[attr-defined]


def use_one_dialect() -> None:
    """Let statements that one process compiled be ready in those forked from it: the cache goes by the dialect."""
    compiled: dict[Any, Any] = {}
    first = create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    first.connect().close()  # which is when it learns what SQLite can do
    dialect = first.dialect

    def shared(*args: Any, **kwargs: Any) -> Engine:
        made = create_engine(*args, **kwargs)
        made.dialect = dialect
        return made.execution_options(compiled_cache=compiled)

    store_engine.create_engine = shared  # type: ignore[attr-defined]


async def warm_up() -> None:
    """Do once, on a site of a few people, what will be done many times."""
    from tests.reliability import stands

    with tempfile.TemporaryDirectory() as folder, time_machine.travel(stands.NOON, tick=False) as clock:
        stand = await stands.a_stand(Path(folder), clock, stands.people_at_both_ends)
        async with stand.copy() as (path, emulator):
            emulator.turn(auto_batches=True)
            run = ["call", "Mailchimpsync", "fetchandreconcile", {"since": "ever", "with_data": 1}]
            quiet = {"database": f"sqlite:///{path}", "mailchimp": emulator.root_url, "quiet": True}
            await _work({**quiet, "steps": [run, ["settle", 10], run, ["settle", 10]]})


class Points:
    """Counts the points at which a process may die, and dies (or stops) at the one that was chosen."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.passed = 0
        self.stage = ""
        self._kill_at, self._freeze = job.get("kill_at"), job.get("freeze")
        self._tell = job.get("tell", False)

    def at(self, kind: str, what: str) -> None:
        self.passed += 1
        here = {"point": self.passed, "kind": kind, "what": what, "stage": self.stage}
        if self.passed == self._kill_at:
            say({"died": here})
            os.kill(os.getpid(), signal.SIGKILL)
        if self._freeze and all(str(here[key]).startswith(words) for key, words in self._freeze.items()):
            self._freeze = None
            say({"frozen": os.getpid(), **here})
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._tell:
            say({"passed": here})


@dataclass
class Present:
    """The job at hand."""

    points: Points
    is_quiet: bool = False


present = Present(Points({}))


def put_hooks() -> None:
    """Let every commit and every remote call pass by the present job's points."""
    for store in (SqliteStore, MariaStore):
        _hook_commits(store)
    _hook_calls()
    for name, work in engine._WORK.items():
        engine._WORK[name] = _marked(name, work)


def _hook_commits(store: Any) -> None:
    write = store.write

    async def watched(self: Any, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = getattr(fn, "__qualname__", str(fn))

        def unit(conn: Connection, *args_: Any, **kwargs_: Any) -> Any:
            result = fn(conn, *args_, **kwargs_)
            present.points.at(COMMIT_BEFORE, name)
            return result

        result = await write(self, unit, *args, **kwargs)
        present.points.at(COMMIT_AFTER, name)
        return result

    store.write = watched


def _hook_calls() -> None:
    handle, exchange = httpx.AsyncHTTPTransport.handle_async_request, Transport._exchange

    async def watched(self: Any, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {'/'.join(request.url.path.split('/')[2:])}"

        async def trace(event: str, info: Any) -> None:
            if event == "http11.receive_response_headers.started":
                present.points.at(CALL_SENT, name)

        present.points.at(CALL_BEFORE, name)
        before = request.extensions.get("trace")

        async def both(event: str, info: Any) -> None:
            if before is not None:
                await before(event, info)
            await trace(event, info)

        request.extensions["trace"] = both
        response = await handle(self, request)
        present.points.at(CALL_LOST, name)
        return response

    async def exchanged(self: Any, call: Any) -> httpx.Response:
        response = await exchange(self, call)
        present.points.at(CALL_AFTER, call.name)
        return response

    httpx.AsyncHTTPTransport.handle_async_request = watched  # type: ignore[method-assign]
    Transport._exchange = exchanged  # type: ignore[method-assign]


def _marked(name: str, work: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def marked(run: Any) -> None:
        present.points.stage = name
        await work(run)

    return marked


def serve(job: dict[str, Any]) -> int:
    """Be `civiapi serve`, under the limits of the job; the exit code."""
    present.is_quiet = True
    os.dup2(os.open(job["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    store_engine.BUSY_TIMEOUT_MS = 200
    if job.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], resource.RLIM_INFINITY))
    if job.get("uid"):
        os.setuid(job["uid"])
    try:
        complete(lambda: serve_app(settings_of(job)))
    except typer.Exit as ended:
        return ended.exit_code
    return 0


def live(job: dict[str, Any]) -> int:
    """Do one job in this process; the exit code."""
    say({"pid": os.getpid()})
    if "stderr" in job:
        return serve(job)
    try:
        if job.get("now"):
            with time_machine.travel(datetime.fromisoformat(job["now"]), tick=False):
                asyncio.run(_work(job))
        else:
            asyncio.run(_work(job))
    except BaseException as error:
        say({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})
        return 1
    return 0


async def _work(job: dict[str, Any]) -> None:
    present.is_quiet = job.get("quiet", False)
    async with open_app(settings_of(job)) as app:
        present.points = points = Points(job)
        for step in job["steps"]:
            points.stage = AROUND[step[0]]
            await STEPS[step[0]](app, *step[1:])
    say({"points": points.passed})


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
        log=LogSettings(level="error"),
    )


async def _call(app: App, entity: str, action: str, params: dict[str, Any]) -> None:
    say({"answer": await app.api.respond(Call(entity, action, params))})


async def _settle(app: App, seconds: float) -> None:
    say({"settled": await app.sync.settle(seconds=seconds)})


async def _webhook(app: App, fields: dict[str, Any]) -> None:
    await app.sync.receive_audience_webhook(fields)
    say({"kept": fields["type"]})


async def _in_turn(app: App, params: dict[str, Any]) -> None:
    """A run as soon as nobody else holds the audience."""
    while True:
        [done] = await app.sync.fetch_and_reconcile(**params)
        log = done["status"]["log"]
        if not log or log[-1]["message"] != engine.BUSY_TEXT:
            break
        say({"busy": True})
        await asyncio.sleep(0.1)
    say({"log": [entry["message"] for entry in log]})


AROUND = {
    "in turn": "around a run",
    "call": "around a run",
    "settle": "results and what follows",
    "webhook": "receiving a webhook",
}
"""What is being done outside the stages of a run."""

STEPS: dict[str, Callable[..., Awaitable[None]]] = {
    "call": _call,
    "settle": _settle,
    "webhook": _webhook,
    "in turn": _in_turn,
}

if __name__ == "__main__":
    main()
