"""The client when Mailchimp, or what stands before it, misbehaves: what is repeated, and what callers are told."""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
import stamina
from aiohttp import web

from sync.emulator.server.running import Emulator, running_emulator
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import (
    BadKey,
    MailchimpError,
    NotFound,
    Refused,
    Throttled,
    Unreachable,
)
from sync.mailchimp.reports import ReportPage
from sync.mailchimp.transport import CallRecord, RetryPolicy
from sync.mailchimp.wire import subscriber_hash
from tests.support.fake_mailchimp import KEY, client_of, constant_answer
from tests.support.member_calls import MemberCalls, member_calls, put_member_operation

ADA = "ada@example.org"


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator(auto_batches=False) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[MailchimpClient]:
    async with MailchimpClient(emulator.key, base_url=emulator.root_url) as opened:
        yield opened


@pytest.fixture
def audience_id(emulator: Emulator) -> str:
    return emulator.audience().id


@pytest.fixture
async def members(emulator: Emulator, audience_id: str) -> AsyncIterator[MemberCalls]:
    async with member_calls(emulator.key, emulator.root_url, audience_id) as opened:
        yield opened


# What is repeated


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("429_json", id="A 429 with no Retry-After is waited out."),
        pytest.param("429_bare", id="A 429 without JSON is waited out."),
        pytest.param("403_html", id="A bare 403 is throttling, not a revoked key."),
        pytest.param("500", id="A server error is repeated."),
        pytest.param("502_html", id="A gateway's page is repeated."),
        pytest.param("503_block", id="A block page is repeated."),
        pytest.param("200_html", id="A 200 with an HTML page is no success."),
        pytest.param("reset_before", id="A reset before the write is repeated."),
        pytest.param("reset_after", id="A reset after the write is repeated: a PUT may come twice."),
        pytest.param("truncated_json", id="JSON that breaks off is no success."),
    ],
)
async def test_an_idempotent_call_is_repeated_until_it_succeeds(
    members: MemberCalls, emulator: Emulator, fault: str
) -> None:
    emulator.add_fault(fault, method="PUT", count=2)
    member = await members.put(ADA, {"email_address": ADA, "status_if_new": "subscribed"})
    assert member["status"] == "subscribed"
    assert len(emulator.requests) == 3
    assert len(emulator.audience().members) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "unknown"),
    [
        ("429_json", Throttled, False),
        ("403_html", Throttled, False),
        ("500", Unreachable, True),
        ("503_block", Unreachable, False),
        ("200_html", Unreachable, True),
        ("reset_before", Unreachable, True),
    ],
)
async def test_when_nothing_helps_the_last_error_is_told_with_what_is_known_of_the_outcome(
    members: MemberCalls,
    emulator: Emulator,
    fault: str,
    kind: type[MailchimpError],
    unknown: bool,
) -> None:
    emulator.add_fault(fault)
    with pytest.raises(kind) as caught:
        await members.patch(ADA, {"status": "unsubscribed"})
    assert (caught.value.may_be_retried, caught.value.outcome_unknown) == (True, unknown)
    assert len(emulator.requests) == 3


@pytest.mark.parametrize("fault", ["500", "502_html", "200_html", "reset_before", "reset_after", "truncated_json"])
async def test_a_batch_whose_submit_had_an_unknown_outcome_is_not_blindly_sent_again(
    client: MailchimpClient, emulator: Emulator, audience_id: str, fault: str
) -> None:
    emulator.add_fault(fault, method="POST", count=1)
    operation = put_member_operation(audience_id, subscriber_hash(ADA), {"email_address": ADA}, "1")
    with pytest.raises(Unreachable) as caught:
        await client.submit_batch([operation])
    assert caught.value.outcome_unknown
    assert len(emulator.requests) == 1
    submitted = [batch async for batch in client.iter_batches()]
    assert len(submitted) == (1 if fault in ("reset_after", "truncated_json") else 0)


@pytest.mark.parametrize("fault", ["429_json", "429_bare", "403_html", "503_block"])
async def test_a_batch_that_was_surely_turned_away_is_sent_again(
    client: MailchimpClient, emulator: Emulator, audience_id: str, fault: str
) -> None:
    emulator.add_fault(fault, method="POST", count=2)
    operation = put_member_operation(audience_id, subscriber_hash(ADA), {"email_address": ADA}, "1")
    assert (await client.submit_batch([operation])).status == "pending"
    assert len([batch async for batch in client.iter_batches()]) == 1


