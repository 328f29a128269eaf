"""The one dispatcher: resolve, authorize, prepare, invoke, chain, respond. Chained calls come back in here.

A call whose whole tree (itself and the calls chained in its parameters) needs nothing but the store runs as one store
unit: one trip, one transaction, so a create whose chained call throws is rolled back. The coroutine is then driven to
its end inside the unit, where nothing it awaits ever suspends. Any other call waits for what it needs (Mailchimp), and
each of its store actions is a unit of its own.
"""

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from civiapi import chains, describe, envelope, faults, params
from civiapi.access import authorize
from civiapi.call import Call, Caller
from civiapi.errors import ApiError, NotFound
from civiapi.registry import Registry
from civiapi.request import Request, is_empty, is_one, read_options, read_return
from civiapi.spec import Action, Entity, Result
from civiapi.store.clock import SiteClock
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("civiapi.dispatch")
MAX_CHAINED = 10_000
STRINGIFIED = frozenset({"get", "create", "setvalue", "getquick"})


class _Need(NamedTuple):
    """What a call tree needs: the writer, or somebody outside the store."""

    writes: bool
    remote: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What an ``arun`` action may use: further calls, store units, the sync."""

    api: "Api"
    caller: Caller
    purse: chains.Purse
    conn: Connection | None = None

    @property
    def sync(self) -> Any:
        """The sync facade (``sync/service.py``); ``None`` where none was given."""
        return self.api.sync

    @property
    def clock(self) -> SiteClock:
        return self.api.store.clock

    async def call(self, entity: str, action: str, parameters: Mapping[str, Any]) -> Any:
        """Answer another call for the same caller, in the same unit if there is one. Raises ``ApiError``."""
        return await self.api.dispatch(Call(entity, action, parameters, self.caller), self)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function: in the unit there is, or in one of its own."""
        if self.conn is not None:
            return fn(self.conn, *args, **kwargs)
        return await self.api.store.read(fn, *args, **kwargs)

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Likewise, for a function that writes."""
        if self.conn is not None:
            return fn(self.conn, *args, **kwargs)
        return await self.api.store.write(fn, *args, **kwargs)


OnAnswer = Callable[[Registry, str, str, str, float], None]
"""Hears of every call answered: entity and action as they were named, ok, refused or fault, and the seconds it took."""


class Api:
    """Answers calls over one store and one catalogue."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        sync: Any = None,
        on_answer: OnAnswer | None = None,
        *,
        max_chained: int = MAX_CHAINED,
    ) -> None:
        self.store = store
        self.registry = registry
        self.sync = sync
        self._on_answer = on_answer
        self._max_chained = max_chained

    async def respond(self, call: Call) -> Any:
        """The answer to *call*: an envelope, a bare record or a bare scalar; errors as their envelope. Never raises."""
        try:
            return await self.answer(call)
        except ApiError as problem:
            _let_go(problem)
            if not is_empty(call.params.get("format.is_success")):
                return 0
            return envelope.error(problem, *self.registry.names(call.entity, call.action))
        except Exception as fault:
            log.exception("%s.%s failed", *self.registry.names(call.entity, call.action))
            _let_go(fault)
            return dict(envelope.UNKNOWN_ERROR)

    async def answer(self, call: Call) -> Any:
        """Likewise, but raises ``ApiError``; other exceptions are faults of ours."""
        outcome, began = "fault", time.perf_counter()
        try:
            answer = await self._in_full(call)
            outcome = "ok"
        except ApiError:
            outcome = "refused"
            raise
        finally:
            if self._on_answer is not None:
                self._on_answer(self.registry, call.entity, call.action, outcome, time.perf_counter() - began)
        return answer

    async def _in_full(self, call: Call) -> Any:
        need = self._need(call)
        try:
            if need.remote:
                return await self.dispatch(call, Context(self, call.caller, chains.Purse(self._max_chained)))
            unit = self.store.write if need.writes else self.store.glance
            return await unit(self._in_unit, call)
        except StoreError as error:
            raise faults.of_store(error) from error

    def _need(self, call: Call) -> _Need:
        """What the call tree needs. Raises ``ApiError`` for one too deep or too large, before any of it runs."""
        writes = remote = False
        todo = [(call.entity, call.action, call.params, 0)]
        seen = chains.Purse(self._max_chained)
        while todo:
            entity_name, action_name, parameters, depth = todo.pop()
            if depth > chains.MOST_DEPTH:
                raise chains.TooDeep
            try:
                entity, action = self.registry.resolve(entity_name, action_name)
            except NotFound:
                continue
            for known in self._parts(entity, action):
                writes = writes or known.writes
                remote = remote or (known.run is None and known.via is None)
            below = chains.children(entity, action.name, parameters)
            seen.pay(len(below))
            todo += [(*child, depth + 1) for child in below]
        return _Need(writes, remote)

    def _parts(self, entity: Entity, action: Action) -> list[Action]:
        """The actions that do the work of *action*."""
        if action.via is None:
            return [action]
        own = self.registry.actions(entity)
        parts = [part for name in action.via if name in own for part in self._parts(entity, own[name])]
        return [action, *parts]

    def _in_unit(self, conn: Connection, call: Call) -> Any:
        work = self.dispatch(call, Context(self, call.caller, chains.Purse(self._max_chained), conn))
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        work.close()
        raise RuntimeError(f"{call.entity}.{call.action} waited for something inside a store unit")

    async def dispatch(self, call: Call, ctx: Context) -> Any:
        """Answer one call within *ctx*. Raises ``ApiError``."""
        entity, action = self.registry.resolve(call.entity, call.action)
        _check_version(call.params)
        authorize(entity, action, call)
        request = Request(
            self.registry,
            entity,
            action,
            call.params,
            call.caller,
            self.store.clock,
            read_options(call.params),
            read_return(call.params),
            is_one(call.params.get("sequential")),
            call.params,
        )
        if action.name == "create" and ("match" in request.options.raw or "match-mandatory" in request.options.raw):
            request = await self._matched(request, ctx)
        result = await self._invoke(request, ctx)
        if action.name in STRINGIFIED and not action.native and not result.bare:
            result.values = envelope.as_texts(result.values)
        if not result.bare:
            await chains.run(request, result, ctx)
        return self._answer(request, result)

    async def _invoke(self, request: Request, ctx: Context) -> Result:
        action = request.action
        if action.run is None:
            ready = await ctx.read(params.prepare, request)
            assert action.arun is not None  # noqa: S101  a declaration has one of the two
            return await action.arun(ready, ctx)
        unit = ctx.write if action.writes else ctx.read
        return await unit(_run, request)

    async def _matched(self, request: Request, ctx: Context) -> Request:
        """``options.match``: the record equal on these fields is the one to update."""
        raw = request.options.raw
        wanted = raw.get("match-mandatory") or raw.get("match")
        names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
        names = [name for name in names if isinstance(name, str)]
        if not names or not is_empty(request.params.get("id")):
            return request
        asked = {name: request.params[name] for name in names if request.params.get(name) is not None}
        found = await ctx.call(
            request.entity.name, "get", {**asked, "return": ["id"], "sequential": 1, "options": {"limit": 2}}
        )
        rows = found["values"] if asked else []
        if len(rows) > 1:
            raise ApiError("Ambiguous match criteria", "ambiguous_match")
        if not rows and raw.get("match-mandatory"):
            raise ApiError("Failed to match existing record", "no_match")
        more = {"id": rows[0]["id"]} if rows else {}
        changed = {**request.params, **more}
        return replace(request, params=changed, sent=changed)

    def _answer(self, request: Request, result: Result) -> Any:
        answer = envelope.success(result, sequential=request.sequential)
        sent = request.sent
        if not is_empty(sent.get("format.is_success")):
            return 1
        if not is_empty(sent.get("format.only_id")) and isinstance(answer, dict) and "id" in answer:
            return answer["id"]
        if "debug" in sent or log.isEnabledFor(logging.DEBUG):
            self._explain(request, answer)
        if "fields" in _listed(request.options.raw.get("metadata")) and isinstance(answer, dict):
            answer["metadata"] = {"fields": describe.fields(self.registry, request.entity, request.action.name)}
        return answer

    def _explain(self, request: Request, answer: Any) -> None:
        unknown = params.unknown_names(request)
        if unknown:
            log.debug("%s.%s was sent unknown parameters: %s", request.entity.name, request.action.name, unknown)
        if isinstance(answer, dict) and "values" in answer and not is_empty(request.sent.get("debug")):
            answer["undefined_fields"] = unknown
            if request.caller.may("view debug output"):
                answer["xdebug"] = []


def _let_go(error: BaseException) -> None:
    """Free what the frames of an answered error hold: the whole request.

    aiosqlite keeps the future in the frame that its error went through, so the two hold each other until the garbage is
    looked through, which large texts do not hasten: a refused call of 16 MB stayed, and so did the next.
    """
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one = one.__context__


def _run(conn: Connection, request: Request) -> Result:
    """Prepare and run a store action; a broken constraint becomes an API error that names the field."""
    ready = params.prepare(conn, request)
    assert request.action.run is not None  # noqa: S101  seen by the caller
    try:
        return request.action.run(conn, ready)
    except IntegrityError as error:
        raise faults.of_constraint(conn, ready, error) from error


def _check_version(sent: Mapping[str, Any]) -> None:
    if (version := sent.get("version", 3)) not in (3, "3", None, ""):
        if version in (4, "4"):
            raise ApiError("API version 4 is not available here; use version 3", "not-found")
        raise ApiError("Unknown api version", "not-found")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
