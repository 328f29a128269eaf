"""Leases with fencing: which process may work on an audience, run a job or lead the scheduler, and until when.

One row per name (table ``civiapi_claim``), kept so that its fence only grows. A lease expires when its holder stops
renewing it. The next holder raises the fence; the previous one finds its number stale at its next commit (``check``),
which undoes that commit. A request already sent cannot be undone: so right before sending, a holder checks once more
(``check_unlocked``), and against its own clock (``check_clock``), because it may have been frozen for longer than its
lease lasts. The lease of a process that has ended on this machine lasts for seconds more (``shorten_ended``).

Times are wall-clock milliseconds: the clocks of several machines must agree within the seconds by which a
lease outlasts its heartbeat.

Every function is one step of a transaction and works the same on both databases.
"""

import secrets
import time
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select, update

from civiapi.runtime.process_names import has_ended, own_name
from civiapi.store.databases.dialect import insert_new
from civiapi.store.schema.tables import lease as lease_table

BRIEF = "brief:"
"""Prefix of the holder of a lease that is held for seconds only (see ``sync/leases.py``)."""

ENDED_MS = 10_000
"""How long the lease of a process that has ended lasts: what it sent last may still be on its way."""


class LeaseLost(Exception):
    """Another holder has the lease, or it was revoked; nothing of this unit was written."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"The lease of {name} was lost to another process or revoked: that process continues, or this was aborted."
        )


@dataclass(slots=True)
class Lease:
    """A lease held: its name, its holder, the fence, and when it expires unless renewed."""

    name: str
    holder: str
    fence: int
    expires_ms: int = field(default=0, compare=False)


def now_ms() -> int:
    """The present wall-clock time in UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_holder() -> str:
    """A unique name for a holder in this process."""
    return f"{own_name()}:{secrets.token_hex(4)}"


def is_gone(holder: str) -> bool:
    """Whether the holder's process has ended for sure; False for one of another machine."""
    return has_ended(holder.removeprefix(BRIEF).rpartition(":")[0])


def acquire(conn: Connection, name: str, holder: str, seconds: float, at_ms: int) -> Lease | None:
    """Take the lease if it is free; None while it is held, by the same holder too."""
    fence, present = _locked(conn, name, holder)
    expires_ms = at_ms + int(seconds * 1000)
    taken = conn.execute(
        update(lease_table)
        .where(lease_table.c.name == name, lease_table.c.expires_ms <= at_ms)
        .values(holder=holder, fence=fence + 1, expires_ms=expires_ms)
    )
    if taken.rowcount == 1:
        return Lease(name, holder, fence + 1, expires_ms)
    if is_gone(present):
        _shorten(conn, name, fence, at_ms)
    return None


def renew(conn: Connection, lease: Lease, seconds: float, at_ms: int) -> bool:
    """Extend the lease to *seconds* from *at_ms*; False when it was lost."""
    renewed = conn.execute(
        update(lease_table)
        .where(lease_table.c.name == lease.name, lease_table.c.fence == lease.fence)
        .values(expires_ms=at_ms + int(seconds * 1000))
    )
    return renewed.rowcount == 1 or _fence(conn, lease.name) == lease.fence


def release(conn: Connection, lease: Lease) -> bool:
    """End the lease; False, and no effect, when it was lost."""
    conn.execute(
        update(lease_table)
        .where(lease_table.c.name == lease.name, lease_table.c.fence == lease.fence)
        .values(expires_ms=0)
    )
    return _fence(conn, lease.name) == lease.fence


def held_by_ended(conn: Connection, at_ms: int) -> list[tuple[str, int]]:
    """The leases whose holders' processes have ended, and that last for more than seconds: name and fence."""
    long = lease_table.c.expires_ms > at_ms + ENDED_MS
    rows = conn.execute(select(lease_table.c.name, lease_table.c.fence, lease_table.c.holder).where(long))
    return [(row.name, row.fence) for row in rows if is_gone(row.holder)]


def shorten_ended(conn: Connection, at_ms: int) -> None:
    """Let the leases of processes that have ended on this machine expire within seconds."""
    for name, fence in held_by_ended(conn, at_ms):
        _shorten(conn, name, fence, at_ms)


