"""MailchimpsyncCache: one row for each person and audience. ``get`` searches one audience, by either side's status.

Its answers differ from other entities': ``values`` is always a list, empty columns are there as empty texts, the order
is by id, and ``troubleshoot=1`` adds what a person needs who wonders about a row (contract 9.8). ``why_failed`` and
``backwards`` are ours: what the People page pages and searches by.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam

from civiapi import params, query
from civiapi.dispatch import Context
from civiapi.errors import ApiError
from civiapi.params import NULL_TESTS
from civiapi.query import Binder, Filter
from civiapi.request import Request, is_empty
from civiapi.spec import BOOLEAN, DATETIME, INT, TEXT, Action, Entity, Field, Result
from civiapi.store.dialect import unindexed
from entities import crud
from entities.sync_words import DELETE, told
from sync import search, tables
from sync.config import Link
from sync.search import DATA
from sync.stored import json_as_data
from sync.troubleshoot import explain_rows

CIVICRM_STATUS = "civicrm_status"
WHY_FAILED = "why_failed"
LIST_ID = "mailchimp_list_id"
CACHE_ID = "cache_id"
BACKWARDS = "backwards"


class _Values(Binder):
    """Gives out values themselves where ``query`` asks for their places."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        super().__init__()
        self._values = iter(values)

    def __call__(self) -> Any:
        return bindparam(None, next(self._values), unique=True)


def get(conn: Connection, request: Request) -> Result:
    """The rows of one audience that meet the filters; with ``is_count`` their number."""
    named = request.params.get(LIST_ID)
    with told():
        link = search.find_link(conn, "" if is_empty(named) else named if isinstance(named, str) else "-")
    where = _where(conn, request, search.columns(link))
    options = request.options
    if options.is_count:
        return Result(search.count_rows(conn, link, where), bare=True)
    backwards = not is_empty(request.params.get(BACKWARDS))
    rows = search.find_rows(conn, link, where, limit=options.limit, offset=options.offset, backwards=backwards)
    if not is_empty(request.params.get("troubleshoot")):
        rows = explain_rows(conn, link, request.clock, rows)
    return Result(rows, key=None, id=rows[0]["id"] if len(rows) == 1 else None)


def matching(conn: Connection, request: Request, link: Link) -> list[ColumnElement[bool]]:
    """The conditions that the parameters of another entity's action set, read as ``get`` reads them.

    There ``id`` may mean something else, so that ``cache_id`` names rows.
    """
    get_action = MAILCHIMPSYNC_CACHE.action("get") or request.action
    given = {name: value for name, value in request.params.items() if name not in ("id", CACHE_ID, LIST_ID)}
    if (rows := request.params.get(CACHE_ID)) is not None:
        given["id"] = rows
    asked = params.prepare(conn, replace(request, entity=MAILCHIMPSYNC_CACHE, action=get_action, params=given))
    return _where(conn, asked, search.columns(link))


def _where(conn: Connection, request: Request, columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[bool]]:
    empty = frozenset(name for name, value in request.params.items() if value == "")
    filters = query.read_filters(conn, request, empty | {LIST_ID})
    for name in (CIVICRM_STATUS, WHY_FAILED):
        sought = request.params.get(name)
        if not is_empty(sought):
            filters.append(_sought(name, sought))
    conditions = {
        one.path: query.condition(_column(one, columns), one.operator, _Values(one.values), len(one.values))
        for one in filters
        if one.path in columns
    }
    return query.combined(conditions, query.or_groups(request, list(conditions)))


def _column(one: Filter, columns: Mapping[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    """What a filter looks at. Several statuses at Mailchimp are most of an audience: walked through, not sorted."""
    column = columns[one.path]
    return unindexed(column) if one.path == "mailchimp_status" and one.operator == "IN" else column


def _sought(name: str, sought: Any) -> Filter:
    """A filter on what is no column of the row."""
    operator, operand = next(iter(sought.items())) if isinstance(sought, dict) else ("=", sought)
    values = () if operator in NULL_TESTS else tuple(operand) if isinstance(operand, list) else (operand,)
    return Filter(name, operator, values)


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a row; the data columns are given as JSON text and kept as PHP serializes them."""
    stored = dict(given)
    for name in DATA & given.keys():
        if given[name] is not None:
            stored[name] = _as_data(name, given[name])
    return crud.store(conn, request, stored, row_id)


def _as_data(name: str, text: str) -> bytes:
    try:
        return json_as_data(text)
    except ValueError as error:
        raise ApiError(f"{name} is not a JSON object", 2001, error_field=name) from error


async def update(request: Request, ctx: Context) -> Result:
    """``create`` for a row that must be there; the audience need not be named for that."""
    if is_empty(request.params.get("id")):
        raise ApiError("Mandatory parameter missing id", "mandatory_missing")
    saved = await ctx.call(request.entity.name, "create", {**request.sent, "sequential": 1})
    return Result(saved["values"])


FIELDS = (
    Field("id", INT, title="Mailchimpsync Cache ID", keeps=False),
    Field(LIST_ID, title="Mailchimp List ID", description="The audience.", required_by={"create"}, max_length=32),
    Field(
        "mailchimp_member_id",
        title="Mailchimp Member ID",
        description="MD5 of the address in lower case; empty for those unknown to Mailchimp.",
        max_length=32,
    ),
    Field("mailchimp_email", title="Mailchimp Email", max_length=255),
    Field(
        "mailchimp_status",
        title="Mailchimp Status",
        description="subscribed, unsubscribed, cleaned, pending, transactional or archived.",
        max_length=20,
    ),
    Field("mailchimp_updated", DATETIME, title="Mailchimp Updated", description="When Mailchimp last changed it."),
    Field("mailchimp_data", TEXT, title="Mailchimp Data", description="Names and interests, as JSON."),
    Field("civicrm_data", TEXT, title="CiviCRM Data", description="What data plugins sent, as JSON."),
    Field("civicrm_groups", TEXT, title="CiviCRM Groups", description="group;status;date of each group that matters."),
    Field("civicrm_contact_id", INT, title="CiviCRM Contact ID", fk="Contact"),
    Field(
        "sync_status",
        title="Sync Status",
        description="ok, todo, live (under way), redo or fail.",
        max_length=10,
        default="todo",
    ),
)
SOUGHT = (
    Field(CIVICRM_STATUS, title="CiviCRM Status", description="Latest status in the group, such as Added."),
    Field(
        WHY_FAILED,
        title="Why Failed",
        description="Words kept of a failure, ours or Mailchimp's; seek them with LIKE, beside sync_status.",
    ),
    Field(BACKWARDS, BOOLEAN, title="Backwards", description="Highest id first: for the page before a row."),
    Field("troubleshoot", BOOLEAN, title="Troubleshoot", description="Add what explains each row; takes longer."),
)

MAILCHIMPSYNC_CACHE = Entity(
    "MailchimpsyncCache",
    table=tables.cache,
    title="Mailchimp Sync Cache",
    description="What both ends know of one person in one audience.",
    fields=FIELDS,
    actions=(
        Action("get", run=get, params=(*FIELDS, *SOUGHT)),
        crud.create_action(save),
        DELETE,
        Action("update", arun=update, via=("create",), generic=True, params=()),
    ),
    label_field="mailchimp_email",
)
