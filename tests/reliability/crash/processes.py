"""Starts the processes of ``child.py`` from a test and reads their output."""

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

from tests.support.processes import ROOT, environment

PATIENCE_S = 60.0


@dataclass
class JobOutput:
    """The output of one forked process, and how it ended: an exit code, or minus the signal that killed it."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    ended: int | None = None

    def find(self, key: str) -> Any:
        """The last value under this key, None for none."""
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
        self._buffer = b""

    async def run(self, job: dict[str, Any]) -> JobOutput:
        """Run a job to its end."""
        self.start(job)
        return await self.wait()

    def start(self, job: dict[str, Any]) -> None:
        """Start a job without waiting for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()

    async def wait(self, until: str = "ended") -> JobOutput:
        """Read the job's output until this key, or its end."""
        output = JobOutput()
        while True:
            line = await asyncio.to_thread(self.read_line)
            output.lines.append(line)
            output.ended = line.get("ended")
            if until in line or output.ended is not None:
                return output

    def read_line(self) -> dict[str, Any]:
        """The next line. Raises AssertionError when none comes in time."""
        assert self._process.stdout is not None
        pipe, until = self._process.stdout.fileno(), time.monotonic() + PATIENCE_S
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"nothing heard for {PATIENCE_S} s"
            more = os.read(pipe, 65536)
            assert more, "the process that forks is gone"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        output: dict[str, Any] = json.loads(line)
        return output


@contextmanager
def forking() -> Iterator[Forker]:
    """A process that forks, while the block lasts; ended with whatever it forked, frozen ones too."""
    words = [sys.executable, "-m", "tests.reliability.crash.child"]
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment(),
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            forker = Forker(process)
            assert "ready" in forker.read_line()
            yield forker
        finally:
            os.killpg(process.pid, signal.SIGKILL)
