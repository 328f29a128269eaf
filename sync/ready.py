"""Which of the updates that wait may be handed to Mailchimp now, and whether there is room for them.

One member is never in two open batches, and what depends on something waits until that is completed (`batches`).
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Select, String, and_, bindparam, case, exists, func, or_, select
from sqlalchemy import update as change

from civiapi.store.dialect import among, rare, unindexed
from sync.audience import Audience
from sync.batch_rows import ABORTED, CALLED_OFF, OPEN, PROCESSED
from sync.config import read_config
from sync.tables import batch, cache, update, update_detail
from sync.updates import SLOT_ORDER, SLOTS

WINDOW_OPERATIONS = 10_000
WINDOW_BATCHES = 100
"""How much of an account may be under way at once: ten full batches, or a hundred small ones (Mailchimp allows 500).
More waits here, where it can still be called off and does not delay other programs' batches."""


def count_ready(conn: Connection, list_id: str, cache_ids: Sequence[int] | None = None) -> int:
    """How many updates of an audience wait and could go now."""
    counted = select(func.count()).select_from(select_ready(cache_ids).subquery())
    return int(conn.execute(counted, {"list_id": list_id}).scalar_one())


def count_waiting(conn: Connection, list_id: str) -> int:
    """How many updates of an audience wait, those included that cannot go yet. Much cheaper than `count_ready`."""
    wanted = (
        select(func.count())
        .select_from(update.join(cache, cache.c.id == update.c.mailchimpsync_cache_id))
        .where(
            rare(update.c.completed == 0),
            update.c.mailchimpsync_batch_id.is_(None),
            unindexed(cache.c.mailchimp_list_id) == list_id,
        )
    )
    return int(conn.execute(wanted).scalar_one())


def has_ready(conn: Connection, list_id: str) -> bool:
    """Whether any update of an audience waits and could go now."""
    return conn.execute(_FIRST_READY, {"list_id": list_id}).first() is not None


def has_room(conn: Connection, audience: Audience) -> bool:
    """Whether the account may have another batch under way."""
    account = [link.list_id for link in read_config(conn).links.values() if link.api_key == audience.api_key]
    under_way = conn.execute(
        select(func.count(), func.coalesce(func.sum(batch.c.total_operations), 0)).where(
            batch.c.mailchimp_list_id.in_({audience.list_id, *account}),
            batch.c.response_processed.in_(OPEN),
            func.coalesce(batch.c.status, "").not_in(CALLED_OFF),
        )
    ).one()
    return bool(under_way[0] < WINDOW_BATCHES and under_way[1] < WINDOW_OPERATIONS)


def free_stranded(conn: Connection, list_id: str) -> int:
    """Let open updates wait again whose batch is done with, as nothing else would end them; returns how many."""
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
    """The ids of the updates of the audience ``:list_id`` that may go now, oldest first; of these rows, or of all."""
    return _ALL_READY if cache_ids is None else _ALL_READY.where(among(update.c.mailchimpsync_cache_id, cache_ids))


_RANKS = {kind: SLOT_ORDER.index(slot) for kind, slot in SLOTS.items()}


def _rank(kind: ColumnElement[str]) -> ColumnElement[int]:
    return case(_RANKS, value=func.coalesce(kind, "member"), else_=_RANKS["member"])


def _make_ready() -> Select[tuple[int]]:
    """Those that wait, whose row has nothing in flight and owes nothing that must be done before."""
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
            rare(update.c.completed == 0),  # few are open, and an audience has many rows
            update.c.mailchimpsync_batch_id.is_(None),
            unindexed(cache.c.mailchimp_list_id) == bindparam("list_id", type_=String()),
            ~blocked,
        )
        .order_by(update.c.id)
    )


_ALL_READY = _make_ready()
_FIRST_READY = _ALL_READY.limit(1)
"""Made once: the watcher and every run ask all the time."""
