"""What runs of the convergence model did, written down for ``docs/reliability.md``: a row a run, and a column a run."""

from collections.abc import Sequence

from tests.reliability.convergence.faults import Kind
from tests.reliability.convergence.run import Count
from tests.reliability.report.results import read_rows, write_down

RUNS = {"CI": "make convergence, as CI does", "MariaDB": "make convergence-mariadb, as CI does", "soak": "make soak"}
"""The reported runs, by name and in order."""

MADE_BY = "make convergence, make convergence-mariadb and make soak (tests/reliability/convergence/test_convergence.py)"
TITLE = "Whatever people and networks do, both sides come to agree"
WHAT = (
    "Random histories over both sides: people join, leave, delete, merge, change addresses, interests, marketing "
    "permissions and tags, on either side and in the middle of syncs; runs are undone, and a quarter of the audiences "
    "are linked one way; clocks differ by up to ten minutes; webhooks are lost, doubled, late and out of order; "
    "requests and operations of batches fail in every way Mailchimp knows; processes are killed. Then quiet, and "
    "syncs until one changes nothing. An oracle that knows nothing of the sync's rules then checks that both sides "
    "agree with the most recent change."
)
KINDS_TITLE = "What struck those histories"
KINDS_WHAT = "Faults and deaths by kind, while people acted. CI fails where a kind strikes too seldom."


def write_report(run: str, total: Count, seeds: Sequence[int]) -> None:
    """Put one of `RUNS` into both tables; the other runs stay as last reported."""
    rows = {row[0]: row for row in read_rows("convergence")}
    rows[RUNS[run]] = [RUNS[run], f"{seeds[0]} to {seeds[-1]}", *total.row()]
    columns = ["Run", "Seeds", *total.columns()]
    kept = [rows[name] for name in RUNS.values() if name in rows]
    write_down("convergence", title=TITLE, what=WHAT, columns=columns, rows=kept, made_by=MADE_BY)

    before = {row[0]: row[1:] for row in read_rows("convergence-kinds")}
    place = list(RUNS).index(run)
    counts = []
    for kind in Kind:
        cells = [*before.get(kind, [""] * len(RUNS))]
        cells[place] = total.kinds[kind]
        counts.append([kind, *cells])
    write_down(
        "convergence-kinds",
        title=KINDS_TITLE,
        what=KINDS_WHAT,
        columns=["What struck", *RUNS.values()],
        rows=counts,
        made_by=MADE_BY,
    )