async def test_posting_a_member_or_a_webhook_is_not_repeated_after_a_reset(
    client: MailchimpClient, members: MemberCalls, emulator: Emulator, audience_id: str
) -> None:
    emulator.add_fault("reset_after", method="POST")
    with pytest.raises(Unreachable, match="may have been carried out"):
        await members.post({"email_address": ADA, "status": "subscribed"})
    with pytest.raises(Unreachable):
        await client.add_webhook(audience_id, f"{emulator.root_url}/hook")
    with pytest.raises(Unreachable):
        await client.add_batch_webhook(f"{emulator.root_url}/hook")
    assert [request.method for request in emulator.requests].count("POST") == 3
    assert emulator.member(ADA) is not None


async def test_tags_and_archiving_are_repeated_after_a_reset(members: MemberCalls, emulator: Emulator) -> None:
    emulator.admin("import", ADA)
    emulator.add_fault("reset_after", method="POST", count=1)
    emulator.add_fault("reset_after", method="DELETE", count=1)
    await members.tag(ADA, {"Vip": True})
    with pytest.raises(Refused, match="405"):  # the repeat, which finds it archived
        await members.archive(ADA)
    member = emulator.member(ADA)
    assert member is not None
    assert member.status == "archived"


async def test_an_address_that_nobody_answers_at_is_unreachable_and_nothing_was_carried_out() -> None:
    async with MailchimpClient(KEY, base_url="http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable) as caught:
            await client.submit_batch([])
    assert not caught.value.outcome_unknown
    assert caught.value.status is None


async def test_a_server_that_never_answers_is_given_up_on(emulator: Emulator) -> None:
    emulator.add_fault("hang")
    impatient = httpx.Timeout(10.0, read=0.05)
    async with MailchimpClient(emulator.key, base_url=emulator.root_url, timeout=impatient) as client:
        with pytest.raises(Unreachable) as caught:
            await client.get_account()
    assert caught.value.outcome_unknown
    assert "ReadTimeout" in caught.value.reason


async def test_a_request_past_mailchimps_time_limit_gets_a_page_and_is_repeated(emulator: Emulator) -> None:
    emulator.configure(time_limit_s=0.02)
    emulator.add_fault("hang", count=1)
    async with MailchimpClient(emulator.key, base_url=emulator.root_url) as client:
        assert (await client.get_account())["account_name"] == "Demo"
    assert [request.status for request in emulator.requests] == [504, 200]


async def test_a_slow_body_is_waited_for(client: MailchimpClient, emulator: Emulator) -> None:
    emulator.configure(slow_body_s=0.01)
    emulator.add_fault("slow_body", count=1)
    assert (await client.get_account())["account_name"] == "Demo"
    assert len(emulator.requests) == 1


async def test_the_number_of_attempts_is_the_callers_to_set() -> None:
    answer, asked = constant_answer(500, b"{}")
    policy = RetryPolicy(attempts=2, wait_initial=0, wait_max=0, wait_jitter=0)
    with stamina.set_testing(False):
        async with client_of(answer, retry=policy) as client:
            with pytest.raises(Unreachable):
                await client.get_account()
    assert len(asked) == 2


async def test_waiting_for_another_attempt_holds_no_connection(emulator: Emulator) -> None:
    emulator.add_fault("500", path="^/lists$")
    failed = asyncio.Event()
    with stamina.set_testing(False):
        async with MailchimpClient(
            emulator.key,
            base_url=emulator.root_url,
            max_connections=1,
            retry=RetryPolicy(attempts=2, wait_initial=60, wait_max=60, wait_jitter=0),
            on_call=lambda record: failed.set(),
        ) as client:
            waiting = asyncio.ensure_future(anext(client.iter_audiences()))
            await failed.wait()
            await client.get_account()
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


# What an answer means


async def test_a_disabled_user_stops_the_account_at_once(client: MailchimpClient, emulator: Emulator) -> None:
    emulator.add_fault("403_user_disabled")
    with pytest.raises(BadKey) as caught:
        await client.get_account()
    assert caught.value.title == "User Disabled"
    assert not caught.value.may_be_retried
    assert len(emulator.requests) == 1


def problem(status: int | str, title: str) -> bytes:
    return orjson.dumps({"status": status, "title": title, "detail": "d", "instance": ""})


PROBLEM = "application/problem+json; charset=utf-8"
MEANINGS = [
    pytest.param(401, problem(401, "API Key Invalid"), PROBLEM, BadKey, id="A 401 problem is a bad key."),
    pytest.param(401, problem(401, "Clé invalide"), PROBLEM, BadKey, id="A 401 in another language as well."),
    pytest.param(401, b"<html>", "text/html", Unreachable, id="A bare 401 comes from an edge, not from Mailchimp."),
    pytest.param(403, problem(403, "Forbidden"), PROBLEM, BadKey, id="A 403 Forbidden is a bad key."),
    pytest.param(403, problem(403, "Compliance"), PROBLEM, Refused, id="A 403 for another cause is a refusal."),
    pytest.param(403, b"", "text/plain", Throttled, id="A 403 with no body is throttling."),
    pytest.param(403, b'{"error":"x"}', "application/json", Throttled, id="So is a 403 that is no problem document."),
    pytest.param(404, problem(404, "Resource Not Found"), PROBLEM, NotFound, id="A 404 problem means it is not there."),
    pytest.param(404, b"<html>", "text/html", Unreachable, id="A 404 page does not mean that something is gone."),
    pytest.param(400, problem(400, "Bad Request"), PROBLEM, Refused, id="A 400 problem is a refusal."),
    pytest.param(400, b'{"title":"x"}', PROBLEM, Unreachable, id="A problem needs a status and a title."),
    pytest.param(404, problem("404", "Not Found"), PROBLEM, NotFound, id="Its status may be digits as text."),
    pytest.param(401, problem("401", "Invalid"), PROBLEM, BadKey, id="So may that of a bad key."),
    pytest.param(400, problem("400", "Bad Request"), PROBLEM, Refused, id="And that of a refusal."),
    pytest.param(404, problem("error", "Not Found"), PROBLEM, Unreachable, id="Other texts are an edge server's."),
    pytest.param(404, problem(True, "Not Found"), PROBLEM, Unreachable, id="True is no status."),
    pytest.param(200, b"[1]", "application/json", Unreachable, id="A list is no answer."),
    pytest.param(200, b'{"a":', "application/json", Unreachable, id="JSON that breaks off is no answer."),
    pytest.param(200, b"{}", "text/html", Unreachable, id="The content type decides before the body."),
    pytest.param(500, problem(500, "Internal"), PROBLEM, Unreachable, id="A 500 problem is no refusal."),
    pytest.param(503, problem(503, "Compliance Related"), PROBLEM, Unreachable, id="Nor is a disabled method."),
    pytest.param(302, b"", "text/html", Unreachable, id="A redirect is not followed with our credentials."),
]


@pytest.mark.parametrize(("status", "body", "content_type", "kind"), MEANINGS)
async def test_what_an_answer_means(status: int, body: bytes, content_type: str, kind: type[MailchimpError]) -> None:
    answer, _ = constant_answer(status, body, content_type, Location="http://127.0.0.1:1/")
    async with client_of(answer) as client:
        with pytest.raises(MailchimpError) as caught:
            await client.get_account()
    assert type(caught.value) is kind


async def test_only_a_404_from_mailchimp_itself_makes_a_member_absent() -> None:
    answer, _ = constant_answer(404, b"<html>gone</html>", "text/html")
    async with client_of(answer) as client:
        with pytest.raises(Unreachable):
            await client.find_member("a1b2c3d4e5", ADA)
        with pytest.raises(Unreachable):
            await client.delete_batch("734a070347")


async def test_the_first_500_characters_of_a_page_are_kept_for_the_log() -> None:
    answer, _ = constant_answer(502, b"<html>Bad Gateway " + b"x" * 5000, "text/html")
    async with client_of(answer) as client:
        with pytest.raises(Unreachable) as caught:
            await client.get_account()
    assert caught.value.body.startswith("<html>Bad Gateway")
    assert len(caught.value.body) == 500
    assert caught.value.status == 502


async def test_a_204_is_a_success_whatever_content_type_it_bears() -> None:
    answer, _ = constant_answer(204, b"", "application/json")
    async with client_of(answer) as client:
        assert await client.delete_batch("734a070347")


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("yesterday", id="no date"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", id="a far future"),
        pytest.param("Mon, 01 Jan 0001 00:00:00 GMT", id="a far past"),
        pytest.param("Tue, 12 Jan 2027 10:00:00 GMT", id="more than a year off, as of a proxy whose clock is wrong"),
    ],
)
async def test_an_answer_whose_date_cannot_be_believed_leaves_the_clock_alone(date: str) -> None:
    here = datetime(2026, 1, 9, 10, 0, 0, 7, tzinfo=UTC)
    answer, _ = constant_answer(200, b'{"members":[],"total_items":0}', Date=date)
    async with client_of(answer, now=lambda: here) as client:
        page = await client.get_members_page("a1b2c3d4e5")
        assert client.clock_offset() is None
    assert page.server_time == here.replace(microsecond=0)


