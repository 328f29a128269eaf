"""A large audience at rest, loaded in bulk: contacts in the group, members at Mailchimp, their rows and history."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, update

from civiapi.store.databases.bulk import insert_rows
from civiapi.store.schema.tables import contact, email, group_contact, subscription_history
from sync.mailchimp.wire import subscriber_hash
from sync.store import tables
from tests.support.linked_site import GROUP, Site

FIRST_ID = 1001
"""The id of the first contact of a crowd; a new site has none as high."""

WATCHED = {
    one.name
    for one in (contact, email, group_contact, subscription_history, tables.cache, tables.update, tables.member)
}
"""The tables that grow with an audience."""


def address(number: int) -> str:
    """The address of the contact with this id."""
    return f"person{number}@example.org"


def add_contacts(conn: Connection, ids: range, at: str) -> None:
    """Contacts with an address each, made and last modified at site time *at*."""
    columns = ("id", "contact_type", "first_name", "created_date", "modified_date")
    insert_rows(conn, contact, columns, [(one, "Individual", "Ada", at, at) for one in ids])
    insert_rows(conn, email, ("contact_id", "email", "is_primary"), [(one, address(one), 1) for one in ids])


def add_to_group(conn: Connection, ids: range, at: str, *, method: str, group_id: int = GROUP) -> None:
    """Put them into a group at site time *at*."""
    members = [(group_id, one, "Added") for one in ids]
    insert_rows(conn, group_contact, ("group_id", "contact_id", "status"), members)
    columns = ("contact_id", "group_id", "date", "method", "status")
    insert_rows(
        conn, subscription_history, columns, [(one, group_id, at, method, "Added") for one in ids], adjacent=True
    )


def add_members(conn: Connection, ids: range, list_id: str, at: str, *, first_row: int = 1) -> None:
    """Rows of members in step with their contacts, from row id *first_row* on."""
    columns = ("id", "mailchimp_list_id", "mailchimp_member_id", "mailchimp_email", "mailchimp_status")
    columns += ("mailchimp_updated", "civicrm_contact_id", "sync_status")
    rows: list[tuple[Any, ...]] = [
        (row, list_id, subscriber_hash(address(n)), address(n), "subscribed", at, n, "ok")
        for row, n in enumerate(ids, first_row)
    ]
    insert_rows(conn, tables.cache, columns, rows)
    insert_rows(conn, tables.member, ("cache_id", "contact_id"), [(row[0], f"c{row[0]}") for row in rows])


def add_strangers(conn: Connection, ids: range, list_id: str, at: str, *, first_row: int) -> None:
    """Members who left before anything was synced: nobody makes contacts of them."""
    columns = ("id", "mailchimp_list_id", "mailchimp_member_id", "mailchimp_email", "mailchimp_status")
    rows: list[tuple[Any, ...]] = [
        (row, list_id, subscriber_hash(address(n)), address(n), "unsubscribed", at, "ok")
        for row, n in enumerate(ids, first_row)
    ]
    insert_rows(conn, tables.cache, (*columns, "mailchimp_updated", "sync_status"), rows)


async def happenings(site: Site, crowd: range) -> None:
    """People join and leave, and change their names and addresses, at both ends: 110, the crowd's first among them."""
    first, name = crowd[0], f"{crowd[0]}"
    for number in range(first, first + 20):
        site.joined(address(number), status="unsubscribed" if number % 2 else "subscribed")
    site.joined(*(f"new{number}.{name}@example.org" for number in range(20)))
    for number in range(20):
        await site.person(f"joiner{number}.{name}@example.org")
    for number in range(first + 100, first + 120):
        site.joined(address(number))
        await site.set_group(number, "Removed", at=datetime.now(UTC) - timedelta(minutes=1))
    await site.store.write(_readdress, range(first + 200, first + 210), site.store.clock.now())


def _readdress(conn: Connection, ids: range, at: str) -> None:
    moved = {"email": f"moved{ids[0]}@example.org"}
    conn.execute(update(email).where(email.c.contact_id.between(ids[0], ids[-1])).values(moved))
    conn.execute(update(contact).where(contact.c.id.between(ids[0], ids[-1])).values(modified_date=at))


def analyze(conn: Connection) -> None:
    """Take statistics of the tables that grow."""
    for name in sorted(WATCHED):
        conn.exec_driver_sql(f"ANALYZE {name}" if conn.dialect.name == "sqlite" else f"ANALYZE TABLE {name}").close()


def remake_indexes(conn: Connection, *, backwards: bool) -> None:
    """Make the indexes of a SQLite file again, by name: among those that seem equal, the planner takes one by age."""
    found = conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").all()
    for name, sql in sorted(found, reverse=backwards):
        conn.exec_driver_sql(f'DROP INDEX "{name}"')
        conn.exec_driver_sql(sql)
