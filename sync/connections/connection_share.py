"""Computes this process's share of an account's connections, which Mailchimp limits over all processes.

Every process that works on an audience or its results holds a lease in the database. So each can count the processes
that work on one account and uses an equal share; a run counts again every second. A killed process counts until its
lease expires. A process that has the database for itself uses all connections.
"""

from sqlalchemy import Connection, select

from civiapi.store import leases
from civiapi.store.leases import BRIEF
from civiapi.store.schema.tables import lease as lease_table
from sync.audience import Audience
from sync.connections.config import read_config
from sync.context import SyncContext

INTERVAL_S = 1.0
RESULTS = "results:"
"""The name of the lease on an audience's results: this, then the audience."""


async def take_share(ctx: SyncContext, audience: Audience) -> None:
    """Limit this process to its share of the account's connections. Raises InvalidApiKey."""
    if ctx.store.is_shared:
        others = await ctx.store.read(count_others, audience, ctx.holder, leases.now_ms())
        ctx.clients.client_for(audience.api_key).share_with(others)


def count_others(conn: Connection, audience: Audience, holder: str, at_ms: int) -> int:
    """How many other processes work on audiences of the same account."""
    mine = [link.list_id for link in read_config(conn).links.values() if link.api_key == audience.api_key]
    names = [audience.list_id, *mine, *(RESULTS + list_id for list_id in mine)]
    holders = select(lease_table.c.holder).where(lease_table.c.name.in_(names), lease_table.c.expires_ms > at_ms)
    return len({one.removeprefix(BRIEF) for one in conn.execute(holders).scalars()} - {holder})
