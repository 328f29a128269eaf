"""Takes over a database that CiviCRM and the mailchimpsync extension made: a report first, then the schema.

Added are our own tables (``civiapi_…``), our own indexes and, where the extension never was, its tables; nothing of
CiviCRM's is altered or dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, inspect, select, text

from civiapi.maintenance import adopt_checks
from civiapi.maintenance.old_hooks import find_old_hooks
from civiapi.runtime.wording import many
from civiapi.settings import Settings
from civiapi.store.civicrm.jobs import Job, all_jobs
from civiapi.store.clock import SITE_FORMAT, SiteClock
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import MIGRATIONS, migrate, missing_indexes, missing_tables, read_version
from civiapi.store.schema.tables import contact, domain, email, group, group_contact, job, subscription_history
from sync.connections.config import read_config
from sync.errors import BadConfig
from sync.leases import is_extension_at_work, last_logged
from sync.model import SyncStatus
from sync.reports.checks import Finding, Severity, check, configuration
from sync.reports.status import in_words, what_remains
from sync.store.batches import OPEN
from sync.store.runs.checkpoints import READY_TO_FETCH, load, read_stored
from sync.store.tables import batch, cache, run, status, update

CIVICRM = (contact, email, group, group_contact, subscription_history)
EXTENSION = (cache, update, batch, status)
CLOCK_TOLERANCE = timedelta(minutes=10)
MAX_BATCHES = 20


@dataclass(frozen=True, slots=True)
class Section:
    """Findings under one heading."""

    title: str
    findings: list[Finding]


async def survey_database(settings: Settings) -> list[Section]:
    """What the database in the settings holds and what ``take_over`` would add; only reads. Raises ``StoreError``.

    Asks Mailchimp for its webhooks as well.
    """
    store = await open_store(settings.database.url, settings.database.timezone)
    try:
        found = await store.read(survey, store.clock, datetime.now(UTC), settings)
        if len(found) > 1 and (hooks := await find_old_hooks(store, settings)):
            found.insert(-1, Section("Webhooks at Mailchimp", hooks))
        return found
    finally:
        await store.close()


async def take_over(settings: Settings) -> list[str]:
    """Add our tables and indexes; returns what was added, and nothing that was there. Raises ``StoreError``."""
    store = await open_store(settings.database.url, settings.database.timezone)
    try:
        before = await store.read(_missing, store.clock)
        if not await migrate(store, adopt=True):  # it was, or another process did meanwhile
            return []
        after = set(await store.read(_missing, store.clock))
        return [one for one in before if one not in after]
    finally:
        await store.close()


def survey(conn: Connection, clock: SiteClock, now: datetime, settings: Settings) -> list[Section]:
    """The report over an open connection; *now* is aware. Raises ``SchemaTooNew``."""
    there = set(inspect(conn).get_table_names())
    lacking = [one.name for one in CIVICRM if one.name not in there]
    if lacking:
        sentence = f"This is not a CiviCRM database: it has no table {lacking[0]}."
        remedy = "Set [database] url to CiviCRM's database."
        return [Section("CiviCRM", [Finding("civicrm", Severity.ERROR, sentence, remedy)])]
    found = [Section("CiviCRM", list(_civicrm(conn, there)))]
    found.append(Section("Times", list(_times(conn, there, clock, now))))
    found.append(Section("API keys", list(adopt_checks.key_holders(conn, settings.users))))
    if {one.name for one in EXTENSION} <= there:
        found.append(Section("The mailchimpsync extension", list(_extension(conn, clock))))
        found.append(Section("Linked audiences", list(_links(conn, clock))))
        found.append(Section("Syncs", list(_syncs(conn, there, clock, now, settings.sync.crashed_minutes))))
    else:
        absent = _fact("extension", "The mailchimpsync extension was never installed; its tables would be made.")
        found.append(Section("The mailchimpsync extension", [absent]))
    found.append(Section("What civiapi would add (nothing of CiviCRM's is altered or dropped)", list(_added(conn))))
    return found


def _fact(code: str, sentence: str) -> Finding:
    return Finding(code, Severity.OK, sentence)


def _count(conn: Connection, table: object, *conditions: object) -> int:
    return int(conn.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())  # type: ignore[arg-type]


def _civicrm(conn: Connection, there: set[str]) -> Iterator[Finding]:
    version = conn.execute(select(domain.c.version).order_by(domain.c.id).limit(1)).scalar()
    yield _fact("civicrmVersion", f"CiviCRM {version or 'of unknown version'}, {len(there)} tables")
    server = conn.execute(text("SELECT sqlite_version()" if conn.dialect.name == "sqlite" else "SELECT VERSION()"))
    yield _fact("databaseServer", f"Database server {conn.dialect.name} {server.scalar()}")
    people, addresses = _count(conn, contact, contact.c.is_deleted == 0), _count(conn, email)
    yield _fact("contacts", f"{many(people, 'contact')}, {many(addresses, 'address', 'addresses')}")
    members, history = _count(conn, group_contact), _count(conn, subscription_history)
    yield _fact(
        "groups",
        f"{many(_count(conn, group), 'group')}, {many(members, 'group contact')}, "
        f"{many(history, 'subscription history row')}",
    )
    yield from adopt_checks.columns(conn)
    yield from adopt_checks.rights(conn, there)
    yield from adopt_checks.character_sets(conn)
    yield from adopt_checks.language(conn)


def _times(conn: Connection, there: set[str], clock: SiteClock, now: datetime) -> Iterator[Finding]:
    zone = clock.zone.key
    if batch.name not in there:
        yield _fact("timezone", f"Times are read as {zone} ([database] timezone).")
        return
    yield from adopt_checks.time_zone(conn, clock)
    latest = conn.execute(select(func.max(batch.c.submitted_at))).scalar()
    if latest is None:
        return
    shown = latest.strftime(SITE_FORMAT) if isinstance(latest, datetime) else str(latest)
    moment = clock.read(shown)
    ahead = moment is not None and moment > now.astimezone(UTC) + CLOCK_TOLERANCE
    remedy = f"In {zone} that is in the future: set [database] timezone to the zone CiviCRM runs in."
    yield check("lastBatch", ahead, f"The last batch was sent at {shown}, {zone}.", remedy)


def _extension(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    by_status = conn.execute(select(cache.c.sync_status, func.count()).group_by(cache.c.sync_status)).all()
    shown = ", ".join(f"{row[1]} {row[0] or 'without a status'}" for row in by_status) or "none"
    yield _fact("cache", f"{many(sum(row[1] for row in by_status), 'cache row')} ({shown})")
    queued = _count(conn, update, update.c.completed == 0, update.c.mailchimpsync_batch_id.is_(None))
    sent = _count(conn, update, update.c.completed == 0, update.c.mailchimpsync_batch_id.is_not(None))
    yield _fact("updates", f"{many(queued, 'update')} queued, {sent} in flight; the sync continues with both")
    rows = conn.execute(
        select(batch.c.mailchimp_batch_id, batch.c.mailchimp_list_id, batch.c.status)
        .where(batch.c.response_processed.in_(OPEN), func.coalesce(batch.c.status, "") != "aborted")
        .order_by(batch.c.id)
    ).all()
    yield _fact("batches", f"{many(len(rows), 'batch', 'batches')} in flight, whose results civiapi would fetch")
    for row in rows[:MAX_BATCHES]:
        state = row.status or "not asked about yet"
        name = row.mailchimp_batch_id or "without an id"
        yield _fact("batch", f"Batch {name} of audience {row.mailchimp_list_id or 'unknown'}: {state}")
    jobs = [one for one in _sync_jobs(conn, clock) if one.is_active]
    if jobs:
        yield _fact("jobs", f"{many(len(jobs), 'scheduled job')} for the sync; disable CiviCRM's own cron for that")
    else:
        yield _fact("jobs", "No scheduled job that syncs; one that runs every hour would be added")


def _links(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    yield from configuration(conn, clock)
    try:
        config = read_config(conn)
    except BadConfig:
        return
    yield _fact("accounts", many(len(config.accounts), "Mailchimp account"))


def _syncs(
    conn: Connection, there: set[str], clock: SiteClock, now: datetime, crashed_minutes: float
) -> Iterator[Finding]:
    """The state of each audience's sync; whether the extension is at work on it, or was killed there."""
    for list_id in conn.execute(select(status.c.list_id).order_by(status.c.list_id)).scalars().all():
        checkpoint = (load if run.name in there else read_stored)(conn, list_id)
        logged = last_logged(checkpoint, clock)
        age = f"its newest log line is {in_words(now - logged)} old" if logged else "it has no log"
        held = f"the lock of audience {list_id} is busy, and {age}"
        if is_extension_at_work(checkpoint, clock, now, crashed_minutes):
            remedy = "Wait until it has finished, and disable its scheduled job in CiviCRM."
            yield Finding(f"busy:{list_id}", Severity.WARNING, f"CiviCRM's extension is at work: {held}.", remedy)
        elif checkpoint.is_held_elsewhere:
            todo = _count(conn, cache, cache.c.mailchimp_list_id == list_id, cache.c.sync_status == SyncStatus.TODO)
            of_list = select(cache.c.id).where(cache.c.mailchimp_list_id == list_id)
            updates = _count(conn, update, update.c.completed == 0, update.c.mailchimpsync_cache_id.in_(of_list))
            remains = what_remains(checkpoint, todo, updates)
            yield Finding(f"crashed:{list_id}", Severity.INFO, f"CiviCRM's extension crashed: {held}.", remains)
        elif checkpoint.is_fetching:
            sentence = f"The fetch of audience {list_id} stopped at member {checkpoint.fetch['offset']}"
            yield _fact(f"fetch:{list_id}", f"{sentence} and would continue there.")
        elif checkpoint.stage != READY_TO_FETCH:
            sentence = f"The sync of audience {list_id} is at {checkpoint.stage} and would continue there."
            yield _fact(f"stage:{list_id}", sentence)
        else:
            yield _fact(f"stage:{list_id}", f"No sync of audience {list_id} is under way.")


def _missing(conn: Connection, clock: SiteClock) -> list[str]:
    """What an adopted database has and this one does not, by name."""
    tables = [f"table {name}" for name in missing_tables(conn)]
    indexes = [f"index {name}" for name in missing_indexes(conn)]
    has_jobs = inspect(conn).has_table(job.name) and _sync_jobs(conn, clock)
    return [*tables, *indexes, *([] if has_jobs else ["a scheduled job that syncs every hour"])]


def _sync_jobs(conn: Connection, clock: SiteClock) -> list[Job]:
    return [one for one in all_jobs(conn, clock) if one.entity.lower() == "mailchimpsync"]


def _added(conn: Connection) -> Iterator[Finding]:
    version = read_version(conn)
    if version == len(MIGRATIONS):
        yield _fact("schema", f"Nothing: civiapi's schema has version {version}, the newest.")
        return
    missing = missing_tables(conn)
    installed = f"civiapi's schema has version {version} of {len(MIGRATIONS)}"
    before = "civiapi was never installed here" if run.name in missing else "civiapi handed this database back"
    yield _fact("schema", installed if version else before)
    for name in missing:
        yield _fact("table", f"table {name}")
    for name in missing_indexes(conn):
        yield _fact("index", f"index {name}")