COLLECTIONS: dict[str, Any] = {
    "lists": lambda client: client.iter_audiences(),
    "categories": lambda client: client.get_interest_categories("a1b2c3d4e5"),
    "interests": lambda client: client.iter_interests("a1b2c3d4e5", "c1"),
    "merge_fields": lambda client: client.get_merge_fields("a1b2c3d4e5"),
    "batches": lambda client: client.iter_batches(),
    "webhooks": lambda client: client.list_webhooks("a1b2c3d4e5"),
    "batch webhooks": lambda client: client.list_batch_webhooks(),
    "campaigns": lambda client: client.reports.iter_sent("a1b2c3d4e5"),
}


async def _all_of(found: Any) -> list[Any]:
    if not inspect.isawaitable(found):
        return [one async for one in found]
    listed = await found
    return list(listed.rows if isinstance(listed, ReportPage) else listed)


@pytest.mark.parametrize("key", COLLECTIONS)
async def test_one_odd_row_takes_none_of_the_others_with_it(key: str) -> None:
    good = {
        "id": "734a070347",
        "tag": "FNAME",
        "status": "sent",
        "submitted_at": "2026-01-09T10:00:00+00:00",
        "send_time": "2026-01-09T10:00:00+00:00",
        "recipients": {"list_id": "a1b2c3d4e5"},
        "events": [],
        "sources": "none",
    }
    rows = [None, {}, 5, "x", [], {"id": None, "tag": True}, good]
    answer, _ = constant_answer(200, orjson.dumps({key.rpartition(" ")[2]: rows, "total_items": len(rows)}))
    async with client_of(answer) as client:
        assert len(await _all_of(COLLECTIONS[key](client))) == 1


