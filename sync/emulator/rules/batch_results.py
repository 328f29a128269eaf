"""The results of a finished batch: links that expire, and the download behind them."""

from __future__ import annotations

import hmac
from hashlib import sha256

from sync.emulator.model.records import Batch, EmulatedAccount
from sync.emulator.model.state import EmulatorState

LINK_LIFE_S = 600
RESULTS_LIFE_S = 7 * 24 * 3600


def expire(state: EmulatorState, account: EmulatedAccount) -> None:
    """Drop batches whose results are older than seven days."""
    oldest = state.clock.now() - RESULTS_LIFE_S
    for batch in [old for old in account.batches.values() if old.completed_at and old.completed_at < oldest]:
        del account.batches[batch.id]


def results_url(state: EmulatorState, batch: Batch) -> str:
    """Return a link to the results, good for ten minutes, and different every time."""
    batch.links_given += 1
    expires = int(state.clock.now()) + LINK_LIFE_S
    token = f"{batch.links_given}-{expires}-{_seal(state, batch.id, batch.links_given, expires)}"
    return f"{state.base_url}/results/{batch.id}-response.tar.gz?token={token}"


def download(state: EmulatorState, name: str, token: str) -> tuple[int, bytes]:
    """Return (status, bytes) for a results link, as object storage answers: 403 when it expired or was made up."""
    batch_id = name.removesuffix("-response.tar.gz")
    number, _, rest = token.partition("-")
    expires, _, seal = rest.partition("-")
    if not (number.isdigit() and expires.isdigit()):
        return 403, _storage_error("AccessDenied", "Access Denied")
    if not hmac.compare_digest(seal, _seal(state, batch_id, int(number), int(expires))):
        return 403, _storage_error("SignatureDoesNotMatch", "The request signature we calculated does not match")
    if state.clock.now() > int(expires):
        return 403, _storage_error("AccessDenied", "Request has expired")
    for account in state.accounts.values():
        expire(state, account)
        if batch_id in account.batches:
            return 200, account.batches[batch_id].archive
    return 404, _storage_error("NoSuchKey", "The specified key does not exist.")


def _seal(state: EmulatorState, batch_id: str, number: int, expires: int) -> str:
    return hmac.new(state.secret, f"{batch_id}.{number}.{expires}".encode(), sha256).hexdigest()[:32]


def _storage_error(code: str, message: str) -> bytes:
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
