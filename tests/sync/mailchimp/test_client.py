"""The real client against the emulator over HTTP: every call, page walks, batches and webhooks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import stamina
from aiohttp import web

from sync.emulator.data.generate import generate
from sync.emulator.model.records import Interest, InterestCategory, Member
from sync.emulator.server.running import Emulator, running_emulator
from sync.mailchimp import errors
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import BadKey, NotFound, Refused, ResultsMissing
from sync.mailchimp.transport import CallRecord
from sync.mailchimp.wire import BatchOperation, subscriber_hash
from tests.support.member_calls import (
    MemberCalls,
    archive_member_operation,
    member_calls,
    put_member_operation,
    update_tags_operation,
)

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
ADA = "ada@example.org"


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator(clock_freeze=True) as running:
        running.set_clock(NOON)
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


def joined(emulator: Emulator, *emails: str, **more: Any) -> None:
    for email in emails:
        emulator.admin("import", email, **more)


async def all_addresses(client: MailchimpClient, audience_id: str, **more: Any) -> list[str]:
    pages = client.iter_member_pages(audience_id, **more)
    return [member["email_address"] async for page in pages for member in page.members]


# Connection


async def test_a_key_is_checked_by_asking_whose_it_is(client: MailchimpClient, emulator: Emulator) -> None:
    account = await client.get_account()
    assert account["account_id"] == emulator.world.default_account.id
    assert account["account_name"] == "Demo"


@pytest.mark.parametrize(
    ("key", "title"),
    [
        pytest.param("ffffffffffffffffffffffffffffffff-us1", "API Key Invalid", id="An unknown key is a bad key."),
        pytest.param("0123456789abcdef0123456789abcdef-us9", "Wrong Datacenter", id="So is one used elsewhere."),
    ],
)
async def test_bad_keys(emulator: Emulator, key: str, title: str) -> None:
    async with MailchimpClient(key, base_url=emulator.root_url) as client:
        with pytest.raises(BadKey) as caught:
            await client.get_account()
    assert caught.value.title == title
    assert key not in str(caught.value)
    assert len(emulator.requests) == 1


async def test_every_answer_tells_mailchimps_clock(client: MailchimpClient, emulator: Emulator) -> None:
    assert client.clock_offset() is None
    emulator.set_clock(datetime.now(UTC) + timedelta(hours=3))
    await client.get_account()
    offset = client.clock_offset()
    assert offset is not None
    assert abs(offset - timedelta(hours=3)) <= timedelta(seconds=2)
    assert offset.microseconds == 0


async def test_the_clock_offset_is_counted_from_the_clock_that_is_handed_in(emulator: Emulator) -> None:
    here = NOON - timedelta(minutes=7)
    async with MailchimpClient(emulator.key, base_url=emulator.root_url, now=lambda: here) as client:
        await client.get_account()
        assert client.clock_offset() == timedelta(minutes=7)


async def test_calls_are_counted_by_route_without_ids_or_addresses(emulator: Emulator, audience_id: str) -> None:
    records: list[CallRecord] = []
    async with MailchimpClient(emulator.key, base_url=emulator.root_url, on_call=records.append) as client:
        await client.find_member(audience_id, ADA)
        await client.get_account()
    told = [(record.method, record.route, record.outcome, record.status) for record in records]
    assert told == [
        ("GET", "/lists/{audience}/members/{member}", "refused", 404),
        ("GET", "/", "ok", 200),
    ]
    assert all(record.seconds >= 0 for record in records)


async def test_never_more_connections_at_once_than_allowed(emulator: Emulator, audience_id: str) -> None:
    joined(emulator, *(f"person{number}@example.org" for number in range(60)))
    emulator.configure(latency_ms=5.0, max_connections=3)
    async with MailchimpClient(emulator.key, base_url=emulator.root_url, max_connections=3) as client:
        pages = client.iter_member_pages(audience_id, count=4, parallel=20)
        assert len({member["id"] async for page in pages for member in page.members}) == 60
    assert emulator.highest_concurrency == 3
    assert {request.status for request in emulator.requests} == {200}


# Audiences


async def test_more_than_ten_of_anything_are_all_read(client: MailchimpClient, emulator: Emulator) -> None:
    for number in range(11):
        emulator.world.add_audience(f"Audience {number}")
    audience = emulator.audience()
    category = InterestCategory("0011223344", "Topics")
    audience.categories[category.id] = category
    for number in range(12):
        more = InterestCategory(f"{number:010x}", f"Category {number}")
        audience.categories[more.id] = more
        category.interests[f"{number:010x}"] = Interest(f"{number:010x}", category.id, f"Interest {number}")
    assert len([one async for one in client.iter_audiences()]) == 12
    assert len(await client.get_interest_categories(audience.id)) == 13
    names = [interest["name"] async for interest in client.iter_interests(audience.id, category.id)]
    assert names == [f"Interest {number}" for number in range(12)]


async def test_an_unknown_audience_is_not_found(client: MailchimpClient) -> None:
    with pytest.raises(NotFound):
        await client.get_interest_categories("ffffffffff")


# Members, many


async def test_a_page_is_trimmed_to_what_a_sync_uses(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    joined(emulator, ADA, merge_fields={"FNAME": "Ada"})
    page = await client.get_members_page(audience_id)
    (member,) = page.members
    assert set(member) <= {
        "id",
        "email_address",
        "contact_id",
        "status",
        "merge_fields",
        "interests",
        "marketing_permissions",
        "timestamp_opt",
        "last_changed",
    }
    assert member["merge_fields"]["FNAME"] == "Ada"
    assert (page.total_items, page.offset, page.server_time) == (1, 0, NOON)


@pytest.mark.parametrize("archived_listed", [False, True])
async def test_archived_members_are_found_whether_or_not_a_plain_listing_holds_them(
    client: MailchimpClient, emulator: Emulator, audience_id: str, archived_listed: bool
) -> None:
    emulator.configure(listing_default_archived=archived_listed)
    joined(emulator, ADA, "bea@example.org")
    emulator.admin("archive", ADA)
    assert set(await all_addresses(client, audience_id)) == {ADA, "bea@example.org"}
    since = NOON - timedelta(hours=1)
    assert set(await all_addresses(client, audience_id, since=since)) == {ADA, "bea@example.org"}


async def test_a_walk_of_thousands_reads_everyone(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    generate(emulator.audience(), 3500, now=int(NOON.timestamp()), seed=5)
    addresses = set(await all_addresses(client, audience_id, parallel=3))
    assert addresses == {member.email for member in emulator.audience().members}


@pytest.mark.parametrize("parallel", [1, 3])
async def test_rows_that_leave_during_a_walk_hide_nobody(
    client: MailchimpClient, emulator: Emulator, audience_id: str, parallel: int
) -> None:
    joined(emulator, *(f"person{number}@example.org" for number in range(120)))
    gone = 0
    seen = set()
    async for page in client.iter_member_pages(audience_id, count=20, parallel=parallel):
        seen |= {member["email_address"] for member in page.members}
        if page.offset < 60:
            for _ in range(7):
                emulator.admin("delete_permanently", f"person{gone}@example.org")
                gone += 1
    assert seen >= {f"person{number}@example.org" for number in range(gone, 120)}


@pytest.mark.parametrize("inclusive", [False, True])
async def test_an_incremental_walk_finds_what_changed_and_nothing_older(
    client: MailchimpClient, emulator: Emulator, audience_id: str, inclusive: bool
) -> None:
    emulator.configure(since_inclusive=inclusive)
    joined(emulator, *(f"old{number}@example.org" for number in range(30)))
    emulator.advance(3600)
    changed = [f"new{number}@example.org" for number in range(50)]
    for number, email in enumerate(changed):
        joined(emulator, email)
        if number % 10 == 0:
            emulator.advance(1)
    since = NOON + timedelta(minutes=30)
    assert set(await all_addresses(client, audience_id, since=since, count=8)) == set(changed)


async def test_a_since_in_any_zone_is_sent_as_utc_in_whole_seconds_with_its_plus_encoded(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    since = datetime(2026, 1, 9, 13, 30, 5, 123456, tzinfo=timezone(timedelta(hours=2)))
    await client.get_members_page(audience_id, since=since)
    assert emulator.requests[-1].query["since_last_changed"] == "2026-01-09T11:30:05+00:00"


async def test_a_very_old_since_is_left_out_because_mailchimp_hangs_on_it(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    joined(emulator, ADA)
    assert await all_addresses(client, audience_id, since=datetime(1970, 1, 1, tzinfo=UTC)) == [ADA]
    assert all("since_last_changed" not in request.query for request in emulator.requests)


async def test_a_walk_resumed_by_another_client_goes_on_after_the_stored_page(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    joined(emulator, *(f"person{number}@example.org" for number in range(50)))
    pages = client.iter_member_pages(audience_id, count=20)
    first = await anext(pages)
    await pages.aclose()
    emulator.clear_requests()
    async with MailchimpClient(emulator.key, base_url=emulator.root_url) as other:
        rest = await all_addresses(other, audience_id, count=20, cursor=first.cursor)
    assert {member["email_address"] for member in first.members} | set(rest) == {
        f"person{number}@example.org" for number in range(50)
    }
    assert emulator.requests[0].query["offset"] == "18"


# Members, one


async def test_a_member_is_put_found_and_patched(
    client: MailchimpClient, members: MemberCalls, audience_id: str
) -> None:
    body = {"email_address": ADA, "status_if_new": "subscribed", "merge_fields": {"FNAME": "Ada"}}
    made = await members.put(ADA, body)
    assert made["id"] == subscriber_hash(ADA)
    found = await client.find_member(audience_id, "Ada@Example.org ")
    assert found is not None
    assert found["contact_id"] == made["contact_id"]
    changed = await members.patch(ADA, {"status": "unsubscribed"})
    assert changed["status"] == "unsubscribed"


async def test_a_member_with_the_hash_of_its_mixed_case_address_is_found_by_its_own_id(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    roster = emulator.audience().members
    legacy = "0" * 31 + "1"
    roster.add(Member(roster.next_serial(), legacy, "Ada@Example.org", "subscribed", 1, 1))
    found = await client.find_member(audience_id, legacy)
    assert found is not None
    assert found["id"] == legacy


async def test_an_absent_member_is_none(client: MailchimpClient, audience_id: str) -> None:
    assert await client.find_member(audience_id, ADA) is None


async def test_required_merge_fields_that_somebody_added_do_not_break_writes(
    members: MemberCalls, emulator: Emulator
) -> None:
    field = emulator.audience().merge_field("LNAME")
    assert field is not None
    field.required = True
    body = {"email_address": ADA, "status_if_new": "subscribed"}
    with pytest.raises(Refused) as caught:
        await members.put(ADA, body, skip_merge_validation=False)
    assert [error.field for error in caught.value.errors] == ["LNAME"]
    assert (await members.put(ADA, body))["status"] == "subscribed"


async def test_a_change_of_address_gives_a_new_id_and_keeps_the_contact_id(
    client: MailchimpClient, members: MemberCalls, emulator: Emulator, audience_id: str
) -> None:
    joined(emulator, ADA)
    before = await client.find_member(audience_id, ADA)
    after = await members.patch(ADA, {"email_address": "ada2@example.org"})
    assert before is not None
    assert after["id"] == subscriber_hash("ada2@example.org")
    assert after["contact_id"] == before["contact_id"]
    assert await client.find_member(audience_id, ADA) is None


async def test_posting_a_member_that_is_there_is_refused_as_such(members: MemberCalls) -> None:
    body = {"email_address": ADA, "status": "subscribed"}
    await members.post(body)
    with pytest.raises(Refused) as caught:
        await members.post(body)
    assert errors.is_member_exists(caught.value)


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("compliance_emails", {"status": "subscribed"}, "is in a compliance state"),
    ("forgotten_emails", {"status": "pending"}, "was permanently deleted"),
    ("throttled_emails", {"status": "subscribed"}, "signed up to a lot of lists"),
]


@pytest.mark.parametrize(("option", "body", "detail"), REFUSALS)
async def test_refusals_are_told_apart(
    members: MemberCalls,
    emulator: Emulator,
    option: str,
    body: dict[str, Any],
    detail: str,
) -> None:
    emulator.configure(problem_without_type=True, **{option: [ADA]})
    with pytest.raises(Refused) as caught:
        await members.put(ADA, {"email_address": ADA, "status_if_new": "subscribed", **body})
    assert detail in caught.value.detail
    assert errors.is_compliance_state(caught.value) is (option == "compliance_emails")
    assert caught.value.status == 400
    assert caught.value.instance
    assert len(emulator.requests) == 1


async def test_a_fake_address_is_known_as_such(members: MemberCalls, emulator: Emulator) -> None:
    emulator.configure(reject_domains=["example.com"])
    with pytest.raises(Refused) as caught:
        await members.post({"email_address": "a@example.com", "status": "subscribed"})
    assert "looks fake or invalid" in caught.value.detail


async def test_a_cleaned_member_cannot_be_archived_and_an_absent_one_is_not_found(
    members: MemberCalls, emulator: Emulator
) -> None:
    joined(emulator, ADA, "bob@example.org")
    await members.archive(ADA)
    emulator.person("hard_bounce", "bob@example.org")
    for address in (ADA, "bob@example.org"):
        with pytest.raises(Refused) as caught:
            await members.archive(address)
        assert caught.value.status == 405
    with pytest.raises(NotFound):
        await members.archive("nobody@example.org")


async def test_tags_are_added_and_removed(members: MemberCalls, emulator: Emulator) -> None:
    joined(emulator, ADA, tags=["Old"])
    await members.tag(ADA, {"Vip": True, "Old": False, "Never": False})
    names = {one.id: one.name for one in emulator.audience().tags.values()}
    found = emulator.member(ADA)
    assert found is not None
    assert {names[one] for one in found.tags} == {"Vip"}


# Batches


def puts(audience_id: str, count: int) -> list[BatchOperation]:
    addresses = [f"person{number}@example.org" for number in range(count)]
    return [
        put_member_operation(
            audience_id, subscriber_hash(email), {"email_address": email, "status_if_new": "subscribed"}, email
        )
        for email in addresses
    ]


async def test_a_batch_is_submitted_run_and_every_result_read_once(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False)
    batch = await client.submit_batch(puts(audience_id, 250))
    assert (batch.status, batch.total_operations, batch.submitted_at) == ("pending", 0, NOON)
    emulator.run_batches()
    finished = await client.find_batch(batch.id)
    assert finished is not None
    assert finished.is_finished
    assert (finished.total_operations, finished.errored_operations) == (250, 0)
    results = [result async for result in client.iter_results(batch.id)]
    assert sorted(result.operation_id or "" for result in results) == sorted(
        f"person{number}@example.org" for number in range(250)
    )
    assert all(result.succeeded and result.response is not None for result in results)
    assert len(emulator.audience().members) == 250


async def test_results_carry_refusals_that_the_predicates_read(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False, compliance_emails=[ADA])
    joined(emulator, "bea@example.org")
    subscribe = {"email_address": ADA, "status": "subscribed", "status_if_new": "subscribed"}
    batch = await client.submit_batch(
        [
            put_member_operation(audience_id, subscriber_hash(ADA), subscribe, "1"),
            update_tags_operation(audience_id, subscriber_hash("bea@example.org"), {"Vip": True}, "2"),
            archive_member_operation(audience_id, subscriber_hash("nobody@example.org"), "3"),
        ]
    )
    emulator.run_batches()
    results = {result.operation_id: result async for result in client.iter_results(batch.id)}
    assert errors.is_compliance_state(results["1"].response)
    assert (results["2"].status_code, results["2"].response) == (204, None)
    assert results["3"].status_code == 404
    assert not any(result.may_be_retried for result in results.values())


async def test_a_fresh_link_is_fetched_right_before_each_download(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False)
    batch = await client.submit_batch(puts(audience_id, 3))
    emulator.run_batches()
    await client.find_batch(batch.id)
    emulator.advance(24 * 3600)
    assert len([result async for result in client.iter_results(batch.id)]) == 3


async def test_a_batch_that_is_not_finished_has_no_results_yet(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False)
    batch = await client.submit_batch(puts(audience_id, 3))
    with pytest.raises(ResultsMissing) as caught:
        await anext(aiter(client.iter_results(batch.id)))
    assert caught.value.may_be_retried


async def test_results_end_after_seven_days(client: MailchimpClient, emulator: Emulator, audience_id: str) -> None:
    emulator.configure(auto_batches=False)
    batch = await client.submit_batch(puts(audience_id, 3))
    emulator.run_batches()
    emulator.advance(8 * 24 * 3600)
    assert await client.find_batch(batch.id) is None
    with pytest.raises(NotFound):
        await anext(aiter(client.iter_results(batch.id)))


async def test_a_deleted_batch_is_gone_and_deleting_it_again_says_so(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False)
    batch = await client.submit_batch(puts(audience_id, 1))
    assert await client.delete_batch(batch.id) is True
    assert await client.delete_batch(batch.id) is False
    assert await client.find_batch(batch.id) is None


async def test_batches_are_found_beyond_the_first_ten(
    client: MailchimpClient, emulator: Emulator, audience_id: str
) -> None:
    emulator.configure(auto_batches=False)
    sent = {(await client.submit_batch(puts(audience_id, 1))).id for _ in range(15)}
    assert {batch.id async for batch in client.iter_batches()} == sent


# Webhooks


@pytest.fixture
async def hook_url() -> AsyncIterator[str]:
    async def ok(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/hook", ok)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook?secret=long-random"
    await runner.cleanup()


async def test_a_webhook_never_listens_to_changes_by_api_and_states_all_its_events(
    client: MailchimpClient, audience_id: str, hook_url: str
) -> None:
    hook = await client.add_webhook(audience_id, hook_url)
    (listed,) = await client.list_webhooks(audience_id)
    assert listed.id == hook.id
    assert listed.url == hook_url
    assert listed.sources == {"user": True, "admin": True, "api": False}
    assert listed.events == {
        "subscribe": True,
        "unsubscribe": True,
        "profile": True,
        "cleaned": True,
        "upemail": True,
        "campaign": False,
    }
    assert await client.delete_webhook(audience_id, hook.id) is True
    assert await client.delete_webhook(audience_id, hook.id) is False


async def test_a_refused_webhook_does_not_show_its_secret(client: MailchimpClient, audience_id: str) -> None:
    with pytest.raises(Refused) as caught:
        await client.add_webhook(audience_id, "http://127.0.0.1:1/hook?secret=long-random")
    assert "long-random" not in str(caught.value) + str(caught.value.problem)


async def test_batch_webhooks_are_added_listed_and_deleted(client: MailchimpClient, hook_url: str) -> None:
    hook = await client.add_batch_webhook(hook_url)
    assert [(one.id, one.enabled) for one in await client.list_batch_webhooks()] == [(hook.id, True)]
    assert await client.delete_batch_webhook(hook.id) is True
    assert await client.delete_batch_webhook(hook.id) is False
    assert await client.list_batch_webhooks() == []


def test_the_base_url_tells_where_an_account_lives() -> None:
    assert MailchimpClient("0123456789abcdef-us7").base_url == "https://us7.api.mailchimp.com/3.0"
