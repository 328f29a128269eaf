"""Answers that Mailchimp does not give, but another server in its place may: a sync never reads "none" into them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from sync.context import UnitSizes
from sync.errors import SyncError
from sync.inbox.sync_member import MemberRef, sync_member
from sync.leases import hold_lease
from tests.support.databases import database_at
from tests.support.emulators import InProcessEmulator
from tests.support.linked_site import Site, a_site

Change = Callable[[httpx.URL, Any], Any]
"""Another body for an answer, from the address asked and the emulator's own body."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        opened.ctx = replace(opened.ctx, sizes=UnitSizes(members_per_page=10))
        yield opened


def change_answers(site: Site, change: Change | None) -> None:
    """Let the client read *change* of each JSON answer to a GET; None: what the emulator answers."""
    assert isinstance(site.emulator, InProcessEmulator)
    transport = site.emulator.transport

    async def handle(request: httpx.Request) -> httpx.Response:
        answer = await type(transport).handle_async_request(transport, request)
        if change is None or request.method != "GET" or "json" not in answer.headers["Content-Type"]:
            return answer
        body = change(request.url, orjson.loads(await answer.aread()))
        headers = {name: answer.headers[name] for name in ("Content-Type", "Date")}
        return httpx.Response(
            answer.status_code, headers=headers, stream=httpx.ByteStream(orjson.dumps(body)), request=request
        )

    transport.handle_async_request = handle  # type: ignore[method-assign]


def of_listings(change: Change) -> Change:
    return lambda url, body: change(url, body) if url.path.endswith("/members") else body


LISTINGS = [
    pytest.param(lambda url, body: {}, 0, id="An empty object is no empty audience."),
    pytest.param(lambda url, body: {"list_id": "x", "total_items": 21}, 0, id="Nor is a total alone."),
    pytest.param(lambda url, body: body | {"members": None}, 0, id="Nor is null."),
    pytest.param(lambda url, body: body | {"members": []}, 0, id="Nor is an empty page of a total that is not empty."),
    pytest.param(
        lambda url, body: {"members": [], "total_items": str(body["total_items"])}, 0, id="Nor is that with a text."
    ),
    pytest.param(
        lambda url, body: body if url.params["offset"] == "0" else {}, 10, id="Nor is it the end after a first page."
    ),
]


@pytest.mark.parametrize(("change", "read"), LISTINGS)
async def test_who_unsubscribed_is_not_subscribed_again_by_a_listing_that_is_none(
    site: Site, change: Change, read: int
) -> None:
    people = [f"m{number}@example.org" for number in range(20)]
    ids = [await site.person(one, at=datetime.now(UTC) - timedelta(days=3)) for one in people]
    site.joined(*people, status="unsubscribed")
    change_answers(site, of_listings(change))
    for _ in range(2):
        with pytest.raises(SyncError, match=r"an answer without .*members"):
            await site.run(since="ever")
        assert len(await site.rows()) == read
    assert site.posted_batches() == 0
    change_answers(site, None)
    await site.sync()
    assert {site.at_mailchimp(one) for one in people} == {"unsubscribed"}
    assert {await site.standing(one) for one in ids} == {"Removed"}


async def test_who_is_gone_is_gone_when_the_status_of_the_problem_is_text_too(site: Site) -> None:
    contact_id = await site.person("ann@example.org")
    await site.sync(since="ever")
    site.emulator.admin("delete_permanently", "ann@example.org")
    change_answers(site, lambda url, body: body | {"status": str(body["status"])} if "title" in body else body)
    assert (await site.run(since="ever")).outcome == "finished"
    assert (await site.row("ann@example.org")).mailchimp_status == "archived"
    assert await site.standing(contact_id) == "Removed"


@pytest.mark.parametrize("contact_id", [{}, {"contact_id": None}, {"contact_id": ""}])
async def test_who_signs_up_is_nobody_else_where_members_have_no_contact_id(
    site: Site, contact_id: dict[str, Any]
) -> None:
    def without(member: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in member.items() if name != "contact_id"} | contact_id

    def change(url: httpx.URL, body: Any) -> Any:
        if "members" in body:
            return body | {"members": [without(one) for one in body["members"]]}
        return without(body) if "email_address" in body else body

    change_answers(site, change)
    site.joined("ann@example.org", "bob@example.org")
    await site.sync(since="ever")
    site.emulator.admin("delete_permanently", "ann@example.org")
    site.emulator.person("sign_up", "cyd@example.org")
    async with hold_lease(site.ctx, site.list_id, brief=True) as lease:
        assert lease is not None
        await sync_member(site.ctx, await site.audience(), lease, MemberRef("subscribe", "cyd@example.org", ""))
    assert [one.mailchimp_email for one in await site.rows()] == [
        "ann@example.org",
        "bob@example.org",
        "cyd@example.org",
    ]
    owners = [one.civicrm_contact_id for one in await site.rows()]
    assert [await site.addresses(one) for one in owners] == [[one.mailchimp_email] for one in await site.rows()]
    assert len(await site.updates()) == 0


async def test_a_sync_of_numbers_and_flags_as_text_is_the_same_sync(site: Site) -> None:
    people = [f"m{number}@example.org" for number in range(25)]
    site.joined(*people)
    change_answers(site, lambda url, body: _as_text(body))
    assert (await site.run(since="ever")).outcome == "finished"
    await site.person("new@example.org")
    await site.sync()
    assert {one.mailchimp_status for one in await site.rows()} == {"subscribed"}
    assert len(await site.rows()) == 26


def _as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_text(one) for one in value]
    return orjson.dumps(value).decode() if isinstance(value, bool | int) else value