LISTED = COLLECTIONS | {
    "members": lambda client: client.get_members_page("a1b2c3d4e5"),
    "members of a walk": lambda client: client.iter_member_pages("a1b2c3d4e5"),
    "members with permissions": lambda client: client.get_permissions("a1b2c3d4e5"),
    "sent_to": lambda client: client.reports.get_recipients("c1"),
    "members who opened": lambda client: client.reports.get_opens("c1"),
    "members who clicked": lambda client: client.reports.get_clicks("c1", "l1"),
    "urls_clicked": lambda client: client.reports.get_links("c1"),
}
NO_ANSWERS = [
    pytest.param({}, id="An empty object is no empty list."),
    pytest.param({"list_id": "a1b2c3d4e5", "total_items": 21}, id="A total alone is no list."),
    pytest.param({"total_items": 0}, id="Not even a total of none."),
    pytest.param({"KEY": None, "total_items": 0}, id="Null is no list."),
    pytest.param({"KEY": {}, "total_items": 0}, id="An object is no list."),
]
OTHER_TOTALS = {"campaigns", "members with permissions", "sent_to", "members who opened", "members who clicked"}
"""Those under a filter, where a server in Mailchimp's place may count all rows, and reports of people since deleted."""


@pytest.mark.parametrize("key", LISTED)
@pytest.mark.parametrize("body", NO_ANSWERS)
async def test_a_success_without_its_list_never_counts_as_none(key: str, body: dict[str, Any]) -> None:
    name = key.rpartition(" ")[2] if key in COLLECTIONS else key.partition(" ")[0]
    answer, asked = constant_answer(200, orjson.dumps({name if one == "KEY" else one: body[one] for one in body}))
    async with client_of(answer) as client:
        with pytest.raises(Unreachable, match=f"an answer without .*{name}"):
            await _all_of(LISTED[key](client))
    assert len(asked) == 3


