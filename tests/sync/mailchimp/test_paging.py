"""Walking a listing that changes under one's feet: nothing that stays is missed, and a walk resumes anywhere.

The listing here is a plain list, paged by offset as Mailchimp does; `events` happen between its answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sync.mailchimp.paging import MemberPage, floor, walk
from sync.mailchimp.wire import Member, format_instant

START = datetime(2026, 1, 9, 10, tzinfo=UTC)


def a_row(number: int, second: int = 0) -> Member:
    return {
        "id": f"m{number}",
        "last_changed": format_instant(START + timedelta(seconds=second)),
        "status": "subscribed",
    }


@dataclass
class Listing:
    """An audience whose rows leave and change while it is read; `asked` notes every question."""

    rows: list[Member]
    count: int = 20
    inclusive: bool = False
    clamp: int | None = None
    has_total: bool = True
    meanwhile: Callable[[Listing], None] = lambda listing: None
    asked: list[tuple[str | None, datetime | None, int]] = field(default_factory=list)

    async def ask(self, status: str | None, since: datetime | None, offset: int) -> MemberPage:
        assert len(self.asked) < 2000, "the walk does not come to an end"
        self.asked.append((status, since, offset))
        found = [row for row in self.rows if (row["status"] == "archived") == (status == "archived")]
        if since is not None:
            found = [row for row in found if self._is_after(row, since)]
            found.sort(key=lambda row: row["last_changed"])
        await asyncio.sleep(0)
        page = found[offset : offset + min(self.count, self.clamp or self.count)]
        self.meanwhile(self)
        return MemberPage([row.copy() for row in page], len(found) if self.has_total else None, START, offset)

    def _is_after(self, row: Member, since: datetime) -> bool:
        changed = datetime.fromisoformat(row["last_changed"])
        return changed >= since if self.inclusive else changed > since

    async def walked(self, since: datetime | None = None, **more: object) -> list[MemberPage]:
        return [page async for page in walk(self.ask, since=since, count=self.count, **more)]  # type: ignore[arg-type]


def ids(pages: list[MemberPage]) -> list[str]:
    return [member["id"] for page in pages for member in page.members]


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("size", [0, 1, 19, 20, 21, 38, 200])
async def test_a_still_audience_is_walked_once_and_in_order(size: int, parallel: int) -> None:
    listing = Listing([a_row(number) for number in range(size)])
    pages = await listing.walked(parallel=parallel, passes=(None,))
    assert ids(pages) == [f"m{number}" for number in range(size)]
    assert pages[-1].cursor is None
    assert all(page.cursor is not None for page in pages[:-1])


async def test_pages_are_read_ahead_only_as_far_as_asked_and_never_past_the_end() -> None:
    listing = Listing([a_row(number) for number in range(200)])
    async for page in walk(listing.ask, since=None, count=20, parallel=3, passes=(None,)):
        assert len(listing.asked) <= page.offset // 18 + 4
    assert max(offset for _, _, offset in listing.asked) < 200


async def test_a_walk_that_is_given_up_leaves_no_request_running() -> None:
    listing = Listing([a_row(number) for number in range(200)])
    pages = walk(listing.ask, since=None, count=20, parallel=3)
    await anext(pages)
    await anext(pages)
    await pages.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_second_pass_asks_for_archived_members() -> None:
    archived: Member = {**a_row(99), "status": "archived"}
    listing = Listing([a_row(1), archived])
    pages = await listing.walked()
    assert ids(pages) == ["m1", "m99"]
    assert [status for status, _, _ in listing.asked] == [None, "archived"]


async def test_when_nothing_changed_each_pass_costs_one_request() -> None:
    listing = Listing([a_row(number) for number in range(500)])
    assert ids(await listing.walked(START + timedelta(hours=1))) == []
    assert len(listing.asked) == 2


async def test_a_short_page_ends_a_walk_even_when_the_total_moved() -> None:
    listing = Listing([a_row(number) for number in range(30)])
    await listing.walked(passes=(None,))
    assert [offset for _, _, offset in listing.asked] == [0, 18]


@pytest.mark.parametrize("since", [None, START - timedelta(seconds=1)])
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("has_total", [True, False])
@pytest.mark.parametrize("clamp", [1, 2, 7, 20])
async def test_a_server_that_gives_fewer_rows_than_asked_for_is_read_to_the_end(
    clamp: int, has_total: bool, parallel: int, since: datetime | None
) -> None:
    rows = [a_row(number, second=number // 9) for number in range(50)]
    listing = Listing(rows, clamp=clamp, has_total=has_total)
    pages = await listing.walked(since, parallel=parallel, passes=(None,))
    assert set(ids(pages)) == {row["id"] for row in rows}
    assert pages[-1].cursor is None


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("leaving", [1, 2, 3, 15, 40])
async def test_rows_that_leave_make_no_other_row_slip_over_a_page_boundary(leaving: int, parallel: int) -> None:
    def leave(listing: Listing) -> None:
        if len(listing.asked) in (1, 3):
            del listing.rows[:leaving]

    listing = Listing([a_row(number) for number in range(150)], meanwhile=leave)
    seen = set(ids(await listing.walked(parallel=parallel, passes=(None,))))
    assert seen >= {row["id"] for row in listing.rows}


@pytest.mark.parametrize("inclusive", [False, True])
async def test_an_incremental_walk_goes_by_key_not_by_offset(inclusive: bool) -> None:
    rows = [a_row(number, second=number) for number in range(100)]
    listing = Listing(rows, inclusive=inclusive)
    assert set(ids(await listing.walked(START - timedelta(seconds=1), passes=(None,)))) == {row["id"] for row in rows}
    assert {offset for _, _, offset in listing.asked} == {0}


@pytest.mark.parametrize("inclusive", [False, True])
async def test_when_a_whole_page_bears_one_second_the_walk_goes_on_by_offset_within_it(inclusive: bool) -> None:
    rows = [a_row(number, second=5 if 10 <= number < 90 else number) for number in range(120)]
    rows.sort(key=lambda row: row["last_changed"])
    listing = Listing(rows, inclusive=inclusive)
    seen = ids(await listing.walked(START - timedelta(seconds=1), passes=(None,)))
    assert set(seen) == {row["id"] for row in rows}
    assert any(offset for _, _, offset in listing.asked)


async def test_a_row_that_changes_during_an_incremental_walk_comes_again_with_its_change() -> None:
    def change(listing: Listing) -> None:
        if len(listing.asked) == 1:
            listing.rows[0] = {**listing.rows[0], "last_changed": a_row(0, 500)["last_changed"]}

    listing = Listing([a_row(number, second=number) for number in range(50)], meanwhile=change)
    pages = await listing.walked(START - timedelta(seconds=1), passes=(None,))
    assert ids(pages).count("m0") == 2
    assert set(ids(pages)) == {f"m{number}" for number in range(50)}


async def test_a_row_of_the_page_before_is_given_again_only_if_it_changed() -> None:
    def change(listing: Listing) -> None:
        listing.rows[19] = a_row(19, 500)

    listing = Listing([a_row(number) for number in range(30)], meanwhile=change)
    pages = await listing.walked(passes=(None,))
    assert ids(pages).count("m18") == 1
    assert ids(pages).count("m19") == 2


@pytest.mark.parametrize("since", [None, START - timedelta(seconds=1)])
async def test_a_cursor_through_json_goes_on_where_any_page_ended(since: datetime | None) -> None:
    rows = [a_row(number, second=number // 7) for number in range(130)]
    rows += [{**a_row(number, number), "status": "archived"} for number in range(200, 230)]
    whole = await Listing(rows).walked(since)
    for page, _ in pairwise(whole):
        before = whole[: whole.index(page) + 1]
        cursor = json.loads(json.dumps(page.cursor))
        after = await Listing(rows).walked(since, cursor=cursor)
        assert set(ids(before)) | set(ids(after)) == {row["id"] for row in rows}
        assert len(after) < len(whole)


async def test_rows_that_left_while_a_walk_was_stopped_leave_no_gap() -> None:
    listing = Listing([a_row(number) for number in range(150)])
    pages = walk(listing.ask, since=None, count=20, passes=(None,))
    seen = [await anext(pages), await anext(pages), await anext(pages)]
    await pages.aclose()
    del listing.rows[:30]
    seen += await listing.walked(cursor=seen[-1].cursor, passes=(None,))
    assert set(ids(seen)) >= {row["id"] for row in listing.rows}


async def test_a_cursor_is_small() -> None:
    listing = Listing([{**a_row(0), "id": f"{number:032x}"} for number in range(3000)], count=1000)
    pages = await listing.walked()
    assert max(len(json.dumps(page.cursor)) for page in pages) < 600


async def test_an_order_that_never_holds_still_cannot_keep_a_walk_from_ending() -> None:
    rng = Random(3)
    listing = Listing([a_row(number) for number in range(300)], meanwhile=lambda listing: rng.shuffle(listing.rows))
    assert len(await listing.walked(passes=(None,))) >= 15


@given(
    size=st.integers(0, 120),
    count=st.integers(1, 25),
    parallel=st.integers(1, 4),
    leaving=st.lists(st.lists(st.integers(0, 119), max_size=15), max_size=12),
)
@settings(max_examples=150)
def test_whoever_stays_is_seen_whatever_leaves_meanwhile(
    size: int, count: int, parallel: int, leaving: list[list[int]]
) -> None:
    waves = iter(leaving)

    def leave(listing: Listing) -> None:
        gone = {f"m{number}" for number in next(waves, [])}
        listing.rows[:] = [row for row in listing.rows if row["id"] not in gone]

    listing = Listing([a_row(number) for number in range(size)], count=count, meanwhile=leave)
    seen = set(ids(asyncio.run(listing.walked(parallel=parallel, passes=(None,)))))
    # A page of one row can overlap nothing.
    assert count == 1 or seen >= {row["id"] for row in listing.rows}


@example(seconds=[0] * 9 + [1, 0], count=10, inclusive=False, changing=[[0, 10]])  # the last of a page moves to the end
@given(
    seconds=st.lists(st.integers(0, 12), max_size=120),
    count=st.integers(2, 25),
    inclusive=st.booleans(),
    changing=st.lists(st.lists(st.integers(0, 119), max_size=15), max_size=12),
)
@settings(max_examples=150)
def test_an_incremental_walk_sees_every_row_as_it_was_last(
    seconds: list[int], count: int, inclusive: bool, changing: list[list[int]]
) -> None:
    waves = iter(enumerate(changing))

    def change(listing: Listing) -> None:
        wave, numbers = next(waves, (0, []))
        for number in numbers:
            if number < len(listing.rows):
                listing.rows[number] = a_row(number, 1000 + wave)

    rows = [a_row(number, second) for number, second in enumerate(seconds)]
    listing = Listing(rows, count=count, inclusive=inclusive, meanwhile=change)
    pages = asyncio.run(listing.walked(START - timedelta(seconds=1), passes=(None,)))
    last_seen = {member["id"]: member["last_changed"] for page in pages for member in page.members}
    last_wave = [numbers for numbers in changing[: len(listing.asked)] if numbers][-1:]
    late = {f"m{number}" for numbers in last_wave for number in numbers}
    assert {row["id"] for row in rows} == set(last_seen)
    assert all(last_seen[row["id"]] == row["last_changed"] for row in rows if row["id"] not in late)


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        pytest.param(None, None, id="No time asks for everything."),
        pytest.param(datetime(1970, 1, 1, tzinfo=UTC), None, id="A time that Mailchimp hangs on asks for everything."),
        pytest.param(
            datetime(2026, 1, 9, 12, 0, 1, 5, tzinfo=timezone(timedelta(hours=2))),
            START + timedelta(seconds=1),
            id="A time becomes UTC and whole seconds.",
        ),
    ],
)
def test_since_when_a_walk_asks(since: datetime | None, expected: datetime | None) -> None:
    assert floor(since) == expected


def test_a_since_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        floor(datetime(2026, 1, 9))
