"""readyToFetch: changed members are merged into cache rows, page by page.

A member missing from a full fetch need not have left, since pages shift while members come and go. Missing members are
fetched one by one afterwards; only that shows which were deleted for good.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, or_, select

from civiapi.store.databases.expressions import unindexed
from sync.audience import is_permission
from sync.connections.config import note_interests
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.paging import MemberPage, Position, floor
from sync.mailchimp.wire import PERMISSION, Member, find_instant, format_instant, read_permissions
from sync.model import RECEIVES_MAIL
from sync.runs.run import Run, RunRequest, Step
from sync.store.events import CONFIRM, record
from sync.store.members import cache_merge as rows
from sync.store.members.no_address import forget_unseen
from sync.store.runs.checkpoints import RunParameters
from sync.store.tables import cache, member, update

EVER = "ever"


async def fetch_members(run: Run) -> None:
    """Bring the cache up to date with Mailchimp: all members, or those changed since the last sync."""
    if run.checkpoint.parameters is None or run.cursor is None:
        await run.commit(_begin, run.request, run.ctx.settings.sync.overlap_seconds, run.ctx.sizes.members_per_page)
    stage = run.checkpoint.stage
    if run.cursor is not None and run.cursor.get("phase") == "pages":
        await _read_pages(run)
        if run.is_out_of_time():
            return
    while run.checkpoint.stage == stage:
        await _fetch_missing(run)
        if run.is_out_of_time():
            return


def _begin(conn: Connection, step: Step, request: RunRequest, overlap: int, page: int) -> None:
    """Store the parameters of this run; a process that continues it uses the same."""
    if request.confirm and not request.by.is_schedule:
        record(
            conn, CONFIRM, step.audience.list_id, "Confirmed in advance: whatever the sync removes or adds.", request.by
        )
    checkpoint = step.checkpoint
    is_theirs = checkpoint.is_fetching and checkpoint.parameters is None
    unfinished, checkpoint.repeats_fetch = is_theirs or checkpoint.repeats_fetch, False
    if unfinished and request.since != EVER:
        _continue(step, request, page)
        return
    since = None if request.since == EVER else request.since or checkpoint.last_sync(step.audience.clock, step.at)
    is_read = isinstance(since, datetime) and not _links_unread_permission(step)
    asked = max(0, int(since.timestamp()) - overlap) if isinstance(since, datetime) and is_read else None
    if asked is None:
        checkpoint.serial += 1
    checkpoint.parameters = RunParameters(
        since=asked,
        with_data=request.with_data,
        confirmed=request.confirm,
        serial=checkpoint.serial,
        started=int(step.at.timestamp()),
        contacts_since=checkpoint.last_started if asked is not None else None,
    )
    checkpoint.log = []
    checkpoint.progress = {}
    step.continue_from(phase="pages", at=None)
    moment = datetime.fromtimestamp(asked, UTC) if asked is not None else None
    checkpoint.fetch = {"since": format_instant(moment) if moment else "", "offset": 0}
    step.log(f"Fetching members changed since {format_instant(moment)}." if moment else "Fetching all members.")


def _links_unread_permission(step: Step) -> bool:
    """Whether a marketing permission is linked since the last run: members fetched by an earlier version, which did not
    read permissions, may have it."""
    return any(is_permission(key) for key in step.audience.interests if key not in step.checkpoint.interests)


def _continue(step: Step, request: RunRequest, page: int) -> None:
    """Continue the fetch that the extension began.

    Its ``lastSyncTime`` is the start of that same fetch, so fetching changes since then would miss everybody after the
    offset for good. A full fetch continues one page before the offset, because members move to earlier pages when
    others leave. Changes since a date are few, and listed in another order there: they are fetched from the first one.
    ``lastSyncTime`` stays, so that the next sync reads what changed before the offset meanwhile.
    """
    checkpoint = step.checkpoint
    since = _read_since(step, checkpoint.fetch.get("since"))
    met = checkpoint.fetch.get("offset")
    offset = max(0, met - page) if since is None and isinstance(met, int) else 0
    if since is None:
        checkpoint.serial += 1
    checkpoint.parameters = RunParameters(
        since=int(since.timestamp()) if since is not None else None,
        with_data=request.with_data,
        confirmed=request.confirm,
        serial=checkpoint.serial,
        started=int(step.at.timestamp()),
        continued=dict(checkpoint.fetch),
    )
    checkpoint.progress = {}
    start = Position(since=floor(since), offset=offset)
    step.continue_from(phase="pages", at=start.to_cursor())
    checkpoint.fetch = {"since": format_instant(since) if since else "", "offset": offset}
    step.log(f"Continuing the fetch that CiviCRM's extension began, at member {offset}.")


def _read_since(step: Step, text: object) -> datetime | None:
    """Since when the extension fetches; None for everybody, and for what cannot be read.

    A time without a zone may be UTC or the site's: the earlier one misses nobody.
    """
    instant = find_instant(text)
    at_site = step.audience.clock.read(text) if isinstance(text, str) and "+" not in text and "Z" not in text else None
    return min(instant, at_site) if instant and at_site else instant


async def _read_pages(run: Run) -> None:
    parameters, stage = run.parameters, run.checkpoint.stage
    since = datetime.fromtimestamp(parameters.since, UTC) if parameters.since is not None else None
    cursor = (run.cursor or {}).get("at")
    client = run.client
    pages = client.iter_member_pages(
        run.audience.list_id,
        since=since,
        cursor=cursor,
        parallel=run.ctx.settings.sync.fetch_parallel,
        count=run.ctx.sizes.members_per_page,
    )
    try:
        async for page in pages:
            step = await run.commit(_merge_page, page, client.skew())
            run.audience = step.audience
            if step.possible_renames:
                await _resolve_renames(run, page, step.possible_renames)
            if run.checkpoint.stage != stage or run.is_out_of_time():
                return
    finally:
        await pages.aclose()


def _merge_page(conn: Connection, step: Step, page: MemberPage, skew: timedelta) -> None:
    parameters, checkpoint = step.parameters, step.checkpoint
    if parameters.server_started is None:
        parameters = replace(
            parameters, server_started=int(page.server_time.timestamp()), skew=int(skew.total_seconds())
        )
        checkpoint.parameters = parameters
    merged = rows.merge_page(
        conn,
        step.audience,
        page.members,
        skew=timedelta(seconds=parameters.skew),
        serial=parameters.serial if parameters.is_full else None,
        find_renames=True,
    )
    step.possible_renames, step.total = merged.possible_renames, page.total_items
    step.counts.update(
        members=len(page.members), new=merged.new, changed=merged.changed, unusable=merged.unusable, pages=1
    )
    _note_permissions(conn, step, page.members)
    if not merged.possible_renames:
        _advance(conn, step, page)


def _note_permissions(conn: Connection, step: Step, members: Sequence[Member]) -> None:
    """Mark linked marketing permissions that these members do not list any more, or list again.

    Every member lists all permissions of the audience, or none where it has no GDPR fields (any more). The rest of the
    run leaves out those that are gone; those that are there again are for the next run.
    """
    audience = step.audience
    linked = [key for key in audience.interests if is_permission(key)]
    marked = [key for key in audience.gone if is_permission(key)]
    if not linked and not marked:
        return
    subscribed = [one for one in members if one.get("status") in RECEIVES_MAIL]
    listed = {PERMISSION + key: text for one in subscribed for key, text, _ in read_permissions(one)}
    gone, back = set(linked) - listed.keys(), listed.keys() & marked
    if not subscribed or not (gone or back):
        return
    note_interests(conn, audience.list_id, listed, ("permissions",))
    left = {key: group_id for key, group_id in audience.interests.items() if key not in gone}
    step.audience = replace(audience, interests=left, gone=(audience.gone | gone) - back)


def _advance(conn: Connection, step: Step, page: MemberPage) -> None:
    """Move the checkpoint after a page that is fully merged."""
    parameters, checkpoint = step.parameters, step.checkpoint
    checkpoint.fetch = {**checkpoint.fetch, "offset": page.offset + len(page.members)}
    if page.cursor is not None:
        step.continue_from(phase="pages", at=page.cursor)
    elif parameters.is_full and not parameters.continued:  # one that was continued has not met everybody itself
        step.continue_from(phase="missing", after=0)
    else:
        _complete(conn, step)


def _complete(conn: Connection, step: Step) -> None:
    parameters = step.parameters
    if parameters.is_full and not parameters.continued:
        forget_unseen(conn, step.audience.list_id, parameters.serial)
    started = datetime.fromtimestamp(parameters.server_started or parameters.started, UTC)
    if not parameters.continued or step.checkpoint.last_sync_time is None:
        step.checkpoint.last_sync_time = step.audience.clock.write(started)
    step.checkpoint.fetch = {"since": "", "offset": 0}
    step.log("All changes at Mailchimp are fetched.")
    step.finish()


async def _resolve_renames(run: Run, page: MemberPage, possible_renames: Mapping[str, tuple[int, str]]) -> None:
    """Merge members known only by Mailchimp's contact id."""
    moved = await find_moved(run.client, run.audience.list_id, possible_renames)
    await run.commit(_merge_renames, page, possible_renames, moved)


