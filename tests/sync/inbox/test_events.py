"""Webhook events: written down before they are answered, worked on once each, and not lost whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import time_machine
from sqlalchemy import update as change

from civiapi.store.schema.tables import group
from sync.connections.config import write_config
from sync.inbox import events as inbox_module
from sync.inbox.events import Inbox, fingerprint, retry_event
from sync.leases import hold_lease
from sync.store.tables import webhook_event
from tests.support.databases import database_at
from tests.support.linked_site import GROUP, Site, a_site

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        yield opened


def told(site: Site, kind: str, address: str = ADA, at: str = "2026-01-09 10:00:00", **data: str) -> dict[str, Any]:
    """An event of a member, parsed as it arrives."""
    return {
        "type": kind,
        "fired_at": at,
        "data": {"id": "3c9f0a77be", "email": address, "list_id": site.list_id, **data},
    }


async def statuses(site: Site) -> list[str]:
    return [one.status for one in await site.events()]


async def test_an_event_is_written_down_before_anything_is_done(site: Site) -> None:
    assert await site.inbox.receive_audience_webhook(told(site, "subscribe"))
    [one] = await site.events()
    assert (one.kind, one.type, one.list_id, one.status) == ("audience", "subscribe", site.list_id, "new")
    assert orjson.loads(one.body)["data"]["email"] == ADA
    assert site.emulator.requests == []


async def test_the_secret_is_not_written_down(site: Site) -> None:
    await site.inbox.receive_audience_webhook({**told(site, "subscribe"), "secret": "do-not-keep-me"})
    [one] = await site.events()
    assert "do-not-keep-me" not in one.body


async def test_an_event_is_worked_on_once(site: Site) -> None:
    site.emulator.person("sign_up", ADA)
    await site.inbox.receive_audience_webhook(told(site, "subscribe"))
    assert await site.inbox.process_due() == 1
    assert await statuses(site) == ["done"]
    assert (await site.row(ADA)).sync_status == "ok"
    assert await site.inbox.process_due() == 0


class TestRepeats:
    async def test_the_same_event_twice_is_kept_once(self, site: Site) -> None:
        assert await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        assert not await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        assert len(await site.events()) == 1

    async def test_a_repeat_of_what_was_worked_on_is_not_worked_on_again(self, site: Site) -> None:
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.inbox.process_due()
        site.emulator.clear_requests()
        assert not await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        assert await site.inbox.process_due() == 0
        assert site.emulator.requests == []

    async def test_the_same_words_after_something_else_happened_are_news(self, site: Site) -> None:
        """Joined, left and joined again within one second: Mailchimp's times bear whole seconds."""
        for kind in ("subscribe", "unsubscribe", "subscribe"):
            assert await site.inbox.receive_audience_webhook(told(site, kind))
            await site.inbox.process_due()
        assert await statuses(site) == ["done", "done"]

    async def test_an_event_without_a_time_is_news_once_the_last_was_worked_on(self, site: Site) -> None:
        event = told(site, "subscribe", at="")
        assert await site.inbox.receive_audience_webhook(event)
        assert not await site.inbox.receive_audience_webhook(event)
        await site.inbox.process_due()
        assert await site.inbox.receive_audience_webhook(event)

    async def test_events_out_of_order_end_at_what_mailchimp_says(self, site: Site) -> None:
        site.joined(ADA)
        site.emulator.person("unsubscribe", ADA)
        await site.inbox.receive_audience_webhook(told(site, "unsubscribe", at="2026-01-09 10:00:05"))
        await site.inbox.receive_audience_webhook(told(site, "subscribe", at="2026-01-09 10:00:00"))
        await site.inbox.process_due()
        assert (await site.row(ADA)).mailchimp_status == "unsubscribed"
        assert await statuses(site) == ["done", "done"]

    @pytest.mark.parametrize(
        ("changed", "is_same"),
        [
            pytest.param({}, True, id="the same event"),
            pytest.param({"type": "profile"}, False, id="another type"),
            pytest.param({"fired_at": "2026-01-09 10:00:01"}, False, id="another second"),
            pytest.param({"ip": "192.0.2.1"}, True, id="another detail nobody acts on"),
        ],
    )
    def test_what_makes_an_event_the_same(self, changed: dict[str, str], is_same: bool) -> None:
        event = {"type": "subscribe", "fired_at": "2026-01-09 10:00:00", "data": {"email": ADA, "list_id": "a"}}
        assert (fingerprint("audience", event) == fingerprint("audience", event | changed)) is is_same


