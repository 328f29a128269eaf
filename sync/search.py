"""Finding cache rows of one audience: what ``MailchimpsyncCache.get`` and ``getcount`` show.

A row comes with ``status``, CiviCRM's latest word on the contact and the subscription group (from the subscription
history, empty where there is none). Conditions are Core expressions over ``columns``; how callers spell them is the
API's business. Order is by id, or against it. Ids are found first, in whatever index serves, and only one page of rows
is read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from civiapi.store.dialect import loose_text, unindexed
from civiapi.store.tables import subscription_history
from sync.config import Link, read_config
from sync.errors import BadConfig, SyncError
from sync.stored import data_as_json
from sync.tables import cache, update

Where = Sequence[ColumnElement[bool]]
DATA = frozenset({"mailchimp_data", "civicrm_data"})


def find_link(conn: Connection, list_id: str) -> Link:
    """The link of the audience to be searched. Raises SyncError, worded for whoever named it."""
    if not list_id:
        raise SyncError("must provide mailchimp_list_id")
    found = read_config(conn).links.get(list_id)
    if found is None:
        raise BadConfig("Invalid list id")
    return found


def columns(link: Link) -> Mapping[str, ColumnElement[Any]]:
    """What rows can be sought by, by the name callers know it by."""
    own = {column.name: column for column in cache.c}
    return {**own, "civicrm_status": latest_status(link), "why_failed": failure_words()}


def failure_words() -> ColumnElement[Any]:
    """All that is kept of why a row failed: what the sync noted, and Mailchimp's answer to the last update."""
    refusal = (
        select(update.c.error_response)
        .where(update.c.mailchimpsync_cache_id == cache.c.id)
        .order_by(update.c.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )
    return loose_text(cache.c.civicrm_data, refusal)


def latest_status(link: Link) -> ColumnElement[Any]:
    """CiviCRM's latest word on a row's contact: the status of its highest history row in the subscription group."""
    return (
        select(subscription_history.c.status)
        .where(
            subscription_history.c.contact_id == cache.c.civicrm_contact_id,
            unindexed(subscription_history.c.group_id) == link.group_id,  # a contact has a few rows, a group has all
        )
        .order_by(subscription_history.c.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )


def find_rows(
    conn: Connection, link: Link, where: Where, *, limit: int, offset: int, backwards: bool = False
) -> list[dict[str, Any]]:
    """A page of rows in id order, or *backwards*; *limit* 0 for all. All columns, blobs as JSON text, None as it is."""
    order = cache.c.id.desc() if backwards else cache.c.id.asc()
    ids = select(cache.c.id).where(cache.c.mailchimp_list_id == link.list_id, *where).order_by(order)
    if limit:
        ids = ids.limit(limit)
    if offset:
        ids = ids.limit(limit or 2**31).offset(offset)
    page = ids.subquery()
    rows = conn.execute(
        select(cache, latest_status(link).label("status"))
        .select_from(cache.join(page, page.c.id == cache.c.id))
        .order_by(order)
    )
    return [_shown(row._asdict()) for row in rows]


def count_rows(conn: Connection, link: Link, where: Where) -> int:
    """How many rows there are in all."""
    wanted = select(func.count()).select_from(cache).where(cache.c.mailchimp_list_id == link.list_id, *where)
    return conn.execute(wanted).scalar_one()


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data_as_json(value) if name in DATA else value for name, value in row.items()}
