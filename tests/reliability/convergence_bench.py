"""What every history of a test process shares: a clock, a loop, a database in memory, and where histories begin.

Made once and put back for each history: making them anew took longer than most histories do.
"""

import contextlib
import gc
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import httpx
import structlog

from civiapi.store.clock import site_clock
from civiapi.store.migrate import migrate
from sync import service
from sync.data_sync import data_plugins
from sync.mailchimp import transport
from tests.reliability import convergence_civicrm as crm
from tests.reliability.convergence_store import Fuse, Memory, MemoryStore
from tests.reliability.convergence_time import VirtualClock, VirtualLoop
from tests.reliability.convergence_wire import client_factory

HISTORIES_A_SWEEP = 20


@dataclass(frozen=True)
class Frozen:
    """Two ends as they once stood, for histories to begin with."""

    database: sqlite3.Connection
    world: bytes
    ledger: bytes
    elapsed: float
    contacts: tuple[int, ...]


class Bench:
    """What every history of a test process shares: the clock, the loop, the memory with a finished template."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock)
        self.loop.set_exception_handler(lambda loop, context: None)  # dead processes leave exceptions nobody asks for
        self.memory = Memory()
        self.site_clock = site_clock("UTC")
        self.wire: Callable[[], httpx.AsyncBaseTransport] | None = None
        self.starts: dict[Any, Frozen] = {}
        self._lived = 0

    def sweep(self) -> None:
        """Let go now and then of what histories left behind."""
        self._lived += 1
        if self._lived % HISTORIES_A_SWEEP == 0:
            gc.collect()

    @contextlib.contextmanager
    def ready(self) -> Iterator["Bench"]:
        """Virtual time, no sockets and no log lines while the block lasts."""
        before = structlog.get_config()
        structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
        make = httpx.AsyncClient
        over_wire = client_factory(make, lambda: self.wire() if self.wire else httpx.AsyncBaseTransport())
        plugins = data_plugins()  # each looks through all that is installed: once will do
        with (
            self.clock.running(),
            mock.patch.object(transport.httpx, "AsyncClient", over_wire),
            mock.patch.object(service, "data_plugins", return_value=plugins),
            seldom_collected(),
        ):
            store = MemoryStore(self.memory, self.site_clock, Fuse())
            self.loop.run(migrate(store))
            self.memory.unit(crm.set_up)
            self.memory.raw.executescript(crm.MADE_TWICE)
            self.empty = self.memory.copy()
            try:
                yield self
            finally:
                structlog.configure(**before)
                self.loop.close()


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """No garbage is looked for while the block lasts but by `Bench.sweep`: it took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _drop(logger: Any, name: str, event: Any) -> Any:
    raise structlog.DropEvent