class TestTrouble:
    async def test_while_mailchimp_cannot_be_asked_it_is_tried_again_later(self, site: Site) -> None:
        site.emulator.person("sign_up", ADA)
        site.emulator.add_fault("502_html")
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        assert await site.inbox.process_due() == 0
        [one] = await site.events()
        assert (one.status, one.tries) == ("new", 1)
        assert one.next_try_s > one.received_s
        assert "502" in one.error
        site.emulator.clear_faults()
        with time_machine.travel(one.next_try_s + 1, tick=True):
            assert await site.inbox.process_due() == 1
        assert [(one.status, one.error) for one in await site.events()] == [("done", None)]

    async def test_the_gaps_between_tries_grow(self, site: Site) -> None:
        site.emulator.add_fault("502_html")
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        gaps = []
        at = (await site.events())[0].next_try_s
        for _ in range(4):
            with time_machine.travel(at, tick=False):
                await site.inbox.process_due()
            [one] = await site.events()
            gaps.append(one.next_try_s - at)
            at = one.next_try_s
        assert gaps == [5, 10, 20, 40]

    async def test_after_the_last_try_it_is_kept_as_failed_with_its_error(self, site: Site) -> None:
        site.inbox = Inbox(site.ctx, site.watcher, max_tries=1)
        site.emulator.add_fault("502_html")
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.inbox.process_due()
        [one] = await site.events()
        assert (one.status, "502" in one.error) == ("failed", True)

    async def test_that_waiting_does_not_mend_it_fails_and_can_be_tried_again(self, site: Site) -> None:
        site.emulator.person("sign_up", ADA)
        hidden = change(group).where(group.c.id == GROUP).values(saved_search_id=1)
        await site.store.write(lambda conn: conn.execute(hidden) and None)
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.inbox.process_due()
        [one] = await site.events()
        assert (one.status, "smart group" in one.error) == ("failed", True)
        mended = change(group).where(group.c.id == GROUP).values(saved_search_id=None)
        await site.store.write(lambda conn: conn.execute(mended) and None)
        assert await site.store.write(retry_event, one.id, 0)
        await site.inbox.process_due()
        assert await statuses(site) == ["done"]
        assert not await site.store.write(retry_event, 99, 0)

    async def test_with_a_revoked_key_it_waits_for_the_key_to_be_mended(self, site: Site) -> None:
        site.emulator.add_fault("403_user_disabled")
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.inbox.process_due()
        assert await statuses(site) == ["new"]

    async def test_a_fault_of_ours_in_one_event_holds_up_no_other(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = inbox_module.sync_member

        async def faulty(ctx: Any, audience: Any, lease: Any, ref: Any) -> None:
            if ref.email == ADA:
                raise KeyError("a surprise")
            await real(ctx, audience, lease, ref)

        monkeypatch.setattr(inbox_module, "sync_member", faulty)
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.inbox.receive_audience_webhook(told(site, "subscribe", BOB))
        await site.inbox.process_due()
        assert await statuses(site) == ["new", "done"]
        assert (await site.events())[0].error == "KeyError (see the log)"

    async def test_an_audience_linked_no_more_is_ignored(self, site: Site) -> None:
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        await site.store.write(lambda conn: write_config(conn, {"accounts": {}, "lists": {}}) and None)
        await site.inbox.process_due()
        assert await statuses(site) == ["ignored"]


class TestClaims:
    async def test_an_event_waits_while_a_run_holds_its_audience(self, site: Site) -> None:
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        async with hold_lease(site.ctx, site.list_id):
            assert await site.inbox.process_due() == 0
            [one] = await site.events()
            assert (one.status, one.tries) == ("new", 0)
        with time_machine.travel(one.next_try_s + 1, tick=True):
            assert await site.inbox.process_due() == 1

    async def test_a_run_waits_for_an_event_and_is_not_told_busy(self, site: Site) -> None:
        async with hold_lease(site.ctx, site.list_id, brief=True):
            run = asyncio.create_task(site.run(since="ever"))
            await asyncio.sleep(0.05)
            assert not run.done()
        assert (await run).outcome == "finished"


class TestTheWorker:
    async def test_works_on_what_an_earlier_process_left(self, site: Site) -> None:
        site.emulator.person("sign_up", ADA)
        await site.inbox.receive_audience_webhook(told(site, "subscribe"))
        after_restart = Inbox(site.ctx, site.watcher)
        await after_restart.start()
        try:
            await finished(site)
        finally:
            await after_restart.stop()
        assert await statuses(site) == ["done"]

    async def test_is_woken_by_an_event(self, site: Site) -> None:
        await site.inbox.start()
        try:
            await asyncio.sleep(0.05)
            await site.inbox.receive_audience_webhook(told(site, "unsubscribe"))
            await finished(site)
        finally:
            await site.inbox.stop()

    async def test_two_of_them_end_every_event(self, site: Site) -> None:
        site.joined(*(f"p{n}@example.org" for n in range(10)))
        other = Inbox(site.ctx, site.watcher)
        await site.inbox.start()
        await other.start()
        try:
            for n in range(10):
                await site.inbox.receive_audience_webhook(told(site, "subscribe", f"p{n}@example.org"))
            await finished(site)
        finally:
            await site.inbox.stop()
            await other.stop()
        assert len(await site.rows()) == 10
        assert len(await site.contacts()) == len({one.id for one in await site.contacts()})


class TestBatchEvents:
    async def test_make_the_watcher_look_at_the_batch(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        [one] = await site.batches()
        event = {"type": "batch_operation_completed", "data": {"id": one.mailchimp_batch_id}}
        await site.inbox.receive_batch_webhook(event)
        await site.inbox.process_due()
        assert await statuses(site) == ["done"]
        await site.settle()

    async def test_of_another_program_s_batch_are_ignored(self, site: Site) -> None:
        await site.inbox.receive_batch_webhook({"type": "batch_operation_completed", "data": {"id": "aaaaaaaaaa"}})
        await site.inbox.process_due()
        assert await statuses(site) == ["ignored"]

    async def test_never_have_the_posted_address_fetched(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        [one] = await site.batches()
        data = {"id": one.mailchimp_batch_id, "response_body_url": f"{site.emulator.root_url}/evil"}
        await site.inbox.receive_batch_webhook({"type": "batch_operation_completed", "data": data})
        await site.inbox.process_due()
        await site.settle()
        assert not [request for request in site.emulator.requests if "evil" in request.path]


async def processed(site: Site, *states: str) -> int:
    """An event in each of these states; when they came, all in one second."""
    for n, status in enumerate(states):
        await site.inbox.receive_audience_webhook(told(site, "subscribe", f"p{n}@example.org"))
        last = change(webhook_event).where(webhook_event.c.status == "new").values(status=status)
        await site.store.write(lambda conn, last=last: conn.execute(last) and None)
    [*_, newest] = await site.events()
    together = change(webhook_event).values(received_s=newest.received_s)
    await site.store.write(lambda conn: conn.execute(together) and None)
    return int(newest.received_s)


async def test_old_events_are_deleted_and_failed_ones_kept_for_longer(site: Site) -> None:
    at_s = await processed(site, "done", "ignored", "failed")
    delete = inbox_module.delete_old_events
    assert await site.store.write(delete, at_s + inbox_module.KEPT_SECONDS, 0) == 0
    assert await site.store.write(delete, at_s + inbox_module.KEPT_SECONDS + 1, 0) == 2
    assert await statuses(site) == ["failed"]
    assert await site.store.write(delete, at_s + inbox_module.KEPT_FAILED_SECONDS + 1, 0) == 1
    assert await site.events() == []


async def test_of_processed_events_beyond_a_number_the_oldest_are_deleted_and_waiting_ones_never(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_KEPT", 2)
    at_s = await processed(site, "failed", "done", "done", "ignored", "done")
    await site.inbox.receive_audience_webhook(told(site, "subscribe", "new@example.org"))
    last_id = await site.store.read(inbox_module.find_last_surplus)
    assert await site.store.write(inbox_module.delete_old_events, at_s, last_id) == 3
    assert await statuses(site) == ["ignored", "done", "new"]


async def test_events_are_deleted_some_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "DELETED_AT_ONCE", 2)
    at_s = await processed(site, "done", "done", "done")
    later = at_s + inbox_module.KEPT_SECONDS + 1
    assert [await site.store.write(inbox_module.delete_old_events, later, 0) for _ in range(3)] == [2, 1, 0]


async def test_only_the_used_fields_of_an_event_are_stored_and_no_long_ones(site: Site) -> None:
    more = {"ip_opt": "192.0.2.7", "merges": {"FNAME": "x" * 60_000}, "action": "y" * 60_000}
    event = told(site, "unsubscribe", reason="manual")
    await site.inbox.receive_audience_webhook({**event, "data": {**event["data"], **more}, "more": "z" * 60_000})
    [one] = await site.events()
    body = orjson.loads(one.body)
    assert set(body) == {"type", "fired_at", "data"}
    assert set(body["data"]) == {"id", "email", "list_id", "action"}
    assert len(one.body) < 1000


async def test_more_waiting_events_than_an_account_may_have_are_refused_and_those_of_others_are_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 3)
    for n in range(3):
        assert await site.inbox.receive_audience_webhook(told(site, "subscribe", f"p{n}@example.org"))
    with pytest.raises(inbox_module.InboxFull):
        await site.inbox.receive_audience_webhook(told(site, "subscribe", "one.more@example.org"))
    assert await site.inbox.receive_batch_webhook({"type": "batch_operation_completed", "data": {"id": "123456789a"}})
    assert len(await site.events()) == 4


async def test_once_events_are_processed_there_is_room_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 1)
    monkeypatch.setattr(inbox_module, "RECOUNT_SECONDS", -1.0)
    await site.inbox.receive_audience_webhook(told(site, "subscribe"))
    await site.inbox.process_due()
    assert await site.inbox.receive_audience_webhook(told(site, "subscribe", BOB))


async def finished(site: Site) -> None:
    async with asyncio.timeout(20):
        while "new" in await statuses(site):  # noqa: ASYNC110  it becomes so in a database, which sets no events
            await asyncio.sleep(0.01)
