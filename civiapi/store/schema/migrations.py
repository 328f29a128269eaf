"""Upgrade a database from any earlier version to this one, or refuse it.

A migration adds only what is missing (CiviCRM's tables may exist, a new table already has a column that a later
migration adds) and never alters CiviCRM's tables. On SQLite the whole upgrade is one transaction; MariaDB commits every
change of a table by itself, so migrations can be repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    UniqueConstraint,
    delete,
    insert,
    inspect,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.schema import CreateColumn, CreateTable, sort_tables

from civiapi.store.databases.dialect import create_index, migration_lock, recollate, recollated, text_columns
from civiapi.store.databases.text_keys import drop_index, index_by_keys, index_names
from civiapi.store.engine import Store
from civiapi.store.errors import NotAdopted, SchemaTooNew
from civiapi.store.schema.seed import (
    seed,
    seed_activities,
    seed_campaign_job,
    seed_greetings,
    seed_job,
    seed_places_and_relations,
)
from civiapi.store.schema.tables import METADATA, PLAIN, contact, option_group, option_value, tag
from civiapi.store.signing import make_nonce
from civiapi.store.text.collation import sort_key
from civiapi.store.text.encoded_text import cut, encode, is_encoded

log = structlog.get_logger(__name__)

schema = Table("civiapi_schema", METADATA, Column("version", Integer, primary_key=True, autoincrement=False), **PLAIN)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step in the history of the schema: its description and its function."""

    what: str
    make: Callable[[Connection], None]


def make_missing(*names: str) -> Callable[[Connection], None]:
    """A migration that creates missing tables, with their keys and indexes."""
    return lambda conn: create_tables(conn, [METADATA.tables[name] for name in names])


def create_tables(conn: Connection, tables: Sequence[Table]) -> None:
    """Create those that are missing, each with its indexes in one order on every site.

    SQLAlchemy makes them in the order of a set, and among indexes that seem equal SQLite takes one by age.
    """
    there = set(inspect(conn).get_table_names())
    for table in sort_tables([one for one in tables if one.name not in there]):
        conn.execute(CreateTable(table))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.create(conn)


def make_signing(conn: Connection) -> None:
    """Make the tables behind sessions, and the nonce, so that nobody's first log-in has to write it."""
    make_missing("civiapi_signing", "civiapi_session_epoch")(conn)
    make_nonce(conn)


def make_indexes(*names: str) -> Callable[[Connection], None]:
    """A migration that adds our own indexes (``civiapi_…``) to tables that CiviCRM may have made."""

    def make(conn: Connection) -> None:
        for name in names:
            there = index_names(conn, name)
            for index in sorted(METADATA.tables[name].indexes, key=lambda index: str(index.name)):
                if str(index.name).startswith("civiapi_") and index.name not in there:
                    create_index(conn, name, index)

    return make


def add_column(conn: Connection, table: Table, name: str) -> None:
    """Add a missing column, nullable or with a default, to one of our own tables."""
    if name in {column["name"] for column in inspect(conn).get_columns(table.name)}:
        return
    declared = CreateColumn(table.c[name]).compile(dialect=conn.dialect)
    conn.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declared}")


def add_undo_of_runs(conn: Connection) -> None:
    """Make the tables of what runs did and of what an undo holds, and the columns of the run log beside them."""
    make_missing("civiapi_run_change", "civiapi_hold")(conn)
    for name in ("undoes", "undone_by", "log"):
        add_column(conn, METADATA.tables["civiapi_run_log"], name)


def add_updates_of_undos(conn: Connection) -> None:
    """Add when an undo read the members, and which update takes a change back."""
    add_column(conn, METADATA.tables["civiapi_update"], "decided_s")
    add_column(conn, METADATA.tables["civiapi_run_change"], "undo_update_id")


def note_addresses_of_events(conn: Connection) -> None:
    """Add the address of webhook events, and fill it from the stored bodies."""
    event = METADATA.tables["civiapi_webhook_event"]
    add_column(conn, event, "address")
    for row in conn.execute(select(event.c.id, event.c.body).where(event.c.address.is_(None))).all():
        data = orjson.loads(row.body).get("data")
        address = (data.get("email") or data.get("new_email")) if isinstance(data, dict) else None
        if isinstance(address, str) and address.strip():
            conn.execute(update(event).where(event.c.id == row.id).values(address=address.strip()[:255]))


