"""Imports the campaigns of linked audiences as activities, with the contacts they were sent to as targets.

    import_campaigns              each audience under a lease of its own, besides syncs
      _look_up                    who was no contact when a campaign was imported and is one now becomes a target
      _list                       campaigns that were sent and are not known yet are stored
      _import                     each, oldest first: its activity, then its recipients page by page
      _read_figures               on request: who opened it, and who clicked which link, page by page

Each page is one transaction with the position after it. Whatever ends an import, the next one continues there. A
campaign whose report fails is left for the next import, and the others have their turn.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from civiapi.store import leases
from civiapi.store.author import authored_by
from civiapi.store.leases import Lease, LeaseLost
from sync.campaigns import rows
from sync.campaigns.rows import DONE, GONE, RECIPIENTS, KnownCampaign
from sync.connections.config import Link, read_config
from sync.context import SyncContext
from sync.errors import MailchimpFailed, SyncError
from sync.leases import hold_lease
from sync.mailchimp.errors import BadKey, MailchimpError, NotFound, Refused, Unreachable
from sync.mailchimp.reports import CampaignReports, ReportPage, SentCampaign
from sync.mailchimp.wire import as_count, find_instant

OVERLAP = timedelta(days=7)
"""Campaigns appear as sent when sending ends; a large one, or one sent by time zones, takes days."""
CAMPAIGNS_PER_UNIT = 100
NAMED_FAILURES = 3
"""How many of the campaigns that failed an error describes."""
ROUNDS = 3
"""How often recipients are walked at most, where members who were deleted meanwhile moved the others up."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What an import is asked: *since* is aware, ``ever``, or None (what is not known yet); *max_time* in seconds."""

    since: datetime | str | None = None
    figures: bool = False
    max_time: float = 300.0


async def import_campaigns(ctx: SyncContext, links: Sequence[Link], request: ImportRequest) -> list[dict[str, Any]]:
    """Import the campaigns of these audiences; returns list_id, group_id, ``outcome`` and ``campaigns`` of each.

    *outcome* is finished, paused (out of time) or busy (another import is at work). An audience that fails does not
    keep the others from their turn; the first error is raised at the end (SyncError).
    """
    until, done, error = time.monotonic() + request.max_time, [], None
    with authored_by(None):
        for link in links:
            try:
                outcome, count = await _Import(ctx, link, request, until).run()
            except SyncError as failure:
                error = error or failure
            else:
                done.append(
                    {"list_id": link.list_id, "group_id": link.group_id, "outcome": outcome, "campaigns": count}
                )
    if error is not None:
        raise error
    return done


class _OutOfTime(Exception):
    """The time is up, or the server stops."""


