"""Batches: carried out one at a time per account, in random order, and finished with an archive of results.

An operation is a request like any other, passed to `execute` (`World.execute`). Nothing waits here:
`BatchRunner.work` does what the clock allows by now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson

from sync.emulator.model.records import Batch, EmulatedAccount, Json
from sync.emulator.model.state import EmulatorState
from sync.emulator.protocol.exchange import Request, Response, read_json
from sync.emulator.protocol.problems import server_error
from sync.emulator.rules import webhook_events
from sync.emulator.rules.batch_results import results_url
from sync.mailchimp.archive import write_archive

log = logging.getLogger(__name__)

OPERATIONS_PER_FILE = 400
RUNNABLE = ("pending", "preprocessing", "started")
Execute = Callable[[Request, str], Response | None]
"""Carries out one operation, given its ``operation_id``; None when its result is lost."""


@dataclass(frozen=True, slots=True)
class BatchRunner:
    """Works on one account's batches; *ignore_delays* skips delays and the pace of operations."""

    state: EmulatorState
    account: EmulatedAccount
    execute: Execute
    ignore_delays: bool = False

    def work(self, limit: int | None = None) -> bool:
        """Advance the batches as far as the clock allows, by at most *limit* operations; True if anything changed."""
        changed = False
        for batch in [one for one in self.account.batches.values() if one.status == "finalizing"]:
            changed |= self._finalize(batch)
        current = next((one for one in self.account.batches.values() if one.status in RUNNABLE), None)
        return (current is not None and self._run(current, limit)) or changed

    def _run(self, batch: Batch, limit: int | None) -> bool:
        """Advance the batch at the head of the queue by one step."""
        options, now = self.account.options, self.state.clock.now()
        if batch.status == "pending":
            batch.status, batch.started_at = "preprocessing", now + options.batch_start_delay
            batch.total = batch.size
        if batch.status == "preprocessing":
            if now < batch.started_at and not self.ignore_delays:
                return False
            batch.status, batch.started_at = "started", now
        allowed = len(batch.todo) if limit is None else min(limit, len(batch.todo))
        if options.batch_ops_per_second and not self.ignore_delays:
            allowed = min(allowed, int((now - batch.started_at) * options.batch_ops_per_second) - batch.finished)
        for _ in range(max(0, allowed)):
            self._operate(batch, batch.todo.pop())
        if batch.todo:
            return allowed > 0
        batch.status, batch.ops_done_at = "finalizing", now
        self._finalize(batch)
        return True

    def _finalize(self, batch: Batch) -> bool:
        options, now, rng = self.account.options, self.state.clock.now(), self.state.rng
        waits = now < batch.ops_done_at + options.batch_finalize_delay and not self.ignore_delays
        if options.batch_stuck_finalizing or waits:
            return False
        files = 1 + len(batch.results) // OPERATIONS_PER_FILE + rng.randrange(2)
        batch.archive = write_archive(batch.results, files=files, rng=rng)
        batch.results = []
        batch.status, batch.completed_at = "finished", now
        webhook_events.announce_batch(self.state, self.account, batch, results_url(self.state, batch))
        return True

    def _operate(self, batch: Batch, operation: Json) -> None:
        """Carry out one operation and keep its result, unless a fault loses it."""
        batch.finished += 1
        operation_id = operation.get("operation_id")
        try:
            response = self._carry_out(batch, operation, operation_id or "")
        except Exception:  # the batch's catch-all: an unexpected error must not keep it from ending
            log.exception("an operation of batch %s failed unexpectedly", batch.id)
            response = Response(500, server_error().document(self.state.new_uuid()))
        if response is None:
            return
        batch.errored += response.status >= 400
        row: Json = {"status_code": response.status, "response": response.text()}
        if operation_id is not None:
            row["operation_id"] = operation_id
        batch.results.append(row)

    def _carry_out(self, batch: Batch, operation: Json, operation_id: str) -> Response | None:
        path, _, tail = str(operation["path"]).partition("?")
        query = {**dict(parse_qsl(tail, keep_blank_values=True)), **_texts(operation.get("params") or {})}
        request = Request(operation["method"], path, query, read_json(operation.get("body")), self.account)
        response = self.execute(request, operation_id)
        if response is not None:
            _follow_pages(batch, operation, request, response)
        return response


def unfinished(account: EmulatedAccount) -> list[Batch]:
    """Return the batches that are still to be worked on."""
    return [batch for batch in account.batches.values() if batch.status != "finished"]


def _follow_pages(batch: Batch, operation: Json, request: Request, response: Response) -> None:
    """A GET of a collection goes on to its next page, which counts as one more operation."""
    if request.method != "GET" or response.page is None:
        return
    count, offset = response.page
    total = response.body.get("total_items", 0)
    if count and offset + count < total:
        path = str(operation["path"]).partition("?")[0]
        params = {**request.query, "count": str(count), "offset": str(offset + count)}
        batch.todo.append({**operation, "path": path, "params": params})
        batch.total += 1


def _texts(params: Json) -> dict[str, str]:
    """Return query parameters as text: JSON's true is Mailchimp's ``true``."""
    return {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in params.items()}
