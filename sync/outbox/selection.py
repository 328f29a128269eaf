"""Selects the waiting updates that can be sent now, and says whether the account has room for another batch.

A member is never in two open batches, and an update that depends on another waits until that one is completed.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Select, String, and_, bindparam, case, exists, func, or_, select
from sqlalchemy import update as change

from civiapi.store.databases.expressions import in_list, unindexed, unlikely
from sync.audience import Audience
from sync.connections.config import read_config
from sync.context import UnitSizes
from sync.model import KIND_GROUPS
from sync.store.batches import ABORTED, CANCELLED, OPEN, PROCESSED
from sync.store.tables import batch, cache, update, update_detail


def count_ready(conn: Connection, list_id: str, cache_ids: Sequence[int] | None = None) -> int:
    """How many waiting updates of an audience can be sent now."""
    counted = select(func.count()).select_from(select_ready(cache_ids).subquery())
    return int(conn.execute(counted, {"list_id": list_id}).scalar_one())


def count_waiting(conn: Connection, list_id: str) -> int:
    """How many updates of an audience wait, including those that cannot be sent yet. Cheaper than `count_ready`."""
    wanted = (
        select(func.count())
        .select_from(update.join(cache, cache.c.id == update.c.mailchimpsync_cache_id))
        .where(
            unlikely(update.c.completed == 0),
            update.c.mailchimpsync_batch_id.is_(None),
            unindexed(cache.c.mailchimp_list_id) == list_id,
        )
    )
    return int(conn.execute(wanted).scalar_one())


def has_ready(conn: Connection, list_id: str) -> bool:
    """Whether any waiting update of an audience can be sent now."""
    return conn.execute(_FIRST_READY, {"list_id": list_id}).first() is not None


def has_room(conn: Connection, audience: Audience, sizes: UnitSizes) -> bool:
    """Whether the account may have another batch in flight."""
    account = [link.list_id for link in read_config(conn).links.values() if link.api_key == audience.api_key]
    in_flight = conn.execute(
        select(func.count(), func.coalesce(func.sum(batch.c.total_operations), 0)).where(
            batch.c.mailchimp_list_id.in_({audience.list_id, *account}),
            batch.c.response_processed.in_(OPEN),
            func.coalesce(batch.c.status, "").not_in(CANCELLED),
        )
    ).one()
    return bool(in_flight[0] < sizes.batches_in_flight and in_flight[1] < sizes.operations_in_flight)


def requeue_orphans(conn: Connection, list_id: str) -> int:
    """Let open updates of batches that are processed or cancelled wait again; returns how many there were."""
    done = select(batch.c.id).where(
        batch.c.mailchimp_list_id == list_id,
        or_(batch.c.response_processed == PROCESSED, batch.c.status == ABORTED),
    )
    freed = conn.execute(
        change(update)
        .where(update.c.completed == 0, update.c.mailchimpsync_batch_id.in_(done))
        .values(mailchimpsync_batch_id=None)
    )
    return freed.rowcount


def select_ready(cache_ids: Sequence[int] | None) -> Select[tuple[int]]:
    """The ids of the updates of audience ``:list_id`` that can be sent now, oldest first; of these rows, or of all."""
    return _ALL_READY if cache_ids is None else _ALL_READY.where(in_list(update.c.mailchimpsync_cache_id, cache_ids))


_RANKS = {kind: list(KIND_GROUPS).index(group) for kind, group in KIND_GROUPS.items()}


def _rank(kind: ColumnElement[str]) -> ColumnElement[int]:
    return case(_RANKS, value=func.coalesce(kind, "member"), else_=_RANKS["member"])


def _make_ready() -> Select[tuple[int]]:
    """Waiting updates whose row has none in flight and no other that comes first."""
    other, other_detail = update.alias("other"), update_detail.alias("other_detail")
    rank, other_rank = _rank(update_detail.c.kind), _rank(other_detail.c.kind)
    comes_first = or_(
        other.c.mailchimpsync_batch_id.is_not(None),
        other_rank < rank,
        and_(other_rank == rank, other.c.id < update.c.id),
    )
    blocked = exists(
        select(1)
        .select_from(other.outerjoin(other_detail, other_detail.c.update_id == other.c.id))
        .where(
            other.c.mailchimpsync_cache_id == update.c.mailchimpsync_cache_id,
            unindexed(other.c.completed) == 0,
            other.c.id != update.c.id,
            comes_first,
        )
        .correlate(update, update_detail)
    )
    return (
        select(update.c.id)
        .select_from(update)
        .join(cache, cache.c.id == update.c.mailchimpsync_cache_id)
        .outerjoin(update_detail, update_detail.c.update_id == update.c.id)
        .where(
            unlikely(update.c.completed == 0),  # few are open, and an audience has many rows
            update.c.mailchimpsync_batch_id.is_(None),
            unindexed(cache.c.mailchimp_list_id) == bindparam("list_id", type_=String()),
            ~blocked,
        )
        .order_by(update.c.id)
    )


_ALL_READY = _make_ready()
_FIRST_READY = _ALL_READY.limit(1)
"""Built once: the watcher and every run use them often."""
