"""Answering calls: resolve, authorize, parse, prepare, invoke, chain, render (``Api.run``).

A call is resolved once, together with the calls chained in its parameters. If the whole tree needs nothing but the
store, it runs as one store unit: one trip to the database and one transaction, so that a create whose chained call
fails is rolled back. The coroutine is then run to its end inside the unit; nothing that it awaits suspends. Any other
call awaits what it needs (Mailchimp), and each of its store actions is a unit of its own.
"""

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from civiapi.api import chaining, envelope, store_errors
from civiapi.api.bounds.limits import LONG_AT_ONCE, OTHER_AT_ONCE, CallGate
from civiapi.api.bounds.short_calls import is_short, is_short_write
from civiapi.api.call import Call
from civiapi.api.context import CallBudget, Context
from civiapi.api.declaration import describe
from civiapi.api.declaration.spec import Registry, Request, Result
from civiapi.api.errors import ApiError, NoSuchAction
from civiapi.api.parameters import params
from civiapi.api.parameters.options import is_empty, is_one, read_options, read_return
from civiapi.api.permissions import authorize
from civiapi.api.resolution import ResolvedCall, resolve
from civiapi.api.sync_api import SyncApi
from civiapi.store.author import authored_by
from civiapi.store.base import TookTooLong
from civiapi.store.deadline import call_deadline, no_deadline
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError

log = logging.getLogger("civiapi.api.dispatch")
MAX_CHAINED = 10_000
STRINGIFIED = frozenset({"get", "create", "setvalue", "getquick"})

OnAnswer = Callable[[Registry, str, str, str, float], None]
"""Called after each call with entity and action as sent, the outcome (ok, refused or fault) and the seconds taken."""


