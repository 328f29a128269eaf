"""Start and stop the services of an open app: HTTP, batch watcher, webhook inbox, scheduler.

``serving`` runs the services of the configured role (the demo and tests use it too); ``serve_app`` runs a whole server,
``serve_pipe`` the pipe.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from aiohttp import web

from civiapi.alerts.channels import channels_of
from civiapi.alerts.watch import AlertWatch
from civiapi.app import App, open_app
from civiapi.endpoints import health
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.endpoints.metrics import AllowedNetworks, metrics_page
from civiapi.endpoints.pipe import run_pipe
from civiapi.endpoints.routes import make_runner, make_web_app, make_worker_app
from civiapi.http.messages import HttpPolicy
from civiapi.runtime.forced_exit import end_process_later
from civiapi.server.process import tune_malloc, tune_process
from civiapi.server.scheduler import Scheduler
from civiapi.server.slow_clients import drop_slow_clients
from civiapi.settings import WEB, WORKER, Settings
from civiapi.store.databases.dialect import is_damaged
from civiapi.store.errors import StoreUnusable
from civiapi.ui.routes import redirect_home, ui_pages
from entities.site import system_checks
from sync.context import UnitSizes

CORRUPT = "The database cannot be used: it is corrupt. Restore a backup; civiapi check lists the defects."

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address is in use, not local, or invalid."""


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[None]:
    """In the block, run the services of the role: answer calls and pages; watch batches, process webhooks, run jobs.

    Raises ``CannotListen``.
    """
    at_end: list[Callable[[], None]] = [app.sync.wind_down]
    async with AsyncExitStack() as stack:
        server = app.settings.server
        if server.role != WEB:
            await app.sync.start()
            stack.push_async_callback(app.sync.stop)
        if server.role != WEB and app.settings.scheduler.enabled:
            tick_seconds = app.settings.scheduler.tick_seconds
            beside = (alert_watch(app).check, app.sync.clean_up_daily)
            scheduler = Scheduler(app.api, app.store, tick_seconds=tick_seconds, beside=beside)
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


def alert_watch(app: App) -> AlertWatch:
    """What notices the problems of ``System.check``, and sends alerts about them."""
    find = partial(system_checks.find, quiet=app.sync.quiet)
    return AlertWatch(app.store, app.settings, find, channels_of(app.settings.alerts))


@asynccontextmanager
async def _listening(app: App) -> AsyncIterator[None]:
    server = app.settings.server
    allowed = AllowedNetworks(server.metrics_from, server.trusted_proxies)
    monitoring = {"/metrics": metrics_page(app.metrics, app.store, app.sync.get_health, allowed)}
    if server.role == WORKER:
        app_served = make_worker_app(monitoring)
    else:
        monitoring[health.PATH] = health.health_page(app.sync.get_health, app.auth, HttpPolicy.of(server), allowed)
        webhooks = webhook_endpoints(app.store, app.sync, app.auth.throttle)
        pages = ui_pages(app.auth, app.api, server, sync=app.settings.sync)
        app_served = make_web_app(
            app.api, app.auth, server, more=webhooks, pages=pages, home=redirect_home, monitoring=monitoring
        )
    runner = make_runner(app_served, idle_seconds=server.idle_seconds)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, server.host, server.port, reuse_address=True).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise CannotListen(f"{server.host}:{server.port} cannot be listened at: {reason}.") from error
        async with drop_slow_clients(runner, answer_seconds=server.answer_seconds):
            yield
    finally:
        await runner.cleanup()


async def serve_app(
    settings: Settings, *, sizes: UnitSizes | None = None, on_serving: Callable[[Settings], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; then finish requests, commit and stop. *sizes* is as for ``open_app``.

    *on_serving* is called once calls are answered.
    """
    tune_malloc()  # before there are threads
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, _stop, stopping)
    async with open_app(settings, sizes=sizes, for_callers=True) as app:
        if await app.store.read(is_damaged):
            raise StoreUnusable(CORRUPT)
        tune_process()
        async with serving(app):
            if on_serving is not None:
                on_serving(settings)
            await stopping.wait()
            log.info("stopping")


def _stop(stopping: asyncio.Event) -> None:
    stopping.set()
    end_process_later()


async def serve_pipe(settings: Settings) -> None:
    """Run CiviCRM's pipe protocol on standard input and output until the input ends."""
    async with open_app(settings) as app:
        reader = asyncio.StreamReader(limit=settings.server.max_body)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
        await run_pipe(app.api, app.auth, reader, asyncio.StreamWriter(transport, protocol, None, loop))
