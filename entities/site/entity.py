"""Entity: the list of entities."""

from sqlalchemy import Connection

from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.permissions import OPEN


def get(conn: Connection, request: Request) -> Result:
    """The names of all entities, sorted."""
    names = [entity.name for entity in request.registry.entities()]
    return Result(names, key=None, extra={"deprecated": []})


ENTITY = Entity(
    "Entity",
    title="Entity",
    description="The entities that this API has.",
    actions=(Action("get", run=get, params=(), native=True, permission=OPEN),),
)
