"""Traps of the connection (contract/mailchimp.md 1): the cap, back-off, pages that are no JSON, a revoked key.

Each test is named for its trap; ``tests/reliability/traps.py`` lists all traps with the tests that meet them.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import stamina
from aiohttp import web
from sqlalchemy import update as change

from civiapi.api.call import SYSTEM, Call
from civiapi.api.dispatch import Api
from civiapi.settings import SyncSettings
from civiapi.store.schema.tables import group
from entities import catalogue
from sync.connections.clients import Clients
from sync.connections.config import read_config, write_config
from sync.emulator.model.records import User
from sync.emulator.server.running import running_emulator
from sync.errors import MailchimpFailed
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import BadKey, InvalidApiKey, NotFound, Throttled
from sync.mailchimp.transport import RetryPolicy
from sync.service import SyncService
from tests.support.fake_mailchimp import KEY, client_of, constant_answer
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, sync_settings

ADA, BOB = "ada@example.org", "bob@example.org"
NEW_KEY = "fedcba9876543210fedcba9876543210-us1"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}", sockets=True) as opened:
        yield opened


@pytest.fixture
def service(site: Site) -> SyncService:
    return SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02))


async def status_of(site: Site, service: SyncService) -> Any:
    """The audience in ``getstatus``, as any caller has it."""
    answer = await Api(site.store, catalogue(), service).respond(
        Call("Mailchimpsync", "getstatus", {"health": 1}, SYSTEM)
    )
    return answer["values"][site.list_id]


class Desk:
    """A Mailchimp at which every request waits to be let go."""

    def __init__(self) -> None:
        self.url = ""
        self._here = 0
        self._most = 0
        self._let_go = asyncio.Event()

    async def answer(self, _: web.Request) -> web.StreamResponse:
        self._here += 1
        self._most = max(self._most, self._here)
        await self._let_go.wait()
        self._here -= 1
        return web.json_response({"account_name": "Acme"})

    async def most_at_once(self, calls: Sequence[Coroutine[Any, Any, Any]], *, enough: int = 8) -> int:
        """How many of these calls are here at once, when *enough* have come and all have had time to."""
        sent = asyncio.gather(*calls)
        async with asyncio.timeout(20):
            while self._here < enough:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # one more that came too late to be counted makes no test fail
        self._let_go.set()
        await sent
        return self._most


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with client_of(desk.answer) as client:
        desk.url = client.base_url
        yield desk


class TestTheCap:
    """Ten connections for each user of an account, all programs together; we take eight at most."""

    async def test_several_clients_of_one_account_share_the_cap(self) -> None:
        async with a_desk() as desk, AsyncExitStack() as stack:
            pools = [Clients(base_url=desk.url) for _ in range(3)]
            for pool in pools:
                stack.push_async_callback(pool.close)
            calls = [pool.client_for(KEY).get_account() for pool in pools for _ in range(15)]
            assert await desk.most_at_once(calls) == 8

    async def test_trying_a_key_that_is_in_use_counts_as_well(self) -> None:
        async with a_desk() as desk:
            pool, other = Clients(base_url=desk.url), Clients(base_url=desk.url)
            async with other.visit(KEY) as visitor:
                calls = [one.get_account() for one in (pool.client_for(KEY), visitor) for _ in range(12)]
                assert await desk.most_at_once(calls) == 8
            await pool.close()

    async def test_another_account_has_a_cap_of_its_own(self) -> None:
        async with a_desk() as desk:
            pool = Clients(base_url=desk.url)
            calls = [pool.client_for(key).get_account() for key in (KEY, NEW_KEY) for _ in range(12)]
            assert await desk.most_at_once(calls, enough=16) == 16
            await pool.close()

    async def test_two_audiences_synced_by_two_services_at_once_stay_under_the_cap(self, site: Site) -> None:
        second = site.emulator.world.add_audience("Second")
        raw = deepcopy(dict((await site.store.read(read_config)).raw))
        raw["lists"] |= {
            second.id: {"apiKey": site.emulator.key, "subscriptionGroup": str(TREES_GROUP), "interests": {}}
        }
        await site.store.write(lambda conn: write_config(conn, raw) and None)
        for list_id in (site.list_id, second.id):
            for n in range(60):
                site.emulator.admin("import", f"p{n}@example.org", list_id)
        async with AsyncExitStack() as stack:
            services = []
            for _ in range(2):
                clients = Clients(base_url=site.emulator.root_url)
                stack.push_async_callback(clients.close)
                services.append(SyncService(site.store, clients, sync_settings(poll_seconds=0.02)))
            first, other = (one.fetch_and_reconcile for one in services)
            await asyncio.gather(first(group_id=GROUP, since="ever"), other(group_id=TREES_GROUP, since="ever"))
            for list_id in (site.list_id, second.id):  # every one of them has to be asked for singly
                for n in range(60):
                    site.emulator.admin("delete_permanently", f"p{n}@example.org", list_id)
            site.emulator.clear_requests()
            site.emulator.configure(latency_ms=3.0, max_connections=8)  # the ninth would be turned away
            await asyncio.gather(
                *(
                    one(group_id=group, since="ever", confirm=True)  # else the brake would ask about so many leaving
                    for one, group in ((first, GROUP), (other, TREES_GROUP))
                )
            )
        asked = [one for one in site.emulator.requests if "/members/" in one.path]
        assert len(asked) == 120
        assert site.emulator.highest_concurrency <= 8
        assert 429 not in {one.status for one in site.emulator.requests}


class TestBackOff:
    """Mailchimp names no time to wait, so each wait is longer than the last and none is the same as another's."""

    POLICY = RetryPolicy(attempts=6, wait_initial=0.01, wait_max=0.04, wait_jitter=0.01)

    async def waits(self, **headers: str) -> list[float]:
        answer, _ = constant_answer(429, b"{}", "text/html", **headers)
        heard: list[float] = []
        stamina.instrumentation.set_on_retry_hooks([lambda details: heard.append(details.wait_for)])
        try:
            async with client_of(answer, retry=self.POLICY) as client:
                with pytest.raises(Throttled):
                    await client.get_account()
        finally:
            stamina.instrumentation.set_on_retry_hooks(None)
        return heard

    async def test_waits_double_up_to_a_limit(self) -> None:
        heard = await self.waits()
        assert len(heard) == self.POLICY.attempts - 1
        for wait, least in zip(heard, (0.01, 0.02, 0.03, 0.03, 0.03), strict=True):
            assert least - 0.001 <= wait <= self.POLICY.wait_max + 0.001

    async def test_waits_carry_jitter(self) -> None:
        first, second = await self.waits(), await self.waits()
        assert first[:2] != second[:2]

    def test_waits_at_the_limit_carry_jitter_too(self) -> None:
        policy = RetryPolicy()
        waits = {policy.wait(attempt) for attempt in (8, 9, 100, 1000) for _ in range(10)}
        assert len(waits) == 40
        assert policy.wait_max - policy.wait_jitter <= min(waits) <= max(waits) <= policy.wait_max

    async def test_a_retry_after_from_something_in_between_changes_nothing(self) -> None:
        assert max(await self.waits(**{"Retry-After": "3600"})) < 1

    def test_the_waits_of_a_running_program_last_long_enough_for_mailchimp_to_recover(self) -> None:
        policy = RetryPolicy()
        least = sum(min(policy.wait_max, policy.wait_initial * 2**n) for n in range(policy.attempts - 1))
        assert least > 5
        assert policy.total <= 120


