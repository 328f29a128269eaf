"""Hands the database of a CiviCRM back to it and its mailchimpsync extension.

Afterwards no lease is held and no lock is ours, so that the extension goes on from every audience's stage; civiapi
refuses the database until it is adopted again. Its tables stay, and hold what the extension has no place for.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from urllib.parse import urlsplit

from sqlalchemy import Connection, func, select

from civiapi.settings import Settings
from civiapi.store import leases
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import is_civicrms, needs_adopting, schema
from sync.connections.clients import Clients
from sync.connections.config import Config, read_config
from sync.errors import BadConfig
from sync.leases import free_expired, hand_over
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import MailchimpError
from sync.model import SyncStatus
from sync.store.batches import unfinished
from sync.store.runs import checkpoints
from sync.store.runs.checkpoints import READY_TO_FETCH, UNKNOWN_TO_EXTENSION, Checkpoint
from sync.store.runs.data_due import forget_marks
from sync.store.sync_status import set_sync_status
from sync.store.tables import cache, status, update, update_detail
from sync.store.updates import overtake


class CannotRelease(Exception):
    """The database was not handed back; the text says why, and what to do."""


async def hand_back(settings: Settings) -> list[str]:
    """Hand the database in the settings back; returns what there is to say. Raises CannotRelease, StoreError."""
    store = await open_store(settings.database.url, settings.database.timezone)
    try:
        await store.read(_check)
        hooks = await _hooks(store, settings)
        lines = await store.write(_release)
    finally:
        await store.close()
    return [*lines, *hooks]


def _check(conn: Connection) -> None:
    if needs_adopting(conn):
        raise CannotRelease("Nothing to hand back: civiapi has not taken this database over.")
    if not is_civicrms(conn):
        raise CannotRelease("This database is civiapi's own; there is no CiviCRM to hand it back to.")
    if at_work := leases.held(conn, leases.now_ms()):
        name, holder = at_work[0]
        raise CannotRelease(
            f"civiapi is at work ({name} is held by {holder.removeprefix(leases.BRIEF)}). Stop every civiapi on this "
            "database first; what a killed one held ends by itself within a few minutes."
        )


def _release(conn: Connection) -> list[str]:
    _check(conn)
    free_expired(conn)
    lines = ["Handed back: no audience is held by civiapi, which refuses this database until it is adopted again."]
    for list_id in conn.execute(select(status.c.list_id).order_by(status.c.list_id)).scalars().all():
        checkpoint = checkpoints.load(conn, list_id, for_update=True)
        if not checkpoint.is_held_elsewhere:
            hand_over(conn, checkpoint)
        _complete_unsendable(conn, list_id)
        lines.append(f"Audience {list_id}: {_next(checkpoint)} {_left(conn, list_id)}")
    lines.append("Enable the extension's scheduled job in CiviCRM again. civiapi's tables (civiapi_…) may stay.")
    forget_marks(conn)
    schema.drop(conn)  # last: on MariaDB it commits
    return lines


def _complete_unsendable(conn: Connection, list_id: str) -> None:
    """Complete the waiting updates that are no member updates, the only ones that the extension sends.

    Their rows are ``todo``: the extension works out by itself what there is to do.
    """
    waiting = (
        select(update.c.id, cache.c.id.label("cache_id"))
        .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
        .join(update_detail, update_detail.c.update_id == update.c.id)
        .where(
            cache.c.mailchimp_list_id == list_id,
            update.c.completed == 0,
            update.c.mailchimpsync_batch_id.is_(None),
            update_detail.c.method != "PUT",
        )
    )
    rows = conn.execute(waiting).all()
    overtake(conn, [row.id for row in rows], "the database was handed back, and the extension decides again.")
    set_sync_status(conn, [row.cache_id for row in rows], SyncStatus.TODO)


def _next(checkpoint: Checkpoint) -> str:
    """What the extension does next."""
    if checkpoint.is_held_elsewhere:
        return "the extension holds its own lock, which force_restart frees."
    stage = UNKNOWN_TO_EXTENSION.get(checkpoint.stage, checkpoint.stage)
    if stage != READY_TO_FETCH:
        return f"the extension continues at {stage}."
    if checkpoint.is_fetching:
        return f"the extension continues its fetch at member {checkpoint.fetch['offset']}."
    last = checkpoint.last_sync_time
    return f"the extension fetches what changed since {last}, less two hours." if last else "the extension fetches all."


def _left(conn: Connection, list_id: str) -> str:
    """What it finds waiting."""
    of_list = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id)
    open_updates = select(func.count()).where(update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(of_list))
    waiting = conn.execute(open_updates.where(update.c.mailchimpsync_batch_id.is_(None))).scalar_one()
    batches = len(unfinished(conn, [list_id]))
    return f"It sends {waiting} waiting updates and fetches the results of {batches} batches."


async def _hooks(store: Store, settings: Settings) -> list[str]:
    """The webhooks at Mailchimp that call this civiapi, which somebody has to delete."""
    base = settings.server.base_url
    if not base:
        return ["[server] base_url is not set, so no webhook of civiapi's can be known."]
    try:
        config = await store.read(read_config)
    except BadConfig:
        return []
    clients = Clients(base_url=settings.mailchimp.base_url)
    try:
        return [
            line for key in config.accounts async for line in _of_account(clients.client_for(key), config, key, base)
        ]
    except MailchimpError as error:
        return [f"Mailchimp could not be asked for webhooks that call {base}: {error}"]
    finally:
        await clients.close()


async def _of_account(client: MailchimpClient, config: Config, api_key: str, base: str) -> AsyncIterator[str]:
    for list_id in sorted(link.list_id for link in config.links.values() if link.api_key == api_key):
        for url in _ours((hook.url for hook in await client.list_webhooks(list_id)), base):
            yield f"Mailchimp still calls {url} for audience {list_id}: delete that webhook, and add CiviCRM's."
    for url in _ours((hook.url for hook in await client.list_batch_webhooks()), base):
        yield f"Mailchimp still calls {url} for finished batches: delete that webhook, and add CiviCRM's."


def _ours(urls: Iterable[str], base: str) -> Iterator[str]:
    """Those of these addresses that are this civiapi's, without their secrets."""
    for url in urls:
        if url.startswith(base.rstrip("/") + "/"):
            yield urlsplit(url)._replace(query="").geturl()
