"""Whatever people do on both sides and whatever fails meanwhile, both sides agree in the end, and the last change won.

Each history (``history``) is executed by the real engine and the real client against the emulator, on virtual time and
with faults (``faults``), and checked by an independent oracle (``oracle``). `make test` tries 24; `make convergence`
2,000 on SQLite and `make convergence-mariadb` 2,000 on MariaDB, which `.ci/run` calls both; `make soak` 20,000.

A failure prints the smallest history that hypothesis found for it, and the seed. To see it once more, step by step:

    PYTHONPATH=. .venv/bin/python -m tests.reliability.convergence.run "History(steps=(Step(...), ...), ...)"

``CONVERGENCE_SEED`` chooses other histories for `make test` and `make convergence`; `make soak` takes new ones every
time. Set ``CONVERGENCE_HISTORIES`` for a soak of another length. ``CONVERGENCE_SECONDS`` ends the tries of the 2,000
after so long, with a quarter of them at least: `.ci/run` sets it on MariaDB, for machines on which they take too long.
"""

import math
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.reliability.convergence.harness import NOT_INSTALLED, a_harness
from tests.reliability.convergence.history import History, histories
from tests.reliability.convergence.report import write_report
from tests.reliability.convergence.run import Count, run_history
from tests.reliability.report.results import show
from tests.support.databases import chosen

SEED = int(os.environ.get("CONVERGENCE_SEED", "20260109"))
SHARDS, HISTORIES_A_SHARD = 4, 6
CI, CI_SHARD = 2000, 250
CI_PROCESSES = 2
CI_SEED = SEED + 1000
CI_SECONDS = float(os.environ.get("CONVERGENCE_SECONDS", "inf"))
SOAK = int(os.environ.get("CONVERGENCE_HISTORIES", "20000"))
SOAK_SHARD = 500

PHASES = [one for one in Phase if one is not Phase.explain]
"""Hypothesis explains a failure by the lines that each later history ran, which slows them and takes a gigabyte."""

pytestmark = pytest.mark.skipif(bool(NOT_INSTALLED), reason=f"not installed: {', '.join(NOT_INSTALLED)}")


def try_histories(shard_seed: int, examples: int, until: float = math.inf) -> Count:
    """So many histories from one seed; raises AssertionError with the smallest that fails.

    None is begun after *until*, as ``perf_counter`` tells time: that is real, and the same in all processes.
    """
    count = Count()

    @seed(shard_seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=PHASES,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(histories())
    def both_ends_come_to_agree(history: History) -> None:
        if time.perf_counter() > until:
            return
        wrong = run_history(harness, history, count)
        assert not wrong, "\n".join([f"seed {shard_seed}", *wrong, repr(history)])

    with a_harness() as harness:
        both_ends_come_to_agree()
    return count


def try_shards(
    seeds: Sequence[int], examples: int, processes: int, seconds: float = math.inf
) -> tuple[Count, list[str]]:
    """So many histories from each seed, in processes side by side, as far as they come in these *seconds*; the count,
    and what failed."""
    print(f"\nseeds {seeds[0]} to {seeds[-1]}, {examples} histories each", flush=True)
    began, total, failed = time.perf_counter(), Count(), []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        for one in [workers.submit(try_histories, one, examples, began + seconds) for one in seeds]:
            error = one.exception()
            if error is not None:
                failed.append(str(error))
                total.failures += 1
            else:
                total += one.result()
            print(".", end="", flush=True, file=sys.stderr)
    print(
        f"\n{show(total.columns(), [total.row()])}\n{show(*total.kinds_table())}\n{time.perf_counter() - began:.0f} s"
    )
    return total, failed


@pytest.mark.parametrize("shard", range(SHARDS))
def test_both_ends_come_to_agree_and_the_last_word_of_a_person_wins(shard: int) -> None:
    count = try_histories(SEED + shard, HISTORIES_A_SHARD)
    assert count.histories >= HISTORIES_A_SHARD
    print(f"seed {SEED + shard}: {count.row()}")


@pytest.mark.convergence
def test_many_histories_come_to_agree_and_every_kind_of_fault_strikes_them() -> None:
    seeds = range(CI_SEED, CI_SEED + CI // CI_SHARD)
    total, failed = try_shards(seeds, CI_SHARD, CI_PROCESSES, CI_SECONDS)
    assert not failed, "\n\n".join(failed)
    assert total.histories >= (CI if math.isinf(CI_SECONDS) else CI // 4)
    assert total.faults >= total.syncs, "faults are thin"
    assert not total.rare_kinds(), "these strike less than once in four hundred histories"
    write_report("CI" if chosen() == "sqlite" else "MariaDB", total, seeds)


@pytest.mark.soak
def test_thousands_of_new_histories_come_to_agree() -> None:
    first = random.SystemRandom().randrange(10**9)
    seeds = range(first, first + -(-SOAK // SOAK_SHARD))
    total, failed = try_shards(seeds, min(SOAK, SOAK_SHARD), os.cpu_count() or 1)
    write_report("soak", total, seeds)
    assert not failed, "\n\n".join(failed)
    assert SOAK < SOAK_SHARD or not total.rare_kinds()
