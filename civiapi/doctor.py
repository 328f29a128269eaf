"""Looks a site over before and while it runs: what is wrong, and what to do about it, in sentences.

Each check is a function that gives findings; none changes anything.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, select

from civiapi.app import App
from civiapi.call import Call
from civiapi.store.tables import group, job
from sync.accounts import webhook_health
from sync.config import Config, read_config
from sync.errors import SyncError
from sync.mailchimp.errors import MailchimpError

STALE = timedelta(hours=26)  # a daily job that did not run for so long has missed its turn


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is well, and if not what to do."""

    what: str
    well: bool
    advice: str = ""


async def examine(app: App) -> AsyncIterator[Finding]:
    """Look at settings, database, links, Mailchimp keys, webhooks and jobs, in that order."""
    for finding in _settings(app):
        yield finding
    config = await app.store.read(read_config)
    yield Finding(
        f"{len(config.links)} audience(s) linked with groups",
        bool(config.links),
        "Link one: Mailchimpsync.fetchaccountinfo, then Mailchimpsync.updateconfig (see the README).",
    )
    for finding in await app.store.read(_groups, config):
        yield finding
    for api_key in config.accounts:
        yield await _key(app, api_key)
    async for finding in _webhooks(app, config):
        yield finding
    for finding in await app.store.read(_jobs, app.store.clock.write(datetime.now(UTC) - STALE)):
        yield finding
    async for finding in _syncs(app):
        yield finding


def _settings(app: App) -> list[Finding]:
    server = app.settings.server
    return [
        Finding("site key", bool(server.site_key), "Set [server] site_key; `civiapi init` makes one."),
        Finding("users", bool(app.settings.users), "Add a [user:NAME] section with an api_key, or nobody can call."),
        Finding(
            "public address",
            bool(server.base_url),
            "Set [server] base_url to where Mailchimp can reach us; without it changes arrive with the next sync only.",
        ),
    ]


def _groups(conn: Connection, config: Config) -> list[Finding]:
    found = []
    for link in config.links.values():
        row = conn.execute(select(group.c.title, group.c.saved_search_id).where(group.c.id == link.group_id)).first()
        if row is None:
            found.append(
                Finding(f"group {link.group_id} of audience {link.list_id}", False, "Link another: it is gone.")
            )
        elif row.saved_search_id:
            found.append(
                Finding(f"group “{row.title}”", False, "A smart group cannot be written to; link a regular one.")
            )
        else:
            found.append(Finding(f"group “{row.title}” with audience {link.list_id}", True))
    return found


async def _key(app: App, api_key: str) -> Finding:
    name = f"Mailchimp key …{api_key[-4:]}"
    try:
        account = await app.clients.client_for(api_key).get_account()
    except MailchimpError as error:
        return Finding(name, False, f"{error} Check the key at Mailchimp, or [mailchimp] base_url.")
    return Finding(f"{name} ({account.get('account_name', '')})", True)


async def _webhooks(app: App, config: Config) -> AsyncIterator[Finding]:
    if not config.accounts or not app.settings.server.base_url:
        return
    try:
        health = await webhook_health(app.store, app.clients, app.settings.server.base_url)
    except SyncError as error:
        yield Finding("webhooks", False, f"They could not be looked at: {error}")
        return
    for hook in health:
        what = f"webhook of audience {hook.list_id}" if hook.list_id else "batch webhook"
        process = "add_webhook" if hook.list_id else "add_batch_webhook"
        yield Finding(
            what,
            hook.found,
            f"It is not there: Mailchimp removes one that fails for long. Once {app.settings.server.base_url} can be "
            f"reached, add it: Mailchimpsync.updatewebhook process={process}.",
        )


def _jobs(conn: Connection, stale: str) -> list[Finding]:
    rows = conn.execute(select(job.c.name, job.c.is_active, job.c.last_run, job.c.run_frequency)).all()
    found = []
    for row in rows:
        late = row.is_active and row.run_frequency in ("Always", "Hourly", "Daily") and (row.last_run or "") < stale
        if late:
            when = row.last_run or "never"
            found.append(
                Finding(f"job “{row.name}”", False, f"Last run: {when}. Start civiapi serve with [scheduler] enabled.")
            )
        else:
            found.append(Finding(f"job “{row.name}”" + ("" if row.is_active else " (switched off)"), True))
    return found


async def _syncs(app: App) -> AsyncIterator[Finding]:
    answer = await app.api.respond(Call("Mailchimpsync", "getstatus", {"health": 1}))
    values = answer.get("values") if isinstance(answer, dict) else None
    for list_id, status in (values or {}).items():
        crashed, stopped = status.get("crashed"), status.get("stopped")
        yield Finding(
            f"sync of audience {list_id}: last {status.get('lastSyncTimeHuman', 'never')}",
            not crashed and not stopped,
            stopped or (f"{crashed} The next run goes on by itself." if crashed else ""),
        )
