"""What each stage of a sync does, and the order they run in.

A stage does one bit of work after another until it is finished or the run is out of time. A bit is one unit of the
store: its rows and the audience's new position are committed together, so a stage that was stopped anywhere, by the
clock or by a power cut, goes on after its last bit. Rows themselves are the queue between stages (``sync_status``
``todo``); what has no row to hold it is in the position's cursor.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sync.stages.additions import add_civi_only
from sync.stages.addresses import clean_up_duplicates, process_email_changes
from sync.stages.base import Run
from sync.stages.changes import check_for_group_changes
from sync.stages.contacts import create_new_contacts, fix_contact_ids
from sync.stages.data import check_for_data_updates
from sync.stages.fetch import fetch_members
from sync.stages.queue import reconcile_queue, submit_updates


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by the name the extension gave it."""

    name: str
    work: Callable[[Run], Awaitable[None]]


STAGES = (
    Stage("readyToFetch", fetch_members),
    Stage("readyToFixContactIds", fix_contact_ids),
    Stage("readyToCreateNewContactsFromMailchimp", create_new_contacts),
    Stage("readyToProcessEmailChanges", process_email_changes),
    Stage("readyToCleanUpDuplicates", clean_up_duplicates),
    Stage("readyToAddCiviOnly", add_civi_only),
    Stage("readyToCheckForGroupChanges", check_for_group_changes),
    Stage("readyToCheckForDataUpdates", check_for_data_updates),
    Stage("readyToReconcileQueue", reconcile_queue),
    Stage("readyToSubmitUpdates", submit_updates),
)