async def find_moved(
    client: MailchimpClient, list_id: str, possible_renames: Mapping[str, tuple[int, str]]
) -> dict[str, int]:
    """The rows of those members whose address has changed, by new id: their old id is gone at Mailchimp.

    *possible_renames*: new id → row and old id (``cache_merge.Merged``). Raises MailchimpError.
    """
    return {
        new_id: cache_id
        for new_id, (cache_id, old_id) in possible_renames.items()
        if await client.find_member(list_id, old_id) is None
    }


def _merge_renames(
    conn: Connection,
    step: Step,
    page: MemberPage,
    possible_renames: Mapping[str, tuple[int, str]],
    moved: Mapping[str, int],
) -> None:
    parameters = step.parameters
    merged = rows.merge_page(
        conn,
        step.audience,
        [one for one in page.members if one.get("id") in possible_renames],
        skew=timedelta(seconds=parameters.skew),
        serial=parameters.serial if parameters.is_full else None,
        moved=moved,
    )
    step.counts.update(moved=len(moved), new=merged.new, changed=merged.changed)
    _advance(conn, step, page)


async def _fetch_missing(run: Run) -> None:
    """Fetch the next few members missing from this full fetch one by one, and mark those that are gone."""
    after = int((run.cursor or {}).get("after", 0))
    limit = run.ctx.sizes.members_per_lookup
    missing = await run.ctx.store.read(_find_missing, run.audience.list_id, run.parameters.serial, after, limit)
    asked_at = run.client.now()
    found = await asyncio.gather(*(run.client.find_member(run.audience.list_id, one_id) for _, one_id in missing))
    gone = [cache_id for (cache_id, _), one in zip(missing, found, strict=True) if one is None]
    await run.commit(_merge_missing, [one for one in found if one is not None], gone, asked_at, missing)


