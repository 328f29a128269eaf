"""A server process that hostile tests talk to, with what it costs it: CPU, memory, and what is in its database."""

import contextlib
import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.processes import ADMIN_KEY, SITE_KEY, free_port, serving, write_settings

PATIENCE_S = 30.0  # how long an answer is waited for: what a request cost is told by the server's CPU, not by the clock
MOST_CPU_S = 2.0
MOST_MEMORY_KB = 200_000
KEYS = {"key": SITE_KEY, "api_key": ADMIN_KEY}
HEADERS = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}", "X-Requested-With": "XMLHttpRequest"}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What something cost the server: seconds of CPU, the most memory it held meanwhile."""

    cpu_s: float
    peak_kb: int

    def assert_bearable(self) -> None:
        assert self.cpu_s < MOST_CPU_S, self
        assert self.peak_kb < MOST_MEMORY_KB, self


@dataclass(frozen=True)
class HostileServer:
    """A server process of its own, and a client to it."""

    child: subprocess.Popen[str]
    port: int
    folder: Path
    http: httpx.Client

    def cpu_s(self) -> float:
        """What it has spent so far."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def peak_kb(self) -> int:
        """The most memory it held since `forget_peak`, or ever."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.child.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def rss_kb(self) -> int:
        """What it holds now."""
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.child.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def forget_peak(self) -> None:
        with contextlib.suppress(OSError):  # not every kernel lets us; the peak is then that of its whole life
            Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def rows(self) -> dict[str, int]:
        """How many rows every table has, and the highest row id: a write shows."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder}/site.sqlite?mode=ro", uri=True)) as link:
            names = [row[0] for row in link.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                name: link.execute(f"SELECT count(*) * 1000000 + ifnull(max(rowid), 0) FROM {name}").fetchone()[0]
                for name in names
            }

    @contextlib.contextmanager
    def weighed(self) -> Iterator[list[Cost]]:
        """What happens inside, weighed when it is over."""
        self.forget_peak()
        before, costs = self.cpu_s(), []
        yield costs
        costs.append(Cost(self.cpu_s() - before, self.peak_kb()))

    def is_well(self) -> bool:
        """Whether it still answers a call."""
        call = {**KEYS, "entity": "Contact", "action": "get", "json": "1"}
        return self.child.poll() is None and self.http.post("/extern/rest.php", data=call).json()["is_error"] == 0


@contextlib.contextmanager
def hostile_server(more: str = "", **env: str) -> Iterator[HostileServer]:
    """A server with *more* settings, or from the environment; its log goes to the file ``log`` of its folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = write_settings(folder, port=port, more=more)
        with serving(config, port, **env) as child:
            assert child.stderr is not None
            tee = subprocess.Popen(["tee", str(folder / "log")], stdin=child.stderr, stdout=subprocess.DEVNULL)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as http:
                yield HostileServer(child, port, folder, http)
        tee.wait(10)  # it ends with the server
