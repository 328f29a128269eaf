"""The status page at ``/civicrm/mailchimpsync``: every connection of a group with an audience, and how it stands."""

from aiohttp import web

from civiapi.ui.visit import Visit

PATH = "/civicrm/mailchimpsync"
PERMISSION = "administer CiviCRM"


async def index(visit: Visit) -> web.Response:
    """Every connection."""
    answer = await visit.ask("Mailchimpsync", "getstatus")
    return visit.show("status_index.html", statuses=answer["values"] or {})
