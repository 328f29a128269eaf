"""Common to the entities of the sync: parameters that several have, and ``delete``."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, select

from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError
from civiapi.api.parameters import dates
from civiapi.api.parameters.options import integer, is_empty
from civiapi.api.query import check_pattern
from civiapi.store.clock import SiteClock
from entities.actions import crud

EVER: Literal["ever"] = "ever"
DEFAULT_MAX_TIME = 300  # seconds
SEARCH = Field("search", title="Search", description="Only people with this in their name or address.")
EARLIEST, LATEST = datetime(1970, 1, 2), datetime(9999, 12, 30)


def group_of(request: Request) -> int | None:
    """The group of the call, if any. Raises ``ApiError``."""
    given: Any = request.params.get("group_id")
    if is_empty(given):
        return None
    found = integer(given)
    if found is None:
        raise ApiError("group_id is not a valid integer", 2001, error_field="group_id")
    return found


def group_field(*actions: str) -> Field:
    """The parameter that selects a connection; *actions* require it."""
    text = "The group of the connection." if actions else "Only the connection of this group."
    return Field("group_id", INT, title="Subscription group", description=text, required_by=frozenset(actions))


def max_time_of(request: Request) -> int:
    """How long the call may take, in seconds; 0: no limit."""
    given: Any = request.params.get("max_time")
    return DEFAULT_MAX_TIME if given in (None, "") else int(given)


def search_of(request: Request) -> str:
    """The part of a name or an address to look for, "" for none. Raises ``ApiError`` for a pattern that is too long."""
    given = request.params.get("search")
    search = "" if is_empty(given) else str(given).strip()
    check_pattern("search", search)
    return search


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


def delete(conn: Connection, request: Request) -> Result:
    """Remove a row by id, with the rows that refer to it. Raises ``ApiError`` if it does not exist."""
    row_id, table = request.params["id"], crud.table_of(request.entity)
    if conn.execute(select(table.c.id).where(table.c.id == row_id)).first() is None:
        raise ApiError(f"Could not delete {request.entity.name} id {row_id}")
    crud.erase(conn, request, row_id)
    return Result(1)


DELETE = Action("delete", run=delete, writes=True, params=(Field("id", INT, required_by={"delete"}),))
