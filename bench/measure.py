"""How a piece of work is measured, ours and the floor alike: wall and CPU seconds of this process, and its peak memory.

Other work shares the machine, so CPU seconds (all threads of the process) are given beside wall-clock time.
"""

import os
import platform
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Measured:
    """Seconds of wall clock and of CPU, filled in when the block that is measured ends."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measuring() -> Iterator[Measured]:
    """Measure the block."""
    found = Measured()
    wall, cpu = time.perf_counter(), cpu_seconds()
    yield found
    found.wall, found.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU seconds of this process so far, in user code and in the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """The most memory this process ever had resident, in MB. (``ru_maxrss`` would begin with the parent's.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def described() -> dict[str, Any]:
    """What the figures were measured on: machine, versions, commit."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)  # noqa: S607
    return {
        "machine": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "commit": commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else ""),
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _processor() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return names[0] if names else platform.processor()
