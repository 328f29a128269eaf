"""MailchimpsyncCache: one row for each person and audience. ``get`` searches one audience, by status on either side.

Unlike for other entities, ``values`` is always a list, empty columns are empty texts, the order is by id, and
``troubleshoot=1`` adds an explanation of each row (contract 9.8). ``why_failed``, ``cause``, ``not_to_be_mailed``
and ``backwards`` are additions, for the People page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam

from civiapi.api import query
from civiapi.api.context import Context
from civiapi.api.declaration.fields import BOOLEAN, DATETIME, INT, TEXT, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.envelope import TextRows
from civiapi.api.errors import ApiError
from civiapi.api.parameters import params
from civiapi.api.parameters.options import is_empty
from civiapi.api.query import Filter
from civiapi.store.databases.compiled_query import Binder, CompiledQuery
from civiapi.store.databases.expressions import in_list, unindexed
from civiapi.store.schema.tables import subscription_history
from entities.actions import crud
from entities.mailchimpsync.shared import DELETE
from sync.audience import Privacy
from sync.connections.config import Link
from sync.model import SyncStatus
from sync.reports.people import search
from sync.reports.people.search import DATA
from sync.reports.people.troubleshoot import explain_rows
from sync.store import tables
from sync.store.members.blobs import data_as_json, json_as_data

CIVICRM_STATUS = "civicrm_status"
WHY_FAILED = "why_failed"
CAUSE = "cause"
PERMISSIONS = "permissions"
LIST_ID = "mailchimp_list_id"
CACHE_ID = "cache_id"
BACKWARDS = "backwards"
NOT_TO_BE_MAILED = "not_to_be_mailed"
_EXTRA = (CIVICRM_STATUS, WHY_FAILED, CAUSE, PERMISSIONS, NOT_TO_BE_MAILED)
"""Filters that are not on a column of the table."""


class _Values(Binder):
    """Binds the values directly, for a statement that is not cached."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        super().__init__()
        self._values = iter([value for one in filters for value in one.operands])

    def __call__(self) -> Any:
        return bindparam(None, next(self._values), unique=True)

    def among(self, column: ColumnElement[Any], *, negated: bool) -> ColumnElement[bool]:
        inside = in_list(column, next(self._values))
        return ~inside if negated else inside


def get(conn: Connection, request: Request) -> Result:
    """The rows of one audience that meet the filters; with ``is_count`` their number."""
    named = request.params.get(LIST_ID)
    link = search.find_link(conn, "" if is_empty(named) else named if isinstance(named, str) else "-")
    filters = _filters(conn, request)
    groups = query.or_groups(request, [one.path for one in filters])
    options, backwards = request.options, not is_empty(request.params.get(BACKWARDS))
    by_contact = _is_few_contacts(conn, link.group_id, filters, groups)
    shape = (
        "MailchimpsyncCache",
        by_contact,
        tuple([one.shape for one in filters]),
        groups,
        options.is_count,
        bool(options.limit or options.offset),
        backwards,
    )

    def build(bind: Binder) -> tuple[Select[Any], tuple[str, ...]]:
        return _build(request, filters, groups, bind, backwards, by_contact)

    compiled = query.compiled_query(conn, shape, build)
    operands = [value for one in filters for value in one.operands]
    if by_contact:
        operands += [value for one in _required(filters, groups, CIVICRM_STATUS) for value in one.operands]
    found = compiled.rows(conn, [link.list_id, link.group_id, *operands, *query.paging(request)])
    if options.is_count:
        return Result(int(found[0][0]), unwrapped=True)
    if not is_empty(request.params.get("troubleshoot")):
        audience = link.audience(request.clock, privacy=Privacy(request.privacy))
        rows = explain_rows(conn, audience, [search.as_row(values) for values in found])
    else:
        rows = _as_texts(compiled, found)
    return Result(rows, key=None, id=found[0][0] if len(found) == 1 else None)


def _as_texts(compiled: CompiledQuery, found: Sequence[Sequence[Any]]) -> TextRows:
    """Rows of the driver as ``search.as_row`` gives them, every value as text."""
    rows = query.texts(compiled, found)
    for place in search.DATA.values():
        for row, values in zip(rows, found, strict=True):
            if values[place] is not None:
                row[place] = data_as_json(values[place])
    return TextRows([dict(zip(compiled.keys, row, strict=True)) for row in rows])


def _build(
    request: Request,
    filters: Sequence[Filter],
    groups: Sequence[Sequence[str]],
    bind: Binder,
    backwards: bool,
    by_contact: bool,
) -> tuple[Select[Any], tuple[str, ...]]:
    list_id, group_id = bind(), bind()
    where = _where(filters, groups, group_id, bind)
    if by_contact:
        status = subscription_history.c.status
        where += [
            search.ever_had(group_id, query.condition(status, one.sql_operator, bind, len(one.operands)))
            for one in _required(filters, groups, CIVICRM_STATUS)
        ]
    if request.options.is_count:
        return search.select_count(list_id, where, by_contact=by_contact), ("count",)
    paged = search.select_rows(
        list_id,
        group_id,
        where,
        lambda page: query.limited(page, request, bind),
        backwards=backwards,
        by_contact=by_contact,
    )
    return paged, search.COLUMNS


def _required(filters: Sequence[Filter], groups: Sequence[Sequence[str]], path: str) -> list[Filter]:
    """The filters on *path* that name values every row must have."""
    joined = {name for group in groups for name in group}
    return [one for one in filters if one.path == path and path not in joined and one.operator in ("=", "IN")]