class TestNotJson:
    """What stands before Mailchimp answers in its own way, with any status; none of it is believed."""

    @pytest.mark.parametrize(
        "action",
        [
            pytest.param("200_html", id="an HTML page with status 200"),
            pytest.param("502_html", id="a gateway's page with status 502"),
            pytest.param("503_block", id="a block page with status 503"),
            pytest.param("403_html", id="a page with status 403 is too fast and no revoked key"),
            pytest.param("429_bare", id="a 429 without JSON"),
            pytest.param("truncated_json", id="JSON that breaks off"),
        ],
    )
    async def test_a_sync_that_is_answered_with_it_stops_and_goes_on_later(
        self, site: Site, service: SyncService, action: str
    ) -> None:
        site.joined(ADA)
        contact_id = await site.person(ADA)
        await site.sync(since="ever")
        site.joined(BOB)
        before = await site.snapshot()
        site.emulator.add_fault(action, path="/members$")
        with pytest.raises(MailchimpFailed) as caught:
            await service.fetch_and_reconcile(since="ever")
        assert "key that works" not in str(caught.value)
        assert await site.snapshot() == before  # nobody counts as gone because a page could not be read
        assert await site.standing(contact_id) == "Added"
        assert "The next run continues there." in (await status_of(site, service))["stopped"]
        site.emulator.clear_faults()
        await service.fetch_and_reconcile()
        status = await status_of(site, service)
        assert (status["stopped"], status["in_sync"], status["stats"]["subscribed_at_civicrm"]) == ("", True, 2)

    async def test_a_problem_document_needs_no_type(self) -> None:
        async with (
            running_emulator(problem_without_type=True) as emulator,
            MailchimpClient(emulator.key, base_url=emulator.root_url) as client,
        ):
            with pytest.raises(NotFound):
                await client.list_webhooks("0000000000")

    async def test_a_problem_document_may_hold_no_more_than_status_and_title(self) -> None:
        answer, _ = constant_answer(401, b'{"status": 401, "title": "API Key Invalid"}', "application/problem+json")
        async with client_of(answer) as client:
            with pytest.raises(BadKey, match="401 API Key Invalid"):
                await client.get_account()


