"""readyToFetch: members' news becomes cache rows, page by page.

A full fetch never takes absence for leaving, since pages drift while people come and go. Members that it did not meet
are asked for one by one afterwards: only that shows who was deleted for good.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, or_, select

from civiapi.store.dialect import unindexed
from sync import cache as rows
from sync.audience import RECEIVES_MAIL
from sync.mailchimp.paging import MemberPage
from sync.mailchimp.wire import Member, format_instant
from sync.positions import Question
from sync.skew import steady_skew
from sync.stages.base import Run, RunRequest, Step
from sync.tables import cache, member, update

EVER = "ever"
ASKED_A_BIT = 50


async def fetch_members(run: Run) -> None:
    """Bring the cache up to date with Mailchimp: everything, or what changed since the last sync."""
    if run.position.question is None or run.cursor is None:
        await run.commit(_begin, run.request, run.ctx.options.overlap_seconds)
    stage = run.position.stage
    if run.cursor is not None and run.cursor.get("phase") == "pages":
        await _read_pages(run)
        if run.is_out_of_time():
            return
    while run.position.stage == stage:
        await _ask_for_missing(run)
        if run.is_out_of_time():
            return


def _begin(conn: Connection, step: Step, request: RunRequest, overlap: int) -> None:
    """Settle what this run is asked; whoever continues it finds it written down."""
    position = step.position
    since = None if request.since == EVER else request.since or step.audience.clock.read(position.last_sync_time)
    asked = int(since.timestamp()) - overlap if isinstance(since, datetime) else None
    if asked is None:
        position.serial += 1
    position.question = Question(
        since=asked,
        with_data=request.with_data,
        confirmed=request.confirm,
        serial=position.serial,
        started=int(step.at.timestamp()),
        contacts_since=position.last_started if asked is not None else None,
    )
    position.log = []
    position.progress = {}
    step.stay(phase="pages", at=None)
    moment = datetime.fromtimestamp(asked, UTC) if asked is not None else None
    position.fetch = {"since": format_instant(moment) if moment else "", "offset": 0}
    step.say(f"Fetching members changed since {format_instant(moment)}." if moment else "Fetching all members.")


async def _read_pages(run: Run) -> None:
    question, stage = run.question, run.position.stage
    since = datetime.fromtimestamp(question.since, UTC) if question.since is not None else None
    cursor = (run.cursor or {}).get("at")
    client = run.client
    pages = client.iter_member_pages(
        run.audience.list_id, since=since, cursor=cursor, parallel=run.ctx.options.fetch_parallel
    )
    try:
        async for page in pages:
            step = await run.commit(_merge_page, page, steady_skew(client.clock_offset()))
            if step.suspects:
                await _settle_suspects(run, page, step.suspects)
            if run.position.stage != stage or run.is_out_of_time():
                return
    finally:
        await pages.aclose()


def _merge_page(conn: Connection, step: Step, page: MemberPage, skew: timedelta) -> None:
    question, position = step.question, step.position
    if question.server_started is None:
        question = replace(question, server_started=int(page.server_time.timestamp()), skew=int(skew.total_seconds()))
        position.question = question
    merged = rows.merge_page(
        conn,
        step.audience,
        page.members,
        skew=timedelta(seconds=question.skew),
        serial=question.serial if question.is_full else None,
        suspect=True,
    )
    step.suspects, step.total = merged.suspects, page.total_items
    step.counts.update(
        members=len(page.members), new=merged.new, changed=merged.changed, unusable=merged.unusable, pages=1
    )
    if not merged.suspects:
        _move_on(step, page)


def _move_on(step: Step, page: MemberPage) -> None:
    """Go on after a page that is merged whole."""
    question, position = step.question, step.position
    position.fetch = {**position.fetch, "offset": page.offset + len(page.members)}
    if page.cursor is not None:
        step.stay(phase="pages", at=page.cursor)
    elif question.is_full:
        step.stay(phase="missing", after=0)
    else:
        _complete(step)


def _complete(step: Step) -> None:
    question = step.question
    started = datetime.fromtimestamp(question.server_started or question.started, UTC)
    step.position.last_sync_time = step.audience.clock.write(started)
    step.position.fetch = {"since": "", "offset": 0}
    step.say("Fetched what Mailchimp has to tell.")
    step.finish()


async def _settle_suspects(run: Run, page: MemberPage, suspects: Mapping[str, tuple[int, str]]) -> None:
    """Members known by Mailchimp's contact id only: when their old id is gone, it is their address that changed."""
    moved = {}
    for new_id, (cache_id, old_id) in suspects.items():
        if await run.client.find_member(run.audience.list_id, old_id) is None:
            moved[new_id] = cache_id
    await run.commit(_merge_suspects, page, suspects, moved)


def _merge_suspects(
    conn: Connection, step: Step, page: MemberPage, suspects: Mapping[str, tuple[int, str]], moved: Mapping[str, int]
) -> None:
    question = step.question
    merged = rows.merge_page(
        conn,
        step.audience,
        [one for one in page.members if one.get("id") in suspects],
        skew=timedelta(seconds=question.skew),
        serial=question.serial if question.is_full else None,
        moved=moved,
    )
    step.counts.update(moved=len(moved), new=merged.new, changed=merged.changed)
    _move_on(step, page)


async def _ask_for_missing(run: Run) -> None:
    """Ask for the next few members that this full fetch did not meet, and write down who is gone."""
    after = int((run.cursor or {}).get("after", 0))
    missing = await run.ctx.store.read(_not_met, run.audience.list_id, run.question.serial, after)
    asked_at = datetime.now(UTC) + (run.client.clock_offset() or timedelta(0))
    found = await asyncio.gather(*(run.client.find_member(run.audience.list_id, one_id) for _, one_id in missing))
    gone = [cache_id for (cache_id, _), told in zip(missing, found, strict=True) if told is None]
    await run.commit(_settle_missing, [told for told in found if told is not None], gone, asked_at, missing)


def _not_met(conn: Connection, list_id: str, serial: int, after: int) -> list[tuple[int, str]]:
    """Members in the audience, by what we know, whom this fetch did not meet; those with open updates are left alone.

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
        .limit(ASKED_A_BIT)
    )
    return [(row.id, row.mailchimp_member_id) for row in found]


def _settle_missing(
    conn: Connection,
    step: Step,
    found: list[Member],
    gone: list[int],
    asked_at: datetime,
    missing: list[tuple[int, str]],
) -> None:
    skew = timedelta(seconds=step.question.skew)
    rows.merge_page(conn, step.audience, found, skew=skew, serial=step.question.serial)
    rows.mark_gone(conn, step.audience, gone, asked_at.replace(microsecond=0), skew=skew)
    step.counts.update(asked=len(missing), gone=len(gone))
    if len(missing) == ASKED_A_BIT:
        step.stay(phase="missing", after=missing[-1][0])
        return
    if step.counts["gone"]:
        step.say(f"{len(gone)} members are gone from Mailchimp for good.")
    _complete(step)
