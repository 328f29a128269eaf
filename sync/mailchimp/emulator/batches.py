"""Batches: submitted, run one at a time per account in an order nobody promised, finished with an archive to fetch.

An operation goes back in by the front door (`World.handle`), so it does what the single call does. Nothing waits
here: `work` does what the clock allows by now and says whether it did anything.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import orjson

from sync.mailchimp.archive import write_archive
from sync.mailchimp.emulator import events
from sync.mailchimp.emulator.clock import to_wire
from sync.mailchimp.emulator.exchange import Call, Request, Response, links, no_content, ok, read_json
from sync.mailchimp.emulator.faults import FaultAction
from sync.mailchimp.emulator.mischief import instead
from sync.mailchimp.emulator.model import Account, Batch, Json
from sync.mailchimp.emulator.paging import collection, one
from sync.mailchimp.emulator.problems import field_error, not_found, schema_failed, too_many_batches
from sync.mailchimp.emulator.schemas import check

if TYPE_CHECKING:
    from sync.mailchimp.emulator.world import World

LINK_LIFE = 600
RESULTS_LIFE = 7 * 24 * 3600
OPERATIONS_PER_FILE = 400
RUNNABLE = ("pending", "preprocessing", "started")


def create(call: Call) -> Response:
    """POST a batch. The first answer says ``pending`` and counts nothing."""
    check("batch", call.request.body)
    knobs = call.account.knobs
    operations = call.body["operations"]
    if len(operations) > knobs.max_batch_ops:
        message = f"Number of operations exceeds the maximum of {knobs.max_batch_ops}."
        raise schema_failed([field_error("operations", message)])
    if sum(batch.status != "finished" for batch in call.account.batches.values()) >= knobs.max_pending_batches:
        raise too_many_batches()
    todo = list(operations)
    call.world.rng.shuffle(todo)
    batch = Batch(call.world.new_id(), call.world.clock.now(), todo, len(todo))
    call.account.batches[batch.id] = batch
    return ok(show(call.world, batch))


def list_batches(call: Call) -> Response:
    """GET the batches, latest first, ten at a time unless asked otherwise."""
    expire(call.world, call.account)
    rows = list(call.account.batches.values())[::-1]
    return collection(call, "batches", rows, lambda batch: show(call.world, batch))


def read(call: Call) -> Response:
    """GET one batch; a finished one comes with a fresh link to its results."""
    return one(call, show(call.world, _batch_of(call)))


def delete(call: Call) -> Response:
    """DELETE stops a batch; what was done stays done, its results are gone."""
    del call.account.batches[_batch_of(call).id]
    return no_content()


def show(world: World, batch: Batch) -> Json:
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


def work(world: World, account: Account, *, now_or_never: bool = False, limit: int | None = None) -> bool:
    """Move the account's batches on as far as the clock allows; True if anything moved.

    *now_or_never* leaves delays and pace out; *limit* bounds the operations carried out in this call.
    """
    moved = False
    for batch in [batch for batch in account.batches.values() if batch.status == "finalizing"]:
        moved |= _finalize(world, account, batch, now_or_never)
    batch_now = next((batch for batch in account.batches.values() if batch.status in RUNNABLE), None)
    if batch_now is None:
        return moved
    return _run(world, account, batch_now, now_or_never, limit) or moved


def unfinished(account: Account) -> list[Batch]:
    """Return the batches that are still to be worked on."""
    return [batch for batch in account.batches.values() if batch.status != "finished"]


def expire(world: World, account: Account) -> None:
    """Drop batches whose results are older than seven days."""
    oldest = world.clock.now() - RESULTS_LIFE
    for batch in [old for old in account.batches.values() if old.completed_at and old.completed_at < oldest]:
        del account.batches[batch.id]


def results_url(world: World, batch: Batch) -> str:
    """Return a link to the results, good for ten minutes, and different every time."""
    batch.links_given += 1
    expires = int(world.clock.now()) + LINK_LIFE
    token = f"{batch.links_given}-{expires}-{_seal(world, batch.id, batch.links_given, expires)}"
    return f"{world.base_url}/results/{batch.id}-response.tar.gz?token={token}"


def download(world: World, name: str, token: str) -> tuple[int, bytes]:
    """Return (status, bytes) for a results link, as object storage answers: 403 when it expired or was made up."""
    batch_id = name.removesuffix("-response.tar.gz")
    number, _, rest = token.partition("-")
    expires, _, seal = rest.partition("-")
    if not (number.isdigit() and expires.isdigit()):
        return 403, _storage_error("AccessDenied", "Access Denied")
    if not hmac.compare_digest(seal, _seal(world, batch_id, int(number), int(expires))):
        return 403, _storage_error("SignatureDoesNotMatch", "The request signature we calculated does not match")
    if world.clock.now() > int(expires):
        return 403, _storage_error("AccessDenied", "Request has expired")
    for account in world.accounts.values():
        expire(world, account)
        if batch_id in account.batches:
            return 200, account.batches[batch_id].archive
    return 404, _storage_error("NoSuchKey", "The specified key does not exist.")


def _batch_of(call: Call) -> Batch:
    expire(call.world, call.account)
    batch = call.account.batches.get(call.ids[0])
    if batch is None:
        raise not_found()
    return batch


def _seal(world: World, batch_id: str, number: int, expires: int) -> str:
    return hmac.new(world.secret, f"{batch_id}.{number}.{expires}".encode(), sha256).hexdigest()[:32]


def _storage_error(code: str, message: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def _run(world: World, account: Account, batch: Batch, now_or_never: bool, limit: int | None) -> bool:
    """Take the batch at the head of the queue one step further."""
    knobs, now = account.knobs, world.clock.now()
    if batch.status == "pending":
        batch.status, batch.started_at = "preprocessing", now + knobs.batch_start_delay
        batch.total = batch.size
    if batch.status == "preprocessing":
        if now < batch.started_at and not now_or_never:
            return False
        batch.status, batch.started_at = "started", now
    allowed = len(batch.todo) if limit is None else min(limit, len(batch.todo))
    if knobs.batch_ops_per_second and not now_or_never:
        allowed = min(allowed, int((now - batch.started_at) * knobs.batch_ops_per_second) - batch.finished)
    for _ in range(max(0, allowed)):
        _operate(world, account, batch, batch.todo.pop())
    if batch.todo:
        return allowed > 0
    batch.status, batch.ops_done_at = "finalizing", now
    _finalize(world, account, batch, now_or_never)
    return True


def _finalize(world: World, account: Account, batch: Batch, now_or_never: bool) -> bool:
    knobs, now = account.knobs, world.clock.now()
    if knobs.batch_stuck_finalizing or (now < batch.ops_done_at + knobs.batch_finalize_delay and not now_or_never):
        return False
    files = 1 + len(batch.results) // OPERATIONS_PER_FILE + world.rng.randrange(2)
    batch.archive = write_archive(batch.results, files=files, rng=world.rng)
    batch.results = []
    batch.status, batch.completed_at = "finished", now
    events.announce_batch(world, account, batch, results_url(world, batch))
    return True


def _operate(world: World, account: Account, batch: Batch, operation: Json) -> None:
    """Carry out one operation and keep its result; a reset leaves none, as a lost row does."""
    batch.finished += 1
    path, _, tail = str(operation["path"]).partition("?")
    query = {**dict(parse_qsl(tail, keep_blank_values=True)), **_texts(operation.get("params") or {})}
    request = Request(operation["method"], path, query, read_json(operation.get("body")), account)
    operation_id = operation.get("operation_id")
    fault = world.strike(request, operation_id or "")
    if fault is FaultAction.RESET_BEFORE:
        return
    response = world.refusal(instead(fault), account) if fault and instead(fault) else world.handle(request)
    if fault is FaultAction.RESET_AFTER:
        return
    batch.errored += response.status >= 400
    row: Json = {"status_code": response.status, "response": response.text()}
    if operation_id is not None:
        row["operation_id"] = operation_id
    batch.results.append(row)
    _follow_pages(batch, operation, request, response)


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
