"""Entity: the catalogue, asked about itself."""

from sqlalchemy import Connection

from civiapi.access import OPEN
from civiapi.request import Request
from civiapi.spec import Action, Entity, Result


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
