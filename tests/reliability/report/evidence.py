"""What we say we withstand, and the tests that say so: the tables of ``docs/reliability.md`` made of tests.

A claim is a sentence and the tests that back it, by file and name. A claim without a test cannot be written here, a
test that is not there fails ``test_report.py``. ``python -m tests.reliability.report.evidence`` runs them all, or
those of the chapters named behind it, and writes down what passed.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.report.evidence_of_hostility import HOSTILITY
from tests.reliability.report.evidence_of_traps import TRAPS
from tests.reliability.report.results import write_down
from tests.support.processes import ROOT

MADE_BY = "python -m tests.reliability.report.evidence"
COLUMNS = ["What may happen", "Tests", "Passed", "Failed"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, and the tests behind it (``file.py::Class::test``, the file's folder left out)."""

    says: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """A table of claims."""

    name: str
    title: str
    what: str
    claims: tuple[Claim, ...]


def claims(told: dict[str, str]) -> tuple[Claim, ...]:
    """Claims from sentences and the names of their tests, one a line."""
    return tuple(Claim(says, tuple(tests.split())) for says, tests in told.items())


CHAPTERS = (
    *(Chapter(f"hostile-{name}", title, what, claims(told)) for (name, title, what), told in HOSTILITY.items()),
    *(
        Chapter(
            f"traps-{number}",
            f"Traps: {title}",
            f"Each trap that `contract/mailchimp.md` names in section {number}, with the tests that walk into it.",
            claims(told),
        )
        for (number, title), told in TRAPS.items()
    ),
    Chapter(
        "webhooks",
        "Webhooks",
        "What Mailchimp tells us, from the post to the member in step.",
        claims(
            {
                "An event is stored before it is answered; what cannot be stored is not answered as if it were": """
                    test_webhook_event.py::TestAnswering::test_an_event_is_stored_before_mailchimp_has_its_answer
                    test_webhook_event.py::TestAnswering::test_an_event_that_cannot_be_stored_is_not_answered_as_if_it_were
                    test_mailchimp_webhooks.py::test_what_cannot_be_kept_is_500_so_that_mailchimp_tries_again""",
                "It is answered while a sync runs": """
                    test_webhook_event.py::TestAnswering::test_mailchimp_has_its_answer_while_a_sync_waits_for_mailchimp
                    test_webhook_event.py::TestAnswering::test_mailchimp_has_its_answer_while_a_sync_writes
                    test_webhook_event.py::TestAnswering::test_events_told_during_a_sync_are_worked_on_after_it""",
                "It is worked on once, however often it comes": """
                    test_webhook_event.py::TestAnswering::test_an_event_repeated_by_http_is_worked_on_once
                    test_events.py::TestRepeats::test_the_same_event_twice_is_kept_once
                    test_events.py::TestRepeats::test_a_repeat_of_what_was_worked_on_is_not_worked_on_again
                    test_events.py::TestTheWorker::test_two_of_them_end_every_event
                    test_both_databases.py::test_the_same_event_at_the_same_moment_is_kept_once""",
                "While Mailchimp cannot be asked it is tried again at growing gaps": """
                    test_events.py::TestTrouble::test_while_mailchimp_cannot_be_asked_it_is_tried_again_later
                    test_events.py::TestTrouble::test_the_gaps_between_tries_grow
                    test_events.py::TestTrouble::test_with_a_revoked_key_it_waits_for_the_key_to_be_mended""",
                "What cannot be worked on is kept with its error, and tried again when somebody says so": """
                    test_events.py::TestTrouble::test_after_the_last_try_it_is_kept_as_failed_with_its_error
                    test_events.py::TestTrouble::test_that_waiting_does_not_mend_it_fails_and_can_be_tried_again
                    test_webhook_event.py::TestRetry::test_a_failed_event_is_worked_on_when_somebody_says_so""",
                "Events that were dealt with are dropped after 30 days, failed ones are not": """
                    test_events.py::test_old_events_are_deleted_and_failed_ones_kept_for_longer""",
                "What an earlier process left is worked on by the next": """
                    test_events.py::TestTheWorker::test_works_on_what_an_earlier_process_left""",
                "The secret in our address is neither kept nor shown": """
                    test_events.py::test_the_secret_is_not_written_down
                    test_webhook_event.py::TestListing::test_neither_the_posted_body_nor_the_secret_is_shown""",
            }
        ),
    ),
    Chapter(
        "leases",
        "Who may work, and how work ends",
        "Claims on audiences, two servers on one database, and a server that is told to stop.",
        claims(
            {
                "Of two, one holds a claim; it lapses by itself when its holder stops renewing it": """
                    test_leases.py::test_one_holds_and_the_other_does_not
                    test_leases.py::test_a_claim_not_renewed_lapses_by_itself
                    test_leases.py::test_a_renewed_claim_lives_on
                    test_engine.py::test_after_the_lease_of_a_dead_process_has_lapsed_the_next_run_goes_on""",
                "Who was overtaken writes nothing any more": """
                    test_leases.py::test_who_was_overtaken_cannot_renew_or_give_back
                    test_leases.py::test_a_commit_under_a_lost_claim_writes_nothing
                    test_frozen.py::test_a_server_frozen_past_its_lease_and_let_go_writes_nothing_anywhere
                    test_frozen.py::test_a_server_frozen_inside_a_transaction_of_sqlite_goes_on_where_it_was""",
                "A second run says that the audience is busy; a forced restart and an abort take the claim": """
                    test_engine.py::test_a_second_run_beside_the_first_does_nothing_and_says_why
                    test_engine.py::test_force_restart_takes_the_audience_from_its_holder_and_begins_anew
                    test_engine.py::test_a_run_that_loses_its_lease_stops_without_writing
                    test_submit.py::TestAbort::test_takes_the_lease_from_whoever_works_on_the_audience""",
                "A server told to stop ends in time, answers who waits, and the next goes on": """
                    test_stopping.py::test_a_running_sync_stops_after_its_present_bit_its_caller_is_answered_and_the_next_goes_on
                    test_stopping.py::test_with_everything_waiting_for_a_mailchimp_that_hangs_it_still_ends_in_time
                    test_stopping.py::test_a_server_that_has_nothing_to_do_ends_at_once""",
                "A database that is missing, locked, read-only, full or corrupt is one sentence and exit code 1": """
                    test_starting.py::test_a_missing_folder
                    test_starting.py::test_a_folder_in_its_place
                    test_starting.py::test_a_database_that_another_program_keeps_locked
                    test_starting.py::test_a_full_disk
                    test_starting.py::test_a_file_that_is_no_database
                    test_starting.py::test_a_corrupt_database
                    test_starting.py::test_a_mariadb_that_cannot_be_reached""",
                "A disk that is full during a sync stops it with an error, and the next goes on": """
                    test_full_disk.py::test_a_full_disk_stops_a_sync_with_an_error_and_the_next_one_goes_on""",
            }
        ),
    ),
    Chapter(
        "database",
        "The database",
        "Checking, copying and upgrading it.",
        claims(
            {
                "What is broken is found and named with the way to mend it": """
                    test_integrity.py::test_what_is_broken_is_named_with_the_way_to_mend_it
                    test_integrity.py::test_mariadb_is_looked_over_and_mended_likewise
                    test_integrity.py::test_what_sqlite_finds_wrong_with_its_file_is_told_first
                    test_integrity.py::test_what_a_running_server_mends_is_well_after_it_ran""",
                "A site in the middle of its work is not called broken": """
                    test_integrity.py::test_a_healthy_site_in_the_middle_of_its_work_is_not_called_broken""",
                "A copy made while others write is one moment of the database": """
                    test_backup.py::TestBackup::test_a_copy_made_while_others_write_is_one_moment_of_the_database
                    test_backup.py::TestBackup::test_the_command_copies_the_database_of_a_running_server""",
                "Where no copy can be made nothing is overwritten or left behind": """
                    test_backup.py::TestBackup::test_what_stands_in_its_way_is_said_and_nothing_is_left_behind
                    test_backup.py::TestBackup::test_a_full_disk_leaves_no_copy""",
                "An upgrade that fails or is killed half-way leaves the old database usable": """
                    test_backup.py::TestUpgrade::test_one_that_fails_half_way_leaves_a_database_that_works_and_can_be_upgraded_later
                    test_backup.py::TestUpgrade::test_one_that_is_killed_half_way_leaves_the_old_database
                    test_migrations.py::test_an_upgrade_that_fails_half_way_leaves_the_older_database""",
            }
        ),
    ),
)


