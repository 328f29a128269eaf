"""Traps of webhooks (contract/mailchimp.md 8 and 9): lost, disabled, doubled, signed, and never the whole truth.

The emulator delivers to a real server here. What is kept and worked on is in ``test_inbox.py`` and
``test_webhook_events.py``; ``tests/reliability/traps.py`` lists all traps with the tests that meet them.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import text

from civiapi.api.call import SYSTEM, Call
from civiapi.api.dispatch import Api
from civiapi.app import App
from civiapi.auth.authenticator import Auth
from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.maintenance.doctor import examine
from civiapi.metrics import Metrics
from civiapi.settings import Settings
from entities import catalogue
from sync.connections import webhook_health
from sync.connections.config import read_config
from sync.connections.webhook_health import NO_ADDRESS, NO_BATCH_HOOK, NO_MEMBER_HOOK, NOT_ASKED
from sync.emulator.rules.webhook_events import signature
from sync.errors import SyncError
from sync.service import SyncService
from tests.support.http_server import serving
from tests.support.linked_site import Site, a_site, sync_settings
from tests.support.member_calls import member_calls

ADA, BOB = "ada@example.org", "bob@example.org"
FORM = "application/x-www-form-urlencoded"
OPTIONS = sync_settings(poll_seconds=0.02)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}", sockets=True, auto_webhooks=False) as opened:
        yield opened


class Ears:
    """The inbox, as long as it is not deaf."""

    def __init__(self, service: SyncService) -> None:
        self._service = service
        self.deaf = False

    async def receive_audience_webhook(self, fields: Mapping[str, Any]) -> object:
        if self.deaf:
            raise SyncError("out of order")
        return await self._service.receive_audience_webhook(fields)

    async def receive_batch_webhook(self, fields: Mapping[str, Any]) -> object:
        return await self._service.receive_batch_webhook(fields)


@dataclass
class Hooked:
    """A site with a server that Mailchimp can reach."""

    site: Site
    service: SyncService
    app: App
    ears: Ears

    async def add(self, process: str) -> None:
        await self.service.update_webhook(process=process, api_key=self.site.emulator.key, list_id=self.site.list_id)

    async def shown(self) -> Any:
        """The key ``webhooks`` of ``getstatus``, and that it cost no request."""
        self.site.emulator.clear_requests()
        answer = await self.app.api.respond(Call("Mailchimpsync", "getstatus", {"health": 1}, SYSTEM))
        assert self.site.emulator.requests == []
        return answer["values"][self.site.list_id]["webhooks"]

    async def doctor(self) -> dict[str, str]:
        """What the doctor finds wrong with webhooks."""
        return {one.code: one.remedy async for one in examine(self.app) if "ebhook:" in one.code and not one.ok}

    async def tell(self) -> None:
        """Everything that Mailchimp wants to tell, told and worked on."""
        await self.site.emulator.deliver_webhooks()
        await self.service.wait_until_idle(seconds=20)

    async def let_deliveries_fail(self) -> None:
        """For longer than Mailchimp tries."""
        self.ears.deaf = True
        self.site.emulator.configure(webhook_retry_gaps=[0.0, 0.0])
        self.site.emulator.person("sign_up", BOB)
        for _ in range(3):
            await self.site.emulator.deliver_webhooks()
        self.ears.deaf = False


@pytest.fixture
async def hooked(site: Site, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hooked]:
    monkeypatch.setattr(webhook_health, "CHECK_INTERVAL_S", 0)
    ears = Ears(SyncService(site.store, site.clients, OPTIONS))
    async with AsyncExitStack() as stack:
        ways = webhook_endpoints(site.store, ears, Throttle())
        server = await stack.enter_async_context(serving(site.store, Api(site.store, catalogue()), more=ways))
        service = SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02, base_url=server.base))
        settings = Settings()
        settings = replace(settings, server=replace(settings.server, base_url=server.base, site_key="k"))
        api = Api(site.store, catalogue(), service)
        app = App(settings, site.store, site.clients, service, api, Auth(site.store, "k", ()), Metrics())
        yield Hooked(site, service, app, ears)


class TestDisabledHooks:
    """Mailchimp drops a hook that failed for about 75 minutes, and nothing says so."""

    async def test_a_hook_that_mailchimp_disabled_is_noticed_by_the_next_sync_and_mended_by_updatewebhook(
        self, hooked: Hooked
    ) -> None:
        await hooked.add("add_webhook")
        await hooked.add("add_batch_webhook")
        assert (await hooked.shown())["ok"] is True
        await hooked.let_deliveries_fail()
        assert (await hooked.shown())["ok"] is True  # as Mailchimp last said
        await hooked.service.fetch_and_reconcile()
        shown = await hooked.shown()
        assert (shown["ok"], shown["why"]) == (False, NO_MEMBER_HOOK)
        assert shown["asked"]
        assert "add_webhook" in (await hooked.doctor())[f"webhook:{hooked.site.list_id}"]
        await hooked.add("add_webhook")
        shown = await hooked.shown()
        assert (shown["ok"], shown["why"]) == (True, "")
        assert await hooked.doctor() == {}
        hooked.site.emulator.person("unsubscribe", BOB)
        await hooked.tell()
        assert [one.status for one in await hooked.site.events()] == ["done"]

    async def test_a_batch_hook_that_is_gone_or_switched_off_is_noticed(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        await hooked.add("add_batch_webhook")
        [hook] = hooked.site.emulator.world.default_account.batch_hooks.values()
        hook.enabled = False
        await hooked.service.fetch_and_reconcile()
        assert (await hooked.shown())["why"] == NO_BATCH_HOOK
        [(code, remedy)] = (await hooked.doctor()).items()
        assert code.startswith("batchWebhook:")
        assert "add_batch_webhook" in remedy
        await hooked.add("add_batch_webhook")
        assert (await hooked.shown())["ok"] is True

    async def test_the_doctor_s_look_is_what_getstatus_shows_next(self, hooked: Hooked) -> None:
        assert (await hooked.shown()) == {"ok": None, "why": NOT_ASKED, "asked": ""}
        assert len(await hooked.doctor()) == 2
        shown = await hooked.shown()
        assert (shown["ok"], shown["why"]) == (False, f"{NO_MEMBER_HOOK} {NO_BATCH_HOOK}")

    async def test_a_removed_hook_counts_as_missing_at_once(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        [hook] = await hooked.site.client.list_webhooks(hooked.site.list_id)
        key, list_id = hooked.site.emulator.key, hooked.site.list_id
        await hooked.service.update_webhook(process="delete_webhook", api_key=key, list_id=list_id, hook_id=hook.id)
        assert (await hooked.shown())["why"] == NO_MEMBER_HOOK

    async def test_without_a_public_address_it_is_said_so_and_nobody_is_asked(self, site: Site) -> None:
        service = SyncService(site.store, site.clients, OPTIONS)
        await service.fetch_and_reconcile(since="ever")
        assert (await service.get_status())[site.list_id]["webhooks"] == {"ok": False, "why": NO_ADDRESS, "asked": ""}
        assert not [one for one in site.emulator.requests if "webhooks" in one.path]

    async def test_a_look_that_fails_spoils_no_sync_and_takes_nothing_back(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        await hooked.add("add_batch_webhook")
        hooked.site.emulator.add_fault("502_html", path="webhooks$")
        [done] = await hooked.service.fetch_and_reconcile()
        assert done["list_id"] == hooked.site.list_id
        assert (await hooked.shown())["ok"] is True

    async def test_runs_that_follow_each_other_closely_ask_once(
        self, hooked: Hooked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(webhook_health, "CHECK_INTERVAL_S", 900)
        for _ in range(3):
            await hooked.service.fetch_and_reconcile()
        looks = [one for one in hooked.site.emulator.requests if one.path.endswith(f"{hooked.site.list_id}/webhooks")]
        assert len(looks) == 1

    async def test_an_audience_unlinked_is_forgotten_here_too(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        await hooked.service.update_config({"accounts": {}, "lists": {}})
        left = await hooked.site.store.read(
            lambda conn: conn.execute(text("SELECT count(*) FROM civiapi_hook_health")).scalar()
        )
        assert left == 0


class TestWhatHooksLeaveOut:
    async def test_what_a_lost_webhook_would_have_told_the_next_sync_finds(self, site: Site) -> None:
        contact_id = await site.person(ADA)
        site.joined(ADA)
        await site.sync(since="ever")
        site.emulator.advance(2)
        site.emulator.person("unsubscribe", ADA)  # there is no hook at all
        await site.sync()
        assert await site.standing(contact_id) == "Removed"

    async def test_changes_of_our_own_tell_us_nothing_and_start_no_ping_pong(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        await hooked.site.owe_subscribing(ADA)
        await hooked.site.submit()
        await hooked.site.settle()
        await hooked.tell()
        assert await hooked.site.events() == []

    async def test_a_pending_person_is_told_of_when_they_confirm_and_not_before(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        async with member_calls(hooked.site.emulator.key, hooked.site.client.base_url, hooked.site.list_id) as members:
            await members.put(ADA, {"email_address": ADA, "status_if_new": "pending", "status": "pending"})
        await hooked.tell()
        assert await hooked.site.events() == []
        hooked.site.emulator.person("confirm", ADA)
        await hooked.tell()
        assert [(one.type, one.status) for one in await hooked.site.events()] == [("subscribe", "done")]


class TestWhatHooksSay:
    async def test_one_change_of_address_that_comes_as_profile_and_upemail_makes_one_contact(
        self, hooked: Hooked
    ) -> None:
        site = hooked.site
        await hooked.add("add_webhook")
        contact_id = await site.person(ADA)
        site.joined(ADA)
        await site.sync(since="ever")
        site.emulator.person("change_email", ADA, new_email=BOB)
        site.emulator.person("edit_profile", BOB, merge_fields={"FNAME": "Bobby"})
        site.emulator.configure(webhook_shuffle=True, webhook_duplicates=True)
        await hooked.tell()
        assert {one.type for one in await site.events()} == {"upemail", "profile"}
        assert {one.status for one in await site.events()} == {"done"}
        assert BOB in await site.addresses(contact_id)
        assert len({row.civicrm_contact_id for row in await site.rows()}) == 1

    async def test_archiving_in_mailchimp_s_pages_arrives_as_a_deletion_and_is_looked_up(self, hooked: Hooked) -> None:
        site = hooked.site
        await hooked.add("add_webhook")
        contact_id = await site.person(ADA)
        site.joined(ADA)
        await site.sync(since="ever")
        site.emulator.advance(2)
        site.emulator.admin("archive", ADA)
        await hooked.tell()
        assert [one.type for one in await site.events()] == ["unsubscribe"]
        assert await site.standing(contact_id) == "Removed"
        assert (await site.row(ADA)).mailchimp_status == "archived"

    async def test_a_signed_delivery_is_taken_by_the_secret_in_its_address(self, hooked: Hooked) -> None:
        hooked.site.emulator.configure(webhook_signing=True)
        await hooked.add("add_webhook")
        hooked.site.emulator.person("sign_up", ADA)
        await hooked.tell()
        assert [one.status for one in await hooked.site.events()] == ["done"]

    async def test_a_batch_hook_hears_of_every_program_and_only_ours_is_looked_at(self, hooked: Hooked) -> None:
        await hooked.add("add_batch_webhook")
        await hooked.site.client.submit_batch([])
        await hooked.site.owe_subscribing(ADA)
        await hooked.site.submit()
        hooked.site.emulator.run_batches()
        await hooked.tell()
        assert sorted(one.status for one in await hooked.site.events()) == ["done", "ignored"]
        assert hooked.site.at_mailchimp(ADA) == "subscribed"

    async def test_the_twenty_first_batch_webhook_is_refused_in_mailchimp_s_words(self, hooked: Hooked) -> None:
        base = hooked.app.settings.server.base_url
        for n in range(20):
            secret = "s" * 40
            await hooked.site.client.add_batch_webhook(
                f"{base}/civicrm/mailchimpsync/batch-webhook?secret={secret}&n={n}"
            )
        with pytest.raises(Exception, match="Mailchimp refused POST /batch-webhooks: 400"):
            await hooked.add("add_batch_webhook")


class TestSignedDeliveries:
    """Mailchimp may hand out a signing secret when a hook is made, and then signs what it delivers."""

    @pytest.fixture
    async def signed(self, hooked: Hooked) -> Hooked:
        hooked.site.emulator.configure(webhook_signing=True)
        await hooked.add("add_webhook")
        return hooked

    async def _post(self, hooked: Hooked, fields: Mapping[str, str], **headers: str) -> int:
        [hook] = await hooked.site.client.list_webhooks(hooked.site.list_id)
        async with httpx.AsyncClient() as stranger:
            return (await stranger.post(hook.url, data=fields, headers=headers)).status_code

    def _fields(self, hooked: Hooked) -> dict[str, str]:
        return {"type": "profile", "data[list_id]": hooked.site.list_id, "data[email]": ADA}

    async def test_what_mailchimp_signs_is_heard_and_nothing_else(self, signed: Hooked) -> None:
        signed.site.emulator.person("sign_up", BOB)
        await signed.tell()
        assert [one.status for one in await signed.site.events()] == ["done"]
        fields = self._fields(signed)
        assert await self._post(signed, fields) == 401
        assert (
            await self._post(signed, fields, **{"X-Mailchimp-Signature": f"t={int(time.time())},v1={'0' * 64}"}) == 401
        )
        assert len(await signed.site.events()) == 1

    async def test_it_is_shown_and_its_secret_is_not(self, signed: Hooked) -> None:
        [hook] = signed.site.emulator.audience().hooks.values()
        assert (await signed.shown())["signed"] is True
        found = [one.sentence async for one in examine(signed.app) if one.code == f"webhook:{signed.site.list_id}"]
        assert found[0].endswith("in place, with signed deliveries.")
        config = await signed.site.store.read(read_config)
        status = await signed.app.api.respond(Call("Mailchimpsync", "getstatus", {"health": 1}, SYSTEM))
        for text_ in (str(found), str(status), str(config.raw)):
            assert hook.signing_secret not in text_

    async def test_a_hook_without_a_secret_works_as_before(self, hooked: Hooked) -> None:
        await hooked.add("add_webhook")
        assert await self._post(hooked, self._fields(hooked)) == 200
        assert "signed" not in await hooked.shown()

    async def test_a_hook_that_took_its_place_without_a_secret_is_heard(self, signed: Hooked) -> None:
        """Somebody removed ours at Mailchimp and made another; the next look at the hooks finds out."""
        [hook] = await signed.site.client.list_webhooks(signed.site.list_id)
        await signed.site.client.delete_webhook(signed.site.list_id, hook.id)
        signed.site.emulator.configure(webhook_signing=False)
        await signed.site.client.add_webhook(signed.site.list_id, hook.url)
        assert await self._post(signed, self._fields(signed)) == 401
        await signed.service.fetch_and_reconcile()
        assert await self._post(signed, self._fields(signed)) == 200

    async def test_what_is_not_signed_adds_nothing_to_what_is(self, signed: Hooked) -> None:
        """The address is not part of what is signed: fields in it are no part of the event."""
        signed.site.emulator.person("sign_up", BOB)
        await signed.tell()
        [hook] = signed.site.emulator.audience().hooks.values()
        body = urlencode(self._fields(signed))
        at = int(time.time())
        header = {"X-Mailchimp-Signature": signature(hook.signing_secret, at, body), "Content-Type": FORM}
        async with httpx.AsyncClient() as mailchimp:
            odd = await mailchimp.post(f"{hook.url}&data[email]={BOB}&data[id]=x", content=body, headers=header)
            assert odd.status_code in (204, 400, 401)
            assert (await mailchimp.post(hook.url, content=body, headers=header)).status_code == 200
        assert len(await signed.site.events()) == 2
