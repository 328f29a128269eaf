"""The one place that builds what answers calls (store, clients, sync, API), and takes it down in reverse.

The command line, the demo and tests borrow it. What runs by itself beside it is in ``civiapi/serving.py``.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog

from civiapi import logs
from civiapi.auth import Auth
from civiapi.dispatch import Api
from civiapi.metrics import Metrics
from civiapi.settings import Settings
from civiapi.store.engine import Store, open_store
from civiapi.store.migrate import migrate
from entities import catalogue
from sync.clients import Clients
from sync.context import SyncOptions
from sync.service import SyncService

log = structlog.get_logger(__name__)


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