@dataclass(slots=True, eq=False)
class Outcomes:
    """A pytest plugin that notes what came of each test, its parameters left out, and what it measured."""

    passed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    measured: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = short(report.nodeid)
        if report.failed:
            self.failed[name] += 1
        elif report.when == "call" and report.passed:
            self.passed[name] += 1
            self.measured[name] += [str(value) for _, value in report.user_properties]


def short(node_id: str) -> str:
    """A test as claims name it: the folder and the parameters left out."""
    return node_id.partition("[")[0].rpartition("/")[2]


def find_file(test: str) -> Path:
    """The file of a test that a claim names; never one that drives a browser. Raises FileNotFoundError."""
    name = test.partition("::")[0]
    for path in sorted((ROOT / "tests").rglob(name)):
        if path.parent.name != "browser":
            return path
    raise FileNotFoundError(f"{name}, which a claim names, is in no folder of tests/")


def every_test(chapters: Sequence[Chapter] = CHAPTERS) -> Iterator[str]:
    """Each test that a claim names, once."""
    yield from dict.fromkeys(test for chapter in chapters for claim in chapter.claims for test in claim.tests)


def run(names: Sequence[str] = ()) -> int:
    """Run what claims name and write down what came of it; the number of claims that did not hold.

    *names*: only these chapters.
    """
    seen = Outcomes()
    chapters = [chapter for chapter in CHAPTERS if not names or chapter.name in names]
    chosen = [f"{find_file(test)}{test[test.index('::') :]}" for test in every_test(chapters)]
    with tempfile.TemporaryDirectory() as folder:
        pytest.main(["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/run", *chosen], plugins=[seen])
    broken = 0
    for chapter in chapters:
        rows = [row_of(claim, seen) for claim in chapter.claims]
        broken += sum(1 for row in rows if row[3] or not row[2])
        write_down(
            f"claims-{chapter.name}",
            title=chapter.title,
            what=chapter.what,
            columns=COLUMNS,
            rows=rows,
            made_by=MADE_BY,
        )
    return broken


def row_of(claim: Claim, seen: Outcomes) -> list[Any]:
    """A claim with its tests, how many passed and failed, and what they measured."""
    measured = [text for test in claim.tests for text in seen.measured[test]]
    says = claim.says + (f" ({'; '.join(measured)})" if measured else "")
    passed, failed = (sum(counts[test] for test in claim.tests) for counts in (seen.passed, seen.failed))
    return [says, list(claim.tests), passed, failed]


if __name__ == "__main__":
    sys.exit(1 if run(sys.argv[1:]) else 0)
