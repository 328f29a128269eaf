"""A CSV file as an answer, written while it is read."""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from aiohttp import web

from civiapi.http.csv_rows import csv_row
from civiapi.http.messages import GUARDS
from civiapi.ui.core.page import HEADERS, CallFailed, PageRequest

log = structlog.get_logger(__name__)

CSV_PAGE = 1000
"""Rows that are read at a time."""

Lines = Sequence[Sequence[str]]


async def send_csv(page: PageRequest, name: str, parts: AsyncIterator[Lines]) -> web.StreamResponse:
    """Send *parts* as the file *name*. Raises ``CallFailed`` if the first part does; later the connection is cut."""
    first = await anext(parts, ())  # before the headers: an error becomes an error page
    more = {
        "Content-Type": "text/csv; charset=utf-8",
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    response = web.StreamResponse(headers={**GUARDS, **HEADERS, **more})
    await response.prepare(page.request)
    if page.request.method == "HEAD":  # a body would be read as the next answer on this connection
        return response
    await response.write(_csv(first))
    try:
        async for part in parts:
            await response.write(_csv(part))
    except CallFailed as failed:
        log.warning("a CSV download failed", file=name, error=failed.message)
        if page.request.transport is not None:
            page.request.transport.abort()  # the client must not take the part for the whole
    return response


async def all_pages(
    columns: Sequence[str], read: Callable[[int, int], Awaitable[Sequence[Mapping[str, Any]]]]
) -> AsyncIterator[Lines]:
    """The header, then the rows that *read* (limit, offset) finds: the parts of ``send_csv``, a page of rows each."""
    offset, head = 0, [columns]
    while True:
        rows = await read(CSV_PAGE, offset)
        yield [*head, *(csv_row(one, columns) for one in rows)]
        offset, head = offset + len(rows), []
        if len(rows) < CSV_PAGE:
            return


def _csv(lines: Lines) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode("utf-8", "replace")
