"""A fetch that the extension began, and did not finish, goes on where it stopped: nobody after that is lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from civiapi.store.clock import site_clock
from sync.context import UnitSizes
from tests.support.civicrm import ZONE
from tests.support.linked_site import Site
from tests.support.their_site import Theirs

TOMORROW = site_clock(ZONE).write(datetime.now(UTC) + timedelta(days=1))
"""A start of their run so late that a fetch since then meets nobody."""


@asynccontextmanager
async def small_pages(theirs: Theirs) -> AsyncIterator[Site]:
    """Our part of the site, which reads one member at a time."""
    async with theirs.taken_over() as site:
        site.ctx = replace(site.ctx, sizes=UnitSizes(members_per_page=1))
        yield site


async def met(site: Site) -> bool:
    """Whether the last of the members, whom the extension had not met, is in the cache."""
    return "newcomer@example.org" in {row.mailchimp_email for row in await site.rows()}


def first_offset(theirs: Theirs) -> int:
    asked = [one for one in theirs.emulator.requests if one.method == "GET" and one.path.endswith("/members")]
    return int(asked[0].query.get("offset", 0))


async def test_everybody_after_the_offset_is_met_though_the_last_sync_was_set_to_that_runs_start(
    theirs: Theirs,
) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.ran_out_of_time(2, last_sync=TOMORROW)
        outcome = await site.run()
        assert (outcome.outcome, await met(site)) == ("finished", True)
        assert first_offset(theirs) == 1  # a page before theirs: members move up when others leave
        assert (await site.status())["lastSyncTime"] == TOMORROW
        assert (await site.status())["fetch"] == {"since": "", "offset": 0}
    assert theirs.extension.lock() == "readyToFetch"


async def test_a_fetch_that_was_killed_in_a_page_goes_on_too(theirs: Theirs) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.store("readyToFetch", lastSyncTime=TOMORROW, minutes_ago=90)
        theirs.extension.was_killed_in_a_page(2)
        outcome = await site.run()
        assert (outcome.outcome, await met(site)) == ("finished", True)
        assert first_offset(theirs) == 1


async def test_killed_before_the_end_of_the_first_page_it_is_done_again(theirs: Theirs) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.store("readyToFetch", lastSyncTime=TOMORROW, minutes_ago=90)
        theirs.extension.was_killed_in_a_page(0)
        assert (await site.run()).outcome == "finished"
        assert await met(site)


async def test_a_fetch_of_changes_goes_on_with_its_own_since(theirs: Theirs) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.ran_out_of_time(2, since="2026-01-05 12:00:00", last_sync=TOMORROW)
        assert (await site.run()).outcome == "finished"
        assert await met(site)
    asked = [one.query.get("since_last_changed") for one in theirs.emulator.requests if one.path.endswith("/members")]
    assert asked[0] == "2026-01-05T09:00:00+00:00"


async def test_one_that_was_continued_and_stopped_goes_on_again(theirs: Theirs) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.ran_out_of_time(1, last_sync=TOMORROW)
        assert (await site.run(max_time=0.000001)).outcome == "paused"
        assert theirs.extension.status()["fetch"] == {"since": "", "offset": 1}  # so may the extension
        assert (await site.run()).outcome == "finished"
        assert await met(site)


async def test_a_sync_of_everybody_begins_at_the_first(theirs: Theirs) -> None:
    async with small_pages(theirs) as site:
        theirs.extension.ran_out_of_time(2, last_sync=TOMORROW)
        await site.run(since="ever")
        assert first_offset(theirs) == 0
