"""The results of finished batches, fetched and written down, chunk by chunk; a batch killed half-way goes on or anew.

``response_processed`` is 0 before, 1 from the first chunk on, 2 when all is done. A 1 is no lock: who processes holds
the claim ``results:AUDIENCE``, and a 1 without a live claim is a batch whose processing was killed. Starting again asks
Mailchimp for a fresh link, and results already written down do no harm.

What a newcomer trips over: a batch can be finished and still say nothing of some operations, or of all (empty files,
deleted, expired after seven days). Those are sent again: every operation may be.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import structlog
from sqlalchemy import Connection
from sqlalchemy import update as change

from civiapi.store.clock import SiteClock
from civiapi.store.courtesy import in_the_background
from civiapi.store.dialect import among
from sync import claims, positions
from sync.audience import Audience
from sync.batch_rows import (
    CALLED_OFF,
    EXPIRED,
    PROCESSED,
    PROCESSING,
    BatchRow,
    find_batch_row,
    note_progress,
    read_whole,
)
from sync.claims import Claim
from sync.config import read_config
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.holding import PATIENCE, held
from sync.judging import Outcome, Verdict, judge, judge_seen
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import BadArchive, MailchimpError, NotFound, ResultsMissing
from sync.mailchimp.wire import Batch, OperationResult
from sync.outcomes import Tally, Told, apply_outcomes, send_again
from sync.shares import RESULTS
from sync.skew import steady_skew
from sync.tables import batch, update
from sync.updates import OpenUpdate, read_update, select_updates

CHUNK = 500
"""Results to a transaction: memory and the time a writer holds the database follow it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What looking at a batch found: Mailchimp's status, and what the results did (None: not finished, or not ours)."""

    status: str
    tally: Tally | None = None


class BatchBusy(SyncError):
    """Somebody is processing this batch's results at this moment."""


async def process_completed(ctx: SyncContext, row_id: int, *, force: bool = False) -> dict[str, Any]:
    """Fetch and write down the results of one of our batches, by our row's id; returns the row.

    Raises SyncError in the extension's words: unknown, processed already (unless *force*), being processed, not
    finished; MailchimpFailed when Mailchimp could not be asked.
    """
    row, is_being_processed = await ctx.store.read(_look_up, row_id)
    if row is None:
        raise SyncError("MailchimpsyncBatch.processCompleted given id not found")
    name, advice = f"Batch {row.id} ({row.batch_id})", "Use the force parameter if you want to reprocess this."
    if row.processed == PROCESSED and not force:
        raise SyncError(f"{name} already processed. {advice}")
    if is_being_processed and not force:
        raise SyncError(f"{name} currently being processed. {advice}")
    if not row.batch_id:
        raise SyncError(f"Batch {row.id} has not finished. Got status: {row.status}")
    audience = await audience_of(ctx, row.list_id)
    try:
        found = await process_batch(ctx, audience, row, force=force, patience=PATIENCE)
    except BatchBusy as error:
        raise SyncError(f"{name} currently being processed. {advice}") from error
    except MailchimpError as error:
        raise MailchimpFailed(f"{name}: {error}") from error
    if found.tally is None:
        raise SyncError(f"Batch {row.batch_id} has not finished. Got status: {found.status}")
    return await ctx.store.read(read_whole, row_id)


async def process_batch(
    ctx: SyncContext, audience: Audience, row: BatchRow, *, force: bool = False, patience: float = 0.0
) -> Progress:
    """Look at a batch, and when it is finished write down its results.

    Waits up to *patience* seconds for whoever processes results of this audience, then raises BatchBusy. Raises
    MailchimpError: what was read stands, the rest comes next time.
    """
    client = ctx.clients.client_for(audience.api_key)
    told = await client.find_batch(row.batch_id)
    if told is not None and not told.is_finished:
        await ctx.store.write(note_progress, row.id, told)
        return Progress(told.status)
    async with held(ctx, RESULTS + audience.list_id, brief=True, patience=patience) as claim:
        if claim is None:
            raise BatchBusy(f"Batch {row.id} is being processed.")
        work = _Work(ctx, audience, client, claim, row, told, force)
        return await work.run()


async def audience_of(ctx: SyncContext, list_id: str) -> Audience:
    """The linked audience with this id. Raises SyncError for one that is not configured."""
    config = await ctx.store.read(read_config)
    return config.link_for_list(list_id).audience(ctx.store.clock, respect_privacy=ctx.options.respect_privacy)


def parse_operation_id(text: str | None, row_id: int) -> int | None:
    """The update behind an operation of our batch *row_id*; None for an operation that is not ours."""
    head, _, number = (text or "").rpartition("-")
    return int(number) if head == f"civiapi-{row_id}" and number.isascii() and number.isdecimal() else None


