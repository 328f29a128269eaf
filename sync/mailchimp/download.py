"""Download the archive of a finished batch by its signed link.

A link is valid for ten minutes, so every attempt reads the batch first. It leads to object storage, which must not get
our credentials.
"""

from __future__ import annotations

import asyncio
from typing import IO

from sync.mailchimp.archive import MEGABYTE
from sync.mailchimp.errors import BadArchive, ResultsMissing, Unreachable
from sync.mailchimp.transport import SIGNED_LINK, MailchimpCall, Transport
from sync.mailchimp.wire import Batch

MAX_DOWNLOAD = 128 * MEGABYTE


def read_batch(batch_id: str) -> MailchimpCall:
    """The call that reads a batch."""
    return MailchimpCall("GET", "/batches/{batch}", {"batch": batch_id}, must_name="id")


async def download_results(transport: Transport, batch_id: str, spool: IO[bytes], *, limit: int) -> None:
    """Write a batch's archive of at most *limit* bytes to *spool*, and rewind it.

    Raises NotFound for a batch that is gone, ResultsMissing for one with nothing to download, BadArchive for
    one too large.
    """
    async for attempt in transport.attempts(_broke_off):
        with attempt:
            answer = await transport.send(read_batch(batch_id))
            batch = Batch.from_wire(answer.body)
            if not (batch.is_finished and batch.response_body_url):
                raise ResultsMissing(batch_id, batch.status, may_be_retried=not batch.is_finished)
            await _download(transport, batch.response_body_url, spool, limit)
    spool.seek(0)


async def _download(transport: Transport, url: str, spool: IO[bytes], limit: int) -> None:
    spool.seek(0)
    spool.truncate()
    async with transport.download(url) as response:
        async for chunk in response.aiter_bytes():
            await asyncio.to_thread(spool.write, chunk)
            if spool.tell() > limit:
                raise BadArchive(f"The batch result archive is larger than {limit} bytes")


def _broke_off(error: Exception) -> bool:
    return isinstance(error, Unreachable) and error.call == SIGNED_LINK