def _shorten(conn: Connection, name: str, fence: int, at_ms: int) -> None:
    soon = at_ms + ENDED_MS
    same = lease_table.c.name == name, lease_table.c.fence == fence, lease_table.c.expires_ms > soon
    conn.execute(update(lease_table).where(*same).values(expires_ms=soon))


def expired(conn: Connection, at_ms: int) -> list[str]:
    """The names of the leases whose holders were killed, or are frozen: expired, and not released."""
    return list(
        conn.execute(
            select(lease_table.c.name).where(lease_table.c.expires_ms > 0, lease_table.c.expires_ms <= at_ms)
        ).scalars()
    )


def end_expired(conn: Connection, name: str, at_ms: int) -> bool:
    """End a lease that has expired; False when it has not, or is held again. Its row is locked until the commit."""
    _locked(conn, name, "")
    ended = conn.execute(
        update(lease_table)
        .where(lease_table.c.name == name, lease_table.c.expires_ms > 0, lease_table.c.expires_ms <= at_ms)
        .values(expires_ms=0)
    )
    return ended.rowcount == 1


def held(conn: Connection, at_ms: int) -> list[tuple[str, str]]:
    """The leases that are held: name and holder."""
    wanted = select(lease_table.c.name, lease_table.c.holder).where(lease_table.c.expires_ms > at_ms)
    return [(row.name, row.holder) for row in conn.execute(wanted.order_by(lease_table.c.name))]


def revoke(conn: Connection, name: str) -> None:
    """Take the lease from its holder, whose next commit finds its fence stale."""
    fence, _ = _locked(conn, name, "")
    conn.execute(update(lease_table).where(lease_table.c.name == name).values(fence=fence + 1, expires_ms=0))


_TOUCH = (
    update(lease_table)
    .where(lease_table.c.name == bindparam("lease"), lease_table.c.fence == bindparam("held"))
    .values(expires_ms=lease_table.c.expires_ms + 1)
)


def check(conn: Connection, lease: Lease) -> None:
    """Raise LeaseLost if the lease was lost; otherwise it cannot be lost before this transaction ends.

    Call it last in a unit: on MariaDB the row stays locked until the commit. It is changed (a millisecond longer),
    because the nodes of a cluster do not share locks: of two commits that changed a row, only the first is let through.
    """
    if conn.execute(_TOUCH, {"lease": lease.name, "held": lease.fence}).rowcount != 1:
        raise LeaseLost(lease.name)


def check_unlocked(conn: Connection, lease: Lease) -> None:
    """Raise LeaseLost if the lease was lost; for a unit that only reads."""
    if _fence(conn, lease.name) != lease.fence:
        raise LeaseLost(lease.name)


def check_clock(lease: Lease) -> None:
    """Raise LeaseLost if the lease has expired by our own clock."""
    if now_ms() >= lease.expires_ms:
        raise LeaseLost(lease.name)


def is_live(conn: Connection, name: str, at_ms: int) -> bool:
    """Whether a run holds the lease, which callers see as ``busy``; a brief holder does not count."""
    row = conn.execute(
        select(lease_table.c.holder, lease_table.c.expires_ms).where(lease_table.c.name == name)
    ).one_or_none()
    return row is not None and row.expires_ms > at_ms and not row.holder.startswith(BRIEF)


def is_held(conn: Connection, name: str, at_ms: int) -> bool:
    """Whether the lease is held, by a run or briefly."""
    expires = conn.execute(select(lease_table.c.expires_ms).where(lease_table.c.name == name)).scalar_one_or_none()
    return expires is not None and expires > at_ms


def _locked(conn: Connection, name: str, holder: str) -> tuple[int, str]:
    """The current fence and holder; the row is created if missing, and locked until the transaction ends."""
    locking = select(lease_table.c.fence, lease_table.c.holder).where(lease_table.c.name == name).with_for_update()
    row = conn.execute(locking).one_or_none()
    if row is None:  # another process may insert it at the same moment
        insert_new(conn, lease_table, [{"name": name, "holder": holder, "fence": 0, "expires_ms": 0}])
        row = conn.execute(locking).one()
    return int(row.fence), row.holder


def _fence(conn: Connection, name: str) -> int | None:
    return conn.execute(select(lease_table.c.fence).where(lease_table.c.name == name)).scalar_one_or_none()
