"""What each stage of a sync does, and the order they run in.

A stage does one unit of work after another until it is finished or the run is out of time. A unit commits its rows
together with the audience's new checkpoint, so a stage that was stopped anywhere, by the deadline or by a power cut,
continues after its last unit. Rows themselves are the queue between stages (``sync_status`` ``todo``); what has no row
to hold it is in the checkpoint's cursor.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sync.runs.brake import check_brake
from sync.runs.run import Run
from sync.runs.stages.addresses import clean_up_duplicates, process_email_changes
from sync.runs.stages.civi_only import add_civi_only
from sync.runs.stages.contacts import create_new_contacts, fix_contact_ids
from sync.runs.stages.data_updates import check_for_data_updates, prepare_data
from sync.runs.stages.fetch import fetch_members
from sync.runs.stages.group_changes import check_for_group_changes
from sync.runs.stages.reconcile_and_submit import reconcile_queue, submit_updates


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage by the name the extension gave it; *before* is called each time the stage is about to begin."""

    name: str
    work: Callable[[Run], Awaitable[None]]
    before: Callable[[Run], Awaitable[None]] | None = None


STAGES = (
    Stage("readyToFetch", fetch_members),
    Stage("readyToFixContactIds", fix_contact_ids),
    Stage("readyToCreateNewContactsFromMailchimp", create_new_contacts),
    Stage("readyToProcessEmailChanges", process_email_changes),
    Stage("readyToCleanUpDuplicates", clean_up_duplicates),
    Stage("readyToAddCiviOnly", add_civi_only),
    Stage("readyToCheckForGroupChanges", check_for_group_changes),
    Stage("readyToCheckForDataUpdates", check_for_data_updates, before=prepare_data),
    Stage("readyToReconcileQueue", reconcile_queue, before=check_brake),
    Stage("readyToSubmitUpdates", submit_updates),
)