def _find_missing(conn: Connection, list_id: str, serial: int, after: int, limit: int) -> list[tuple[int, str]]:
    """Members in the audience by their rows that this full fetch did not contain, except those with open updates.

    Their address may be just changing, and their old id gone with it.
    """
    open_update = select(update.c.id).where(update.c.mailchimpsync_cache_id == cache.c.id, update.c.completed == 0)
    found = conn.execute(
        select(cache.c.id, cache.c.mailchimp_member_id)
        .outerjoin(member, member.c.cache_id == cache.c.id)
        .where(
            unindexed(cache.c.mailchimp_list_id) == list_id,  # in the order of ids
            cache.c.id > after,
            cache.c.mailchimp_status.in_(sorted(RECEIVES_MAIL)),
            cache.c.mailchimp_member_id.is_not(None),
            or_(member.c.seen.is_(None), member.c.seen != serial),
            ~open_update.correlate(cache).exists(),
        )
        .order_by(cache.c.id)
        .limit(limit)
    )
    return [(row.id, row.mailchimp_member_id) for row in found]


def _merge_missing(
    conn: Connection,
    step: Step,
    found: list[Member],
    gone: list[int],
    asked_at: datetime,
    missing: list[tuple[int, str]],
) -> None:
    skew = timedelta(seconds=step.parameters.skew)
    rows.merge_page(conn, step.audience, found, skew=skew, serial=step.parameters.serial)
    rows.mark_gone(conn, step.audience, gone, asked_at.replace(microsecond=0), skew=skew)
    step.counts.update(asked=len(missing), gone=len(gone))
    if len(missing) == step.sizes.members_per_lookup:
        step.continue_from(phase="missing", after=missing[-1][0])
        return
    if step.counts["gone"]:
        step.log(f"{len(gone)} members were deleted at Mailchimp.")
    _complete(conn, step)
