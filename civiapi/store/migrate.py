"""Takes a database from any version to this one, or refuses it.

A step may find its work already done (a CiviCRM database has CiviCRM's tables, a later table definition may already
have a column that a step adds), so each makes only what is missing, and never alters what CiviCRM made. On SQLite the
whole upgrade is one transaction; MariaDB commits every change of a table by itself, which is why steps can be repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass

import orjson
from sqlalchemy import Column, Connection, Integer, Table, delete, insert, inspect, select, update
from sqlalchemy.schema import CreateColumn

from civiapi.store.dialect import alone
from civiapi.store.engine import Store
from civiapi.store.errors import SchemaTooNew
from civiapi.store.seed import seed, seed_job
from civiapi.store.tables import METADATA, PLAIN

schema = Table("civiapi_schema", METADATA, Column("version", Integer, primary_key=True, autoincrement=False), **PLAIN)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the schema's history: what it makes, and how."""

    what: str
    make: Callable[[Connection], None]


def make_missing(*names: str) -> Callable[[Connection], None]:
    """A step that makes those of the named tables that are not there, with their keys and indexes."""

    def make(conn: Connection) -> None:
        tables = [METADATA.tables[name] for name in names]
        METADATA.create_all(conn, tables=tables, checkfirst=True)

    return make


def make_indexes(*names: str) -> Callable[[Connection], None]:
    """A step that makes our own indexes (``civiapi_…``) on tables that somebody else may have made."""

    def make(conn: Connection) -> None:
        look = inspect(conn)
        for name in names:
            there = {index["name"] for index in look.get_indexes(name)}
            for index in METADATA.tables[name].indexes:
                if str(index.name).startswith("civiapi_") and index.name not in there:
                    index.create(conn)

    return make


def add_column(conn: Connection, table: Table, name: str) -> None:
    """Give one of our own tables a column that it lacks; one that takes NULL or has a default."""
    if name in {column["name"] for column in inspect(conn).get_columns(table.name)}:
        return
    declared = CreateColumn(table.c[name]).compile(dialect=conn.dialect)
    conn.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declared}")


def note_addresses_of_events(conn: Connection) -> None:
    """A column for whom a webhook event is about, filled from what was kept."""
    event = METADATA.tables["civiapi_webhook_event"]
    add_column(conn, event, "address")
    for row in conn.execute(select(event.c.id, event.c.body).where(event.c.address.is_(None))).all():
        data = orjson.loads(row.body).get("data")
        said = (data.get("email") or data.get("new_email")) if isinstance(data, dict) else None
        if isinstance(said, str) and said.strip():
            conn.execute(update(event).where(event.c.id == row.id).values(address=said.strip()[:255]))


STEPS: tuple[Step, ...] = (
    Step(
        "CiviCRM's tables",
        make_missing(
            "civicrm_contact",
            "civicrm_location_type",
            "civicrm_email",
            "civicrm_group",
            "civicrm_group_contact",
            "civicrm_subscription_history",
            "civicrm_tag",
            "civicrm_entity_tag",
            "civicrm_domain",
            "civicrm_setting",
            "civicrm_job",
            "civicrm_job_log",
            "civicrm_uf_match",
            "civicrm_option_group",
            "civicrm_option_value",
        ),
    ),
    Step(
        "the extension's tables",
        make_missing(
            "civicrm_mailchimpsync_batch",
            "civicrm_mailchimpsync_cache",
            "civicrm_mailchimpsync_update",
            "civicrm_mailchimpsync_status",
        ),
    ),
    Step(
        "indexes the sync needs",
        make_indexes("civicrm_mailchimpsync_batch", "civicrm_mailchimpsync_cache", "civicrm_mailchimpsync_update"),
    ),
    Step(
        "our own tables",
        make_missing("civiapi_claim", "civiapi_run", "civiapi_run_log", "civiapi_webhook_event", "civiapi_update"),
    ),
    Step("the rows every CiviCRM starts with", seed),
    Step("the contacts of the settings' users", make_missing("civiapi_user")),
    Step("what a full fetch notes of members", make_missing("civiapi_member")),
    Step("an index from audience to contact", make_indexes("civicrm_mailchimpsync_cache")),
    Step("what was imported from where", make_missing("civiapi_import")),
    Step("the job that syncs every hour", seed_job),
    Step("whom webhook events are about", note_addresses_of_events),
    Step("what Mailchimp last said of our webhooks", make_missing("civiapi_hook_health")),
    Step("what each day brought", make_missing("civiapi_daily")),
    Step("whose turn it is in a sync of all", make_missing("civiapi_turn")),
    Step("an index from audience to Mailchimp's status", make_indexes("civicrm_mailchimpsync_cache")),
    Step("counts of large audiences", make_missing("civiapi_balance")),
    Step("what a sync would do", make_missing("civiapi_plan", "civiapi_plan_person")),
)


async def migrate(store: Store) -> list[str]:
    """Bring the schema to this version; says what was made. Raises ``SchemaTooNew`` for a later one, untouched."""
    version = await store.read(read_version)
    if version == len(STEPS):
        return []
    return await store.write(_upgrade)


def read_version(conn: Connection) -> int:
    """The version of the schema, 0 where we have never been. Raises ``SchemaTooNew``."""
    if not inspect(conn).has_table(schema.name):
        return 0
    version = conn.execute(select(schema.c.version)).scalar() or 0
    if version > len(STEPS):
        raise SchemaTooNew(
            f"This database has schema version {version}; this civiapi knows up to {len(STEPS)}. "
            "Use the later civiapi that made it, or a backup from before."
        )
    return version


def missing_tables(conn: Connection) -> list[str]:
    """The tables that an upgrade would make."""
    there = set(inspect(conn).get_table_names())
    return [name for name in METADATA.tables if name not in there]


def missing_indexes(conn: Connection) -> list[str]:
    """Our own indexes that an upgrade would add to tables that are there."""
    look = inspect(conn)
    there = set(look.get_table_names())
    found = []
    for name in (name for name in METADATA.tables if name in there):
        known = {index["name"] for index in look.get_indexes(name)}
        ours = (str(index.name) for index in METADATA.tables[name].indexes)
        found += [f"{one} on {name}" for one in ours if one.startswith("civiapi_") and one not in known]
    return sorted(found)


def missing_columns(conn: Connection) -> list[str]:
    """Columns that we name and that tables made by somebody else lack."""
    look = inspect(conn)
    there = set(look.get_table_names())
    found = []
    for name, table in METADATA.tables.items():
        if name in there and not name.startswith("civiapi_"):
            known = {column["name"] for column in look.get_columns(name)}
            found += [f"{name}.{column.name}" for column in table.columns if column.name not in known]
    return found


def _upgrade(conn: Connection) -> list[str]:
    with alone(conn, "civiapi_upgrade"):  # several processes may be started on one database at once
        done = read_version(conn)
        for step in STEPS[done:]:
            step.make(conn)
        METADATA.create_all(conn, tables=[schema], checkfirst=True)
        conn.execute(delete(schema))
        conn.execute(insert(schema).values(version=len(STEPS)))
        return [step.what for step in STEPS[done:]]
