"""The one place that builds things and wires them together, and takes them down in reverse.

``open_app`` opens what answers calls (store, clients, sync, API); ``serving`` adds what runs by itself (HTTP, batch
watcher, webhook inbox, scheduler). The command line, the demo and tests borrow both.
"""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from aiohttp import web

from civiapi import logs
from civiapi.adapters.schedule import Scheduler
from civiapi.adapters.webhooks import webhook_ways
from civiapi.auth import Auth
from civiapi.dispatch import Api
from civiapi.lastresort import end_process_later
from civiapi.metrics import Metrics, Readers, metrics_page
from civiapi.settings import WEB, WORKER, Settings
from civiapi.slow_readers import letting_go
from civiapi.store.dialect import is_damaged
from civiapi.store.engine import Store, open_store
from civiapi.store.errors import StoreUnusable
from civiapi.store.migrate import migrate
from civiapi.ui.pages import lead_home, ui_pages
from civiapi.web import make_runner, make_web_app, make_worker_app
from entities import catalogue
from sync.clients import Clients
from sync.context import SyncOptions
from sync.mailchimp.transport import trusted_authorities
from sync.service import SyncService

CORRUPT = "The database cannot be used: it is corrupt. Restore a backup; civiapi check says what it finds."

SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another waits for it; Python's own 5 ms is felt by every caller."""

M_MMAP_THRESHOLD = -3  # of GNU's malloc.h
LARGE_BYTES = 1_048_576

MOST_FILES = 1_048_576
"""Open files and connections we ask for, where the system sets no limit of its own."""

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be listened at: taken, not ours, or none at all."""


@dataclass(frozen=True, slots=True)
class App:
    """What answers calls, open."""

    settings: Settings
    store: Store
    clients: Clients
    sync: SyncService
    api: Api
    auth: Auth
    metrics: Metrics


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[App]:
    """Open the database, bring its schema up to date, and build the API over it. Raises ``StoreError``."""
    logs.set_up(settings.log, sys.stderr)
    async with AsyncExitStack() as stack:
        store = await open_store(settings.database.url, settings.database.timezone)
        stack.push_async_callback(store.close)
        made = await migrate(store)
        if made:
            log.info("the schema was brought up to date", made=made)
        metrics = Metrics()
        mailchimp, base_url = settings.mailchimp, settings.server.base_url
        clients = Clients(
            base_url=mailchimp.base_url,
            max_connections=mailchimp.max_connections,
            on_call=metrics.count_mailchimp,
        )
        stack.push_async_callback(clients.close)
        sync = SyncService(store, clients, _options(settings), base_url=base_url, on_stage=metrics.count_stage)
        stack.push_async_callback(sync.close)
        api = Api(store, catalogue(), sync, metrics.count_call, max_chained=settings.server.max_chained)
        yield App(settings, store, clients, sync, api, Auth(store, settings.server.site_key, settings.users), metrics)


def _options(settings: Settings) -> SyncOptions:
    sync, mailchimp = settings.sync, settings.mailchimp
    return SyncOptions(
        overlap_seconds=sync.overlap_seconds,
        claim_seconds=sync.claim_seconds,
        heartbeat_seconds=min(sync.heartbeat_seconds, sync.claim_seconds / 3),  # in time, whatever was set
        fetch_parallel=sync.fetch_parallel,
        respect_privacy=sync.respect_privacy,
        brake_percent=sync.brake_percent,
        brake_people=sync.brake_people,
        brake_additions=sync.brake_additions,
        batch_size=mailchimp.batch_size,
        poll_seconds=mailchimp.poll_seconds,
    )


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[None]:
    """Do what the role says until left: answer calls and pages, or watch batches, work on webhooks and run jobs.

    Raises ``CannotListen``.
    """
    at_end: list[Callable[[], None]] = [app.sync.wind_down]
    async with AsyncExitStack() as stack:
        server = app.settings.server
        if server.role != WEB:
            await app.sync.start()
            stack.push_async_callback(app.sync.stop)
        if server.role != WEB and app.settings.scheduler.enabled:
            scheduler = Scheduler(app.api, app.store, tick_seconds=app.settings.scheduler.tick_seconds)
            await scheduler.start()
            stack.push_async_callback(scheduler.stop)
            at_end.append(scheduler.wind_down)
        if server.role != WORKER or server.port:
            await stack.enter_async_context(_listening(app))
        log.info("serving", role=server.role, host=server.host, port=server.port)
        try:
            yield
        finally:
            for wind_down in at_end:
                wind_down()


@asynccontextmanager
async def _listening(app: App) -> AsyncIterator[None]:
    server = app.settings.server
    show_metrics = metrics_page(app.metrics, app.store, Readers(server.metrics_from, server.trusted_proxies))
    if server.role == WORKER:
        app_served = make_worker_app(show_metrics)
    else:
        ways = webhook_ways(app.store, app.sync)
        pages = ui_pages(app.auth, app.api, server)
        app_served = make_web_app(
            app.api, app.auth, server, more=ways, pages=pages, home=lead_home, metrics=show_metrics
        )
    runner = make_runner(app_served, idle_seconds=server.idle_seconds)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, server.host, server.port, reuse_address=True).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise CannotListen(f"{server.host}:{server.port} cannot be listened at: {reason}.") from error
        async with letting_go(runner, answer_seconds=server.answer_seconds):
            yield
    finally:
        await runner.cleanup()


def settle_in() -> None:
    """Make a process that is to run for long, or to do much, run well: once, when everything is imported.

    What is there by now stays, so the garbage collector need not look it through again and again (a sixth of the time
    of a large sync). A thread at work on the database hands over sooner to the one that answers calls. Whom TLS trusts
    is read now, and not while somebody waits for an answer. As many may be connected as the system lets us have: a
    thousand idle ones, where it lets us have more, would shut everyone out.
    """
    trusted_authorities()
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_S)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def give_memory_back() -> None:
    """Have large pieces of memory given back as soon as they are done with.

    Left to itself GNU's malloc keeps them once it has seen a few: bodies as large as we read weighed 20 MB more at the
    peak (measured).
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


async def serve_app(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish requests, commit and stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, _stop, stopping)
    async with open_app(settings) as app:
        if await app.store.read(is_damaged):
            raise StoreUnusable(CORRUPT)
        settle_in()
        give_memory_back()
        async with serving(app):
            await stopping.wait()
            log.info("stopping")


def _stop(stopping: asyncio.Event) -> None:
    stopping.set()
    end_process_later()


async def serve_pipe(settings: Settings) -> None:
    """Speak CiviCRM's pipe protocol on standard input and output until the input ends."""
    from civiapi.adapters.pipe import run_pipe

    async with open_app(settings) as app:
        reader = asyncio.StreamReader(limit=settings.server.max_body)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        await run_pipe(app.api, app.auth, reader, asyncio.StreamWriter(transport, protocol, None, loop))