class Api:
    """Answers calls over one store and one registry."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        sync: SyncApi | None = None,
        on_answer: OnAnswer | None = None,
        *,
        max_chained: int = MAX_CHAINED,
        call_seconds: float = math.inf,
    ) -> None:
        """*call_seconds*: the deadline of calls, except syncs and jobs. Only calls with one are limited at once."""
        self.store = store
        self.registry = registry
        self.sync = sync
        self._privacy = sync.privacy if sync is not None else "keep"
        self._on_answer = on_answer
        self._max_chained = max_chained
        self._call_seconds = call_seconds
        self._long = CallGate(LONG_AT_ONCE)
        self._others = CallGate(OTHER_AT_ONCE)

    def answers(self, entity: str, action: str) -> bool:
        """Whether there is such an action."""
        try:
            self.registry.resolve(entity, action)
        except NoSuchAction:
            return False
        return True

    async def respond(self, call: Call) -> Any:
        """The answer to *call*: an envelope, an unwrapped value, or the envelope of an error. Never raises."""
        try:
            return await self.answer(call)
        except ApiError as problem:
            _clear_tracebacks(problem)
            if not is_empty(call.params.get("format.is_success")):
                return 0
            return envelope.error(problem, *self.registry.names(call.entity, call.action))
        except Exception as fault:
            log.exception("%s.%s failed", *self.registry.names(call.entity, call.action))
            _clear_tracebacks(fault)
            return dict(envelope.UNKNOWN_ERROR)

    async def answer(self, call: Call) -> Any:
        """Like ``respond``, but raises ``ApiError``; any other exception is a fault of ours."""
        outcome, began = "fault", time.perf_counter()
        try:
            with authored_by(call.caller.contact_id, call.caller.name):
                answer = await self._answer(call)
            outcome = "ok"
        except ApiError:
            outcome = "refused"
            raise
        finally:
            if self._on_answer is not None:
                self._on_answer(self.registry, call.entity, call.action, outcome, time.perf_counter() - began)
        return answer

    async def _answer(self, call: Call) -> Any:
        resolved = resolve(self.registry, call, self._max_chained)
        try:
            if resolved.long_running:
                with no_deadline():
                    return await self.run(resolved, self._context(call))
            short = is_short(resolved)
            if not self.store.is_shared and (short or is_short_write(resolved)):
                at_once = self.store.read_at_once if short else self.store.write_at_once
                try:  # at once is at once: nothing to limit, and nobody waits
                    return await at_once(self._run_in_unit, resolved)
                except TookTooLong:
                    short = False  # short for a database of another size
            return await self._limited(resolved, short)
        except StoreError as error:
            raise store_errors.of_store(error) from error

    async def _limited(self, call: ResolvedCall, short: bool) -> Any:
        """Answer within the deadline of calls and the turns of their caller. Raises ``StoreError``."""
        caller = call.call.caller
        with call_deadline(self._call_seconds) as deadline:
            if call.remote:
                seconds = None if deadline is None else deadline.left
                try:
                    async with self._others.turn(caller), asyncio.timeout(seconds):
                        return await self.run(call, self._context(call.call))
                except TimeoutError as error:
                    raise ApiError(
                        f"The call took longer than {self._call_seconds:g} seconds and was stopped; what it had done "
                        f"until then stays. {store_errors.TOO_LONG}",
                        "timeout",
                    ) from error
            if short:
                async with self._others.turn(caller):
                    read = self.store.read_single if call.single else self.store.read_inline
                    return await read(self._run_in_unit, call)
            async with self._long.turn(caller):
                unit = self.store.write if call.writes else self.store.read
                return await unit(self._run_in_unit, call)

    def _context(self, call: Call, conn: Connection | None = None) -> Context:
        return Context(self, call.caller, CallBudget(self._max_chained), conn)

    def _run_in_unit(self, conn: Connection, call: ResolvedCall) -> Any:
        running = self.run(call, self._context(call.call, conn))  # with a full budget: a unit may be repeated
        try:
            running.send(None)
        except StopIteration as done:
            return done.value
        running.close()
        raise RuntimeError(f"{call.entity.name}.{call.action.name} awaited something inside a store unit")

    async def dispatch(self, call: Call, ctx: Context) -> Any:
        """Answer a call that an action makes, within the request *ctx*. Raises ``ApiError``."""
        return await self.run(resolve(self.registry, call, self._max_chained), ctx)

    async def run(self, call: ResolvedCall, ctx: Context) -> Any:
        """Take a resolved call through all further steps. Raises ``ApiError``."""
        _check_version(call.call.params)
        authorize(call.entity, call.action, call.call)
        request = self._parse(call)
        if request.options.raw:
            request = await _match_existing(request, ctx)
        result = await _invoke(request, ctx)  # prepares in the same store unit
        if not result.unwrapped:
            _stringify(request, result)
            if call.chains:
                await chaining.run(call.chains, request, result, ctx.budget, lambda child: self.run(child, ctx))
        return _render(request, result)

    def _parse(self, call: ResolvedCall) -> Request:
        sent = call.call.params
        return Request(
            call.registry,
            call.entity,
            call.action,
            sent,
            call.call.caller,
            self.store.clock,
            read_options(sent),
            read_return(sent),
            is_one(sent.get("sequential")),
            sent,
            self._privacy,
        )


def _check_version(sent: Mapping[str, Any]) -> None:
    if (version := sent.get("version", 3)) not in (3, "3", None, ""):
        if version in (4, "4"):
            raise ApiError("API version 4 is not available here; use version 3", "not-found")
        raise ApiError("Unknown api version", "not-found")


async def _match_existing(request: Request, ctx: Context) -> Request:
    """A ``create`` with ``options.match``: the record with the same values in these fields is the one to update."""
    options = request.options.raw
    wanted = options.get("match-mandatory") or options.get("match")
    if request.action.name != "create" or not wanted or not is_empty(request.params.get("id")):
        return request
    names = [name for name in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(name, str)]
    if not names:
        return request
    for name in names:
        if name not in request.entity.by_name:  # a filter that is ignored would match any record
            raise ApiError(f"'{name}' is no field to match by", 2000)
    filters = {name: request.params[name] for name in names if request.params.get(name) is not None}
    asked = {**filters, "return": ["id"], "sequential": 1, "options": {"limit": 2}}
    found = await ctx.call(request.entity.name, "get", asked)
    rows = found["values"] if filters else []
    if len(rows) > 1:
        raise ApiError("Ambiguous match criteria", "ambiguous_match")
    if not rows:
        if options.get("match-mandatory"):
            raise ApiError("Failed to match existing record", "no_match")
        return request
    changed = {**request.params, "id": rows[0]["id"]}
    return replace(request, params=changed, sent=changed)


async def _invoke(request: Request, ctx: Context) -> Result:
    """Prepare the parameters and run the action: both in one store unit, unless the action is asynchronous."""
    action = request.action
    if action.writes:
        ctx.budget.spend_writes(_records_written(request))
    if action.run_async is not None:
        return await action.run_async(await ctx.read(params.prepare, request), ctx)
    unit = ctx.write if action.writes else ctx.read
    return await unit(_prepare_and_run, request)


def _records_written(request: Request) -> int:
    """The record itself, and those given in it as lists of maps."""
    nested = [request.sent.get(name) for name in request.entity.nested]
    return 1 + sum(len(given) for given in nested if isinstance(given, list))


def _prepare_and_run(conn: Connection, request: Request) -> Result:
    ready = params.prepare(conn, request)
    assert request.action.run is not None  # noqa: S101  a declaration has run or run_async
    try:
        return request.action.run(conn, ready)
    except IntegrityError as error:
        raise store_errors.of_constraint(conn, ready, error) from error


def _stringify(request: Request, result: Result) -> None:
    if request.action.name in STRINGIFIED and not request.action.native:
        result.values = envelope.as_texts(result.values)


def _render(request: Request, result: Result) -> Any:
    """The answer to a request: the envelope, or the part of it that ``format.…`` asks for."""
    answer = envelope.success(result, sequential=request.sequential)
    sent = request.sent
    if not is_empty(sent.get("format.is_success")):
        return 1
    if not is_empty(sent.get("format.only_id")) and isinstance(answer, dict) and "id" in answer:
        return answer["id"]
    if "debug" in sent or log.isEnabledFor(logging.DEBUG):
        _add_debug_output(request, answer)
    metadata = request.options.raw.get("metadata")
    if isinstance(answer, dict) and (metadata == "fields" or (isinstance(metadata, list) and "fields" in metadata)):
        answer["metadata"] = {"fields": describe.fields(request.registry, request.entity, request.action.name)}
    return answer


def _add_debug_output(request: Request, answer: Any) -> None:
    unknown = params.unknown_names(request)
    if unknown:
        log.debug("%s.%s was sent unknown parameters: %s", request.entity.name, request.action.name, unknown)
    if isinstance(answer, dict) and "values" in answer and not is_empty(request.sent.get("debug")):
        answer["undefined_fields"] = unknown
        if request.caller.may("view debug output"):
            answer["xdebug"] = []


def _clear_tracebacks(error: BaseException) -> None:
    """Free what the frames of an answered error refer to: the whole request.

    aiosqlite keeps its future in the frame that the error passed through. The two form a cycle, which the garbage
    collector finds late, however large the texts in it are: refused calls of 16 MB added up (measured).
    """
    one: BaseException | None = error
    while one is not None:
        traceback.clear_frames(one.__traceback__)
        one = one.__context__
