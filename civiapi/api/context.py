"""What an asynchronous action may use: further calls, store units and the sync; within the budget of one request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from civiapi.api.bounds.answer_size import answer_size
from civiapi.api.call import Call, Caller, Responder
from civiapi.api.errors import ApiError
from civiapi.api.sync_api import SyncApi
from civiapi.runtime.values import call_value
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store

P = ParamSpec("P")
T = TypeVar("T")


MAX_CHAINED_BYTES = 32_000_000
"""What chained calls of one request may answer together, as ``answer_size`` counts."""


MAX_WRITES_PER_CALL = 500
"""Writes of one request, which hold the database for others that write: calls that it makes or chains, and rows."""


class BudgetExceeded(ApiError):
    """The chained calls of a request are too many, or answer too much."""

    def __init__(
        self, message: str, advice: str = "Ask for fewer rows at a time with options.limit and options.offset."
    ) -> None:
        super().__init__(f"{message} {advice}", "too_much")


@dataclass(slots=True)
class CallBudget:
    """What the chained calls of one request may use: calls and rows together, and bytes of their answers."""

    limit: int
    spent: int = 0
    bytes_left: int = MAX_CHAINED_BYTES
    writes_left: int = MAX_WRITES_PER_CALL

    def spend(self, count: int) -> None:
        """Count calls or rows. Raises ``BudgetExceeded``."""
        self.spent += count
        if self.spent > self.limit:
            raise BudgetExceeded(
                f"The chained calls of a request and the rows they answer may be {self.limit} together "
                "([server] max_chained)."
            )

    def check_writes(self, count: int) -> None:
        """Raise ``BudgetExceeded`` unless *count* writes are left: for an action that knows before its first."""
        if count > self.writes_left:
            raise BudgetExceeded(
                f"One call may write at most {MAX_WRITES_PER_CALL} records, with its chained calls.",
                "Send them in several calls.",
            )

    def spend_writes(self, count: int) -> None:
        """Count writes. Raises ``BudgetExceeded``."""
        self.check_writes(count)
        self.writes_left -= count

    def spend_answer(self, answer: Any) -> None:
        """Count the answer of a chained call: its rows, and its size with metadata. Raises ``BudgetExceeded``."""
        values = answer.get("values") if isinstance(answer, dict) else None
        self.spend(len(values) if isinstance(values, dict | list) else 0)
        self.bytes_left -= answer_size(answer, self.bytes_left)
        if self.bytes_left < 0:
            raise BudgetExceeded(
                f"The chained calls of a request may answer {MAX_CHAINED_BYTES // 1_000_000} MB together."
            )


class ApiService(Responder, Protocol):
    """The part of ``dispatch.Api`` that actions use."""

    @property
    def store(self) -> Store:
        """The store that calls run on."""

    @property
    def sync(self) -> SyncApi | None:
        """The sync service; ``None`` where the API was built without one."""

    def answers(self, entity: str, action: str) -> bool:
        """Whether there is such an action."""

    async def dispatch(self, call: Call, ctx: "Context") -> Any:
        """Answer one call within a request. Raises ``ApiError``."""


@call_value
class Context:
    """One request in progress; *conn* is the connection of its store unit, if it runs in one."""

    api: ApiService
    caller: Caller
    budget: CallBudget
    conn: Connection | None = None

    @property
    def sync(self) -> SyncApi:
        """The sync service. Raises ``ApiError`` where there is none."""
        if self.api.sync is None:
            raise ApiError("The sync is not available here.")
        return self.api.sync

    @property
    def clock(self) -> SiteClock:
        """The clock of the site, with its time zone."""
        return self.api.store.clock

    async def call(self, entity: str, action: str, parameters: Mapping[str, Any]) -> Any:
        """Answer another call for the same caller, in the same store unit if there is one. Raises ``ApiError``.

        The answer is always the envelope: ``format.…`` among the parameters is about the caller's own answer.
        """
        asked = {name: value for name, value in parameters.items() if not str(name).startswith("format.")}
        return await self.api.dispatch(Call(entity, action, asked, self.caller), self)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function in the current unit, or in a unit of its own."""
        if self.conn is not None:
            return fn(self.conn, *args, **kwargs)
        return await self.api.store.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like ``read``, for a function that writes."""
        if self.conn is not None:
            return fn(self.conn, *args, **kwargs)
        return await self.api.store.write(fn, *args, **kwargs)
