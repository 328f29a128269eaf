"""Why people of a group cannot be mailed, in a few words, by what the sync noted or Mailchimp answered."""

from sqlalchemy import Connection, func, or_, select

from sync.model import RECEIVES_MAIL, GroupStatus, SyncStatus
from sync.reports.people.causes import cause_of, most_frequent
from sync.reports.people.search import failure_words
from sync.store.balance import MANY
from sync.store.sources import members_of
from sync.store.tables import cache


def count_unmailable(conn: Connection, list_id: str, group_id: int, expected: int) -> list[dict[str, str | int]]:
    """How many people of the group cannot be subscribed, by reason: ``label``, ``why`` (a part of the text), ``count``.

    *expected*: how many they are; none or very many are not read.
    """
    if not 0 < expected <= MANY:
        return []
    label = cause_of(failure_words())
    members = members_of(conn, group_id)
    theirs = (members.c.contact_id == cache.c.civicrm_contact_id) & (members.c.group_id == group_id)
    rows = conn.execute(
        select(label, func.count())
        .select_from(cache.join(members, theirs))
        .where(
            cache.c.mailchimp_list_id == list_id,
            cache.c.sync_status == SyncStatus.FAIL,
            members.c.status == GroupStatus.ADDED,
            or_(cache.c.mailchimp_status.is_(None), cache.c.mailchimp_status.not_in(sorted(RECEIVES_MAIL))),
        )
        .group_by(label)
    )
    counts = {str(name): int(count) for name, count in rows}
    return [{"label": one.label, "why": one.part, "count": counts[one.label]} for one in most_frequent(counts)]
