"""Batch endpoints: submit, list, read, delete. `rules.batch_runner` carries batches out."""

from __future__ import annotations

from sync.emulator.model.clock import to_wire
from sync.emulator.model.records import Batch, Json
from sync.emulator.model.state import EmulatorState
from sync.emulator.protocol.exchange import ApiCall, Response, links, no_content, ok
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import field_error, not_found, schema_failed, too_many_batches
from sync.emulator.protocol.schemas import check
from sync.emulator.rules.batch_results import expire, results_url


def create(call: ApiCall) -> Response:
    """POST a batch. The first answer says ``pending`` and counts nothing."""
    check("batch", call.request.body)
    options = call.account.options
    operations = call.body["operations"]
    if len(operations) > options.max_batch_ops:
        message = f"Number of operations exceeds the maximum of {options.max_batch_ops}."
        raise schema_failed([field_error("operations", message)])
    if sum(batch.status != "finished" for batch in call.account.batches.values()) >= options.max_pending_batches:
        raise too_many_batches()
    todo = list(operations)
    call.state.rng.shuffle(todo)
    batch = Batch(call.state.new_id(), call.state.clock.now(), todo, len(todo))
    call.account.batches[batch.id] = batch
    return ok(show(call.state, batch))


def list_batches(call: ApiCall) -> Response:
    """GET the batches, latest first, ten at a time unless asked otherwise."""
    expire(call.state, call.account)
    rows = list(call.account.batches.values())[::-1]
    return collection(call, "batches", rows, lambda batch: show(call.state, batch))


def read(call: ApiCall) -> Response:
    """GET one batch; a finished one comes with a fresh link to its results."""
    return one(call, show(call.state, _batch_of(call)))


def delete(call: ApiCall) -> Response:
    """DELETE stops a batch; what was done stays done, its results are gone."""
    del call.account.batches[_batch_of(call).id]
    return no_content()


def show(world: EmulatorState, batch: Batch) -> Json:
    """Return a batch as Mailchimp shows it."""
    return {
        "id": batch.id,
        "status": batch.status,
        "total_operations": batch.total,
        "finished_operations": batch.finished,
        "errored_operations": batch.errored,
        "submitted_at": to_wire(batch.submitted_at),
        "completed_at": to_wire(batch.completed_at),
        "response_body_url": results_url(world, batch) if batch.status == "finished" else "",
        "_links": links(f"{world.api_root}/batches/{batch.id}"),
    }


def _batch_of(call: ApiCall) -> Batch:
    expire(call.state, call.account)
    batch = call.account.batches.get(call.ids[0])
    if batch is None:
        raise not_found()
    return batch