def drop_unused_fields_of_events(conn: Connection) -> None:
    """Of the stored bodies of webhook events, keep the fields that processing uses: the rest is personal data."""
    event = METADATA.tables["civiapi_webhook_event"]
    used = ("list_id", "id", "email", "old_email", "new_email", "action")
    last_id = 0
    while rows := conn.execute(
        select(event.c.id, event.c.body).where(event.c.id > last_id).order_by(event.c.id).limit(500)
    ).all():
        last_id = rows[-1].id
        for row in rows:
            try:
                fields = orjson.loads(row.body)
            except orjson.JSONDecodeError:  # `civiapi check` lists it
                continue
            if not isinstance(fields, dict):
                continue
            data = fields.get("data")
            kept = {name: fields[name] for name in ("type", "fired_at") if name in fields}
            kept["data"] = {name: data[name] for name in used if name in data} if isinstance(data, dict) else {}
            if kept != fields:
                conn.execute(update(event).where(event.c.id == row.id).values(body=orjson.dumps(kept).decode()))


def use_civicrm_collation(conn: Connection) -> None:
    """Let texts compare on SQLite as on MariaDB. What thereby becomes a duplicate gets its row's id appended."""
    for table in METADATA.tables.values():
        if sql := recollated(conn, table):
            texts = set(text_columns(conn, table))
            for constraint in table.constraints:
                names = (
                    [column.name for column in constraint.columns] if isinstance(constraint, UniqueConstraint) else []
                )
                if texts & set(names):
                    make_distinct(conn, table, names, max(texts & set(names)))
            recollate(conn, table, sql)


def make_distinct(conn: Connection, table: Table, names: list[str], name: str) -> None:
    """Append the id to the text *name* of all rows but the first that have the same in *names*."""
    seen: set[tuple[Any, ...]] = set()
    found = conn.execute(select(table.c.id, *(table.c[one] for one in names)).order_by(table.c.id)).all()
    for row in (row for row in found if None not in row):
        key = tuple(sort_key(value) if isinstance(value, str) else value for value in row[1:])
        if key in seen:
            tail, old = f" ({row.id})", str(getattr(row, name))
            new = cut(old, getattr(table.c[name].type, "length", 255) - len(tail)) + tail
            conn.execute(update(table).where(table.c.id == row.id).values({name: new}))
            log.warning("a text equal to another one was changed", table=table.name, column=name, old=old, new=new)
        seen.add(key)


def index_members_without_contact(conn: Connection) -> None:
    """Add the status to the index from audience to contact: members who left without ever having one are many."""
    make_indexes("civicrm_mailchimpsync_cache")(conn)
    drop_index(conn, "civicrm_mailchimpsync_cache", "civiapi_cache_list_contact")


def index_texts_by_keys(conn: Connection) -> None:
    """Make the indexes of texts again on SQLite, over keys that it compares by itself."""
    index_by_keys(conn, METADATA.tables.values())


def encode_text(conn: Connection) -> None:
    """Store the ``<`` and ``>`` of earlier versions as CiviCRM does. A database that CiviCRM made is not touched."""
    if read_version(conn) == 0 or is_civicrms(conn):  # 0: made just now, or being adopted
        return
    look = inspect(conn)
    there = set(look.get_table_names())
    for table in (one for one in METADATA.tables.values() if one.name in there):  # later migrations make others
        names = {column["name"] for column in look.get_columns(table.name)}
        for column in (one for one in table.columns if one.name in names and is_encoded(one.type)):
            stored = type_coerce(column, String())  # as it is
            odd = or_(stored.contains("<"), stored.contains(">"))
            for row_id, text in conn.execute(select(table.c.id, stored).where(odd)).all():
                fitting = cut(text, getattr(column.type, "length", None) or len(encode(text)))
                other = select(table.c.id).where(column == fitting, table.c.id != row_id)
                if column.unique and conn.execute(other).first() is not None:
                    continue  # encoded and not, both are there: it stays as it is, and is read as before
                conn.execute(update(table).where(table.c.id == row_id).values({column.name: fitting}))


def add_greetings(conn: Connection) -> None:
    """Add the lists of greetings. A database that CiviCRM made has them, and is not touched."""
    if not is_civicrms(conn):
        add_column(conn, option_value, "filter")
        seed_greetings(conn)


