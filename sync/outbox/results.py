"""Fetches the results of finished batches and applies them, one chunk per transaction.

``response_processed`` is 0 before, 1 from the first chunk on, 2 at the end. A 1 is no lock: processing holds the lease
``results:AUDIENCE``, and a 1 without that lease is a batch whose processing was killed. Processing it again asks
Mailchimp for a new link; results that were applied already have no further effect.

A finished batch may lack the results of some operations, or of all (empty files, deleted, expired after seven days, an
archive that breaks off however often it is downloaded). Those operations are sent again, or looked up (``recheck``).
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import stamina
import structlog
from sqlalchemy import Connection
from sqlalchemy import update as change

from civiapi.runtime.loop_priority import background_work
from civiapi.store import leases
from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.leases import Lease
from sync.audience import Audience
from sync.connections.account_info import fetch_interests
from sync.connections.config import note_interests, read_config
from sync.connections.connection_share import RESULTS
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.leases import WAIT_SECONDS, hold_lease
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import BadArchive, MailchimpError, NotFound, ResultsMissing, is_unknown_interest
from sync.mailchimp.wire import Batch, OperationResult
from sync.model import BatchRow, OpenUpdate, OperationKind
from sync.outbox.apply_results import OperationOutcome, ResultCounts, apply_outcomes, send_again
from sync.outbox.verdicts import Outcome, Verdict, classify, classify_fetched
from sync.store.batches import CANCELLED, EXPIRED, PROCESSED, PROCESSING, find_batch_row, note_progress, read_whole
from sync.store.members.cache import find_contact_id
from sync.store.runs import checkpoints
from sync.store.tables import batch, update
from sync.store.updates import read_update, select_updates

DOWNLOADS = 3
"""How often an archive that breaks off is downloaded, by a new link each time, before its operations are sent again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """Mailchimp's status of a batch, and what its results did (None: not finished)."""

    status: str
    counts: ResultCounts | None = None


class BatchBusy(SyncError):
    """The results of this batch are being processed at present."""


async def process_completed(ctx: SyncContext, row_id: int, *, force: bool = False) -> dict[str, Any]:
    """Fetch and apply the results of one of our batches, by our row's id; returns the row.

    Raises SyncError in the extension's words: unknown, processed already (unless *force*), being processed, not
    finished; MailchimpFailed when Mailchimp did not answer.
    """
    row, is_being_processed = await ctx.store.read(_find_batch, row_id)
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
        found = await process_batch(ctx, audience, row, force=force, wait_seconds=WAIT_SECONDS)
    except BatchBusy as error:
        raise SyncError(f"{name} currently being processed. {advice}") from error
    except MailchimpError as error:
        raise MailchimpFailed(f"{name}: {error}") from error
    if found.counts is None:
        raise SyncError(f"Batch {row.batch_id} has not finished. Got status: {found.status}")
    return await ctx.store.read(read_whole, row_id)


async def process_batch(
    ctx: SyncContext, audience: Audience, row: BatchRow, *, force: bool = False, wait_seconds: float = 0.0
) -> Progress:
    """Ask Mailchimp about a batch and apply its results if it is finished.

    Waits up to *wait_seconds* for another process that applies results of this audience, then raises BatchBusy. Raises
    MailchimpError; results applied until then stay, the others are applied next time.
    """
    client = ctx.clients.client_for(audience.api_key)
    remote = await client.find_batch(row.batch_id)
    if remote is not None and not remote.is_finished:
        await ctx.store.write(note_progress, row.id, remote)
        return Progress(remote.status)
    async with hold_lease(ctx, RESULTS + audience.list_id, brief=True, wait_seconds=wait_seconds) as lease:
        if lease is None:
            raise BatchBusy(f"Batch {row.id} is being processed.")
        return await _Processing(ctx, audience, client, lease, row, remote, force).run()


async def audience_of(ctx: SyncContext, list_id: str) -> Audience:
    """The linked audience with this id. Raises SyncError for one that is not configured."""
    config = await ctx.store.read(read_config)
    return ctx.audience(config.link_for_list(list_id))


