"""Whatever people do at both ends, and whatever breaks on the way: in the end both sides agree, and the last word won.

Each history (`convergence_history.py`) is acted out by the real engine and the real client against the emulator, on
virtual time and under weather (`convergence_weather.py`), and judged by an oracle of its own (`convergence_oracle.py`).
`make test` tries 80, `make convergence` 2,000, which `.ci/run` calls, and `make soak` 20,000.

A failure prints the smallest history that hypothesis found for it, and the seed. To see it once more, step by step:

    PYTHONPATH=. .venv/bin/python -m tests.reliability.convergence_run "History(steps=(Step(...), ...), ...)"

``CONVERGENCE_SEED`` chooses other histories for `make test` and `make convergence`; `make soak` takes new ones every
time. Set ``CONVERGENCE_HISTORIES`` for a soak of another length.
"""

import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.reliability.convergence_bench import Bench
from tests.reliability.convergence_history import History, history_strategy
from tests.reliability.convergence_report import write_report
from tests.reliability.convergence_run import Count, live
from tests.reliability.results import show

SEED = int(os.environ.get("CONVERGENCE_SEED", "20260109"))
SHARDS, HISTORIES_A_SHARD = 4, 20
CI, CI_SHARD, CI_PROCESSES = 2000, 250, 2
CI_SEED = SEED + 1000
SOAK = int(os.environ.get("CONVERGENCE_HISTORIES", "20000"))
SOAK_SHARD = 500


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


def try_shards(seeds: Sequence[int], histories: int, processes: int) -> tuple[Count, list[str]]:
    """So many histories from each seed, in processes side by side; the count, and what failed."""
    print(f"\nseeds {seeds[0]} to {seeds[-1]}, {histories} histories each", flush=True)
    began, total, told = time.monotonic(), Count(), []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        for one in [workers.submit(try_histories, one, histories) for one in seeds]:
            error = one.exception()
            if error is not None:
                told.append(str(error))
                total.failures += 1
            else:
                total += one.result()
            print(".", end="", flush=True, file=sys.stderr)
    print(f"\n{show(total.columns(), [total.row()])}\n{show(*total.kinds_table())}\n{time.monotonic() - began:.0f} s")
    return total, told


@pytest.mark.parametrize("shard", range(SHARDS))
def test_both_ends_come_to_agree_and_the_last_word_of_a_person_wins(shard: int) -> None:
    count = try_histories(SEED + shard, HISTORIES_A_SHARD)
    assert count.histories >= HISTORIES_A_SHARD
    print(f"seed {SEED + shard}: {count.row()}")


@pytest.mark.convergence
def test_two_thousand_histories_come_to_agree_and_every_kind_of_fault_strikes_them() -> None:
    seeds = range(CI_SEED, CI_SEED + CI // CI_SHARD)
    total, told = try_shards(seeds, CI_SHARD, CI_PROCESSES)
    assert not told, "\n\n".join(told)
    assert total.histories >= CI
    assert total.faults >= total.syncs, "faults are thin"
    assert not total.thin(), "these strike less than once in four hundred histories"
    write_report("CI", total, seeds)


@pytest.mark.soak
def test_thousands_of_new_histories_come_to_agree() -> None:
    first = random.SystemRandom().randrange(10**9)
    seeds = range(first, first + -(-SOAK // SOAK_SHARD))
    total, told = try_shards(seeds, min(SOAK, SOAK_SHARD), os.cpu_count() or 1)
    write_report("soak", total, seeds)
    assert not told, "\n\n".join(told)
    assert SOAK < SOAK_SHARD or not total.thin()
