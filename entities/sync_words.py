"""What goes wrong in the sync, in an API caller's words; and the plain actions of the extension's tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, select

from civiapi.errors import ApiError
from civiapi.request import Request
from civiapi.spec import INT, Action, Field, Result
from entities import crud
from sync.errors import SyncError


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