@dataclass(slots=True)
class _Work:
    """Processing one batch under a claim. *told* is the batch as Mailchimp has it, None where it has it no more."""

    ctx: SyncContext
    audience: Audience
    client: MailchimpClient
    claim: Claim
    row: BatchRow
    told: Batch | None
    force: bool

    async def run(self) -> Progress:
        """Write everything down. Raises MailchimpError, ClaimLost."""
        status = self.told.status if self.told is not None else EXPIRED
        tally = Tally()
        if not await self.ctx.store.write(_begin, self.claim, self.row.id, self.force):
            return Progress(status, tally)
        why = await self._read_results(tally)
        while sent_again := await self.ctx.store.write(self._send_rest_again, why):
            tally.again += sent_again
        await self.ctx.store.write(_finish, self.claim, self.row.id, self.told, self.ctx.store.clock)
        log.info("batch results written down", list_id=self.row.list_id, batch_id=self.row.batch_id, tally=str(tally))
        return Progress(status, tally)

    async def _read_results(self, tally: Tally) -> str:
        """Write down all results there are; returns why there may be operations without one."""
        if self.told is None:
            return "Mailchimp knows this batch no more."
        try:
            results = cast(AsyncGenerator[OperationResult, None], self.client.iter_results(self.row.batch_id))
            async with aclosing(results):
                async for chunk in _in_chunks(results, self.row.id):
                    tally.add(await self._write(chunk))
        except (ResultsMissing, NotFound, BadArchive) as error:
            if error.may_be_retried:
                raise
            log.warning("a batch has no usable results", batch_id=self.row.batch_id, error=str(error))
            return str(error)
        return "The results of the batch did not mention this operation."

    async def _write(self, chunk: Sequence[tuple[int, OperationResult]]) -> Tally:
        updates = await self.ctx.store.read(_updates, self.row.id, [update_id for update_id, _ in chunk])
        told = [
            Told(updates[update_id], await self._judge(updates[update_id], result))
            for update_id, result in chunk
            if update_id in updates
        ]
        return await self.ctx.store.write(self._apply, told)

    async def _judge(self, one: OpenUpdate, result: OperationResult) -> Outcome:
        outcome = judge(one.wanted, result)
        if outcome.verdict is not Verdict.LOOK:
            return outcome
        seen = await self.client.find_member(self.audience.list_id, outcome.look_at) if outcome.look_at else None
        if seen is None and one.wanted.kind == "email" and result.status_code == 404:
            return await self._judge_lost(one, outcome)
        return judge_seen(one.wanted, outcome.problem, seen)

    async def _judge_lost(self, one: OpenUpdate, outcome: Outcome) -> Outcome:
        """A member whose address was to change is found under neither: it is gone, unless it is there after all."""
        old = await self.client.find_member(self.audience.list_id, one.wanted.path_tail.removeprefix("members/"))
        return Outcome(Verdict.GONE if old is None else Verdict.AGAIN, problem=outcome.problem)

    def _apply(self, conn: Connection, told: Sequence[Told]) -> Tally:
        positions.lock(conn, self.audience.list_id)
        offset = self.client.clock_offset()
        completed = self.told.completed_at if self.told is not None else None
        at = completed or datetime.now(UTC) + (offset or timedelta(0))
        with in_the_background():
            tally = apply_outcomes(
                conn, self.audience, self.row.id, told, at=at.replace(microsecond=0), skew=steady_skew(offset)
            )
        claims.check(conn, self.claim)
        return tally

    def _send_rest_again(self, conn: Connection, why: str) -> int:
        count = send_again(conn, self.row.id, why)
        claims.check(conn, self.claim)
        return count


async def _in_chunks(
    results: AsyncIterator[OperationResult], row_id: int
) -> AsyncIterator[list[tuple[int, OperationResult]]]:
    """Results by update, at most `CHUNK` at a time; operations that are not ours are left out."""
    chunk: dict[int, OperationResult] = {}
    async for result in results:
        update_id = parse_operation_id(result.operation_id, row_id)
        if update_id is not None:
            chunk[update_id] = result
        if len(chunk) == CHUNK:
            yield list(chunk.items())
            chunk = {}
    if chunk:
        yield list(chunk.items())


def _look_up(conn: Connection, row_id: int) -> tuple[BatchRow | None, bool]:
    """A batch, and whether somebody is at work on its results at this moment."""
    row = find_batch_row(conn, row_id)
    if row is None or row.processed != PROCESSING:
        return row, False
    return row, claims.is_held(conn, RESULTS + row.list_id, claims.now_ms())


def _begin(conn: Connection, claim: Claim, row_id: int, force: bool) -> bool:
    """Mark a batch as being processed; False when it is processed or aborted by now."""
    row = find_batch_row(conn, row_id)
    if row is None or (not force and (row.processed == PROCESSED or row.status in CALLED_OFF)):
        return False
    conn.execute(change(batch).where(batch.c.id == row_id).values(response_processed=PROCESSING))
    claims.check(conn, claim)
    return True


def _finish(conn: Connection, claim: Claim, row_id: int, told: Batch | None, clock: SiteClock) -> None:
    if told is None:
        conn.execute(change(batch).where(batch.c.id == row_id).values(status=EXPIRED))
    else:
        note_progress(conn, row_id, told)
    completed = told.completed_at if told is not None else None
    conn.execute(
        change(batch)
        .where(batch.c.id == row_id)
        .values(response_processed=PROCESSED, completed_at=clock.write(completed or datetime.now(UTC)))
    )
    claims.check(conn, claim)


def _updates(conn: Connection, row_id: int, update_ids: Sequence[int]) -> dict[int, OpenUpdate]:
    rows = conn.execute(
        select_updates().where(among(update.c.id, update_ids), update.c.mailchimpsync_batch_id == row_id)
    )
    return {row.id: read_update(row) for row in rows}
