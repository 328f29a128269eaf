"""Mailchimpsync's actions about people: one explained, one synced now, and many included in the next sync.

Nothing the extension has but ``includecontact``, whose kin they are; all need ``administer CiviCRM``.
"""

from sqlalchemy import ColumnElement, Connection

from civiapi.dispatch import Context
from civiapi.errors import ApiError, MandatoryMissing
from civiapi.request import Request, integer, is_empty
from civiapi.spec import INT, Action, Field, Result
from entities.mailchimpsync_cache import CACHE_ID, FIELDS, LIST_ID, SOUGHT, matching
from entities.mailchimpsync_views import group_field, group_of
from entities.sync_words import told
from sync.config import Link, read_config
from sync.search import find_link


async def explain(request: Request, ctx: Context) -> Result:
    """A person in each connection: both ends side by side, who spoke last, and what the next sync will do."""
    with told():
        found = await ctx.sync.explain(**_whom(request), group_id=group_of(request))
    return Result(found, key=None)


async def sync_member(request: Request, ctx: Context) -> Result:
    """Look a person up at Mailchimp and bring both ends into step now; then as ``explain`` has it."""
    with told():
        found = await ctx.sync.sync_member(int(request.params["group_id"]), **_whom(request))
    return Result(found, key=None)


def _whom(request: Request) -> dict[str, int | str]:
    contact_id, email = request.params.get("contact_id"), request.params.get("email")
    if is_empty(contact_id) and is_empty(email):
        raise MandatoryMissing(["one of (contact_id, email)"])
    if not is_empty(email) and not isinstance(email, str):
        raise ApiError("email must be one address", error_field="email")
    found: dict[str, int | str] = {} if is_empty(email) else {"email": str(email)}
    if not is_empty(contact_id):
        found["contact_id"] = integer(contact_id) or 0
    return found


async def include_matching(request: Request, ctx: Context) -> Result:
    """Have the next sync look at all rows that ``MailchimpsyncCache.get`` would find with these filters."""
    link, where = await ctx.read(_read_where, request)
    return Result(await ctx.sync.include_matching(link.list_id, where))


def _read_where(conn: Connection, request: Request) -> tuple[Link, list[ColumnElement[bool]]]:
    group_id, list_id = group_of(request), request.params.get(LIST_ID)
    with told():
        if group_id is not None:
            link = read_config(conn).link_for_group(group_id)
        else:
            link = find_link(conn, list_id if isinstance(list_id, str) else "")
    return link, matching(conn, request, link)


WHOM = (
    Field("contact_id", INT, title="Contact ID", description="Whom it is about; or their email."),
    Field("email", title="Email", description="Whom it is about, by an address at either end."),
)

ACTIONS = (
    Action("explain", arun=explain, title="Explain one person", params=(*WHOM, group_field())),
    Action("syncmember", arun=sync_member, title="Sync one person now", params=(group_field("syncmember"), *WHOM)),
    Action(
        "includematching",
        arun=include_matching,
        title="Include all that match in the next sync",
        validated=False,
        params=(
            group_field(),
            Field(CACHE_ID, INT, title="Mailchimpsync Cache ID", description="These rows only."),
            *(one for one in (*FIELDS, *SOUGHT) if one.name not in ("id", "troubleshoot", "backwards")),
        ),
    ),
)
