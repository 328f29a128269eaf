"""Consistency checks of the sync's tables: unique rows, readable checkpoints, updates and batches that can complete.

Each check yields pairs: the problem, and how to repair it. The first sentence of its docstring is shown when there is
no problem. Nothing is written here: the SQL is advice for administrators.
"""

# ruff: noqa: S608

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from sqlalchemy import Connection, exists, func, or_, select

from civiapi.store.databases.dialect import last_row_id
from civiapi.store.schema.tables import lease, setting, subscription_history
from civiapi.store.text.php import BadSerial, load_php
from sync.connections.config import SETTING, Config, read_config
from sync.errors import BadConfig
from sync.model import SyncStatus
from sync.store.batches import CANCELLED, OPEN, PROCESSED, SUBMITTING
from sync.store.runs.checkpoints import BUSY, LOCK, STAGES
from sync.store.tables import batch, cache, run, status, update, webhook_event

Wrong = Iterator[tuple[str, str]]
EXAMPLES = 5
MAX_LEASE_MS = 24 * 3600 * 1000
BY_ITSELF = "A running server repairs this by itself within minutes; start it, or run: civiapi sync"


def configuration(conn: Connection) -> Wrong:
    """The configuration can be read."""
    again = "Set it again with Mailchimpsync.updateconfig, or restore a backup."
    stored = conn.execute(select(setting.c.value).where(setting.c.name == SETTING)).scalars().all()
    if len(stored) > 1:
        repair = (
            f"Keep the one you mean, delete the rest: SELECT id, value FROM {setting.name} WHERE name = '{SETTING}';"
        )
        yield f"the setting {SETTING} exists {len(stored)} times", repair
    for text in stored:
        try:
            load_php(text or "N;")
        except BadSerial:
            yield f"the setting {SETTING} is not what PHP or we serialized", again
            return
    try:
        read_config(conn)
    except BadConfig as error:
        yield str(error), again


def members(conn: Connection) -> Wrong:
    """One row for each member and audience."""
    by_member = (cache.c.mailchimp_list_id, cache.c.mailchimp_member_id)
    doubled = conn.execute(
        select(*by_member, func.count())
        .where(cache.c.mailchimp_member_id.is_not(None), cache.c.mailchimp_member_id != "")
        .group_by(*by_member)
        .having(func.count() > 1)
        .order_by(func.min(cache.c.id))
    ).all()
    if doubled:
        list_id, member_id, count = doubled[0]
        yield (
            f"{len(doubled)} member(s) with several rows, such as {member_id} of audience {list_id} ({count} rows)",
            "civiapi sync --since ever makes them one.",
        )


def contacts_without_member(conn: Connection) -> Wrong:
    """One row for each contact that is not a member."""
    by_contact = (cache.c.mailchimp_list_id, cache.c.civicrm_contact_id)
    doubled = conn.execute(
        select(*by_contact, func.count())
        .where(or_(cache.c.mailchimp_member_id.is_(None), cache.c.mailchimp_member_id == ""))
        .where(cache.c.civicrm_contact_id.is_not(None))
        .group_by(*by_contact)
        .having(func.count() > 1)
        .order_by(*by_contact)
    ).all()
    if doubled:
        list_id, contact_id, count = doubled[0]
        yield (
            f"{len(doubled)} contact(s) with several rows and no member, such as contact {contact_id} in audience "
            f"{list_id} ({count} rows)",
            f"civiapi api3 MailchimpsyncCache.get mailchimp_list_id={list_id} civicrm_contact_id={contact_id} shows "
            "them; MailchimpsyncCache.delete all but one of each; then civiapi sync",
        )


def checkpoints(conn: Connection) -> Wrong:
    """Every audience has a readable checkpoint."""
    for row in conn.execute(select(status.c.list_id, status.c.data).order_by(status.c.list_id)):
        stage = _stage(row.data)
        if stage is None:
            repair = "The next sync starts over and reads everything: civiapi sync --since ever"
            yield f"the status of audience {row.list_id} cannot be read", repair
        elif stage not in (*STAGES, BUSY):
            yield (
                f"audience {row.list_id} is at '{stage}', which is no stage",
                "The next sync starts over: civiapi sync",
            )
    last = last_row_id(conn, subscription_history)
    for row in conn.execute(select(run).order_by(run.c.list_id)):
        if any(not _is_map(text) for text in (row.cursor, row.state)):
            repair = f"DELETE FROM {run.name} WHERE list_id = '{row.list_id}'; then civiapi sync --since ever"
            yield f"the cursor of audience {row.list_id} cannot be read", repair
        if row.history_id > last:
            repair = (
                f"UPDATE {run.name} SET history_id = 0 WHERE list_id = '{row.list_id}'; the next sync reads it again."
            )
            yield (
                f"audience {row.list_id} has read CiviCRM's history up to {row.history_id}, which ends at {last}: the "
                "next changes would be overlooked",
                repair,
            )


