"""Campaigns and their reports, asked for by Mailchimp's own Python client, and over the control API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from mailchimp_marketing import Client
from mailchimp_marketing.api_client import ApiClientError

from sync.emulator.data.seeding import restore, snapshot
from sync.emulator.rules import campaigns
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from tests.emulator.mailchimp import LIST, Mailchimp

PEOPLE = ("ada@example.org", "bea@example.org", "cy@example.org")
LINK = "https://example.org/give"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    world = World(seed=7)
    world.add_audience(list_id=LIST)
    async with running_emulator(world, control=True) as running:
        for one in PEOPLE:
            running.admin("import", one)
        running.admin("unsubscribe", PEOPLE[2])
        yield running


def client_of(emulator: Emulator) -> Any:
    client = Client({"api_key": emulator.key})
    client.api_client.host = emulator.base_url
    return client


async def test_mailchimps_client_reads_a_campaign_and_its_reports(emulator: Emulator) -> None:
    sent = campaigns.send(emulator.world, "Spring", links=[LINK])
    campaigns.send(emulator.world, "Draft", status="save")
    campaigns.open_mail(emulator.world, sent.id, PEOPLE[0])
    for _ in range(2):
        campaigns.click(emulator.world, sent.id, PEOPLE[1], LINK)
    client = client_of(emulator)

    def read() -> list[Any]:
        listed = client.campaigns.list(status="sent", list_id=LIST, sort_field="send_time", sort_dir="ASC")
        opens = client.reports.get_campaign_open_details(sent.id)
        links = client.reports.get_campaign_click_details(sent.id)
        link = links["urls_clicked"][0]
        clicks = client.reports.get_subscribers_info(sent.id, link["id"])
        return [listed, client.reports.get_campaign_recipients(sent.id), opens, link, clicks]

    listed, recipients, opens, link, clicks = await asyncio.to_thread(read)
    assert [one["settings"]["subject_line"] for one in listed["campaigns"]] == ["Spring"]
    assert listed["campaigns"][0]["report_summary"]["clicks"] == 2
    assert [one["email_address"] for one in recipients["sent_to"]] == list(PEOPLE[:2])
    assert [(one["email_address"], one["opens_count"]) for one in opens["members"]] == [(PEOPLE[0], 1)]
    assert (link["url"], link["total_clicks"], link["unique_clicks"]) == (LINK, 2, 1)
    assert [(one["email_address"], one["clicks"]) for one in clicks["members"]] == [(PEOPLE[1], 2)]


async def test_an_unknown_campaign_and_a_wrong_filter_are_refused(emulator: Emulator) -> None:
    client = client_of(emulator)
    for ask, status in (
        (lambda: client.campaigns.get("0000000000"), 404),
        (lambda: client.reports.get_campaign_recipients("0000000000"), 404),
        (lambda: client.campaigns.list(status="posted"), 400),
        (lambda: client.campaigns.list(since_send_time="yesterday"), 400),
    ):
        with pytest.raises(ApiClientError) as refused:
            await asyncio.to_thread(ask)
        assert refused.value.status_code == status


async def test_campaigns_are_sent_opened_and_clicked_over_the_control_api(emulator: Emulator) -> None:
    async with httpx.AsyncClient(base_url=f"{emulator.root_url}/_emulator") as control:
        body = {"subject": "Spring", "list": LIST, "links": [LINK], "only": [PEOPLE[0]]}
        made = (await control.post("/campaigns", json=body)).json()
        await control.post(f"/campaigns/{made['id']}/open", json={"email": PEOPLE[0]})
        await control.post(f"/campaigns/{made['id']}/click", json={"email": PEOPLE[0], "url": LINK})
        wrong = await control.post(f"/campaigns/{made['id']}/open", json={"email": "nobody@example.org"})
    assert (made["recipients"], wrong.status_code) == (1, 400)
    summary = (await asyncio.to_thread(client_of(emulator).campaigns.get, made["id"]))["report_summary"]
    assert (summary["opens"], summary["clicks"]) == (1, 1)


def test_pages_have_the_limits_of_other_listings(mailchimp: Mailchimp) -> None:
    for number in range(12):
        campaigns.send(mailchimp.world, f"Number {number}", sent_at=1_700_000_000 + number)
    assert len(mailchimp.ask("GET", "/campaigns").body["campaigns"]) == 10
    rest = mailchimp.ask("GET", "/campaigns", offset="10", sort_field="send_time", sort_dir="DESC").body
    assert [one["settings"]["title"] for one in rest["campaigns"]] == ["Number 1", "Number 0"]
    assert rest["total_items"] == 12
    assert mailchimp.ask("GET", "/campaigns", count="1001").status == 400
    since = mailchimp.ask("GET", "/campaigns", since_send_time="2023-11-14T22:13:29+00:00").body
    assert since["total_items"] == 3


def test_who_is_deleted_permanently_is_in_no_report(mailchimp: Mailchimp) -> None:
    mailchimp.a_member("subscribed")
    sent = campaigns.send(mailchimp.world, "Spring")
    assert mailchimp.ask("GET", f"/reports/{sent.id}/sent-to").body["total_items"] == 1
    mailchimp.ask("POST", f"/lists/{LIST}/members/{mailchimp.member().id}/actions/delete-permanent")
    assert mailchimp.ask("GET", f"/reports/{sent.id}/sent-to").body["total_items"] == 0


def test_campaigns_are_part_of_a_snapshot(mailchimp: Mailchimp) -> None:
    mailchimp.a_member("subscribed")
    sent = campaigns.send(mailchimp.world, "Spring", links=[LINK])
    campaigns.open_mail(mailchimp.world, sent.id, "ada@example.org")
    before = mailchimp.ask("GET", f"/reports/{sent.id}/open-details").body["members"]
    restore(mailchimp.world, snapshot(mailchimp.world))
    assert mailchimp.ask("GET", f"/reports/{sent.id}/open-details").body["members"] == before