class _Import:
    """The import of one audience."""

    def __init__(self, ctx: SyncContext, link: Link, request: ImportRequest, until: float) -> None:
        self._ctx = ctx
        self._link = link
        self._request = request
        self._until = until
        self._imported = 0
        self._failed: list[str] = []

    async def run(self) -> tuple[str, int]:
        """Do it under the audience's lease; returns the outcome and how many campaigns were imported to the end."""
        async with hold_lease(self._ctx, f"campaigns {self._link.list_id}", brief=True, wait_seconds=0) as lease:
            if lease is None:
                return "busy", 0
            return await self._run_recorded(lease)

    async def _run_recorded(self, lease: Lease) -> tuple[str, int]:
        ctx, list_id = self._ctx, self._link.list_id
        listed = await ctx.store.write(rows.note_start, list_id, datetime.now(UTC))
        outcome, error, failed = "failed", None, f"The campaigns of audience {list_id} could not be imported"
        try:
            reports = ctx.clients.client_for(self._link.api_key).reports
            reached = await self._import_in_time(lease, reports, listed)
            if self._failed:
                error = _sentence_of(list_id, self._failed)
                raise MailchimpFailed(error)
            outcome = reached
        except MailchimpError as failure:
            error = f"{failed}: {failure}. The next import continues there."
            raise MailchimpFailed(error) from failure
        except LeaseLost as failure:
            error = f"{failed}: {failure}"
            raise SyncError(error) from failure
        finally:
            await ctx.store.write(rows.note_end, list_id, datetime.now(UTC), outcome, self._imported, error)
        log.info("campaigns were imported", list_id=list_id, outcome=outcome, campaigns=self._imported)
        return outcome, self._imported

    async def _import_in_time(self, lease: Lease, reports: CampaignReports, listed: datetime | None) -> str:
        try:
            await self._import_all(lease, reports, listed)
        except _OutOfTime:
            return "paused"
        return "finished"

    async def _import_all(self, lease: Lease, reports: CampaignReports, listed: datetime | None) -> None:
        list_id, store = self._link.list_id, self._ctx.store
        await self._look_up(lease)
        await self._list(lease, reports, listed)
        name = await store.read(_audience_name, list_id)
        for one in await store.read(rows.to_import, list_id):
            await self._survive(lease, one, self._import(lease, reports, one, name))
        if self._request.figures:
            kept = self._ctx.settings.retention.campaigns_days
            for one in await store.read(rows.to_read_figures, list_id, datetime.now(UTC), kept):
                await self._survive(lease, one, self._read_figures(lease, reports, one))

    async def _look_up(self, lease: Lease) -> None:
        """Look up unknown recipients again, if addresses were added since that was done last."""
        list_id, size = self._link.list_id, self._ctx.sizes.rows_per_unit
        newest = await self._ctx.store.read(rows.newest_email, list_id)
        if newest is None:
            return
        after: int | None = 0
        while after is not None:
            look = partial(rows.look_up_unknown, list_id=list_id, after=after, limit=size)
            after = await self._commit(lease, look)
        await self._commit(lease, partial(rows.note_looked_up, list_id=list_id, newest=newest))

    async def _survive(self, lease: Lease, one: KnownCampaign, work: Any) -> None:
        """Do the work on a campaign; one that is gone at Mailchimp, or fails, does not keep the others from their turn.

        Raises MailchimpError where the others would fail as well.
        """
        try:
            await work
        except NotFound:
            await self._commit(lease, partial(rows.move, one=one, cursor=None, state=DONE, error=GONE))
        except MailchimpError as failure:
            if not _is_about_one_report(failure):
                raise
            error = str(failure).replace("{campaign}", one.campaign_id)
            self._failed.append(f"“{one.subject}” ({one.campaign_id}): {error}")
            log.warning("a campaign could not be imported", campaign_id=one.campaign_id, error=error)
            await self._commit(lease, partial(rows.note_error, one=one, error=error))

    async def _commit(self, lease: Lease, write: Any) -> Any:
        """Run *write* and check the lease in one transaction, then the time."""
        result = await self._ctx.store.write(_write, write, lease)
        self._check_time()
        return result

    def _check_time(self) -> None:
        if time.monotonic() >= self._until or self._ctx.stop.is_asked:
            raise _OutOfTime

    async def _list(self, lease: Lease, reports: CampaignReports, listed: datetime | None) -> None:
        """Store the campaigns that were sent and are not known."""
        since = self._request.since
        start = (listed - OVERLAP if listed else None) if since is None else since
        found: list[SentCampaign] = []
        async for one in reports.iter_sent(self._link.list_id, start if isinstance(start, datetime) else None):
            found.append(one)
            if len(found) == CAMPAIGNS_PER_UNIT:
                await self._commit(lease, partial(rows.note_campaigns, found=found))
                found = []
        await self._commit(lease, partial(_note_all, list_id=self._link.list_id, found=found))

    async def _import(self, lease: Lease, reports: CampaignReports, one: KnownCampaign, audience_name: str) -> None:
        """Make the activity of a campaign, and add its recipients from the cursor on."""
        if one.state != RECIPIENTS:
            begin = partial(rows.begin, one=one, audience_name=audience_name, clock=self._ctx.store.clock)
            one = await self._commit(lease, begin)
        cursor: dict[str, Any] = {"offset": 0, "round": 1, **one.cursor}
        while one.state == RECIPIENTS:
            page = await reports.get_recipients(one.campaign_id, cursor["offset"])
            following = _next_cursor(cursor, page)
            self._imported += following is None
            await self._commit(lease, partial(_add_page, one=one, page=page, following=following))
            if following is None:
                return
            cursor = following

    async def _read_figures(self, lease: Lease, reports: CampaignReports, one: KnownCampaign) -> None:
        """Read who opened a campaign, then who clicked each of its links, from the cursor on."""
        cursor: dict[str, Any] = dict(one.cursor)
        links = ["", *await reports.get_links(one.campaign_id)]  # "" stands for opens
        at = links.index(cursor["link"]) if cursor.get("link") in links else 0
        offset = cursor.get("offset", 0) if cursor.get("link") in links else 0
        for place, link in enumerate(links[at:], at):
            following: int | None = offset
            while following is not None:
                ask = (
                    reports.get_clicks(one.campaign_id, link, following)
                    if link
                    else reports.get_opens(one.campaign_id, following)
                )
                page = await ask
                following = page.following
                after = {"link": link, "offset": following}
                if following is None:
                    after = {"link": links[place + 1], "offset": 0} if place + 1 < len(links) else {}
                await self._commit(lease, partial(_store_page, one=one, link=link, page=page, after=after))
            offset = 0