def parse_operation_id(text: str | None, row_id: int) -> int | None:
    """The update behind an operation of our batch *row_id*; None for an operation that is not ours."""
    head, _, number = (text or "").rpartition("-")
    return int(number) if head == f"civiapi-{row_id}" and number.isascii() and number.isdecimal() else None


@dataclass(slots=True)
class _Processing:
    """Processing of one batch under a lease. *remote* is Mailchimp's batch, None where it is gone."""

    ctx: SyncContext
    audience: Audience
    client: MailchimpClient
    lease: Lease
    row: BatchRow
    remote: Batch | None
    force: bool
    interests: Mapping[str, str] | None = None
    """The audience's interests, where they had to be read again."""

    async def run(self) -> Progress:
        """Apply all results. Raises MailchimpError, LeaseLost."""
        status = self.remote.status if self.remote is not None else EXPIRED
        counts = ResultCounts()
        if not await self.ctx.store.write(_begin, self.lease, self.row.id, self.force):
            return Progress(status, counts)
        why = await self._read_results(counts)
        while sent_again := await self.ctx.store.write(self._send_rest_again, why):
            counts.again += sent_again
        await self.ctx.store.write(_finish, self.lease, self.row.id, self.remote, self.ctx.store.clock)
        log.info("batch results applied", list_id=self.row.list_id, batch_id=self.row.batch_id, counts=str(counts))
        return Progress(status, counts)

    async def _read_results(self, counts: ResultCounts) -> str:
        """Apply all results there are; returns why operations may lack one."""
        if self.remote is None:
            return "Mailchimp no longer has this batch."
        try:
            async for attempt in stamina.retry_context(_is_broken, attempts=DOWNLOADS, timeout=None, wait_initial=1.0):
                with attempt:
                    await self._download(counts)
        except (ResultsMissing, NotFound, BadArchive) as error:
            if error.may_be_retried and not _is_broken(error):
                raise
            log.warning("a batch has no usable results", batch_id=self.row.batch_id, error=str(error))
            return str(error)
        return "The results of the batch did not mention this operation."

    async def _download(self, counts: ResultCounts) -> None:
        """Download the results and apply them; those that were applied already have no further effect."""
        results = cast(AsyncGenerator[OperationResult, None], self.client.iter_results(self.row.batch_id))
        async with aclosing(results):
            async for chunk in _in_chunks(results, self.row.id, self.ctx.sizes.results_per_unit):
                counts.add(await self._write(chunk))

    async def _write(self, chunk: Sequence[tuple[int, OperationResult]]) -> ResultCounts:
        updates = await self.ctx.store.read(_updates, self.row.id, [update_id for update_id, _ in chunk])
        outcomes = [
            OperationOutcome(updates[update_id], await self._classify(updates[update_id], result))
            for update_id, result in chunk
            if update_id in updates
        ]
        return await self.ctx.store.write(self._apply, outcomes)

    async def _classify(self, one: OpenUpdate, result: OperationResult) -> Outcome:
        outcome = classify(one.operation, result)
        if outcome.verdict is Verdict.FAILED and is_unknown_interest(outcome.problem):
            return await self._without_gone_interests(one, outcome)
        if outcome.verdict is not Verdict.FETCH_MEMBER:
            return outcome
        wanted = outcome.member_to_fetch
        seen = await self.client.find_member(self.audience.list_id, wanted) if wanted else None
        if seen is None and result.status_code == 404:
            return await self._classify_lost(one, outcome)
        return classify_fetched(one.operation, outcome.problem, seen)

    async def _without_gone_interests(self, one: OpenUpdate, outcome: Outcome) -> Outcome:
        """The update without the interests, or permissions, that Mailchimp no longer has; all are read once a batch."""
        if self.interests is None:
            self.interests = await fetch_interests(self.client, self.audience.list_id)
            gone = await self.ctx.store.write(note_interests, self.audience.list_id, self.interests)
            log.warning("Mailchimp refused an interest", list_id=self.audience.list_id, gone=gone)
        named = one.operation.body.get("interests") or {}
        without = tuple(key for key in named if key not in self.interests)
        return Outcome(Verdict.AGAIN, problem=outcome.problem, without=without) if without else outcome

    async def _classify_lost(self, one: OpenUpdate, outcome: Outcome) -> Outcome:
        """An update whose member was not found: a change of address under its old id either. Mailchimp's contact id
        says whether the member changed its address there; otherwise it is gone."""
        list_id = self.audience.list_id
        if one.operation.kind == OperationKind.EMAIL and await self.client.find_member(list_id, one.operation.member):
            return Outcome(Verdict.AGAIN, problem=outcome.problem)
        contact_id = await self.ctx.store.read(find_contact_id, one.cache_id)
        moved = await self.client.find_member(list_id, contact_id) if contact_id else None
        if moved is not None:
            return Outcome(Verdict.MOVED, moved, outcome.problem)
        return classify_fetched(one.operation, outcome.problem, None)

    def _apply(self, conn: Connection, outcomes: Sequence[OperationOutcome]) -> ResultCounts:
        checkpoints.lock(conn, self.audience.list_id)
        completed = self.remote.completed_at if self.remote is not None else None
        at = completed or self.client.now()
        with background_work():
            counts = apply_outcomes(
                conn, self.audience, self.row.id, outcomes, at=at.replace(microsecond=0), skew=self.client.skew()
            )
        leases.check(conn, self.lease)
        return counts

    def _send_rest_again(self, conn: Connection, why: str) -> int:
        count = send_again(conn, self.row.id, why, self.ctx.sizes.results_per_unit)
        leases.check(conn, self.lease)
        return count