def _is_few_contacts(
    conn: Connection, group_id: int, filters: Sequence[Filter], groups: Sequence[Sequence[str]]
) -> bool:
    """Whether the filters leave few contacts: given ones, or those that ever had a status that is rare."""
    if any(len(one.values) <= search.FEW for one in _required(filters, groups, "civicrm_contact_id")):
        return True
    statuses = _required(filters, groups, CIVICRM_STATUS)
    return any(search.is_rare(conn, group_id, [str(value) for value in one.values]) for one in statuses)


def matching(conn: Connection, request: Request, link: Link) -> list[ColumnElement[bool]]:
    """The conditions for the filters among the parameters of another action, as ``get`` reads them.

    ``id`` may have another meaning there, so rows are given by ``cache_id``.
    """
    get_action = MAILCHIMPSYNC_CACHE.action("get") or request.action
    given = {name: value for name, value in request.params.items() if name not in ("id", CACHE_ID, LIST_ID)}
    if (rows := request.params.get(CACHE_ID)) is not None:
        given["id"] = rows
    asked = params.prepare(conn, replace(request, entity=MAILCHIMPSYNC_CACHE, action=get_action, params=given))
    filters = _filters(conn, asked)
    groups = query.or_groups(asked, [one.path for one in filters])
    return _where(filters, groups, link.group_id, _Values(filters))


def _filters(conn: Connection, request: Request) -> list[Filter]:
    """The filters among the parameters; an empty one is none."""
    empty = [name for name, value in request.params.items() if value == ""]
    filters = query.read_filters(conn, request, frozenset([LIST_ID, *empty]), joins=False)
    if not request.params.keys().isdisjoint(_EXTRA):
        given = [(one, request.params.get(one.name)) for one in EXTRA_FILTERS if one.name in _EXTRA]
        filters += [query.as_filter(one.name, one, value) for one, value in given if not is_empty(value)]
    return filters


def _where(
    filters: Sequence[Filter], groups: Sequence[Sequence[str]], group_id: search.Value, bind: Binder
) -> list[ColumnElement[bool]]:
    """The conditions for *filters*, whose values *bind* places."""
    columns = search.columns(group_id)
    conditions = {
        one.path: query.condition(_column(one, columns), one.sql_operator, bind, len(one.operands)) for one in filters
    }
    return query.combined(conditions, groups)


def _column(one: Filter, columns: Mapping[str, ColumnElement[Any]]) -> ColumnElement[Any]:
    """The column of a filter. Several statuses are most of an audience, so no index is used for them."""
    column = columns[one.path]
    return unindexed(column) if one.path == "mailchimp_status" and one.operator == "IN" else column


def save(conn: Connection, request: Request, given: dict[str, Any], row_id: int | None) -> int:
    """Store a row; the data columns are given as JSON text and stored PHP-serialized."""
    stored = dict(given)
    for name in DATA.keys() & given.keys():
        if given[name] is not None:
            stored[name] = _as_data(name, given[name])
    return crud.store(conn, request, stored, row_id)


def _as_data(name: str, text: str) -> bytes:
    try:
        return json_as_data(text)
    except ValueError as error:
        raise ApiError(f"{name} is not a JSON object", 2001, error_field=name) from error


async def update(request: Request, ctx: Context) -> Result:
    """``create`` for an existing row, without the audience."""
    if is_empty(request.params.get("id")):
        raise ApiError("Mandatory parameter missing id", "mandatory_missing")
    saved = await ctx.call(request.entity.name, "create", {**request.sent, "sequential": 1})
    return Result(saved["values"])


FIELDS = (
    Field("id", INT, title="Mailchimpsync Cache ID", writable=False),
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
        default=SyncStatus.TODO,
    ),
)
EXTRA_FILTERS = (
    Field(CIVICRM_STATUS, title="CiviCRM Status", description="Latest status in the group, such as Added."),
    Field(
        WHY_FAILED,
        title="Why Failed",
        description="Text of a stored error, ours or Mailchimp's; to be used with LIKE and sync_status.",
    ),
    Field(
        CAUSE,
        title="Cause",
        description="Only rows that failed for this cause, as Mailchimpsync.getfailures names it.",
    ),
    Field(
        PERMISSIONS,
        title="Marketing Permissions",
        description="Ids of the marketing permissions that the member gave; to be used with LIKE.",
    ),
    Field(
        NOT_TO_BE_MAILED,
        BOOLEAN,
        title="Not To Be Mailed",
        description="Only members whose contact opted out, is not to be emailed, is deceased, or is in the trash.",
    ),
    Field(BACKWARDS, BOOLEAN, title="Backwards", description="Highest id first: for the page before a row."),
    Field("troubleshoot", BOOLEAN, title="Troubleshoot", description="Add an explanation of each row; takes longer."),
)

MAILCHIMPSYNC_CACHE = Entity(
    "MailchimpsyncCache",
    table=tables.cache,
    title="Mailchimp Sync Cache",
    description="The state of one person in one audience, in CiviCRM and at Mailchimp.",
    fields=FIELDS,
    actions=(
        Action("get", run=get, short=True, params=(*FIELDS, *EXTRA_FILTERS)),
        crud.create_action(save),
        DELETE,
        Action("update", run_async=update, delegates_to=("create",), generic=True, params=()),
    ),
    label_field="mailchimp_email",
)
