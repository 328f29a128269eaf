"""What people reported of other connectors to Mailchimp, tried on this one: a running server, Mailchimp emulated.

Each test names the report (repository of GitHub and number) and says what is right.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy import update as change

from civiapi.api.call import SYSTEM, Call
from civiapi.api.dispatch import Api
from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.store.schema.tables import email
from entities import catalogue
from sync.emulator.model.records import Interest, InterestCategory, MergeField
from sync.service import SyncService
from tests.support.databases import database_at
from tests.support.http_server import serving
from tests.support.linked_site import TREES_GROUP, Site, a_site, link, sync_settings

ADA, BOB = "ada@example.org", "bob@example.org"
SECRET = "s" * 40  # of the linked account


@dataclass
class Running:
    """A site with a server that Mailchimp reaches."""

    site: Site
    service: SyncService
    url: str

    async def sync(self, **how: str) -> None:
        """A whole sync with the results of its batches."""
        await self.service.fetch_and_reconcile(**how)  # type: ignore[arg-type]
        await self.settle()

    async def settle(self) -> None:
        """Mailchimp delivers its webhooks and runs its batches, and both are processed."""
        for _ in range(3):
            self.site.emulator.run_batches()
            await self.site.emulator.deliver_webhooks()
            await self.service.wait_until_idle(seconds=20)

    async def troubles(self) -> dict[int, str]:
        """Why rows failed, by contact, as the Status page says it."""
        params = {"mailchimp_list_id": self.site.list_id, "troubleshoot": 1, "options": {"limit": 0}}
        told = await Api(self.site.store, catalogue(), self.service).respond(
            Call("MailchimpsyncCache", "get", params, SYSTEM)
        )
        failed = [row for row in told["values"] if row["sync_status"] == "fail"]
        return {int(row["civicrm_contact_id"]): f"{row['errors']} {row['updates'][-1]['error']}" for row in failed}


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        url = database_at(tmp_path / "site.sqlite")
        site = await stack.enter_async_context(a_site(url, sockets=True, auto_webhooks=False))
        inbox = SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02))
        endpoints = webhook_endpoints(site.store, inbox, Throttle())
        server = await stack.enter_async_context(serving(site.store, Api(site.store, catalogue()), more=endpoints))
        service = SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02, base_url=server.base))
        stack.push_async_callback(service.stop)
        for process in ("add_webhook", "add_batch_webhook"):
            await service.update_webhook(process=process, api_key=site.emulator.key, list_id=site.list_id)
        yield Running(site, service, server.base)


async def in_step(running: Running, *addresses: str) -> list[int]:
    """People in the group and subscribed, synced a while ago; their contact ids."""
    running.site.joined(*addresses)
    ids = [await running.site.person(one) for one in addresses]
    await running.sync(since="ever")
    running.site.emulator.advance(2)  # more would count as a clock that is wrong
    return ids


async def another_address(site: Site, contact_id: int, address: str, **more: int) -> None:
    row = {"contact_id": contact_id, "email": address, "location_type_id": 1, **more}
    await site.store.write(lambda conn: conn.execute(insert(email).values(row)) and None)


async def test_someone_whose_contact_has_the_address_twice_joins_the_group(running: Running) -> None:
    """veda-consulting-company/uk.co.vedaconsulting.mailchimp 203: "multiple contacts found", and nobody joined."""
    site = running.site
    contact_id = await site.person(ADA, status=None)
    await another_address(site, contact_id, ADA)
    site.emulator.person("sign_up", ADA)
    await running.settle()
    assert await site.standing(contact_id) == "Added"
    assert len(await site.contacts()) == 1


async def test_editing_someone_who_left_does_not_bring_them_back(running: Running) -> None:
    """uk.co.vedaconsulting.mailchimp 336: a `profile` event put them into the group again."""
    site = running.site
    [contact_id] = await in_step(running, ADA)
    site.emulator.person("unsubscribe", ADA)
    await running.settle()
    site.emulator.advance(60)
    site.emulator.admin("edit", ADA, merge_fields={"FNAME": "Augusta"})
    await running.settle()
    await running.sync(since="ever")
    assert (await site.standing(contact_id), site.at_mailchimp(ADA)) == ("Removed", "unsubscribed")


async def test_a_primary_address_on_hold_unsubscribes_nobody_who_reads_another(running: Running) -> None:
    """uk.co.vedaconsulting.mailchimp 328: who had a good address for bulk mail was unsubscribed."""
    site = running.site
    contact_id = await site.person(ADA)
    await another_address(site, contact_id, BOB, is_bulkmail=1)
    await running.sync()
    held = change(email).where(email.c.email == ADA).values(on_hold=1, hold_date="2026-01-01 00:00:00")
    await site.store.write(lambda conn: conn.execute(held) and None)
    await running.sync(since="ever")
    assert (site.at_mailchimp(BOB), site.at_mailchimp(ADA)) == ("subscribed", None)
    assert await site.standing(contact_id) == "Added"


async def test_who_comes_back_is_in_the_group_although_only_a_profile_event_says_so(running: Running) -> None:
    """mailchimp/mc-magento2 1078 and 1086: the second subscription fires `profile` alone."""
    site = running.site
    [contact_id] = await in_step(running, ADA)
    site.emulator.person("unsubscribe", ADA)
    await running.settle()
    assert await site.standing(contact_id) == "Removed"
    site.emulator.advance(2)
    site.emulator.audience().hooks.clear()
    site.emulator.person("sign_up", ADA)
    event = {"type": "profile", "fired_at": "2026-11-29 10:00:00", "data[email]": ADA, "data[list_id]": site.list_id}
    async with httpx.AsyncClient() as client:
        said = await client.post(f"{running.url}/civicrm/mailchimpsync/webhook?secret={SECRET}", data=event)
    assert said.status_code == 200
    await running.settle()
    assert (await site.standing(contact_id), site.at_mailchimp(ADA)) == ("Added", "subscribed")


async def test_webhooks_that_echo_our_own_writes_set_nothing_off(running: Running) -> None:
    """mailchimp/mc-magento2 2334: with `sources.api` on, each write came back and was written again."""
    site = running.site
    for hook in site.emulator.audience().hooks.values():
        hook.sources["api"] = True
    ada, bob = await in_step(running, ADA, BOB)
    await site.set_group(bob, "Removed", at=datetime.now(UTC) + timedelta(seconds=30))
    cy = await site.person("cy@example.org")
    await running.sync()
    before = [await site.history(one) for one in (ada, bob, cy)], site.posted_batches()
    for _ in range(3):
        site.emulator.advance(60)
        await running.settle()
        await running.sync(since="ever")
    assert ([await site.history(one) for one in (ada, bob, cy)], site.posted_batches()) == before
    assert [site.at_mailchimp(one) for one in (ADA, BOB, "cy@example.org")] == [
        "subscribed",
        "unsubscribed",
        "subscribed",
    ]


async def test_an_address_in_capitals_is_the_same_member(running: Running) -> None:
    """VingtCinq/python-mailchimp 182, mailchimp/mailchimp-client-lib-codegen 113: "Member Exists"."""
    site = running.site
    site.joined(ADA)
    contact_id = await site.person("Ada@Example.ORG")
    await running.sync(since="ever")
    await site.set_group(contact_id, "Removed", at=datetime.now(UTC) + timedelta(seconds=30))
    await running.sync()
    assert [row.civicrm_contact_id for row in await site.rows()] == [contact_id]
    assert (site.at_mailchimp(ADA), await running.troubles()) == ("unsubscribed", {})


@pytest.mark.parametrize("address", ["ada+news@example.org", "o'hara&co@example.org", "100%ada@example.org"])
async def test_an_address_with_signs_that_forms_encode_goes_both_ways(running: Running, address: str) -> None:
    """ericrasmussen/postmonkey 2: a plus became a space."""
    site = running.site
    site.emulator.person("sign_up", address)
    await running.settle()
    [found] = await site.contacts()
    assert await site.addresses(found.id) == [address]
    await site.set_group(found.id, "Removed", at=datetime.now(UTC) + timedelta(seconds=30))
    await running.sync()
    assert site.at_mailchimp(address) == "unsubscribed"


async def test_a_merge_field_that_mailchimp_requires_keeps_nobody_out(running: Running) -> None:
    """EvanHerman/yikes-inc-easy-mailchimp-extender 713, spatie/laravel-newsletter 213: "merge fields were invalid"."""
    site = running.site
    site.emulator.audience().merge_fields["COUNTRY"] = MergeField(9, "COUNTRY", "Country", required=True)
    contact_id = await site.person(ADA)
    await running.sync()
    assert (site.at_mailchimp(ADA), await running.troubles()) == ("subscribed", {})
    assert await site.standing(contact_id) == "Added"


async def test_an_address_that_looks_fake_is_named_and_stops_no_one_else(running: Running) -> None:
    """uk.co.vedaconsulting.mailchimp 216: one refusal broke the sync. Nor is it sent again each time."""
    site = running.site
    fake = "ada@fake.example.org"
    site.emulator.configure(reject_domains=["fake.example.org"])
    contact_id = await site.person(fake)
    await site.person(BOB)
    await running.sync()
    assert site.at_mailchimp(BOB) == "subscribed"
    assert "looks fake or invalid" in (await running.troubles())[contact_id]
    sent = site.posted_batches()
    await running.sync(since="ever")
    assert site.posted_batches() == sent


async def test_interests_are_known_by_id_whatever_they_are_called(running: Running) -> None:
    """svsticky/constipated-koala 581, uk.co.vedaconsulting.mailchimp 241: events name interests, commas and all."""
    site = running.site
    category = InterestCategory("c" * 10, "Topics")
    for number, name in (("a", "Trees, birds"), ("b", "Trees")):
        category.interests[number * 10] = Interest(number * 10, category.id, name, 1)
    site.emulator.audience().categories[category.id] = category
    await site.store.write(link, site.emulator.key, site.list_id, {"b" * 10: str(TREES_GROUP)})
    [contact_id] = await in_step(running, ADA)
    site.emulator.person("edit_profile", ADA, interests={"a" * 10: True})
    await running.settle()
    assert await site.standing(contact_id, TREES_GROUP) is None
    site.emulator.advance(2)
    site.emulator.person("edit_profile", ADA, interests={"b" * 10: True})
    await running.settle()
    assert await site.standing(contact_id, TREES_GROUP) == "Added"


async def test_whom_nobody_put_into_the_group_is_never_subscribed(running: Running) -> None:
    """mailchimp/mc-woocommerce 1264: a resync subscribed guests, and people who had left."""
    site = running.site
    await site.person(BOB, status=None)
    [ada] = await in_step(running, ADA)
    site.emulator.configure(auto_webhooks=False)
    site.emulator.audience().hooks.clear()  # the event of leaving is lost
    site.emulator.person("unsubscribe", ADA)
    for _ in range(2):
        await running.sync(since="ever")
        site.emulator.advance(60)
    assert (site.at_mailchimp(ADA), site.at_mailchimp(BOB)) == ("unsubscribed", None)
    assert await site.standing(ada) == "Removed"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_mailchimps_probe_of_the_webhook_is_answered(running: Running, method: str) -> None:
    """mailchimp/mc-woocommerce 915: the validator was turned away, so no webhook was added."""
    agent = {"User-Agent": "MailChimp.com WebHook Validator"}
    async with httpx.AsyncClient(headers=agent) as client:
        for path in ("webhook", "batch-webhook"):
            url = f"{running.url}/civicrm/mailchimpsync/{path}?secret={SECRET}"
            assert (await client.request(method, url)).status_code == 200


async def test_two_contacts_alike_in_address_name_and_groups_stop_no_sync(running: Running) -> None:
    """uk.co.vedaconsulting.mailchimp 225 and 287: "DB Error: already exists"."""
    site = running.site
    first, second = [await site.person(ADA) for _ in range(2)]
    third = await site.person(BOB)
    await running.sync()
    assert (site.at_mailchimp(ADA), site.at_mailchimp(BOB)) == ("subscribed", "subscribed")
    assert [await site.standing(one) for one in (first, second, third)] == ["Added"] * 3
    sent = site.posted_batches()
    await running.sync(since="ever")
    assert site.posted_batches() == sent


async def test_two_people_of_one_name_are_both_subscribed(running: Running) -> None:
    """uk.co.vedaconsulting.mailchimp 237: only one of two Bob Smiths was."""
    site = running.site
    for address in (ADA, BOB):
        await site.person(address, first_name="Bob", last_name="Smith")
    await running.sync()
    assert {site.at_mailchimp(one) for one in (ADA, BOB)} == {"subscribed"}


async def test_who_is_added_again_right_after_leaving_is_asked_to_confirm(running: Running) -> None:
    """mailchimp/mc-magento2 1639: "already subscribed" until the next webhook, then nothing."""
    site = running.site
    [contact_id] = await in_step(running, ADA)
    site.emulator.person("unsubscribe", ADA)  # its event is still on the way
    await site.set_group(contact_id, "Removed", at=datetime.now(UTC) + timedelta(seconds=20))
    await site.set_group(contact_id, "Added", at=datetime.now(UTC) + timedelta(seconds=30))
    await running.sync()
    assert (site.at_mailchimp(ADA), await site.standing(contact_id)) == ("pending", "Added")
