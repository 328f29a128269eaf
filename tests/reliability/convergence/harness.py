"""What all histories of a test process share: a clock, a loop, a database in memory, and saved initial states.

Created once and restored for each history: creating them takes longer than most histories.
"""

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import structlog

from civiapi.store.clock import site_clock
from civiapi.store.schema.migrations import migrate
from sync import service
from sync.data.plugins import data_plugins
from tests.reliability.convergence import civicrm as crm
from tests.reliability.convergence.mariadb import MariaMemory
from tests.reliability.convergence.store import KillSwitch, Memory, MemoryStore
from tests.reliability.convergence.time import VirtualClock, VirtualLoop
from tests.support.databases import chosen
from tests.support.mariadb_server import a_server, missing_packages
from tests.support.processes import free_port

HISTORIES_A_SWEEP = 20


@dataclass(frozen=True)
class SavedState:
    """Both sides at one moment, from which histories start."""

    database: Any
    world: bytes
    ledger: bytes
    elapsed: float
    contacts: tuple[int, ...]


NOT_INSTALLED = missing_packages() if chosen() == "mariadb" else []
"""What is missing for a run on MariaDB."""


@contextlib.contextmanager
def a_harness() -> Iterator["Harness"]:
    """What histories need, on a database of the kind the run asks for, once it is ready."""
    with contextlib.ExitStack() as stack:
        memory = None
        if chosen() == "mariadb":
            memory = MariaMemory(stack.enter_context(a_server(free_port())))
        yield stack.enter_context(Harness(memory).ready())


class Harness:
    """What all histories of a test process share: the clock, the loop, the database with a migrated template."""

    def __init__(self, memory: Memory | MariaMemory | None = None) -> None:
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock)
        self.loop.set_exception_handler(lambda loop, context: None)  # dead processes leave exceptions nobody asks for
        self.memory: Any = memory or Memory()
        self.site_clock = site_clock("UTC")
        self.starts: dict[Any, SavedState] = {}
        self._lived = 0

    def collect_garbage(self) -> None:
        """Collect garbage after every few histories."""
        self._lived += 1
        if self._lived % HISTORIES_A_SWEEP == 0:
            gc.collect()

    @contextlib.contextmanager
    def ready(self) -> Iterator["Harness"]:
        """Virtual time, and no log lines while the block lasts."""
        before = structlog.get_config()
        structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
        plugins = data_plugins()  # each looks through all that is installed: once will do
        with (
            self.clock.running(),
            mock.patch.object(service, "data_plugins", return_value=plugins),
            without_garbage_collection(),
        ):
            store = MemoryStore(self.memory, self.site_clock, KillSwitch())
            self.loop.run(migrate(store))
            self.memory.unit(crm.set_up)
            self.memory.script(crm.MADE_TWICE)
            self.empty = self.memory.copy()
            try:
                yield self
            finally:
                structlog.configure(**before)
                self.loop.close()
                self.memory.close()


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect garbage only in `Harness.collect_garbage`, which saves a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _drop(logger: Any, name: str, event: Any) -> Any:
    raise structlog.DropEvent
