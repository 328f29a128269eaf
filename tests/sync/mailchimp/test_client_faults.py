"""The client when Mailchimp, or what stands before it, misbehaves: what is repeated, and what callers are told."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from typing import Any

import anyio
import httpx
import orjson
import pytest
import stamina
from aiohttp import web

from sync.emulator.server.running import Emulator, running_emulator
from sync.mailchimp.archive import ArchiveLimits, write_archive
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import (
    BadArchive,
    BadKey,
    MailchimpError,
    NotFound,
    Refused,
    ResultsMissing,
    Throttled,
    Unreachable,
)
from sync.mailchimp.links import may_be_fetched, resolves_to_public
from sync.mailchimp.transport import CallRecord, RetryPolicy, Transport
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
    started = datetime.now(UTC).replace(microsecond=0)
    with pytest.raises(Unreachable) as caught:
        await client.submit_batch([operation])
    assert caught.value.outcome_unknown
    assert len(emulator.requests) == 1
    submitted = [batch async for batch in client.iter_recent_batches(started)]
    assert len(submitted) == (1 if fault in ("reset_after", "truncated_json") else 0)


@pytest.mark.parametrize("fault", ["429_json", "429_bare", "403_html", "503_block"])
async def test_a_batch_that_was_surely_turned_away_is_sent_again(
    client: MailchimpClient, emulator: Emulator, audience_id: str, fault: str
) -> None:
    emulator.add_fault(fault, method="POST", count=2)
    operation = put_member_operation(audience_id, subscriber_hash(ADA), {"email_address": ADA}, "1")
    assert (await client.submit_batch([operation])).status == "pending"
    assert len([batch async for batch in client.iter_recent_batches(datetime(2026, 1, 1, tzinfo=UTC))]) == 1


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


def problem(status: int, title: str) -> bytes:
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


async def test_an_answer_whose_date_cannot_be_read_leaves_the_clock_alone() -> None:
    here = datetime(2026, 1, 9, 10, 0, 0, 7, tzinfo=UTC)
    answer, _ = constant_answer(200, b'{"members":[],"total_items":0}', Date="yesterday")
    async with client_of(answer, now=lambda: here) as client:
        page = await client.get_members_page("a1b2c3d4e5")
        assert client.clock_offset() is None
    assert page.server_time == here.replace(microsecond=0)


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


# Batch results


class Storage:
    """A finished batch whose results lie in a storage that answers as the test says."""

    def __init__(self, *answers: tuple[int, bytes, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.downloads: list[web.Request] = []
        self.batch: dict[str, Any] = {"id": "734a070347", "status": "finished"}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/3.0/"):
            self.asked.append(request)
            url = f"http://{request.host}/storage?Signature=hush{len(self.asked)}"
            body = orjson.dumps({"response_body_url": url, **self.batch})
            return web.Response(body=body, content_type="application/json")
        self.downloads.append(request)
        status, content, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if "Break" in headers:
            return await self._break_off(request, content)
        return web.Response(status=status, body=content, headers=headers)

    async def _break_off(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response


ARCHIVE = write_archive(
    [{"status_code": 200, "operation_id": str(number), "response": "{}"} for number in range(30)], rng=Random(1)
)


async def result_ids(client: MailchimpClient) -> set[str | None]:
    return {result.operation_id async for result in client.iter_results("734a070347")}


EVERY_ID = {str(number) for number in range(30)}


async def test_a_download_carries_no_credentials_and_its_link_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx"):  # whatever another test left them at
        caplog.set_level(logging.DEBUG, logger=name or None)
    storage = Storage((200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    assert "Authorization" not in storage.downloads[0].headers
    sent = storage.asked[0].headers["Authorization"].partition(" ")[2]
    assert "/storage" in caplog.text
    assert not [secret for secret in ("hush", KEY, sent) if secret in caplog.text]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        pytest.param(ARCHIVE, {"Content-Type": "application/x-gzip"}, id="Gzip of the file is undone."),
        pytest.param(gzip.compress(ARCHIVE), {"Content-Encoding": "gzip"}, id="Gzip on top of it is undone as well."),
        pytest.param(ARCHIVE, {"Content-Encoding": "gzip"}, id="Gzip that HTTP has undone already is not missed."),
    ],
)
async def test_gzip_is_told_by_its_magic_bytes(content: bytes, headers: dict[str, str]) -> None:
    async with client_of(Storage((200, content, headers)).answer) as client:
        assert await result_ids(client) == EVERY_ID


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(403, {}, id="A link that has expired is asked for anew."),
        pytest.param(503, {}, id="A storage that is busy is asked again."),
        pytest.param(200, {"Break": "yes"}, id="A download that breaks off begins again."),
    ],
)
async def test_a_download_that_fails_is_repeated_with_a_fresh_link(status: int, headers: dict[str, str]) -> None:
    storage = Storage((status, ARCHIVE, headers), (200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    assert [request.query["Signature"] for request in storage.downloads] == ["hush1", "hush2"]


async def test_a_download_that_never_works_is_unreachable_and_shows_no_link() -> None:
    storage = Storage((403, b"<Error/>", {}))
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable) as caught:
            await result_ids(client)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0x1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::10.0.0.1]/",
        "https://[::8.8.8.8]/",
        "https://[::]/",
        "https://0.0.0.0/",
        "https://[64:ff9b::a00:1]/",
        "https://[64:ff9b::808:808]/",
        "https://[64:ff9b:1::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://[2001:0:a00:1::]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fc00::1]/",
        "https://[fec0::1]/",
        "https://[ff02::1]/",
        "https://[ff0e::1]/",
        "https://[2001:db8::1]/",
        "https://[4000::1]/",
        "https://224.0.0.1/",
        "https://239.255.255.250/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://100.64.0.1/",
        "https://192.0.2.1/",
        "https://198.18.0.1/",
        "https://storage.example.org:8443/",
        "https://storage.example.org:80/",
        "https://storage.example.org:22/",
        "https://8.8.8.8:6379/",
        "https://user:password@10.0.0.1/",
        "https://storage.example.org@10.0.0.1/",
        "https://10.0.0.1#@storage.example.org/",
        "https://10.0.0.1?@storage.example.org/",
        "https://LOCALHOST/",
        "https://127.0.0.1./",
        "https://0177.0.0.1/",
        "https://10.1.2.3/",
        "https://localhost/",
        "https://db.internal/",
        "https://router/",
        "https://crm.local./",
        "http://storage.example.org/",
        "file:///etc/passwd",
        "ftp://storage.example.org/x",
        "https://[::1",
        "https://storage.example.org:x/",
        "//storage.example.org/",
        "",
    ],
)
def test_a_link_into_a_network_of_ours_is_not_followed(url: str) -> None:
    assert not may_be_fetched(url, "https://us1.api.mailchimp.com/3.0")


def test_a_link_to_a_public_storage_or_to_where_mailchimp_is_reached_is_followed() -> None:
    assert may_be_fetched("https://mailchimp-api-batch.s3.amazonaws.com/x?Signature=y", "https://us1.api.mailchimp.com")
    assert may_be_fetched("https://mailchimp-api-batch.s3.amazonaws.com:443/x", "https://us1.api.mailchimp.com")
    assert may_be_fetched("https://us1.api.mailchimp.com:8443/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("https://[2606:4700::1111]/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("https://8.8.8.8/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("http://127.0.0.1:8011/results/1", "http://127.0.0.1:8011/3.0")
    assert may_be_fetched("http://localhost:8012/results/1", "http://127.0.0.1:8011/3.0")
    assert not may_be_fetched("http://10.0.0.7:8011/results/1", "http://127.0.0.1:8011/3.0")


@pytest.mark.parametrize(
    ("addresses", "public"),
    [
        (["52.216.1.1"], True),
        (["52.216.1.1", "2600:1f18::1"], True),
        (["64:ff9b::808:808"], True),  # 8.8.8.8, as a network without IPv4 sees it
        (["10.0.0.1"], False),
        (["52.216.1.1", "10.0.0.1"], False),
        (["127.0.0.1"], False),
        (["169.254.169.254"], False),
        (["::1"], False),
        (["fe80::1%2"], False),
        (["::ffff:127.0.0.1"], False),
        (["64:ff9b::a00:1"], False),
        (["64:ff9b:1::a00:1"], False),
        (["2002:7f00:1::"], False),
        (["nonsense"], False),
    ],
)
async def test_a_name_is_followed_only_to_public_addresses(addresses: list[str], public: bool) -> None:
    url, base = "https://storage.example.org/x", "https://us1.api.mailchimp.com/3.0"
    assert await resolves_to_public(url, base, lambda _host: addresses) is public


async def test_mailchimp_itself_may_be_anywhere_and_an_unknown_name_is_for_the_connection_to_find() -> None:
    base = "https://mailchimp.internal/3.0"
    assert await resolves_to_public("https://mailchimp.internal/x", base, lambda _host: ["10.0.0.1"])

    def unknown(_host: str) -> list[str]:
        raise OSError("no such name")

    assert await resolves_to_public("https://storage.example.org/x", base, unknown)


async def test_a_name_that_leads_inside_is_found_out_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it did so when it was looked up, or only when it was connected to."""
    received: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    connect = anyio.connect_tcp
    connected: list[str] = []

    async def lead_inside(remote_host: str, remote_port: int, **how: Any) -> Any:
        connected.append(f"{remote_host}:{remote_port}")
        return await connect("127.0.0.1", port, **how)

    monkeypatch.setattr(anyio, "connect_tcp", lead_inside)
    transport = Transport("key-us1", base_url="https://us1.api.mailchimp.com/3.0")
    for address in ("127.0.0.1", "52.216.1.1"):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, found=found, **_kwargs: found)
        with pytest.raises(Unreachable, match="leads where we do not go"):
            async with transport.download("https://storage.example.org/x"):
                pytest.fail("it was opened")
    await transport.close()
    server.close()
    await server.wait_closed()
    assert connected == ["storage.example.org:443"], "the first was not even connected to"
    assert b"".join(received) == b""


