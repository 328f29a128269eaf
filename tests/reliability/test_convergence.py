"""Whatever people do at both ends, and whatever breaks on the way: in the end both sides agree, and the last word won.

Each history (`convergence_history.py`) is acted out by the real engine and the real client against the emulator, on
virtual time, and judged by an oracle of its own (`convergence_oracle.py`). `make test` tries 320 (eight times
``CONVERGENCE_A_SHARD``; 250 makes it 2,000), `make soak` 20,000.

A failure prints the smallest history that hypothesis found for it, and the seed. To see it once more, step by step:

    PYTHONPATH=. .venv/bin/python -m tests.reliability.convergence_run "History(steps=(Step(...), ...), ...)"

``CONVERGENCE_SEED`` chooses other histories for `make test`; `make soak` takes new ones every time. Set
``CONVERGENCE_HISTORIES`` for a soak of another length.
"""

import os
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.reliability.convergence_ends import Bench
from tests.reliability.convergence_history import History, history_strategy
from tests.reliability.convergence_run import Count, live
from tests.reliability.results import show, write_down

SHARDS, HISTORIES_A_SHARD = 8, int(os.environ.get("CONVERGENCE_A_SHARD", "40"))
SEED = int(os.environ.get("CONVERGENCE_SEED", "20260109"))
SOAK = int(os.environ.get("CONVERGENCE_HISTORIES", "20000"))
SOAK_SHARD = 500
MADE_BY = "make soak (tests/reliability/test_convergence.py)"


def try_histories(shard_seed: int, histories: int) -> Count:
    """So many histories from one seed; raises AssertionError with the smallest that fails."""
    count = Count()
    bench = Bench()

    @seed(shard_seed)
    @settings(
        max_examples=histories,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(history_strategy)
    def both_ends_come_to_agree(history: History) -> None:
        wrong = live(bench, history, count)
        assert not wrong, "\n".join([f"seed {shard_seed}", *wrong, repr(history)])

    with bench.ready():
        both_ends_come_to_agree()
    return count


def write_report(total: Count, seeds: str, made_by: str) -> None:
    """Write down what was tried, for docs/reliability.md."""
    write_down(
        "convergence",
        title="Whatever people and networks do, both ends come to agree",
        what="Random histories over both ends: people join, leave, delete, merge, change addresses, interests and "
        "tags, at either end and in the middle of syncs; clocks differ by up to ten minutes; webhooks are lost, "
        "doubled, late and out of order; requests and operations of batches fail in every way Mailchimp knows; "
        "processes are killed. Then quiet, and syncs until one changes nothing. An oracle that knows nothing of the "
        f"sync's rules then looks whether both ends agree and whose word was the last. Seeds {seeds}.",
        columns=total.columns(),
        rows=[total.row()],
        made_by=made_by,
    )


@pytest.mark.parametrize("shard", range(SHARDS))
def test_both_ends_come_to_agree_and_the_last_word_of_a_person_wins(shard: int) -> None:
    count = try_histories(SEED + shard, HISTORIES_A_SHARD)
    assert count.histories >= HISTORIES_A_SHARD
    print(f"seed {SEED + shard}: {count}")


@pytest.mark.soak
def test_thousands_of_new_histories_come_to_agree() -> None:
    first = random.SystemRandom().randrange(10**9)
    print(f"\nseeds from {first}")
    seeds = range(first, first + -(-SOAK // SOAK_SHARD))
    began, total, told = time.monotonic(), Count(), []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as workers:
        for one in [workers.submit(try_histories, one, min(SOAK, SOAK_SHARD)) for one in seeds]:
            error = one.exception()
            if error is not None:
                told.append(str(error))
                total.failures += 1
            else:
                total += one.result()
            print(".", end="", flush=True, file=sys.stderr)
    print(f"\n{show(total.columns(), [total.row()])}\n{time.monotonic() - began:.0f} s")
    write_report(total, f"{first} to {seeds[-1]}", MADE_BY)
    assert not told, "\n\n".join(told)
