"""Finding cache rows of one audience: what ``MailchimpsyncCache.get`` and ``getcount`` show.

A row comes with ``status``, the status of the contact's latest change in the subscription group (from the subscription
history, empty where there is none). Conditions are Core expressions over ``columns``; how callers spell them is the
API's business. Order is by id, or against it. Ids are found first, in whatever index serves, and only one page of rows
is read.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, case, func, literal_column, select

from civiapi.store.databases.expressions import as_code, unindexed
from civiapi.store.schema.tables import subscription_history
from sync.connections.config import Link, read_config
from sync.errors import BadConfig, SyncError
from sync.reports.people.causes import cause_of_row, failure_words
from sync.store.members.blobs import data_as_json
from sync.store.members.consents import given_permissions
from sync.store.members.privacy import not_to_be_mailed
from sync.store.sources import members_of
from sync.store.tables import cache, source_contact

Where = Sequence[ColumnElement[bool]]
Value = int | str | BindParameter[Any]
"""A value, or the place for it in a statement that is kept."""

FEW = 5_000
"""Contacts that are looked up one by one, rather than an audience read in order."""

COLUMNS = (*(str(column.name) for column in cache.c), "status")
"""The columns of ``select_rows``, in order; plain texts, as SQLAlchemy's names are slow keys of a map and of JSON."""

DATA = {name: COLUMNS.index(name) for name in ("mailchimp_data", "civicrm_data")}
"""The place of each blob among these."""


def find_link(conn: Connection, list_id: str) -> Link:
    """The link of the audience to be searched. Raises SyncError, with the name as given."""
    if not list_id:
        raise SyncError("must provide mailchimp_list_id")
    found = read_config(conn).links.get(list_id)
    if found is None:
        raise BadConfig("Invalid list id")
    return found


def columns(group_id: Value) -> Mapping[str, ColumnElement[Any]]:
    """What rows can be sought by, by the name callers know it by."""
    own = {column.name: column for column in cache.c}
    return {
        **own,
        "civicrm_status": latest_status(group_id),
        "why_failed": failure_words(),
        "cause": cause_of_row(),
        "permissions": given_permissions(),
        "not_to_be_mailed": case((not_to_be_mailed(), literal_column("1")), else_=literal_column("0")),
    }


def latest_status(group_id: Value) -> ColumnElement[Any]:
    """The status of the latest change of a row's contact in the subscription group: that of its highest history row; in
    a smart group, what the last sync read."""
    known = source_contact.c
    as_source = (
        select(known.status)
        .where(known.contact_id == cache.c.civicrm_contact_id, unindexed(known.group_id) == group_id)
        .correlate(cache)
        .scalar_subquery()
    )
    by_history = (
        select(subscription_history.c.status)
        .where(
            subscription_history.c.contact_id == cache.c.civicrm_contact_id,
            unindexed(subscription_history.c.group_id) == group_id,  # a contact has a few rows, a group has all
        )
        .order_by(subscription_history.c.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )
    return as_code(func.coalesce(as_source, by_history))


def is_rare(conn: Connection, group_id: int, statuses: Sequence[str]) -> bool:
    """Whether few contacts ever had one of these statuses in a group, so that they are where a search begins; never of
    a smart group, which has no history."""
    if members_of(conn, group_id) is source_contact:
        return False
    history = subscription_history.c
    some = select(history.id).where(history.group_id == group_id, history.status.in_(list(statuses)))
    return len(conn.execute(some.limit(FEW + 1)).all()) <= FEW


def ever_had(group_id: Value, status: ColumnElement[bool]) -> ColumnElement[bool]:
    """The row's contact had such a status in the group at some time; *status* is a condition on the history."""
    history = subscription_history.c
    return cache.c.civicrm_contact_id.in_(select(history.contact_id).where(history.group_id == group_id, status))


def select_rows(
    list_id: Value,
    group_id: Value,
    where: Where,
    paged: Callable[[Select[Any]], Select[Any]],
    *,
    backwards: bool,
    by_contact: bool = False,
) -> Select[Any]:
    """Rows of an audience with ``COLUMNS``, in id order or *backwards*; *paged* sets LIMIT and OFFSET.

    *by_contact*: few contacts can match, so they are looked up by their own index and sorted afterwards.
    """
    order = cache.c.id.desc() if backwards else cache.c.id.asc()
    found = select(cache.c.id).where(_of_audience(list_id, by_contact=by_contact), *where)
    key: ColumnElement[Any] = unindexed(cache.c.id) if by_contact else cache.c.id
    page = paged(found.order_by(key.desc() if backwards else key.asc())).subquery()
    return (
        select(cache, latest_status(group_id).label("status"))
        .select_from(cache.join(page, page.c.id == cache.c.id))
        .order_by(order)
    )


def select_count(list_id: Value, where: Where, *, by_contact: bool = False) -> Select[Any]:
    """How many rows of an audience there are in all; *by_contact* as for ``select_rows``."""
    return select(func.count()).select_from(cache).where(_of_audience(list_id, by_contact=by_contact), *where)


def _of_audience(list_id: Value, *, by_contact: bool) -> ColumnElement[bool]:
    return (unindexed(cache.c.mailchimp_list_id) if by_contact else cache.c.mailchimp_list_id) == list_id


def as_row(values: Sequence[Any]) -> dict[str, Any]:
    """One row of ``select_rows`` as a map: blobs as JSON text, times as text (MariaDB's driver has moments), None as it
    is."""
    row = dict(zip(COLUMNS, values, strict=True))
    if isinstance(changed := row["mailchimp_updated"], datetime):
        row["mailchimp_updated"] = changed.isoformat(" ", "seconds")
    for name in DATA:
        row[name] = data_as_json(row[name])
    return row
