"""Build the API with the store, the Mailchimp clients and the sync that it needs, and close all in reverse order.

Servers, the command line, the demo and tests use it; services of a server are in ``civiapi/server/lifecycle.py``.
"""

import math
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from civiapi import logs
from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth
from civiapi.metrics import Metrics
from civiapi.settings import Settings
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.live_columns import absent_columns
from civiapi.store.schema.migrations import migrate
from entities import catalogue
from sync.connections.clients import Clients
from sync.context import UnitSizes
from sync.service import SyncService

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """The open components."""

    settings: Settings
    store: Store
    clients: Clients
    sync: SyncService
    api: Api
    auth: Auth
    metrics: Metrics


@asynccontextmanager
async def open_app(
    settings: Settings, *, sizes: UnitSizes | None = None, for_callers: bool = False
) -> AsyncIterator[App]:
    """Open the database, bring its schema up to date, and build the API over it. Raises ``StoreError``.

    *sizes*: how much a unit of a sync's work takes, where that is not to be the default. *for_callers*: the calls come
    from others, so that they have the deadline of the settings and are limited at once.
    """
    logs.set_up(settings.log, sys.stderr)
    async with AsyncExitStack() as stack:
        store = await open_store(settings.database.url, settings.database.timezone)
        stack.push_async_callback(store.close)
        if applied := await migrate(store):
            log.info("upgraded the database schema", migrations=applied)
        metrics = Metrics()
        mailchimp = settings.mailchimp
        clients = Clients(
            base_url=mailchimp.base_url, max_connections=mailchimp.max_connections, on_call=metrics.count_mailchimp
        )
        stack.push_async_callback(clients.close)
        sync = SyncService(store, clients, settings, on_stage=metrics.count_stage, sizes=sizes)
        stack.push_async_callback(sync.close)
        call_seconds = settings.server.call_seconds if for_callers else math.inf
        api = Api(
            store,
            catalogue(await store.read(absent_columns)),
            sync,
            metrics.count_call,
            max_chained=settings.server.max_chained,
            call_seconds=call_seconds,
        )
        server = settings.server
        auth = Auth(store, server.site_key, settings.users, signing_secret=server.signing_secret)
        yield App(settings, store, clients, sync, api, auth, metrics)