def _is_about_one_report(failure: MailchimpError) -> bool:
    """Whether other reports may be readable: Mailchimp was reached, took the key, and asked for no pause."""
    if isinstance(failure, Unreachable):
        return failure.status is not None or failure.outcome_unknown
    return isinstance(failure, Refused) and not isinstance(failure, BadKey)


def _sentence_of(list_id: str, failed: Sequence[str]) -> str:
    more = f"; and {len(failed) - NAMED_FAILURES} more" if len(failed) > NAMED_FAILURES else ""
    named = "; ".join(failed[:NAMED_FAILURES])
    count = f"{len(failed)} campaign{'s' if len(failed) > 1 else ''} of audience {list_id} could not be imported"
    return f"{count}: {named}{more}. The next import tries again."


def _write(conn: Connection, write: Any, lease: Lease) -> Any:
    result = write(conn)
    leases.check(conn, lease)
    return result


def _note_all(conn: Connection, list_id: str, found: Sequence[SentCampaign]) -> None:
    rows.note_campaigns(conn, found)
    rows.note_listed(conn, list_id)


def _audience_name(conn: Connection, list_id: str) -> str:
    for account in read_config(conn).accounts.values():
        if name := account.audiences.get(list_id):
            return f"“{name}”"
    return list_id


def _next_cursor(cursor: Mapping[str, Any], page: ReportPage) -> dict[str, Any] | None:
    """The cursor of the next page of recipients; None after the last.

    When members are deleted for good meanwhile, later recipients move to earlier pages and some may be missed. Then all
    pages are read once more, which adds those.
    """
    total = cursor.get("total", page.total_items)
    if page.following is not None:
        return {**cursor, "offset": page.following, "total": total}
    if page.total_items < total and cursor["offset"] > 0 and cursor["round"] < ROUNDS:
        return {"offset": 0, "round": cursor["round"] + 1, "total": page.total_items}
    return None


def _add_page(conn: Connection, one: KnownCampaign, page: ReportPage, following: dict[str, Any] | None) -> None:
    if rows.add_targets(conn, one, page.rows) and following is not None:
        rows.move(conn, one, following)
    else:
        rows.finish(conn, one)


def _store_page(conn: Connection, one: KnownCampaign, link: str, page: ReportPage, after: Mapping[str, Any]) -> None:
    counts, last = {}, {}
    for row in page.rows:
        key = row.get("email_id")
        if isinstance(key, str):
            counts[key] = as_count(row.get("clicks" if link else "opens_count"))
            last[key] = None if link else _last_open(row.get("opens"))
    rows.store_responses(conn, one, link, page.rows, counts, last)
    rows.move(conn, one, after or None, **({} if after else {"figures_s": int(time.time())}))


def _last_open(opens: object) -> int | None:
    """The last of the times in a row of a report, in UTC seconds."""
    times = (
        [find_instant(one.get("timestamp")) for one in opens if isinstance(one, dict)]
        if isinstance(opens, list)
        else []
    )
    return max((int(at.timestamp()) for at in times if at is not None), default=None)
