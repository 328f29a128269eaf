"""Mailchimpsync's actions for people: explain one, sync one now, include many in the next sync.

Additions to the extension's actions; all need ``administer CiviCRM``.
"""

from sqlalchemy import ColumnElement, Connection

from civiapi.api.context import Context
from civiapi.api.declaration.fields import INT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError, MandatoryMissing
from civiapi.api.parameters.options import integer, is_empty
from entities.mailchimpsync.cache import CACHE_ID, EXTRA_FILTERS, FIELDS, LIST_ID, matching
from entities.mailchimpsync.shared import group_field, group_of
from sync.connections.config import Link, read_config
from sync.reports.people.search import find_link


async def explain(request: Request, ctx: Context) -> Result:
    """One person in each connection: the state on both sides, the latest change, and what the next sync will do."""
    contact_id, email = _person(request)
    found = await ctx.sync.explain(contact_id=contact_id, email=email, group_id=group_of(request))
    return Result(found, key=None)


async def sync_member(request: Request, ctx: Context) -> Result:
    """Sync one person now; answers like ``explain``."""
    contact_id, email = _person(request)
    found = await ctx.sync.sync_member(int(request.params["group_id"]), contact_id=contact_id, email=email)
    return Result(found, key=None)


def _person(request: Request) -> tuple[int | None, str]:
    """The contact id and the address that were given, at least one of them. Raises ``ApiError``."""
    contact_id, email = request.params.get("contact_id"), request.params.get("email")
    if is_empty(contact_id) and is_empty(email):
        raise MandatoryMissing(["one of (contact_id, email)"])
    if not is_empty(email) and not isinstance(email, str):
        raise ApiError("email must be one address", error_field="email")
    return None if is_empty(contact_id) else integer(contact_id) or 0, "" if is_empty(email) else str(email)


async def include_matching(request: Request, ctx: Context) -> Result:
    """Include all rows that ``MailchimpsyncCache.get`` finds with these filters in the next sync."""
    link, where = await ctx.read(_read_where, request)
    return Result(await ctx.sync.include_matching(link.list_id, where))


def _read_where(conn: Connection, request: Request) -> tuple[Link, list[ColumnElement[bool]]]:
    group_id, list_id = group_of(request), request.params.get(LIST_ID)
    if group_id is not None:
        link = read_config(conn).link_for_group(group_id)
    else:
        link = find_link(conn, list_id if isinstance(list_id, str) else "")
    return link, matching(conn, request, link)


PERSON = (
    Field("contact_id", INT, title="Contact ID", description="The person, if not by email."),
    Field("email", title="Email", description="The person, by an address in CiviCRM or at Mailchimp."),
)

ACTIONS = (
    Action("explain", run_async=explain, title="Explain one person", params=(*PERSON, group_field())),
    Action(
        "syncmember",
        run_async=sync_member,
        long_running=True,
        title="Sync one person now",
        params=(group_field("syncmember"), *PERSON),
    ),
    Action(
        "includematching",
        run_async=include_matching,
        long_running=True,
        title="Include all that match in the next sync",
        validated=False,
        params=(
            group_field(),
            Field(CACHE_ID, INT, title="Mailchimpsync Cache ID", description="These rows only."),
            *(one for one in (*FIELDS, *EXTRA_FILTERS) if one.name not in ("id", "troubleshoot", "backwards")),
        ),
    ),
)
