"""The listing of members: filters, order, pages, fields."""

from __future__ import annotations

import pytest

from sync.emulator.data.generate import Shares, generate
from sync.emulator.model.records import STATUSES
from sync.mailchimp.wire import subscriber_hash
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, member_path, with_interests


def three_members(mailchimp: Mailchimp) -> list[str]:
    emails = ["a@example.org", "b@example.org", "c@example.org"]
    for email in emails:
        mailchimp.put(email)
        mailchimp.later(1)
    return emails


def test_since_leaves_out_its_own_second_unless_the_option_says_otherwise(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    noon = {"since_last_changed": "2026-01-09T12:00:00+00:00"}
    assert mailchimp.members(**noon) == emails[1:]
    mailchimp.world.configure({"since_inclusive": True})
    assert mailchimp.members(**noon) == emails
    assert mailchimp.members(**noon, before_last_changed="2026-01-09T12:00:02+00:00") == emails[:2]


def test_since_ignores_the_zone_unless_the_option_says_otherwise(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    since = {"since_last_changed": "2026-01-09T14:00:00+02:00"}
    assert mailchimp.members(**since) == []
    mailchimp.world.configure({"since_ignores_offset": False})
    assert mailchimp.members(**since) == emails[1:]


SINCE = [
    ("2026-01-09T11:59:59.1234567+00:00", 200, "Seven fractional digits return everybody"),
    ("2030-01-01T00:00:00.1234567+00:00", 200, "Seven fractional digits return everybody, whatever the time"),
    ("yesterday-ish", 400, "Junk is refused"),
    ("1970-01-01T00:00:00+00:00", 504, "An ancient time hangs"),
    ("1900-01-01T00:00:00+00:00", 504, "A more ancient time hangs as well"),
]


@pytest.mark.parametrize(("since", "status"), [row[:2] for row in SINCE], ids=[row[2] for row in SINCE])
def test_odd_times(mailchimp: Mailchimp, since: str, status: int) -> None:
    three_members(mailchimp)
    answer = mailchimp.ask("GET", f"/lists/{LIST}/members", since_last_changed=since)
    assert (answer.status, answer.hangs) == (status, status == 504)
    if status == 200:
        assert answer.body["total_items"] == 3


def test_an_ancient_time_can_be_made_to_work() -> None:
    mailchimp = Mailchimp(since_ancient_hangs=False)
    assert mailchimp.members(since_last_changed="1970-01-01T00:00:00+00:00") == []


def test_without_a_status_everybody_but_the_archived_is_listed(mailchimp: Mailchimp) -> None:
    for status in STATUSES:
        mailchimp.a_member(status, f"{status}@example.org")
    assert set(mailchimp.members()) == {f"{status}@example.org" for status in STATUSES} - {"archived@example.org"}
    for status in STATUSES:
        assert mailchimp.members(status=status) == [f"{status}@example.org"]
    mailchimp.world.configure({"listing_default_archived": True})
    assert len(mailchimp.members()) == len(STATUSES)


REFUSED_QUERIES: list[dict[str, str]] = [
    {"count": "1001"},
    {"count": "-1"},
    {"count": "ten"},
    {"offset": "9" * 5000},
    {"status": "gone"},
    {"sort_field": "email"},
    {"sort_dir": "up"},
    {"unsubscribed_since": "2026-01-01T00:00:00+00:00"},
    {"since_last_campaign": "true"},
    {"interest_ids": "a"},
]


@pytest.mark.parametrize("query", REFUSED_QUERIES, ids=str)
def test_queries_that_are_refused(mailchimp: Mailchimp, query: dict[str, str]) -> None:
    answer = mailchimp.ask("GET", f"/lists/{LIST}/members", **query)
    assert (answer.status, answer.body["title"]) == (400, "Invalid Resource")


def test_a_page_has_ten_members_unless_asked_otherwise(mailchimp: Mailchimp) -> None:
    generate(mailchimp.audience, 25, now=mailchimp.world.clock.seconds(), shares=Shares(0, 0, 0, 0, 0))
    body = mailchimp.ask("GET", f"/lists/{LIST}/members").body
    assert (len(body["members"]), body["total_items"]) == (10, 25)
    assert len(mailchimp.members(count="20", offset="20")) == 5
    assert mailchimp.members(offset="99") == []


def test_fields_are_paths_from_the_root(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada"})
    path = f"/lists/{LIST}/members"
    only = mailchimp.ask("GET", path, fields="members.id,members.merge_fields.FNAME").body
    assert only == {"members": [{"id": subscriber_hash(ADA), "merge_fields": {"FNAME": "Ada"}}]}
    without = mailchimp.ask("GET", path, exclude_fields="_links,members._links,members.merge_fields.FNAME").body
    assert "_links" not in without
    assert "_links" not in without["members"][0]
    assert "FNAME" not in without["members"][0]["merge_fields"]
    assert mailchimp.ask("GET", path, fields="total_items").body == {"total_items": 1}
    assert mailchimp.ask("GET", path, fields="members..id").body["title"] == "Requested Fields Invalid"
    assert mailchimp.ask("GET", member_path(ADA), fields="status").body == {"status": "subscribed"}


def test_sorting_by_last_change_goes_both_ways(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    mailchimp.put(emails[0])
    assert mailchimp.members(sort_field="last_changed") == [*emails[1:], emails[0]]
    assert mailchimp.members(sort_field="last_changed", sort_dir="DESC", count="2") == [emails[0], emails[2]]
    assert mailchimp.members(sort_field="last_changed", sort_dir="DESC", count="2", offset="2") == [emails[1]]


def test_a_row_that_changes_while_one_pages_makes_another_row_unseen(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    query = {"sort_field": "last_changed", "count": "1"}
    seen = mailchimp.members(**query)
    mailchimp.put(emails[0])
    seen += mailchimp.members(**query, offset="1") + mailchimp.members(**query, offset="2")
    assert emails[1] not in seen


FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({"vip_only": "true"}, ["b@example.org"]),
    ({"email_type": "text"}, ["c@example.org"]),
    ({"since_timestamp_opt": "2026-01-09T12:00:00+00:00"}, ["b@example.org", "c@example.org"]),
    ({"interest_category_id": "c" * 10, "interest_ids": "trees,seas", "interest_match": "any"}, ["a@example.org"]),
    ({"interest_category_id": "c" * 10, "interest_ids": "trees,seas", "interest_match": "all"}, []),
    (
        {"interest_category_id": "c" * 10, "interest_ids": "trees", "interest_match": "none", "vip_only": "1"},
        ["b@example.org"],
    ),
    ({"since_last_changed": "2026-01-09T12:00:30+00:00", "sort_field": "timestamp_opt"}, []),
]


@pytest.mark.parametrize(("query", "found"), FILTERS, ids=[str(row[0]) for row in FILTERS])
def test_the_rarer_filters(mailchimp: Mailchimp, query: dict[str, str], found: list[str]) -> None:
    with_interests(mailchimp)
    three_members(mailchimp)
    mailchimp.member("a@example.org").interests = frozenset({"trees"})
    mailchimp.member("b@example.org").vip = True
    mailchimp.member("c@example.org").email_type = "text"
    assert mailchimp.members(**query) == found
    assert mailchimp.members(**query) == found
