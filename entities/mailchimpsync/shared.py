"""Common to the entities of the sync: the ``since`` parameter, errors, and ``delete``."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters import dates
from civiapi.api.parameters.options import is_empty
from civiapi.store.clock import SiteClock
from entities.actions import crud
from sync.errors import SyncError

EVER: Literal["ever"] = "ever"
EARLIEST, LATEST = datetime(1970, 1, 2), datetime(9999, 12, 30)


def read_since(value: Any, clock: SiteClock) -> datetime | Literal["ever"] | None:
    """The start of the changes to sync: aware UTC, ``ever`` for all, None for the last sync.

    A date before 1970 counts as 1970, when there was nothing to sync. Raises ``ApiError``.
    """
    if is_empty(value):
        return None
    if str(value).strip().lower() == EVER:
        return EVER
    return read_date(value, "since", clock)


def read_date(value: Any, name: str, clock: SiteClock) -> datetime | None:
    """A date as PHP reads it, aware UTC, from 1970 to 9999; None where none is given. Raises ``ApiError``."""
    if is_empty(value):
        return None
    found = dates.parse(value, clock) if isinstance(value, str | int) else None
    if found is None:
        raise ApiError(f"Could not parse '{name}' date.")
    return min(max(found, EARLIEST), LATEST).replace(tzinfo=clock.zone).astimezone(UTC)


def read_kinds(value: Any, known: Collection[str]) -> tuple[str, ...]:
    """One kind, a list, or ``{"IN": […]}``. Raises ``ApiError`` for one not *known*."""
    if isinstance(value, dict):
        value = value.get("IN")
    kinds = tuple(value if isinstance(value, list) else () if is_empty(value) else (value,))
    unknown = [one for one in kinds if one not in known]
    if unknown:
        raise ApiError(f"kind must be one of: {', '.join(known)}", 2001, error_field="kind")
    return kinds


@contextmanager
def translate_sync_errors() -> Iterator[None]:
    """Inside, a ``SyncError`` becomes the ``ApiError`` with its text."""
    try:
        yield
    except SyncError as error:
        raise ApiError(str(error)) from error


def delete(conn: Connection, request: Request) -> Result:
    """Remove a row by id, with the rows that refer to it. Raises ``ApiError`` if it does not exist."""
    row_id, table = request.params["id"], crud.table_of(request.entity)
    if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise ApiError(f"Could not delete {request.entity.name} id {row_id}")
    crud.erase(conn, request, row_id)
    return Result(1)


DELETE = Action("delete", run=delete, writes=True, params=(Field("id", INT, required_by={"delete"}),))