def add_more_of_civicrm(conn: Connection) -> None:
    """Make more of CiviCRM's tables, and give those that earlier versions made their other columns.

    A database that CiviCRM made has them, and is not touched.
    """
    make_missing(
        "civicrm_country",
        "civicrm_state_province",
        "civicrm_address",
        "civicrm_phone",
        "civicrm_note",
        "civicrm_relationship_type",
        "civicrm_relationship",
        "civicrm_custom_group",
        "civicrm_custom_field",
        "civicrm_group_contact_cache",
    )(conn)
    if is_civicrms(conn):
        return
    for table in (option_group, option_value):
        for column in table.columns:
            add_column(conn, table, column.name)
    seed_places_and_relations(conn)


def add_activities(conn: Connection) -> None:
    """Make CiviCRM's tables of activities, with their types and statuses; a CiviCRM's database has them."""
    make_missing("civicrm_activity", "civicrm_activity_contact")(conn)
    if not is_civicrms(conn):
        seed_activities(conn)


def add_campaigns(conn: Connection) -> None:
    """Make the tables of imported campaigns, and the job that imports them, which is off."""
    make_missing("civiapi_campaign", "civiapi_campaign_response", "civiapi_campaign_import")(conn)
    if not is_civicrms(conn):  # CiviCRM's cron would run it there too, and does not know the call
        seed_campaign_job(conn)


def add_unknown_recipients(conn: Connection) -> None:
    """Make the table of recipients who were no contact, and the column that says when they were last looked up."""
    make_missing("civiapi_campaign_unknown")(conn)
    add_column(conn, METADATA.tables["civiapi_campaign_import"], "newest_email")


def add_authors_of_runs(conn: Connection) -> None:
    """Add the columns that say who asked for a run."""
    run_log = METADATA.tables["civiapi_run_log"]
    for name in ("contact_id", "author"):
        add_column(conn, run_log, name)


def add_groups_of_runs(conn: Connection) -> None:
    """Add the column that says which groups were linked when a run began."""
    add_column(conn, METADATA.tables["civiapi_run_log"], "linked")


def separate_by_commas(conn: Connection) -> None:
    """Store what tags are used for as CiviCRM does: earlier versions wrote the separator of other lists."""
    for row_id, used_for in conn.execute(select(tag.c.id, tag.c.used_for).where(tag.c.used_for.contains("\x01"))).all():
        conn.execute(update(tag).where(tag.c.id == row_id).values(used_for=used_for.strip("\x01").replace("\x01", ",")))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
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
    Migration(
        "the extension's tables",
        make_missing(
            "civicrm_mailchimpsync_batch",
            "civicrm_mailchimpsync_cache",
            "civicrm_mailchimpsync_update",
            "civicrm_mailchimpsync_status",
        ),
    ),
    Migration(
        "indexes the sync needs",
        make_indexes("civicrm_mailchimpsync_batch", "civicrm_mailchimpsync_cache", "civicrm_mailchimpsync_update"),
    ),
    Migration(
        "our own tables",
        make_missing("civiapi_claim", "civiapi_run", "civiapi_run_log", "civiapi_webhook_event", "civiapi_update"),
    ),
    Migration("the rows every CiviCRM starts with", seed),
    Migration("the contacts of the settings' users", make_missing("civiapi_user")),
    Migration("what a full fetch notes of members", make_missing("civiapi_member")),
    Migration("an index from audience to contact", make_indexes("civicrm_mailchimpsync_cache")),
    Migration("what was imported from where", make_missing("civiapi_import")),
    Migration("the job that syncs every hour", seed_job),
    Migration("addresses of webhook events", note_addresses_of_events),
    Migration("what Mailchimp last said of our webhooks", make_missing("civiapi_hook_health")),
    Migration("what each day brought", make_missing("civiapi_daily")),
    Migration("whose turn it is in a sync of all", make_missing("civiapi_turn")),
    Migration("an index from audience to Mailchimp's status", make_indexes("civicrm_mailchimpsync_cache")),
    Migration("counts of large audiences", make_missing("civiapi_balance")),
    Migration("what a sync would do", make_missing("civiapi_plan", "civiapi_plan_person")),
    Migration("what signs sessions and ends them", make_signing),
    Migration("the signing secrets of webhooks", make_missing("civiapi_hook_signing")),
    Migration("webhook events without unused fields", drop_unused_fields_of_events),
    Migration("when Mailchimp is asked again", make_missing("civiapi_retry")),
    Migration("CiviCRM's collation on SQLite", use_civicrm_collation),
    Migration("text stored as CiviCRM stores it", encode_text),
    Migration("greetings", add_greetings),
    Migration("groups in groups", make_missing("civicrm_group_nesting")),
    Migration("alerts", make_missing("civiapi_alert", "civiapi_alert_message")),
    Migration("addresses, phones, notes, relationships and custom fields", add_more_of_civicrm),
    Migration("members without an address", make_missing("civiapi_no_address")),
    Migration("what the sync itself wrote", make_missing("civiapi_own_rows")),
    Migration("an index from group to CiviCRM's statuses", make_indexes("civicrm_subscription_history")),
    Migration("what tags are used for, as CiviCRM stores it", separate_by_commas),
    Migration("activities", add_activities),
    Migration("indexes of texts by keys", index_texts_by_keys),
    Migration("the timeline", make_missing("civiapi_event", "civiapi_config_seen")),
    Migration("which members' data is to be looked at", make_missing("civiapi_data_marks", "civiapi_data_due")),
    Migration("imported campaigns", add_campaigns),
    Migration("what runs did to whom, and their undo", add_undo_of_runs),
    Migration("an index of runs by time", make_indexes("civiapi_run_log")),
    Migration("smart groups as sources", make_missing("civiapi_source_contact", "civiapi_source_group")),
    Migration("who asked for a run", add_authors_of_runs),
    Migration("an index of members without a contact", index_members_without_contact),
    Migration("marketing permissions", make_missing("civiapi_permission", "civiapi_consent")),
    Migration("recipients of campaigns who become contacts later", add_unknown_recipients),
    Migration("which updates undo what, and since when", add_updates_of_undos),
    Migration("the groups that were linked when a run began", add_groups_of_runs),
)


