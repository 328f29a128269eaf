"""An empty database of each kind, for suites that promise the same on both."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

KINDS = ("sqlite", "mariadb")
MARIADB = ["mysql", "-uroot", "-h127.0.0.1", "-N", "-e"]


@contextmanager
def a_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a new database; skips, saying why, where there is no MariaDB on 127.0.0.1 that lets root in."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'site.sqlite'}"
        return
    name = f"civiapi_test_{uuid4().hex[:12]}"
    try:
        subprocess.run([*MARIADB, f"CREATE DATABASE {name}"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no MariaDB at 127.0.0.1 that root may use: {error}")
    try:
        yield f"mysql://root@127.0.0.1/{name}"
    finally:
        subprocess.run([*MARIADB, f"DROP DATABASE {name}"], check=True, capture_output=True, timeout=60)
