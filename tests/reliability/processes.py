"""Starting the processes of ``child.py`` from a test and hearing what they say."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.program import ROOT, environment

PATIENCE_S = 60.0


@dataclass
class Told:
    """What one forked process said, and how it ended: an exit code, or minus the signal that killed it."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None

    def find(self, key: str) -> Any:
        """The last thing said under this key, None for nothing."""
        return next((line[key] for line in reversed(self.lines) if key in line), None)

    @property
    def died(self) -> dict[str, Any] | None:
        """At which point it killed itself."""
        found: dict[str, Any] | None = self.find("died")
        return found

    def assert_ended_well(self) -> None:
        assert self.ended == 0, self.find("traceback") or self.lines[-3:]


class Forker:
    """A process that forks another for each job; one at a time. It belongs to no event loop, so tests can share it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._heard = b""

    async def run(self, job: dict[str, Any]) -> Told:
        """Do a job to its end, whatever that is."""
        self.start(job)
        return await self.wait()

    def start(self, job: dict[str, Any]) -> None:
        """Begin a job and do not wait for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()

    async def wait(self, until: str = "ended") -> Told:
        """Hear the job at work until it says this, or ends."""
        told = Told()
        while True:
            line = await asyncio.to_thread(self.hear)
            told.lines.append(line)
            told.ended = line.get("ended")
            if until in line or told.ended is not None:
                return told

    def hear(self) -> dict[str, Any]:
        """The next line. Raises AssertionError when none comes in time."""
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + PATIENCE_S
        while b"\n" not in self._heard:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"nothing heard for {PATIENCE_S} s"
            more = os.read(pipe, 65536)
            assert more, "the process that forks is gone"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def forking() -> Iterator[Forker]:
    """A process that forks, while the block lasts; ended with whatever it forked, frozen ones too."""
    words = [sys.executable, "-m", "tests.reliability.child"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, cwd=ROOT, env=environment(), start_new_session=True, **pipes) as process:
        try:
            forker = Forker(process)
            assert "ready" in forker.hear()
            yield forker
        finally:
            os.killpg(process.pid, signal.SIGKILL)
