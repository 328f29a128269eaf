"""What goes wrong in the sync, in an API caller's words; and the plain actions of the extension's tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from civiapi import dates
from civiapi.errors import ApiError
from civiapi.request import Request, is_empty
from civiapi.spec import INT, Action, Field, Result
from civiapi.store.clock import SiteClock
from entities import crud
from sync.errors import SyncError

EVER: Literal["ever"] = "ever"


def read_since(value: Any, clock: SiteClock) -> datetime | Literal["ever"] | None:
    """From when changes are wanted: an aware moment, ``ever`` for all, None for the last sync. Raises ``ApiError``."""
    if is_empty(value):
        return None
    if str(value).strip().lower() == EVER:
        return EVER
    found = dates.parse(value, clock) if isinstance(value, str | int) else None
    if found is None:
        raise ApiError("Could not parse 'since' date.")
    return found.replace(tzinfo=clock.zone).astimezone(UTC)


@contextmanager
def told() -> Iterator[None]:
    """Inside, a ``SyncError`` becomes the ``ApiError`` with its text."""
    try:
        yield
    except SyncError as error:
        raise ApiError(str(error)) from error


def delete(conn: Connection, request: Request) -> Result:
    """Remove a row by id; what hangs on it goes with it. Raises ``ApiError``, naming the entity, if it is not there."""
    row_id, table = request.params["id"], crud.table_of(request.entity)
    if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise ApiError(f"Could not delete {request.entity.name} id {row_id}")
    crud.erase(conn, request, row_id)
    return Result(1)


DELETE = Action("delete", run=delete, writes=True, params=(Field("id", INT, required_by={"delete"}),))
