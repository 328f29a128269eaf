"""How an audience and its group compare, counted: the numbers behind the status page.

Exact whenever asked. Counting walks every row of the audience, so a count is kept with the connection it was made on
and given again for as long as the database says that nothing changed (``dialect.change_mark``).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, select

from civiapi.store.dialect import change_mark
from civiapi.store.tables import group_contact
from sync.audience import RECEIVES_MAIL
from sync.reconcile import ADDED
from sync.tables import cache, update

KEPT = "civiapi.stats"
MISSING = "missing"


@dataclass(slots=True)
class Balance:
    """Cache rows by where they stand, in the words of ``getstatus``. `failed` is always 0, as in the extension."""

    failed: int = 0
    subscribed_at_mailchimp: int = 0
    subscribed_at_civicrm: int = 0
    to_add_to_mailchimp: int = 0
    cannot_subscribe: int = 0
    to_remove_from_mailchimp: int = 0
    todo: int = 0
    other_fails: int = 0
    weird: list[dict[str, Any]] = field(default_factory=list)
    mailchimp_updates_pending: int = 0
    mailchimp_updates_unsubmitted: int = 0

    def count(self, sync_status: str | None, member: str | None, group: str | None, rows: int) -> None:
        """Count *rows* that stand so."""
        at_mailchimp, at_civicrm = member in RECEIVES_MAIL, group == ADDED
        self.subscribed_at_mailchimp += rows * at_mailchimp
        self.subscribed_at_civicrm += rows * at_civicrm
        if sync_status == "fail":
            self.cannot_subscribe += rows * (at_civicrm and not at_mailchimp)
            self.other_fails += rows * (at_mailchimp or not at_civicrm)
        elif sync_status in ("live", "ok"):
            self.to_add_to_mailchimp += rows * (at_civicrm and not at_mailchimp)
            self.to_remove_from_mailchimp += rows * (at_mailchimp and not at_civicrm)
        elif sync_status == "todo":
            self.todo += rows
        else:
            named = {"sync_status": sync_status, "mailchimp_status": member, "civicrm_status": group}
            self.weird.append({name: value or MISSING for name, value in named.items()} | {"c": rows})

    def as_dict(self) -> dict[str, Any]:
        """The numbers as ``getstatus`` shows them."""
        return asdict(self)


def read_balance(conn: Connection, list_id: str, group_id: int) -> Balance:
    """The present balance of an audience and its subscription group."""
    mark = change_mark(conn)
    kept: dict[tuple[str, int], tuple[tuple[int, ...] | None, Balance]] = conn.info.setdefault(KEPT, {})
    known_mark, balance = kept.get((list_id, group_id), (None, None))
    if mark is None or known_mark != mark or balance is None:
        balance = count_balance(conn, list_id, group_id)
        kept[list_id, group_id] = (mark, balance)
    return balance


def count_balance(conn: Connection, list_id: str, group_id: int) -> Balance:
    """Count every row of the audience, and every update it owes."""
    balance = Balance()
    theirs = and_(group_contact.c.contact_id == cache.c.civicrm_contact_id, group_contact.c.group_id == group_id)
    standing = (cache.c.sync_status, cache.c.mailchimp_status, group_contact.c.status)
    rows = conn.execute(
        select(*standing, func.count())
        .select_from(cache.outerjoin(group_contact, theirs))
        .where(cache.c.mailchimp_list_id == list_id)
        .group_by(*standing)
        .order_by(*standing)
    )
    for sync_status, member, group, count in rows:
        balance.count(sync_status, member, group, count)
    owed = conn.execute(
        select(func.count(), func.count() - func.count(update.c.mailchimpsync_batch_id))
        .select_from(update.join(cache, cache.c.id == update.c.mailchimpsync_cache_id))
        .where(update.c.completed == 0, cache.c.mailchimp_list_id == list_id)
    ).one()
    balance.mailchimp_updates_pending, balance.mailchimp_updates_unsubmitted = owed
    return balance