def updates(conn: Connection) -> Wrong:
    """Every open update belongs to a row and is waiting or in flight."""
    without_row = update.c.mailchimpsync_cache_id.is_(None)
    yield from _counted(
        conn,
        update,
        without_row,
        "update(s) for no row",
        f"DELETE FROM {update.name} WHERE mailchimpsync_cache_id IS NULL;",
    )
    done = select(batch.c.id).where(or_(batch.c.response_processed == PROCESSED, batch.c.status == "aborted"))
    stranded = (update.c.completed == 0) & update.c.mailchimpsync_batch_id.in_(done)
    yield from _counted(conn, update, stranded, "open update(s) of completed batches", BY_ITSELF)
    is_open = exists().where(update.c.mailchimpsync_cache_id == cache.c.id, update.c.completed == 0)
    waiting = cache.c.sync_status.in_((SyncStatus.LIVE, SyncStatus.REDO)) & ~is_open
    yield from _counted(conn, cache, waiting, "row(s) that wait for an update that does not exist", BY_ITSELF)
    broken = [
        row.id
        for row in conn.execute(select(update.c.id, update.c.data).where(update.c.completed == 0)).yield_per(1000)
        if not _is_map(row.data)
    ]
    if broken:
        repair = "civiapi api3 MailchimpsyncUpdate.delete each; then civiapi sync --since ever"
        yield f"{len(broken)} open update(s) that hold no JSON: {_some(broken)}", repair


def batches(conn: Connection) -> Wrong:
    """Every open batch has updates, and an id at Mailchimp."""
    under_way = batch.c.response_processed.in_(OPEN) & func.coalesce(batch.c.status, "").not_in(CANCELLED)
    empty = under_way & ~exists().where(update.c.mailchimpsync_batch_id == batch.c.id)
    yield from _counted(
        conn, batch, empty, "open batch(es) without an update", "civiapi api3 MailchimpsyncBatch.delete each."
    )
    unknown = under_way & batch.c.mailchimp_batch_id.is_(None)
    held = exists().where(lease.c.name == batch.c.mailchimp_list_id, lease.c.expires_ms > _now_ms())
    lost = unknown & (func.coalesce(batch.c.status, "") == SUBMITTING) & ~held
    yield from _counted(conn, batch, lost, "batch(es) that Mailchimp may or may not have received", BY_ITSELF)
    nameless = unknown & (func.coalesce(batch.c.status, "") != SUBMITTING)
    repair = "civiapi api3 MailchimpsyncBatch.delete each; what they held is sent again."
    yield from _counted(conn, batch, nameless, "open batch(es) without Mailchimp's id", repair)


def held_leases(conn: Connection) -> Wrong:
    """No lease outlives its holder."""
    far = lease.c.expires_ms > _now_ms() + MAX_LEASE_MS
    for row in conn.execute(select(lease.c.name, lease.c.holder).where(far).order_by(lease.c.name)):
        repair = f"Set the clocks right, then: UPDATE {lease.name} SET expires_ms = 0 WHERE name = '{row.name}';"
        yield f"the lease on {row.name} by {row.holder} lasts for more than a day: a clock was wrong", repair


def unlinked(conn: Connection) -> Wrong:
    """All rows are about linked audiences."""
    try:
        config = read_config(conn)
    except BadConfig:
        return
    for table, column in (
        (cache, cache.c.mailchimp_list_id),
        (batch, batch.c.mailchimp_list_id),
        (status, status.c.list_id),
        (run, run.c.list_id),
    ):
        found = conn.execute(select(column, func.count()).where(column.not_in(_linked(config))).group_by(column)).all()
        for list_id, count in found:
            repair = "Link it again, or store the configuration once more (Mailchimpsync.updateconfig): that clears it."
            yield f"{count} row(s) of {table.name} are about audience {list_id}, which is not linked", repair


def events(conn: Connection) -> Wrong:
    """Every webhook event can be read."""
    waiting = select(webhook_event.c.id, webhook_event.c.body).where(webhook_event.c.status == "new")
    broken = [row.id for row in conn.execute(waiting) if not _is_map(row.body)]
    if broken:
        ids = _some(broken, all_of_them=True)
        repair = f"DELETE FROM {webhook_event.name} WHERE id IN ({ids}); the next sync fetches these changes."
        yield f"{len(broken)} webhook event(s) cannot be read: {_some(broken)}", repair


CHECKS: tuple[Callable[[Connection], Wrong], ...] = (
    configuration,
    members,
    contacts_without_member,
    checkpoints,
    updates,
    batches,
    held_leases,
    unlinked,
    events,
)


def _counted(conn: Connection, table: Any, where: Any, what: str, repair: str) -> Wrong:
    """A finding with the number of rows and the first ids, where there are any."""
    count = conn.execute(select(func.count()).select_from(table).where(where)).scalar_one()
    if count:
        first = conn.execute(select(table.c.id).where(where).order_by(table.c.id).limit(EXAMPLES)).scalars().all()
        yield f"{count} {what}: {_some(list(first), count)}", repair


def _some(ids: list[int], count: int | None = None, *, all_of_them: bool = False) -> str:
    shown = ids if all_of_them else ids[:EXAMPLES]
    more = "…" if len(shown) < (count or len(ids)) else ""
    return ", ".join(str(one) for one in shown) + more


def _linked(config: Config) -> list[str]:
    return list(config.links)


def _stage(blob: bytes) -> str | None:
    try:
        data = load_php(blob)
    except BadSerial:
        return None
    if not isinstance(data, dict):
        return None
    locks = data.get("locks")
    return str(locks.get(LOCK, STAGES[0])) if isinstance(locks, dict) else STAGES[0]


def _is_map(text: str | None) -> bool:
    try:
        return not text or isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
