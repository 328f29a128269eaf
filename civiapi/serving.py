"""What runs by itself over an open app, until the process is told to stop: HTTP, batch watcher, inbox, scheduler.

``serving`` starts what the role says and stops it again; ``serve_app`` is a server's whole life, ``serve_pipe`` that of
the pipe. The demo and tests borrow ``serving``.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiohttp import web

from civiapi.adapters.metrics import Readers, metrics_page
from civiapi.adapters.pipe import run_pipe
from civiapi.adapters.schedule import Scheduler
from civiapi.adapters.webhooks import webhook_ways
from civiapi.app import App, open_app
from civiapi.lastresort import end_process_later
from civiapi.process import give_memory_back, settle_in
from civiapi.settings import WEB, WORKER, Settings
from civiapi.slow_readers import letting_go
from civiapi.store.dialect import is_damaged
from civiapi.store.errors import StoreUnusable
from civiapi.ui.pages import lead_home, ui_pages
from civiapi.web import make_runner, make_web_app, make_worker_app

CORRUPT = "The database cannot be used: it is corrupt. Restore a backup; civiapi check says what it finds."

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be listened at: taken, not ours, or none at all."""


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
    async with open_app(settings) as app:
        reader = asyncio.StreamReader(limit=settings.server.max_body)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        await run_pipe(app.api, app.auth, reader, asyncio.StreamWriter(transport, protocol, None, loop))
