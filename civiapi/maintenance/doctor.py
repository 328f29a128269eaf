"""Health checks of a site, before and while it runs: ``civiapi doctor``.

To what ``System.check`` reads from the database this adds the settings, and what only Mailchimp can answer: whether
the keys are valid and the webhooks in place. What Mailchimp says of webhooks is stored; nothing else is changed.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, select

from civiapi.app import App
from civiapi.maintenance.old_hooks import old_hooks
from civiapi.runtime.private_files import others_may_read
from civiapi.settings import Settings, UserSettings
from civiapi.store.clock import SiteClock
from civiapi.store.schema.tables import contact
from entities.site import system_checks
from sync.connections.config import read_config
from sync.connections.webhook_signatures import find_signed_lists
from sync.connections.webhook_update import check_webhooks
from sync.connections.webhooks import HookHealth
from sync.errors import SyncError
from sync.mailchimp.errors import MailchimpError
from sync.reports.checks import HOOKS, Finding, Severity, check


async def examine(app: App, settings_file: Path | None = None) -> AsyncIterator[Finding]:
    """Check settings, files, database, Mailchimp keys and webhooks, in that order."""
    files = _files(app.settings.database.file, settings_file)
    database = await app.store.read(_database, app.store.clock, app.sync.quiet)
    users = await app.store.read(_users, app.settings.users)
    for finding in (*_settings(app.settings), *users, *files, *database):
        yield finding
    try:
        accounts = (await app.store.read(read_config)).accounts
    except SyncError:  # ``_database`` has a finding for it
        return
    answering = []
    for api_key in accounts:
        key = await _key(app, api_key)
        yield key
        if key.ok:  # else each question more would wait for the same error
            answering.append(api_key)
    for finding in await old_hooks(app.store, app.clients, app.settings.server.base_url, answering):
        yield finding
    if answering and app.settings.server.base_url:
        for finding in await _webhooks(app, answering):
            yield finding


def _settings(settings: Settings) -> Iterator[Finding]:
    def is_set(code: str, name: str, value: str, remedy: str, severity: Severity) -> Finding:
        return check(code, not value, f"[server] {name} is {'set' if value else 'not set'}.", remedy, severity)

    server = settings.server
    yield is_set("siteKey", "site_key", server.site_key, "`civiapi init` makes one.", Severity.ERROR)
    remedy = "Add a [user:NAME] section with an api_key; without one nobody can log in."
    yield check("users", not settings.users, f"{len(settings.users)} user(s) in the settings.", remedy)
    remedy = "Set it to where Mailchimp can reach this server; without it, changes arrive with the next sync only."
    yield is_set("baseUrl", "base_url", server.base_url, remedy, Severity.NOTICE)


def _users(conn: Connection, users: Sequence[UserSettings]) -> list[Finding]:
    """A finding for each user of the settings whose contact is not there, or is in the trash."""
    found = []
    for user in users:
        if user.contact_id is None:
            continue
        is_deleted = conn.execute(select(contact.c.is_deleted).where(contact.c.id == user.contact_id)).scalar()
        if is_deleted == 0:
            continue
        why = "does not exist" if is_deleted is None else "is in the trash"
        sentence = f"[user:{user.name}] is contact {user.contact_id}, which {why}."
        remedy = "Correct contact_id, or leave it out: then a contact is created."
        found.append(Finding(f"userContact:{user.name}", Severity.WARNING, sentence, remedy))
    return found


def _files(database: Path | None, settings_file: Path | None) -> Iterator[Finding]:
    """Whether other users of this machine may read what holds keys and addresses."""
    beside = [database.with_name(database.name + end) for end in ("", "-wal", "-shm")] if database else []
    for code, what, paths in (
        ("settingsFile", "settings file", [settings_file] if settings_file else []),
        ("databaseFile", "database", beside),
    ):
        if not any(path.exists() for path in paths):
            continue
        readable = [path for path in paths if others_may_read(path)]
        state = "can be read by other users of this machine" if readable else "can be read by its owner only"
        remedy = f"chmod 600 {' '.join(map(str, readable))}"
        yield check(code, bool(readable), f"The {what} {paths[0]} {state}.", remedy, Severity.WARNING)


def _database(conn: Connection, clock: SiteClock, quiet: timedelta) -> list[Finding]:
    """The checks of the database, but for what Mailchimp last said of webhooks: it is asked again."""
    found = system_checks.find(conn, clock, datetime.now(UTC), quiet)
    return [one for one in found if not one.code.startswith(f"{HOOKS}:")]


async def _key(app: App, api_key: str) -> Finding:
    code, name = f"mailchimpKey:{api_key[-4:]}", f"Mailchimp key …{api_key[-4:]}"
    try:
        account = await app.clients.client_for(api_key).get_account()
    except MailchimpError as error:
        remedy = "Check the key at Mailchimp, or [mailchimp] base_url."
        return Finding(code, Severity.ERROR, f"{name}: {error}", remedy)
    return Finding(code, Severity.OK, f"{name} is valid (account {account.get('account_name', '')}).")


async def _webhooks(app: App, accounts: Collection[str]) -> list[Finding]:
    base_url = app.settings.server.base_url
    try:
        health = await check_webhooks(app.store, app.clients, base_url, accounts)
    except SyncError as error:
        return [Finding("webhooks", Severity.WARNING, f"Webhooks could not be checked: {error}")]
    signed = await app.store.read(find_signed_lists)
    return [_webhook(hook, base_url, signed=hook.list_id in signed) for hook in health]


def _webhook(hook: HookHealth, base_url: str, *, signed: bool) -> Finding:
    what = f"The webhook of audience {hook.list_id}" if hook.list_id else f"The batch webhook of account {hook.account}"
    process = "add_webhook" if hook.list_id else "add_batch_webhook"
    return check(
        f"webhook:{hook.list_id}" if hook.list_id else f"batchWebhook:{hook.account}",
        not hook.found,
        f"{what} is {'in place' if hook.found else 'missing'}{', with signed deliveries' if signed else ''}.",
        f"Mailchimp removes a webhook that fails for long. Check that {base_url} can be reached from outside, then add "
        f"it: Mailchimpsync.updatewebhook process={process}.",
        Severity.WARNING,
    )