async def migrate(store: Store, *, adopt: bool = False) -> list[str]:
    """Upgrade the schema; returns what was added. Raises ``SchemaTooNew`` for a later version.

    Raises ``NotAdopted`` for a database that CiviCRM made and that nobody adopted; *adopt* does.
    """
    version = await store.read(read_version)
    if version == len(MIGRATIONS):
        return []
    if not adopt and await store.read(needs_adopting):
        raise NotAdopted
    return await store.write(_upgrade)


def needs_adopting(conn: Connection) -> bool:
    """Whether others made this database, and civiapi was never installed or has released it."""
    look = inspect(conn)
    return look.has_table(contact.name) and not look.has_table(schema.name)


def is_civicrms(conn: Connection) -> bool:
    """Whether a CiviCRM made this database: it has tables of CiviCRM that civiapi never makes."""
    return any(name.startswith("civicrm_") and name not in METADATA.tables for name in inspect(conn).get_table_names())


def read_version(conn: Connection) -> int:
    """The version of the schema, 0 where civiapi was never installed. Raises ``SchemaTooNew``."""
    if not inspect(conn).has_table(schema.name):
        return 0
    version = conn.execute(select(schema.c.version)).scalar() or 0
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"This database has schema version {version}; this civiapi knows up to {len(MIGRATIONS)}. "
            "Use the later civiapi that made it, or a backup from before."
        )
    return version


def missing_tables(conn: Connection) -> list[str]:
    """The tables that an upgrade would create."""
    there = set(inspect(conn).get_table_names())
    return [name for name in METADATA.tables if name not in there]


def missing_indexes(conn: Connection) -> list[str]:
    """Our own indexes that an upgrade would add to existing tables."""
    look = inspect(conn)
    there = set(look.get_table_names())
    found = []
    for name in (name for name in METADATA.tables if name in there):
        known = index_names(conn, name)
        ours = (str(index.name) for index in METADATA.tables[name].indexes)
        found += [f"{one} on {name}" for one in ours if one.startswith("civiapi_") and one not in known]
    return sorted(found)


def _upgrade(conn: Connection) -> list[str]:
    with migration_lock(conn, "civiapi_upgrade"):  # several processes may start at once
        done = read_version(conn)
        create_tables(conn, [schema])  # first: it says that the tables are ours to finish
        for step in MIGRATIONS[done:]:
            step.make(conn)
        conn.execute(delete(schema))
        conn.execute(insert(schema).values(version=len(MIGRATIONS)))
        return [step.what for step in MIGRATIONS[done:]]
