"""Errors of the store as API errors, without SQL or driver text (contract 3.4)."""

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from civiapi.api.declaration.fields import INT
from civiapi.api.declaration.spec import Request
from civiapi.api.errors import ApiError
from civiapi.store.databases import driver_errors
from civiapi.store.errors import CallTimedOut, NotUnique, StoreBusy, StoreError, StoreUnusable

TOO_LONG = "Ask for less at a time; the limit is [server] call_seconds."
TIP = "add debug=1 to your API call to have more info about the error"


def of_store(error: StoreError) -> ApiError:
    """The API error for a unit of work that failed."""
    if isinstance(error, NotUnique):
        return ApiError("DB Error: already exists", "already exists", tip=TIP)
    if isinstance(error, CallTimedOut):
        text = str(error)
        return ApiError(f"{text[:1].upper()}{text[1:]} and was stopped; nothing was changed. {TOO_LONG}", "timeout")
    if isinstance(error, StoreBusy | StoreUnusable):
        return ApiError(f"DB Error: {error}", "database error")
    return ApiError(f"DB Error: {error}", str(error), tip=TIP)


def of_constraint(conn: Connection, request: Request, error: IntegrityError) -> ApiError:
    """The API error for a broken constraint; for a reference to no row it contains field and value."""
    known = driver_errors.translate(error)
    if isinstance(known, NotUnique):
        return of_store(known)
    for field in request.entity.fields:
        value = request.params.get(field.name)
        target = request.registry.find_entity(field.fk) if field.fk and field.type == INT else None
        if not isinstance(value, int) or target is None or target.table is None:
            continue
        if conn.execute(select(target.table.c.id).where(target.table.c.id == value)).first() is None:
            return no_such_reference(field.name, value)
    return of_store(known)


def no_such_reference(field: str, value: int) -> ApiError:
    """The API error for a reference to a row that is not there."""
    return ApiError(f"{field} is not valid : {value}", "constraint violation", tip=TIP)