class TestAKeyRevokedHalfWay:
    async def test_the_audience_stops_says_why_and_goes_on_when_the_key_is_mended(
        self, site: Site, service: SyncService
    ) -> None:
        """Between the fetch and the sending, with a batch and a webhook event under way."""
        site.joined(ADA)
        await site.person(BOB)
        await service.fetch_and_reconcile(since="ever", stop_on="readyToSubmitUpdates")
        user = site.emulator.world.default_account.users[0]
        old_key = user.keys.pop()
        with pytest.raises(MailchimpFailed, match="Store a key that works"):
            await service.fetch_and_reconcile()
        status = await status_of(site, service)
        assert "401 API Key Invalid" in status["stopped"]
        assert "Mailchimpsync.updateconfig" in status["stopped"]
        assert (status["in_sync"], status["crashed"]) == (False, False)
        assert status["locks"]["fetchAndReconcile"] == "readyToSubmitUpdates"
        assert "401 API Key Invalid" in status["log"][-1]["message"]
        assert old_key not in str(status)
        user.keys.append(NEW_KEY)
        await mend(site, service, old_key)
        await service.fetch_and_reconcile()
        assert await service.wait_until_idle(seconds=20)
        assert (await status_of(site, service))["stopped"] == ""
        assert [site.at_mailchimp(one) for one in (ADA, BOB)] == ["subscribed", "subscribed"]
        assert (await status_of(site, service))["in_sync"]

    async def test_a_key_without_a_data_centre_is_told_in_whole_sentences(
        self, service: SyncService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def no_client(run: object) -> str:
            raise InvalidApiKey

        monkeypatch.setattr("sync.runs.engine._run_stages", no_client)
        with pytest.raises(MailchimpFailed, match=r"from given API key\. Store a key that works"):
            await service.fetch_and_reconcile()

    async def test_a_batch_in_flight_is_settled_with_the_new_key(self, site: Site, service: SyncService) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        user = site.emulator.world.default_account.users[0]
        old_key = user.keys.pop()
        assert not await service.wait_until_idle(seconds=0)
        user.keys.append(NEW_KEY)
        await mend(site, service, old_key)
        site.emulator.configure(auto_batches=True)
        assert await service.wait_until_idle(seconds=20)
        assert site.posted_batches() == 1
        assert site.at_mailchimp(ADA) == "subscribed"

    async def test_a_disabled_user_stops_a_fetch_in_the_middle_and_nothing_is_lost(
        self, site: Site, service: SyncService
    ) -> None:
        site.joined(*(f"p{n}@example.org" for n in range(1050)))
        fault = site.emulator.add_fault("403_user_disabled", path="/members$", skip=1)
        with pytest.raises(MailchimpFailed, match="403 User Disabled"):
            await service.fetch_and_reconcile(since="ever")
        assert fault.struck > 0
        assert "Store a key that works" in (await status_of(site, service))["stopped"]
        site.emulator.clear_faults()
        await service.fetch_and_reconcile()
        assert (await status_of(site, service))["stats"]["subscribed_at_civicrm"] == 1050

    async def test_no_request_is_repeated_with_a_key_that_was_refused(self, site: Site, service: SyncService) -> None:
        site.emulator.world.default_account.users[0].keys.clear()
        with pytest.raises(MailchimpFailed):
            await service.fetch_and_reconcile(since="ever")
        assert len(site.emulator.requests) <= SyncSettings().fetch_parallel

    async def test_one_account_that_stopped_keeps_no_other_from_its_turn(
        self, site: Site, service: SyncService
    ) -> None:
        other = site.emulator.world.add_account("Other", key=NEW_KEY)
        second = site.emulator.world.add_audience("Second", account=other)
        site.emulator.admin("import", ADA, second.id)
        raw = deepcopy(dict((await site.store.read(read_config)).raw))
        raw["accounts"] |= {NEW_KEY: {"apiKey": NEW_KEY, "audiences": {second.id: {"name": "Second"}}}}
        raw["lists"] |= {second.id: {"apiKey": NEW_KEY, "subscriptionGroup": str(TREES_GROUP), "interests": {}}}
        await site.store.write(lambda conn: write_config(conn, raw) and None)
        site.emulator.world.default_account.users.append(User("gone", []))
        site.emulator.world.default_account.users[0].disabled = True
        with pytest.raises(MailchimpFailed, match=site.list_id):
            await service.fetch_and_reconcile(since="ever")
        statuses = await service.get_status()
        assert statuses[site.list_id]["stopped"]
        assert (statuses[second.id]["stopped"], statuses[second.id]["stats"]["subscribed_at_civicrm"]) == ("", 1)

    async def test_system_check_shows_the_reason_too(self, site: Site, service: SyncService) -> None:
        await service.fetch_and_reconcile(since="ever")
        site.emulator.world.default_account.users[0].keys.clear()
        with pytest.raises(MailchimpFailed):
            await service.fetch_and_reconcile()
        answer = await Api(site.store, catalogue(), service).respond(Call("System", "check", {}, SYSTEM))
        stopped = (await status_of(site, service))["stopped"]
        assert stopped in [one["message"] for one in answer["values"].values()]

    async def test_a_group_that_is_mended_lets_an_audience_go_on_likewise(
        self, site: Site, service: SyncService
    ) -> None:
        await site.store.write(lambda conn: conn.execute(change(group).values(saved_search_id=1)) and None)
        with pytest.raises(Exception, match="smart group"):
            await service.fetch_and_reconcile(since="ever")
        await site.store.write(lambda conn: conn.execute(change(group).values(saved_search_id=None)) and None)
        await service.fetch_and_reconcile(since="ever")


async def mend(site: Site, service: SyncService, old_key: str) -> None:
    """Put the new key where the old one was, as the Config screen does."""
    raw = (await site.store.read(read_config)).raw
    account = {**raw["accounts"][old_key], "apiKey": NEW_KEY}
    lists = {list_id: {**link, "apiKey": NEW_KEY} for list_id, link in raw["lists"].items()}
    await service.update_config({"accounts": {NEW_KEY: account}, "lists": lists})
