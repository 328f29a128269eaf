"""Which part of an account's connections this process may use: Mailchimp counts them over all processes.

Whoever works on an audience holds a claim on it, or on its results, in the database. So every process can tell how many
are at work on the audiences of one account, and goes by an equal share; a run looks again every second. One that was
killed counts until its claim lapses. A process that has the database for itself has everything.
"""

from sqlalchemy import Connection, select

from sync import claims
from sync.audience import Audience
from sync.claims import BRIEF
from sync.config import read_config
from sync.context import SyncContext
from sync.tables import claim as claim_table

LOOK_SECONDS = 1.0
RESULTS = "results:"
"""How the claim on an audience's results is named: this, then the audience."""


async def take_share(ctx: SyncContext, audience: Audience) -> None:
    """Keep to this process's share of the connections of the audience's account. Raises InvalidApiKey."""
    if ctx.store.is_shared:
        others = await ctx.store.read(count_others, audience, ctx.holder, claims.now_ms())
        ctx.clients.client_for(audience.api_key).share_with(others)


def count_others(conn: Connection, audience: Audience, holder: str, at_ms: int) -> int:
    """How many other processes are at work on audiences of the same account."""
    mine = [link.list_id for link in read_config(conn).links.values() if link.api_key == audience.api_key]
    names = [audience.list_id, *mine, *(RESULTS + list_id for list_id in mine)]
    held = select(claim_table.c.holder).where(claim_table.c.name.in_(names), claim_table.c.expires_ms > at_ms)
    return len({one.removeprefix(BRIEF) for one in conn.execute(held).scalars()} - {holder})
