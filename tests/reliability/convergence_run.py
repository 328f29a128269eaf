"""One history from its beginning to its verdict."""

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partialmethod
from typing import Any
from unittest import mock

from sync.mailchimp.client import MailchimpClient
from tests.reliability.convergence_bench import Bench
from tests.reliability.convergence_ends import DUMPED, Ends
from tests.reliability.convergence_history import History, Step, Tale, first_people
from tests.reliability.convergence_oracle import verdict
from tests.reliability.convergence_weather import KILLED, Kind, Weather

ROUNDS = 6
"""So many syncs may be needed, after the last change and in quiet, before one sends nothing."""

NO_FAULTS = frozenset({Kind.SKEW, *KILLED.values()})
"""Counted, but not among the faults: a clock is off for a whole history, and deaths are counted by themselves."""

_PAGES = MailchimpClient.iter_member_pages


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

    def add(self, tale: Tale) -> None:
        """Count one more history."""
        traffic = tale.ends.traffic
        self.histories += 1
        self.steps += len(tale.history.steps)
        self.syncs += tale.syncs
        self.requests += traffic.requests
        self.kinds += tale.ends.weather.struck
        self.kills += tale.kills
        self.faults = sum(times for kind, times in self.kinds.items() if kind not in NO_FAULTS)

    def __add__(self, other: "Count") -> "Count":
        return Count(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def thin(self) -> dict[str, int]:
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


def live(bench: Bench, history: History, count: Count | None = None) -> list[str]:
    """Act a history out; what is wrong at its end."""
    with ExitStack() as patches:
        if history.page != 1000:
            small = partialmethod(_PAGES, count=history.page)
            patches.enter_context(mock.patch.object(MailchimpClient, "iter_member_pages", small))
        ends = begin(bench, history)
        tale = Tale(ends, history)
        wrong = bench.loop.run(_to_the_end(tale))
        bench.sweep()
    if count is not None:
        count.add(tale)
    return wrong


def begin(bench: Bench, history: History) -> Ends:
    """The two ends as a history finds them: never synced, or in step (made once for each sort, then copied)."""
    start = history.begins_in_step, history.skew, history.has_interest
    if start not in bench.starts:
        ends = Ends(bench, skew=history.skew, has_interest=history.has_interest)
        first_people(ends)
        if history.begins_in_step:
            bench.loop.run(_get_in_step(ends))
        bench.starts[start] = ends.freeze()
    weather = Weather(history.weather, history.seed)
    return Ends(
        bench,
        skew=history.skew,
        has_interest=history.has_interest,
        seed=history.seed,
        start=bench.starts[start],
        weather=weather,
    )


async def _get_in_step(ends: Ends) -> None:
    await ends.process.service.fetch_and_reconcile(since="ever", with_data=True)
    assert await ends.process.service.settle(seconds=600)
    ends.bench.clock.advance(3600)
    ends.ledger.seen(ends.now)


async def _to_the_end(tale: Tale) -> list[str]:
    await tale.act_out()
    return await come_to_rest(tale) or verdict(tale.ends)


async def come_to_rest(tale: Tale) -> list[str]:
    """Quiet: nothing breaks any more, nobody does anything, what was held back arrives or never does.

    Then syncs, full and incremental by turns, until one has sent nothing and changed nothing.
    """
    ends, history = tale.ends, tale.history
    for _, do in ends.ambush:
        do()
    ends.ambush = []
    ends.mend_line()
    ends.weather.calm_down()
    ends.batches_move = True
    ends.bench.clock.advance(1000)
    await ends.deliver("lost" if history.loses_last_webhooks else "all")
    is_full = history.ends_with_full or tale.is_deleted_unseen
    finished = 0
    for _ in range(ROUNDS):
        before, writes = ends.dump(), ends.traffic.writes
        is_done = await tale.sync(since="ever" if is_full else None, with_data=True)
        if not await ends.process.service.settle(seconds=4000):
            return ["things were under way for more than an hour"]
        finished += is_done
        sent, changed = ends.traffic.writes - writes, _changes(before, ends.dump())
        if finished > 1 and not sent and not changed:
            return []
        is_full = not is_full if is_done else is_full
        ends.bench.clock.advance(30)
    return [f"after {ROUNDS} syncs in quiet there is still something to do: {sent} writes, {changed}"]


def _changes(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> list[str]:
    """What differs between two dumps."""
    found = []
    for name, rows in before.items():
        if rows != after[name]:
            pairs = [pair for pair in zip(rows, after[name], strict=False) if pair[0] != pair[1]]
            found.append(f"{name}: {pairs[:1]} ({len(rows)} → {len(after[name])} rows)")
    return found


def main(text: str) -> None:
    """Act out a history given as its repr, and tell how both ends stand after each step."""
    history: History = eval(text, {"History": History, "Step": Step})
    bench, act_out = Bench(), Tale.act_out

    async def step_by_step(tale: Tale) -> None:
        for step in history.steps:
            tale.history = replace(history, steps=(step,))
            await act_out(tale)
            print(f"\n{step}\n{picture(tale.ends)}")
        tale.history = history

    with bench.ready(), mock.patch.object(Tale, "act_out", step_by_step):
        wrong = live(bench, history)
    print("\n".join(["", *(wrong or ["All is well."])]))


def picture(ends: Ends) -> str:
    """Both ends as they stand."""
    lines = [ends.at]
    for name in DUMPED[1:]:
        lines += [f"  {name.removeprefix('civicrm_')} {row}" for row in ends.dump()[name]]
    for m in ends.audience.members:
        lines.append(f"  member {m.email} {m.status} {m.last_changed} {m.unsubscribed_by} {sorted(m.interests)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1])