@pytest.mark.parametrize("total", [21, "21"])
@pytest.mark.parametrize("key", LISTED)
async def test_an_empty_list_of_a_total_that_is_not_empty_contradicts_itself_but_where_the_total_is_of_others(
    key: str, total: object
) -> None:
    name = key.rpartition(" ")[2] if key in COLLECTIONS else key.partition(" ")[0]
    answer, asked = constant_answer(200, orjson.dumps({name: [], "total_items": total}))
    async with client_of(answer) as client:
        if key in OTHER_TOTALS:
            assert await _all_of(LISTED[key](client)) == []
            return
        with pytest.raises(Unreachable, match=f"an answer without any of 21 {name}"):
            await _all_of(LISTED[key](client))
    assert len(asked) == 3


@pytest.mark.parametrize("body", [b"{}", b'{"id": null}', b'{"id": ""}', b'{"status": "subscribed"}'])
async def test_a_member_without_an_id_is_neither_there_nor_gone(body: bytes) -> None:
    answer, asked = constant_answer(200, body)
    async with client_of(answer) as client:
        with pytest.raises(Unreachable, match="an answer without id"):
            await client.find_member("a1b2c3d4e5", ADA)
    assert len(asked) == 3


@pytest.mark.parametrize("status", [{}, {"status": None}, {"status": ""}, {"status": 1}, {"status": ["subscribed"]}])
async def test_a_member_without_a_status_is_neither_in_nor_out(status: dict[str, Any]) -> None:
    answer, _ = constant_answer(200, orjson.dumps({"id": subscriber_hash(ADA), **status}))
    async with client_of(answer) as client:
        with pytest.raises(Unreachable, match="without status"):
            await client.find_member("a1b2c3d4e5", ADA)


