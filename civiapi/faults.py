"""Faults of the store in an API caller's words: no SQL, no driver text (contract 3.4)."""

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from civiapi.errors import ApiError
from civiapi.request import Request
from civiapi.spec import INT
from civiapi.store import dialect
from civiapi.store.errors import NotUnique, StoreBusy, StoreError, StoreUnusable

TIP = "add debug=1 to your API call to have more info about the error"


def of_store(error: StoreError) -> ApiError:
    """The API error for a unit of work that failed."""
    if isinstance(error, NotUnique):
        return ApiError("DB Error: already exists", "already exists", tip=TIP)
    if isinstance(error, StoreBusy | StoreUnusable):
        return ApiError(f"DB Error: {error}", "database error")
    return ApiError(f"DB Error: {error}", str(error), tip=TIP)


def of_constraint(conn: Connection, request: Request, error: IntegrityError) -> ApiError:
    """The API error for a broken constraint; a reference to a row that is not there is named with its value."""
    known = dialect.translate(error)
    if isinstance(known, NotUnique):
        return of_store(known)
    for field in request.entity.fields:
        value = request.params.get(field.name)
        target = request.registry.find_entity(field.fk) if field.fk and field.type == INT else None
        if not isinstance(value, int) or target is None or target.table is None:
            continue
        if conn.execute(select(target.table.c.id).where(target.table.c.id == value)).first() is None:
            return ApiError(f"{field.name} is not valid : {value}", "constraint violation", tip=TIP)
    return of_store(known)
