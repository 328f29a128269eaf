"""Two servers on one database, one of them frozen (SIGSTOP) in the middle of a run for longer than its claim lives.

The other takes over and ends the sync; then the first is let go and must find out, before anything it does is written
to the database or sent to Mailchimp. Real processes and real time: claims here live for a second.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

import sync.store.tables  # noqa: F401  registers the extension's tables
from civiapi.store.engine import open_store
from civiapi.store.schema.tables import METADATA
from sync.emulator.server.running import Emulator
from tests.reliability.crash.child import CALL_AFTER, CALL_BEFORE, CALL_LOST, CALL_SENT, COMMIT_AFTER, COMMIT_BEFORE
from tests.reliability.crash.matrix import a_run, until_idle
from tests.reliability.crash.processes import Forker, JobOutput, forking
from tests.reliability.crash.scenarios import people_at_both_ends
from tests.reliability.crash.snapshot import Snapshot, differences, take_snapshot
from tests.reliability.report.results import show, write_down
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, a_site

CLAIM_SECONDS = 1
CALM_SECONDS = 60
"""How long the claims of the second live: it is not to lose one because the machine is busy."""
PATIENCE_S = 30.0
REFERENCE: list[Snapshot] = []
"""How it ends when nobody is frozen; found out once."""


@pytest.fixture(scope="module")
def second() -> Iterator[Forker]:
    """The other server."""
    with forking() as started:
        yield started


@dataclass
class Pair:
    """Two servers, one database, one Mailchimp."""

    url: str
    emulator: Emulator
    first: Forker
    second: Forker
    frozen: int | None = None
    claim_seconds: float = CLAIM_SECONDS

    def job(self, *steps: list[Any], **more: Any) -> dict[str, Any]:
        return {
            "database": self.url,
            "mailchimp": self.emulator.root_url,
            "claim_seconds": self.claim_seconds,
            "steps": list(steps),
            **more,
        }

    async def freeze(self, **where: str) -> int:
        """Let the first begin a run and freeze where the point is like this; its process id."""
        self.first.start(self.job(a_run(since="ever", with_data=1), freeze=where))
        output = await self.first.wait("frozen")
        pid = output.find("frozen")
        assert pid, output.lines
        self.frozen = int(pid)
        await asyncio.to_thread(wait_until_frozen, pid)
        await until_idle(self.emulator)
        return int(pid)

    async def second_syncs(self) -> JobOutput:
        """Let the second sync to the end, as soon as it may."""
        settled = ["settle", PATIENCE_S]
        run = {"since": "ever", "with_data": True}
        steps = [["in turn", run], settled, ["in turn", run], settled]
        output = await self.second.run(self.job(*steps, claim_seconds=CALM_SECONDS))
        output.assert_ended_well()
        return output

    async def let_go(self, pid: int) -> JobOutput:
        """Let the first go on, to its end."""
        self.frozen = None
        os.kill(pid, signal.SIGCONT)
        return await self.first.wait()

    async def everything(self) -> dict[str, list[str]]:
        """Every row of every table."""

        def read(conn: Connection) -> dict[str, list[str]]:
            return {
                name: sorted(str(tuple(row)) for row in conn.execute(select(one)))
                for name, one in METADATA.tables.items()
            }

        store = await open_store(self.url)
        try:
            return await store.read(read)
        finally:
            await store.close()


@asynccontextmanager
async def a_pair(kind: str, folder: Path, first: Forker, second: Forker) -> AsyncIterator[Pair]:
    """People at both ends, never synced."""
    with a_database(kind, folder) as url:
        async with a_site(url, sockets=True) as site:
            await people_at_both_ends(site, None)
            pair = Pair(url, site.emulator, first, second)
            try:
                yield pair
            finally:
                if pair.frozen is not None:  # the test failed: the next one needs whoever waits for it
                    os.kill(pair.frozen, signal.SIGKILL)
                    await first.wait()


BATCH = {"what": "POST batches"}
FREEZES = {
    "between two pages": {"kind": CALL_BEFORE, "what": "GET lists"},
    "while deciding": {"kind": COMMIT_AFTER, "stage": "readyToReconcileQueue"},
    "when a batch is written down": {"kind": COMMIT_AFTER, "what": "create_batch"},
    "when a batch is to be sent": {"kind": CALL_BEFORE, **BATCH},
    "when a batch was sent": {"kind": CALL_SENT, **BATCH},
    "when the answer has come": {"kind": CALL_LOST, **BATCH},
    "before the answer is written down": {"kind": CALL_AFTER, "what": "POST /batches"},
}


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("sqlite", "while deciding"),
        ("sqlite", "when a batch is to be sent"),
        ("mariadb", "when a batch is written down"),
        ("mariadb", "when a batch was sent"),
    ],
)
async def test_a_server_frozen_past_its_lease_and_let_go_writes_nothing_anywhere(
    kind: str, where: str, forker: Forker, second: Forker, tmp_path: Path
) -> None:
    assert await frozen_and_let_go(kind, where, forker, second, tmp_path) == []


@pytest.mark.soak
async def test_wherever_it_is_frozen_it_writes_nothing_anywhere(forker: Forker, second: Forker, tmp_path: Path) -> None:
    rows = []
    for kind in KINDS:
        for where in FREEZES:
            folder = tmp_path / f"{kind} {where}"
            folder.mkdir()
            rows.append([kind, where, len(await frozen_and_let_go(kind, where, forker, second, folder))])
    columns = ["Database", "Frozen", "Differences"]
    print(f"\n{show(columns, rows)}")
    write_down(
        "frozen",
        title="Two servers, one frozen and resumed",
        what="A process doing a full sync is stopped (SIGSTOP) for longer than its claim lives; another takes over and "
        "ends the sync; the first is resumed (SIGCONT). It must write nothing to the database and send nothing to "
        "Mailchimp from then on, and both sides must be as if nobody had been frozen.",
        columns=columns,
        rows=rows,
        made_by="make soak (tests/reliability/crash/test_frozen.py)",
    )
    assert not any(row[-1] for row in rows)


async def frozen_and_let_go(kind: str, where: str, forker: Forker, second: Forker, tmp_path: Path) -> list[str]:
    """One history; what is then not as it should be."""
    async with a_pair(kind, tmp_path, forker, second) as pair:
        pid = await pair.freeze(**FREEZES[where])
        output = await pair.second_syncs()
        assert output.find("busy"), "the claim was not held"
        rows, sent = await pair.everything(), len(writes(pair.emulator))
        stopped = await pair.let_go(pid)
        assert "lost to another process" in stopped.find("answer")["error_message"]
        wrong = differences(rows, await pair.everything()) + [f"sent {one}" for one in writes(pair.emulator)[sent:]]
        await pair.second_syncs()
        found = await take_snapshot(pair.url, pair.emulator, with_times=False)
    return wrong + differences(await uninterrupted(tmp_path, forker, second), found)


@pytest.mark.parametrize("how", ["force_restart", "abortsync"])
async def test_a_holder_that_was_called_off_sends_nothing_more_though_its_lease_is_long(
    how: str, forker: Forker, second: Forker, tmp_path: Path
) -> None:
    async with a_pair("sqlite", tmp_path, forker, second) as pair:
        pair.claim_seconds = 600
        pid = await pair.freeze(**FREEZES["when a batch is to be sent"])
        if how == "abortsync":
            step = ["call", "Mailchimpsync", "abortsync", {"group_id": GROUP}]
        else:
            step = a_run(since="ever", with_data=1, force_restart=1)
        (await second.run(pair.job(step, ["settle", PATIENCE_S]))).assert_ended_well()
        rows, sent = await pair.everything(), len(writes(pair.emulator))
        stopped = await pair.let_go(pid)
        assert "lost to another process or revoked" in stopped.find("answer")["error_message"]
        del rows["civiapi_run_log"]  # where it may write how its run ended
        assert differences(rows, await pair.everything()) == []
        assert writes(pair.emulator)[sent:] == []
        await pair.second_syncs()
        found = await take_snapshot(pair.url, pair.emulator, with_times=False)
    for left in ("updates", "batches"):  # what was called off is written down as called off
        found[left] = (await uninterrupted(tmp_path, forker, second))[left]
    assert differences(await uninterrupted(tmp_path, forker, second), found) == []


async def test_a_server_frozen_inside_a_transaction_of_sqlite_goes_on_where_it_was(
    forker: Forker, second: Forker, tmp_path: Path
) -> None:
    """It holds the file: nobody can have taken over, and its lease, though over, is still its own."""
    async with a_pair("sqlite", tmp_path, forker, second) as pair:
        pid = await pair.freeze(kind=COMMIT_BEFORE, stage="readyToReconcileQueue")
        await asyncio.sleep(1.5 * CLAIM_SECONDS)
        (await pair.let_go(pid)).assert_ended_well()
        await pair.second_syncs()
        found = await take_snapshot(pair.url, pair.emulator, with_times=False)
    assert differences(await uninterrupted(tmp_path, forker, second), found) == []


async def uninterrupted(folder: Path, first: Forker, second: Forker) -> dict[str, Any]:
    """How it ends when nobody is frozen."""
    if REFERENCE:
        return REFERENCE[0]
    (folder / "reference").mkdir()
    async with a_pair("sqlite", folder / "reference", first, second) as pair:
        await pair.second_syncs()
        REFERENCE.append(await take_snapshot(pair.url, pair.emulator, with_times=False))
    return REFERENCE[0]


def wait_until_frozen(pid: int) -> None:
    """Return once the system says that the process is stopped."""
    until = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < until
        time.sleep(0.01)


def writes(emulator: Emulator) -> list[tuple[str, str]]:
    """Everything that Mailchimp was asked to change."""
    return [(one.method, one.path) for one in emulator.requests if one.method != "GET"]