async def test_a_download_is_led_on_only_to_where_a_link_may_lead() -> None:
    storage = Storage((302, b"", {"Location": "/elsewhere"}), (200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    inside = Storage((302, b"", {"Location": "http://169.254.169.254/latest/meta-data"}))
    async with client_of(inside.answer) as client:
        with pytest.raises(Unreachable, match="leads where we do not go"):
            await result_ids(client)
    assert not [one for one in [*storage.downloads, *inside.downloads] if "Authorization" in one.headers]


async def test_a_download_that_is_led_on_forever_is_given_up() -> None:
    storage = Storage((302, b"", {"Location": "/round"}))
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable, match="more than 3 redirects"):
            await result_ids(client)


async def test_a_download_larger_than_allowed_is_given_up_at_once() -> None:
    storage = Storage((200, ARCHIVE * 1000, {}))
    async with client_of(storage.answer, max_download=len(ARCHIVE)) as client:
        with pytest.raises(BadArchive, match="larger than"):
            await result_ids(client)
    assert len(storage.downloads) == 1


async def test_an_archive_past_its_limits_is_refused() -> None:
    async with client_of(Storage((200, ARCHIVE, {})).answer, archive_limits=ArchiveLimits(unpacked=2000)) as client:
        with pytest.raises(BadArchive, match="cannot be trusted"):
            await result_ids(client)


@pytest.mark.parametrize("url", ["ftp://storage/x", "file:///etc/passwd", "//storage/x", "gopher://x"])
async def test_a_link_that_is_not_http_is_not_followed(url: str) -> None:
    storage = Storage((200, ARCHIVE, {}))
    storage.batch["response_body_url"] = url
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable, match="leads where we do not go"):
            await result_ids(client)
    assert storage.downloads == []


async def test_a_finished_batch_without_a_link_has_no_results() -> None:
    storage = Storage((200, ARCHIVE, {}))
    storage.batch["response_body_url"] = ""
    async with client_of(storage.answer) as client:
        with pytest.raises(ResultsMissing) as caught:
            await result_ids(client)
    assert not caught.value.may_be_retried
