"""One history from its beginning to its verdict."""

import re
import sys
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, fields
from typing import Any

from sync.audience import Privacy
from sync.store.retries import count_retries
from tests.reliability.convergence.faults import KILLED, FaultPlan, Kind
from tests.reliability.convergence.harness import Harness, a_harness
from tests.reliability.convergence.history import History, HistoryRun, Step, first_people
from tests.reliability.convergence.model import DUMPED, Model, chosen_by
from tests.reliability.convergence.oracle import check_agreement

RETRIES = 4
"""How often the time of the next retry is waited for; after the last there must be none."""

ROUNDS = 6
"""So many syncs may be needed, after the last change and in quiet, before one sends nothing."""

NO_FAULTS = frozenset({Kind.SKEW, *KILLED.values()})
"""Counted, but not among the faults: a clock is off for a whole history, and deaths are counted by themselves."""


@dataclass
class Count:
    """What histories did, added up."""

    histories: int = 0
    steps: int = 0
    syncs: int = 0
    requests: int = 0
    faults: int = 0
    kills: int = 0
    failures: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)

    def add(self, run: HistoryRun) -> None:
        """Count one more history."""
        traffic = run.model.traffic
        self.histories += 1
        self.steps += len(run.history.steps)
        self.syncs += run.syncs
        self.requests += traffic.requests
        self.kinds += run.model.faults.counts
        self.kills += run.kills
        self.faults = sum(times for kind, times in self.kinds.items() if kind not in NO_FAULTS)

    def __add__(self, other: "Count") -> "Count":
        return Count(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def rare_kinds(self) -> dict[str, int]:
        """The kinds of faults that struck less than once in four hundred histories."""
        return {kind: self.kinds[kind] for kind in Kind if self.kinds[kind] * 400 < self.histories}

    def columns(self) -> list[str]:
        """What is counted, as a table's heads."""
        return [one.name.capitalize() for one in fields(self) if one.name != "kinds"]

    def kinds_table(self) -> tuple[list[str], list[list[Any]]]:
        """The faults and deaths by kind: heads and rows."""
        return ["What struck", "Times"], [[kind, self.kinds[kind]] for kind in Kind]

    def row(self) -> list[int]:
        """The counts, as a row under `columns`."""
        return [getattr(self, one.name) for one in fields(self) if one.name != "kinds"]


def run_history(harness: Harness, history: History, count: Count | None = None) -> list[str]:
    """Run a history; returns what is wrong at its end."""
    run = HistoryRun(prepare_model(harness, history), history)
    wrong = harness.loop.run(_to_the_end(run, run.execute()))
    harness.collect_garbage()
    if count is not None:
        count.add(run)
    return wrong


def prepare_model(harness: Harness, history: History) -> Model:
    """The model at the start of a history: never synced, or in sync (made once for each kind, then copied)."""
    start = history.begins_in_step, history.skew, history.has_interest, history.privacy, history.one_way
    if start not in harness.starts:
        model = Model(
            harness,
            skew=history.skew,
            has_interest=history.has_interest,
            privacy=history.privacy,
            one_way=history.one_way,
        )
        first_people(model)
        if history.begins_in_step:
            harness.loop.run(_synchronize(model))
        harness.starts[start] = model.freeze()
    faults = FaultPlan(history.faults, history.seed)
    return Model(
        harness,
        skew=history.skew,
        has_interest=history.has_interest,
        privacy=history.privacy,
        one_way=history.one_way,
        page=history.page,
        seed=history.seed,
        start=harness.starts[start],
        faults=faults,
    )


async def _synchronize(model: Model) -> None:
    model.harness.clock.advance(10)  # so that it is clear what was before this run
    await model.process.service.fetch_and_reconcile(since="ever", with_data=True)
    assert await model.process.service.wait_until_idle(seconds=600)
    model.harness.clock.advance(3600)
    model.ledger.seen(model.now)
    model.ledger.reads.append(model.now - 3600)


async def _to_the_end(run: HistoryRun, steps: Coroutine[Any, Any, None]) -> list[str]:
    await steps
    return await converge(run) or check_agreement(run.model)


async def converge(run: HistoryRun) -> list[str]:
    """Without faults and changes, and with held-back webhooks delivered or lost, sync until nothing changes.

    Full and incremental syncs alternate. What was refused for now, or given up for a day because of a fault, is sent
    again when its time has come: the clock is put there. Returns what is wrong.
    """
    model, history = run.model, run.history
    for _, do in model.interruptions:
        do()
    model.interruptions = []
    model.clear_faults()
    model.faults.switch_off()
    model.batches_move = True
    model.harness.clock.advance(1000)
    await model.deliver("lost" if history.loses_last_webhooks else "all")
    is_full = history.ends_with_full or run.is_deleted_unseen
    for _ in range(RETRIES):
        if wrong := await _settle(run, is_full=is_full):
            return wrong
        count, first = model.unit(count_retries, model.audience.id)
        if not count or first is None:
            return []
        if first.timestamp() <= model.now:  # its time has come, and it fails for another reason, which is checked
            return []
        model.harness.clock.advance(max(1.0, first.timestamp() - model.now + 1))
    return [f"after {RETRIES} times {count} rows still wait to be sent again"]


async def _settle(run: HistoryRun, *, is_full: bool) -> list[str]:
    model, finished = run.model, 0
    for _ in range(ROUNDS):
        before, writes = model.dump(), model.traffic.writes
        is_done = await run.sync(since="ever" if is_full else None, with_data=True)
        if not await model.process.service.wait_until_idle(seconds=4000):
            return ["updates were in flight for more than an hour"]
        finished += is_done
        sent, changed = model.traffic.writes - writes, _changes(before, model.dump())
        # A member deleted while its result was awaited is missed by the next full fetch only.
        if finished > 1 and not sent and not changed and (is_full or not run.has_deletion):
            return []
        is_full = not is_full if is_done else is_full
        model.harness.clock.advance(30)
    return [f"after {ROUNDS} syncs without faults there are still changes: {sent} writes, {changed}"]


def _changes(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> list[str]:
    """What differs between two dumps."""
    found = []
    for name, rows in before.items():
        if rows != after[name]:
            pairs = [pair for pair in zip(rows, after[name], strict=False) if pair[0] != pair[1]]
            found.append(f"{name}: {pairs[:1]} ({len(rows)} → {len(after[name])} rows)")
    return found


def main(text: str) -> None:
    """Run a history given as its repr, and print both sides after each step."""
    text = re.sub(r"<(Privacy\.\w+): [^>]*>", r"\1", text)
    history: History = eval(text, {"History": History, "Privacy": Privacy, "Step": Step})
    with a_harness() as harness:
        run = HistoryRun(prepare_model(harness, history), history)
        steps = run.execute(lambda step: print(f"\n{step}\n{describe(run.model)}"))
        wrong = harness.loop.run(_to_the_end(run, steps))
    print("\n".join(["", *(wrong or ["All is well."])]))


def describe(model: Model) -> str:
    """Both sides in text."""
    lines = [model.at]
    for name in DUMPED[1:]:
        lines += [f"  {name.removeprefix('civicrm_')} {row}" for row in model.dump()[name]]
    for m in model.audience.members:
        lines.append(f"  member {m.email} {m.status} {m.last_changed} {m.unsubscribed_by} {sorted(chosen_by(m))}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1])