@pytest.mark.parametrize(
    ("totals", "read"),
    [
        pytest.param([3, 2], 2, id="A total that shrank while members left is the end."),
        pytest.param([3, 3], None, id="One that did not is no answer."),
        pytest.param([None, None], 2, id="Where there is no total, an empty page is the end."),
    ],
)
async def test_an_empty_page_is_the_end_only_where_its_own_total_says_so(
    totals: list[int | None], read: int | None
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        is_first = request.query["offset"] == "0"
        rows = [{"id": "a"}, {"id": "b"}] if is_first else [{"id": "b"}] if request.query["offset"] == "1" else []
        return web.json_response({"members": rows, "total_items": totals[0 if rows else 1]})

    async with client_of(answer) as client:
        pages = client.iter_member_pages("a1b2c3d4e5", count=10, passes=(None,))
        if read is None:
            with pytest.raises(Unreachable, match="any of 3 members"):
                [page async for page in pages]
        else:
            assert sum([len(page.members) async for page in pages]) == read


TOTALS = [
    pytest.param(40, id="a number"),
    pytest.param("40", id="digits as text"),
    pytest.param(" 40 ", id="digits as text with space around"),
    pytest.param(None, id="null"),
    pytest.param("many", id="no number"),
    pytest.param(True, id="true"),
    pytest.param(-1, id="less than nothing"),
    pytest.param("9" * 5000, id="digits without end"),
    pytest.param(..., id="no total at all"),
]


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("clamp", [7, 40, 1000])
async def test_a_listing_is_read_whole_however_its_total_is_written_and_its_pages_are_cut(
    total: Any, clamp: int
) -> None:
    rows = [{"id": f"{number:032x}", "tag": f"T{number}", "total_clicks": 1} for number in range(40)]

    async def answer(request: web.Request) -> web.StreamResponse:
        start, count = int(request.query["offset"]), min(clamp, int(request.query["count"]))
        counted = {} if total is ... else {"total_items": total}
        names = ("members", "merge_fields", "webhooks", "urls_clicked", "sent_to")
        return web.json_response(counted | dict.fromkeys(names, rows[start : start + count]))

    async with client_of(answer) as client:
        walked = client.iter_member_pages("a1b2c3d4e5", passes=(None,), parallel=3)
        assert {one["id"] async for page in walked for one in page.members} == {one["id"] for one in rows}
        assert len(await client.get_merge_fields("a1b2c3d4e5")) == 40
        assert len(await client.list_webhooks("a1b2c3d4e5")) == 40
        assert len(await client.reports.get_links("a1b2c3d4e5")) == 40
        offset, found = 0, 0
        while offset is not None:
            page = await client.reports.get_recipients("a1b2c3d4e5", offset)
            offset, found = page.following, found + len(page.rows)  # type: ignore[assignment]
        assert found == 40


async def test_a_listing_without_pages_or_total_is_read_once() -> None:
    answer, asked = constant_answer(200, b'{"webhooks": [{"id": "a"}, {"id": "b"}]}')
    async with client_of(answer) as client:
        assert [one.id for one in await client.list_webhooks("a1b2c3d4e5")] == ["a", "b"]
    assert len(asked) == 2


@pytest.mark.parametrize("key", COLLECTIONS)
async def test_an_id_that_is_a_number_is_its_digits(key: str) -> None:
    at, name = "2026-01-09T10:00:00+00:00", "tag" if key == "merge_fields" else "id"
    row = {name: 1234567890, "submitted_at": at, "send_time": at, "recipients": {"list_id": "a1b2c3d4e5"}}
    answer, _ = constant_answer(200, orjson.dumps({key.rpartition(" ")[2]: [row], "total_items": 1}))
    async with client_of(answer) as client:
        [found] = await _all_of(COLLECTIONS[key](client))
    assert (found[name] if isinstance(found, dict) else found.id) == "1234567890"


async def test_a_refusal_whose_status_is_text_has_it_as_a_number() -> None:
    answer, _ = constant_answer(400, problem("400", "Bad Request"), PROBLEM)
    async with client_of(answer) as client:
        with pytest.raises(Refused) as caught:
            await client.get_account()
    assert caught.value.problem["status"] == 400


async def test_a_batch_without_an_id_may_have_been_made() -> None:
    answer, asked = constant_answer(200, b'{"status": "pending"}')
    async with client_of(answer) as client:
        with pytest.raises(Unreachable, match="an answer without id") as caught:
            await client.submit_batch([])
        assert caught.value.outcome_unknown
        assert len(asked) == 1
        with pytest.raises(Unreachable):
            await client.find_batch("734a070347")


async def test_requests_say_who_asks_and_what_they_take() -> None:
    answer, asked = constant_answer(200, b'{"id": "734a070347"}')
    async with client_of(answer, user_agent="civiapi/1 (tests)") as client:
        await client.submit_batch([])
    headers = asked[0].headers
    assert headers["User-Agent"] == "civiapi/1 (tests)"
    assert (headers["Accept"], headers["Content-Type"]) == ("application/json", "application/json")
    assert "gzip" in headers["Accept-Encoding"]
    assert headers["Authorization"].startswith("Basic ")
    assert asked[0].path == "/3.0/batches"


async def test_the_plus_in_a_time_is_percent_encoded() -> None:
    answer, asked = constant_answer(200, b'{"members":[],"total_items":0}')
    async with client_of(answer) as client:
        await client.get_members_page("a1b2c3d4e5", since=datetime(2026, 1, 9, tzinfo=UTC))
    assert "%2B00" in asked[0].raw_path
    assert "+" not in asked[0].raw_path


async def test_a_records_outcome_names_what_happened() -> None:
    records: list[CallRecord] = []
    for status, content_type in ((429, "text/plain"), (502, "text/html"), (200, "application/json")):
        answer, _ = constant_answer(status, b"{}", content_type)
        with stamina.set_testing(True, attempts=1):
            async with client_of(answer, on_call=records.append) as client:
                try:
                    await client.get_account()
                except MailchimpError:
                    continue
    assert [(record.outcome, record.status) for record in records] == [
        ("throttled", 429),
        ("unreachable", 502),
        ("ok", 200),
    ]


# Secrets


@pytest.mark.parametrize("echo", [KEY, KEY.partition("-")[0], "https://crm.example/hook?secret=long-random"])
async def test_secrets_that_a_server_repeats_reach_no_message_log_or_traceback(
    echo: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = orjson.dumps({"status": 400, "title": "Bad Request", "detail": f"bad {echo}", "errors": [{"field": echo}]})
    shown = ""
    for status, content_type in ((400, PROBLEM), (502, "text/html"), (429, "text/plain")):
        answer, _ = constant_answer(status, told, content_type)
        async with client_of(answer) as client:
            with pytest.raises(MailchimpError) as caught:
                await client.get_account()
            error = caught.value
            shown += "".join(traceback.format_exception(error)) + repr(vars(error)) + repr(client)
    for secret in (KEY, KEY.partition("-")[0], "long-random"):
        assert secret not in shown + caplog.text
