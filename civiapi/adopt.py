"""Looks over a database that CiviCRM and the extension made, before we write anything: what is there, what we would do.

Every function only reads. What we would add is what an upgrade of the schema would: our own tables (``civiapi_…``),
our own indexes, and nothing else on a database with the extension in it; nothing of CiviCRM's is altered or dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, inspect, select, text

from civiapi.doctor import Finding
from civiapi.settings import Settings
from civiapi.store import dialect
from civiapi.store.clock import SITE_FORMAT, SiteClock
from civiapi.store.engine import open_store
from civiapi.store.jobs import all_jobs
from civiapi.store.migrate import STEPS, migrate, missing_columns, missing_indexes, missing_tables, read_version
from civiapi.store.tables import contact, domain, email, group, group_contact, subscription_history
from sync.batch_rows import OPEN
from sync.config import read_config
from sync.errors import BadConfig
from sync.positions import READY_TO_FETCH, find_stage
from sync.tables import batch, cache, status, update

CIVICRM = (contact, email, group, group_contact, subscription_history)
EXTENSION = (cache, update, batch, status)
NEVER_IN_THE_FUTURE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Section:
    """Findings under one heading."""

    title: str
    findings: list[Finding]


async def look_over(settings: Settings) -> list[Section]:
    """Read the database that the settings name. Raises ``StoreError``."""
    store = await open_store(settings.database.url, settings.database.timezone)
    try:
        return await store.read(survey, store.clock, datetime.now(UTC))
    finally:
        await store.close()


async def take_over(settings: Settings) -> list[str]:
    """Add what is ours; what was made. Raises ``StoreError``."""
    store = await open_store(settings.database.url, settings.database.timezone)
    try:
        return await migrate(store)
    finally:
        await store.close()


def survey(conn: Connection, clock: SiteClock, now: datetime) -> list[Section]:
    """What was found and what would be done. Raises ``SchemaTooNew``."""
    there = set(inspect(conn).get_table_names())
    lacking = [one.name for one in CIVICRM if one.name not in there]
    if lacking:
        advice = f"There is no {lacking[0]} here: point [database] url at CiviCRM's database."
        return [Section("CiviCRM", [Finding("this is a CiviCRM database", False, advice)])]
    found = [Section("CiviCRM", list(_civicrm(conn, there)))]
    found.append(Section("Times", list(_times(conn, there, clock, now))))
    if {one.name for one in EXTENSION} <= there:
        found.append(Section("The mailchimpsync extension", list(_extension(conn, clock))))
        found.append(Section("Linked audiences", list(_links(conn))))
    else:
        said = Finding("the mailchimpsync extension was never here; its tables would be made", True)
        found.append(Section("The mailchimpsync extension", [said]))
    found.append(Section("What civiapi would add (nothing of CiviCRM's is altered or dropped)", list(_plan(conn))))
    return found


def _count(conn: Connection, table: object, *conditions: object) -> int:
    return int(conn.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())  # type: ignore[arg-type]


def _civicrm(conn: Connection, there: set[str]) -> Iterator[Finding]:
    version = conn.execute(select(domain.c.version).order_by(domain.c.id).limit(1)).scalar()
    yield Finding(f"CiviCRM {version or 'of unknown version'}, {len(there)} tables", True)
    server = conn.execute(text("SELECT sqlite_version()" if conn.dialect.name == "sqlite" else "SELECT VERSION()"))
    yield Finding(f"database server {conn.dialect.name} {server.scalar()}", True)
    people, addresses = _count(conn, contact, contact.c.is_deleted == 0), _count(conn, email)
    yield Finding(f"{people} contacts, {addresses} addresses", True)
    standing, words = _count(conn, group_contact), _count(conn, subscription_history)
    yield Finding(f"{_count(conn, group)} groups, {standing} memberships, {words} words of their history", True)
    keys = _count(conn, contact, contact.c.api_key.is_not(None), contact.c.api_key != "")
    yield Finding(f"{keys} contacts with an API key, which go on working", True)
    for column in missing_columns(conn):
        yield Finding(f"no column {column}", False, "This CiviCRM is of a version that civiapi does not know yet.")


def _times(conn: Connection, there: set[str], clock: SiteClock, now: datetime) -> Iterator[Finding]:
    zone = clock.zone.key
    trouble = dialect.zone_trouble(conn, clock.zone)
    yield Finding(f"times are taken to be in {zone} ([database] timezone)", not trouble, f"But {trouble}.")
    if batch.name not in there:
        return
    latest = conn.execute(select(func.max(batch.c.submitted_at))).scalar()
    if latest is None:
        return
    told = latest.strftime(SITE_FORMAT) if isinstance(latest, datetime) else str(latest)
    moment = clock.read(told)
    ahead = moment is not None and moment > now.astimezone(UTC) + NEVER_IN_THE_FUTURE
    advice = f"In {zone} that lies in the future: set [database] timezone to the zone CiviCRM runs in."
    yield Finding(f"the last batch was sent at {told}, {zone}", not ahead, advice)


def _extension(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    by_status = conn.execute(select(cache.c.sync_status, func.count()).group_by(cache.c.sync_status)).all()
    shown = ", ".join(f"{row[1]} {row[0]}" for row in by_status) or "none"
    yield Finding(f"{sum(row[1] for row in by_status)} cache rows ({shown})", True)
    unsent = _count(conn, update, update.c.completed == 0, update.c.mailchimpsync_batch_id.is_(None))
    sent = _count(conn, update, update.c.completed == 0, update.c.mailchimpsync_batch_id.is_not(None))
    yield Finding(f"{unsent} updates to be sent, {sent} sent and without a result: both go on from there", True)
    rows = conn.execute(
        select(batch.c.mailchimp_batch_id, batch.c.mailchimp_list_id, batch.c.status)
        .where(batch.c.response_processed.in_(OPEN), func.coalesce(batch.c.status, "") != "aborted")
        .order_by(batch.c.id)
    ).all()
    yield Finding(f"{len(rows)} batches in flight, whose results civiapi would fetch", True)
    for row in rows[:20]:
        yield Finding(f"batch {row.mailchimp_batch_id} of audience {row.mailchimp_list_id}: {row.status}", True)
    jobs = [one for one in all_jobs(conn, clock) if one.entity.lower() == "mailchimpsync" and one.is_active]
    if jobs:
        yield Finding(f"{len(jobs)} scheduled job(s) that sync; CiviCRM's own cron must no longer run them", True)
    else:
        yield Finding("no scheduled job that syncs; one that runs every hour would be added", True)


def _links(conn: Connection) -> Iterator[Finding]:
    try:
        config = read_config(conn)
    except BadConfig as error:
        yield Finding("the configuration", False, str(error))
        return
    if not config.links:
        yield Finding("no audience is linked with a group", True)
    for list_id, link in config.links.items():
        yield _group(conn, f"audience {list_id}", link.group_id, find_stage(conn, list_id))
        for interest, group_id in link.interests.items():
            yield _group(conn, f"interest {interest} of audience {list_id}", group_id, READY_TO_FETCH)
    yield Finding(f"{len(config.accounts)} Mailchimp account(s)", True)


def _group(conn: Connection, what: str, group_id: int, stage: str) -> Finding:
    row = conn.execute(select(group.c.title, group.c.saved_search_id).where(group.c.id == group_id)).first()
    if row is None:
        return Finding(f"{what} with group {group_id}", False, "The group is gone; link another one.")
    under_way = "" if stage == READY_TO_FETCH else f", a sync under way at {stage}"
    advice = "A smart group: nobody can be put into or taken out of it, so it is refused. Link an ordinary group."
    return Finding(f"{what} with group “{row.title}”{under_way}", row.saved_search_id is None, advice)


def _plan(conn: Connection) -> Iterator[Finding]:
    version = read_version(conn)
    if version == len(STEPS):
        yield Finding(f"nothing: civiapi's schema is here, version {version}", True)
        return
    known = f"civiapi's schema is here in version {version} of {len(STEPS)}" if version else "civiapi was never here"
    yield Finding(known, True)
    for name in [*missing_tables(conn), *([] if version else ["civiapi_schema"])]:
        yield Finding(f"table {name}", True)
    for name in missing_indexes(conn):
        yield Finding(f"index {name}", True)
