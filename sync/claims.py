"""Who may work on an audience, and until when. A claim is a lease; it says nothing about how far the work has got.

A row a name (an audience, or ``scheduler``), kept for ever so that its fence only grows. A claim lapses by itself when
its holder stops renewing it; whoever claims next raises the fence, and the old holder finds its own number stale at its
next commit (``check``), which undoes that commit. What was sent cannot be undone: right before sending, a holder looks
once more (``look``), and at its own clock, as it may have been frozen for longer than its claim lives. Times are
wall-clock milliseconds: several machines must agree to within the seconds that a claim lives longer than its heartbeat.

Every function is one step of a transaction and works alike on both databases.
"""

import time
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select, update

from civiapi.store.dialect import insert_new
from sync.tables import claim as claim_table

BRIEF = "brief:"
"""How the holder's name begins where the claim is held for seconds only (see ``holding``)."""


class ClaimLost(Exception):
    """Another holder took the audience over, or the claim was withdrawn; nothing of this unit was written."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The claim on {name} was lost to another process or withdrawn; that one goes on from here.")


@dataclass(slots=True)
class Claim:
    """A claim held: its name, who holds it, the fence it was given, and until when it lives unless renewed."""

    name: str
    holder: str
    fence: int
    expires_ms: int = field(default=0, compare=False)


def now_ms() -> int:
    """The present wall-clock time in UTC milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def acquire(conn: Connection, name: str, holder: str, seconds: float, at_ms: int) -> Claim | None:
    """Take the claim if nobody holds it; None while somebody does, the same holder included."""
    fence = _locked_fence(conn, name, holder)
    taken = conn.execute(
        update(claim_table)
        .where(claim_table.c.name == name, claim_table.c.expires_ms <= at_ms)
        .values(holder=holder, fence=fence + 1, expires_ms=at_ms + int(seconds * 1000))
    )
    return Claim(name, holder, fence + 1, at_ms + int(seconds * 1000)) if taken.rowcount == 1 else None


def renew(conn: Connection, claim: Claim, seconds: float, at_ms: int) -> bool:
    """Let the claim live on for *seconds*; False when it is no longer ours."""
    renewed = conn.execute(
        update(claim_table)
        .where(claim_table.c.name == claim.name, claim_table.c.fence == claim.fence)
        .values(expires_ms=at_ms + int(seconds * 1000))
    )
    return renewed.rowcount == 1 or _fence(conn, claim.name) == claim.fence


def release(conn: Connection, claim: Claim) -> None:
    """Give the claim back; nothing happens when it is no longer ours."""
    conn.execute(
        update(claim_table)
        .where(claim_table.c.name == claim.name, claim_table.c.fence == claim.fence)
        .values(expires_ms=0)
    )


def withdraw(conn: Connection, name: str) -> None:
    """Make whoever holds the claim lose it: their next commit finds their fence stale."""
    fence = _locked_fence(conn, name, "")
    conn.execute(update(claim_table).where(claim_table.c.name == name).values(fence=fence + 1, expires_ms=0))


_LOCKED_FENCE = select(claim_table.c.fence).where(claim_table.c.name == bindparam("claim")).with_for_update()


def check(conn: Connection, claim: Claim) -> None:
    """Raise ClaimLost unless the claim is still ours, and keep it so until this transaction ends.

    Called last in a unit: on MariaDB the row stays locked until the commit, and nobody should wait longer than that.
    """
    found = conn.execute(_LOCKED_FENCE, {"claim": claim.name}).scalar_one_or_none()
    if found != claim.fence:
        raise ClaimLost(claim.name)


def look(conn: Connection, claim: Claim) -> None:
    """Raise ClaimLost unless the claim is still ours, in a unit that only reads."""
    if _fence(conn, claim.name) != claim.fence:
        raise ClaimLost(claim.name)


def look_at_clock(claim: Claim) -> None:
    """Raise ClaimLost where the claim has lapsed by our own clock, or could not be renewed because it was lost."""
    if now_ms() >= claim.expires_ms:
        raise ClaimLost(claim.name)


def is_live(conn: Connection, name: str, at_ms: int) -> bool:
    """Tell whether a run holds the claim: what callers see as ``busy``. Brief holders are waited for, not shown."""
    row = conn.execute(
        select(claim_table.c.holder, claim_table.c.expires_ms).where(claim_table.c.name == name)
    ).one_or_none()
    return row is not None and row.expires_ms > at_ms and not row.holder.startswith(BRIEF)


def is_held(conn: Connection, name: str, at_ms: int) -> bool:
    """Tell whether anybody holds the claim, a run or a brief holder."""
    expires = conn.execute(select(claim_table.c.expires_ms).where(claim_table.c.name == name)).scalar_one_or_none()
    return expires is not None and expires > at_ms


def _locked_fence(conn: Connection, name: str, holder: str) -> int:
    """The fence as it stands, its row made if missing and locked until the transaction ends."""
    locking = select(claim_table.c.fence).where(claim_table.c.name == name).with_for_update()
    fence = conn.execute(locking).scalar_one_or_none()
    if fence is None:  # somebody else may make it in the same moment
        insert_new(conn, claim_table, [{"name": name, "holder": holder, "fence": 0, "expires_ms": 0}])
        fence = conn.execute(locking).scalar_one()
    return int(fence)


def _fence(conn: Connection, name: str) -> int | None:
    return conn.execute(select(claim_table.c.fence).where(claim_table.c.name == name)).scalar_one_or_none()
