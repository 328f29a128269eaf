"""Why people failed, in groups: each cause with a label, what to do, the condition that finds its rows, and numbers.

The first cause whose part is in the stored text counts, so that every failed row has one cause.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, case, func, literal_column, not_, null, or_, select

from civiapi.store.databases.expressions import as_code, loose_text
from sync.model import RECEIVES_MAIL, GroupStatus, SyncStatus
from sync.store.balance import MANY
from sync.store.sources import members_of
from sync.store.tables import cache, update
from sync.store.updates import was_overtaken

RESUBSCRIBE = "Only the person can subscribe again, with a signup form of Mailchimp's."
NOTHING = "Nothing needs doing: they get no mail. Remove them from the group if it should not list them."


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause of failures: *part* of the text that is stored for it, and the *remedy* in a sentence."""

    label: str
    part: str
    remedy: str


CAUSES = (
    Cause("no address", "has no email address", "Give the contact an email address in CiviCRM."),
    Cause("no usable address", "is no email address", "Correct the address in CiviCRM."),
    Cause("on hold", "is on hold in CiviCRM", "Take the address off hold in CiviCRM if it works again."),
    Cause("deceased", "contact is deceased", NOTHING),
    Cause("opted out", "opted out of bulk mail", NOTHING),
    Cause("do not email", "not to be mailed (do not email", NOTHING),
    Cause("bounced at Mailchimp", "contacts cannot be resubscribed", "Give the contact another address in CiviCRM."),
    Cause(
        "address shared with another contact",
        "is also that of contact",
        "Give each contact an address of its own, or merge them: one of them represents the address.",
    ),
    Cause("Mailchimp: looks fake", "looks fake or invalid", "Correct the address in CiviCRM."),
    Cause("Mailchimp: permanently deleted", "permanently deleted", RESUBSCRIBE),
    Cause("Mailchimp: compliance state", "in a compliance state", RESUBSCRIBE),
    Cause(
        "Mailchimp: invalid merge fields",
        "merge fields were invalid",
        "Fill the fields that Mailchimp names, or make them optional in the audience; then include the people again.",
    ),
    Cause(
        "Mailchimp: signed up too often lately",
        "signed up to a lot of lists very recently",
        "Nothing needs doing: they are sent again later.",
    ),
)
OTHER = Cause("other reasons", "", "Read the reason of each person; then include them in the next sync.")
BY_LABEL = {one.label: one for one in (*CAUSES, OTHER)}


def label_of(text: str) -> str:
    """The label of the cause that a text names; ``""`` where it is of another kind."""
    return next((one.label for one in CAUSES if one.part in text), "")


def failure_words() -> ColumnElement[Any]:
    """All that is kept of why a row failed: what the sync noted, and Mailchimp's answer to the last update."""
    refusal = (
        select(update.c.error_response)
        .where(update.c.mailchimpsync_cache_id == cache.c.id, not_(was_overtaken()))
        .order_by(update.c.id.desc())
        .limit(1)
        .correlate(cache)
        .scalar_subquery()
    )
    return loose_text(cache.c.civicrm_data, refusal)


def cause_of_row() -> ColumnElement[Any]:
    """The label of a cache row's cause; NULL where the row has not failed."""

    def text(value: str) -> ColumnElement[Any]:
        return literal_column(f"'{value}'")  # no parameters: it is part of statements that are kept

    words = failure_words()
    known = [(func.instr(words, text(one.part)) > literal_column("0"), text(one.label)) for one in CAUSES]
    of_failed = case(*known, else_=text(OTHER.label))
    return as_code(case((cache.c.sync_status == text(SyncStatus.FAIL), of_failed), else_=null()))


def read_failures(conn: Connection, list_id: str) -> list[dict[str, Any]]:
    """The failed rows of an audience by cause: ``cause``, ``count``, ``remedy``, and the ``filter`` that finds them.

    The filter is one of ``MailchimpsyncCache.get`` and ``Mailchimpsync.includematching``.
    """
    its = {"mailchimp_list_id": list_id, "sync_status": SyncStatus.FAIL.value}
    return [
        {"cause": one.label, "count": count, "remedy": one.remedy, "filter": its | {"cause": one.label}}
        for one, count in _count_failures(conn, cache, list_id)
    ]


def count_unmailable(conn: Connection, list_id: str, group_id: int, expected: int) -> list[dict[str, str | int]]:
    """How many people of the group cannot be subscribed, by reason: ``label``, ``why`` (a part of the text), ``count``.

    *expected*: how many they are; none or very many are not read.
    """
    if not 0 < expected <= MANY:
        return []
    members = members_of(conn, group_id)
    theirs = (members.c.contact_id == cache.c.civicrm_contact_id) & (members.c.group_id == group_id)
    no_member = or_(cache.c.mailchimp_status.is_(None), cache.c.mailchimp_status.not_in(sorted(RECEIVES_MAIL)))
    found = _count_failures(
        conn, cache.join(members, theirs), list_id, members.c.status == GroupStatus.ADDED, no_member
    )
    return [{"label": one.label, "why": one.part, "count": count} for one, count in found]


def _count_failures(
    conn: Connection, rows: FromClause, list_id: str, *where: ColumnElement[bool]
) -> list[tuple[Cause, int]]:
    """The causes of failed cache rows with their numbers, the most frequent first, other reasons last."""
    label = cause_of_row()
    of_failed = (cache.c.mailchimp_list_id == list_id, cache.c.sync_status == SyncStatus.FAIL, *where)
    counted = select(label, func.count()).select_from(rows).where(*of_failed).group_by(label)
    counts = {str(name): int(count) for name, count in conn.execute(counted)}
    ordered = sorted(counts, key=lambda one: (one == OTHER.label, -counts[one], one))
    return [(BY_LABEL[one], counts[one]) for one in ordered]