def _is_broken(error: Exception) -> bool:
    """Whether an archive broke off or is damaged, so that another download may be whole."""
    return isinstance(error, BadArchive) and error.may_be_retried


async def _in_chunks(
    results: AsyncIterator[OperationResult], row_id: int, size: int
) -> AsyncIterator[list[tuple[int, OperationResult]]]:
    """Results by update, at most *size* at a time; operations that are not ours are left out."""
    chunk: dict[int, OperationResult] = {}
    async for result in results:
        update_id = parse_operation_id(result.operation_id, row_id)
        if update_id is not None:
            chunk[update_id] = result
        if len(chunk) == size:
            yield list(chunk.items())
            chunk = {}
    if chunk:
        yield list(chunk.items())


def _find_batch(conn: Connection, row_id: int) -> tuple[BatchRow | None, bool]:
    """A batch, and whether its results are being processed at present."""
    row = find_batch_row(conn, row_id)
    if row is None or row.processed != PROCESSING:
        return row, False
    return row, leases.is_held(conn, RESULTS + row.list_id, leases.now_ms())


def _begin(conn: Connection, lease: Lease, row_id: int, force: bool) -> bool:
    """Mark a batch as being processed; False when it is processed or aborted by now."""
    row = find_batch_row(conn, row_id)
    if row is None or (not force and (row.processed == PROCESSED or row.status in CANCELLED)):
        return False
    conn.execute(change(batch).where(batch.c.id == row_id).values(response_processed=PROCESSING))
    leases.check(conn, lease)
    return True


def _finish(conn: Connection, lease: Lease, row_id: int, remote: Batch | None, clock: SiteClock) -> None:
    if remote is None:
        conn.execute(change(batch).where(batch.c.id == row_id).values(status=EXPIRED))
    else:
        note_progress(conn, row_id, remote)
    completed = remote.completed_at if remote is not None else None
    conn.execute(
        change(batch)
        .where(batch.c.id == row_id)
        .values(response_processed=PROCESSED, completed_at=clock.write(completed or datetime.now(UTC)))
    )
    leases.check(conn, lease)


def _updates(conn: Connection, row_id: int, update_ids: Sequence[int]) -> dict[int, OpenUpdate]:
    rows = conn.execute(
        select_updates().where(in_list(update.c.id, update_ids), update.c.mailchimpsync_batch_id == row_id)
    )
    return {row.id: read_update(row) for row in rows}
