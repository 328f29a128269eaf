"""readyToCheckForDataUpdates, only where a run is asked for data: what plugins say of members goes to Mailchimp."""

from pluggy import PluginManager
from sqlalchemy import Connection

from sync.data_sync import queue_data
from sync.stages.base import ROWS_A_BIT, Run, Step


async def check_for_data_updates(run: Run) -> None:
    """Owe Mailchimp the data that changed in CiviCRM since it was last sent."""
    plugins = run.ctx.plugins

    def check(conn: Connection, step: Step) -> None:
        _check(conn, step, plugins)

    await run.repeat(check)


def _check(conn: Connection, step: Step, plugins: PluginManager | None) -> None:
    cursor = step.position.cursor or {"after": 0, "updates": 0}
    done = queue_data(conn, step.audience, after=int(cursor["after"]), limit=ROWS_A_BIT, plugins=plugins)
    updates = cursor["updates"] + done.updates
    step.counts.update(rows=done.rows, updates=done.updates)
    if done.last_id is not None:
        step.stay(after=done.last_id, updates=updates)
        return
    step.say(f"Data: {updates} members have news in CiviCRM.")
    step.finish()
