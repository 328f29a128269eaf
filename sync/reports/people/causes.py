"""Why people failed, in groups: each cause with a label, what to do, and the condition that finds its rows.

The first cause whose part is in the stored text counts, so that every failed row has one cause.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column, null

from sync.model import SyncStatus
from sync.store.tables import cache

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


def cause_of(words: ColumnElement[Any]) -> ColumnElement[Any]:
    """The label of a cache row's cause, by its *words* (``failure_words``); NULL where the row has not failed."""

    def text(value: str) -> ColumnElement[Any]:
        return literal_column(f"'{value}'")  # no parameters: it is part of statements that are kept

    known = [(func.instr(words, text(one.part)) > literal_column("0"), text(one.label)) for one in CAUSES]
    of_failed = case(*known, else_=text(OTHER.label))
    return case((cache.c.sync_status == text(SyncStatus.FAIL), of_failed), else_=null())


def most_frequent(counts: Mapping[str, int]) -> list[Cause]:
    """The causes of these counts by label, the most frequent first, other reasons last."""
    ordered = sorted(counts, key=lambda label: (label == OTHER.label, -counts[label], label))
    return [BY_LABEL[label] for label in ordered]
