"""Updates handed over in batches: what goes together, what waits, and what a lost answer leaves behind."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.leases import LeaseLost
from civiapi.store.schema.tables import lease
from sync.context import UnitSizes
from sync.errors import MailchimpFailed
from sync.leases import hold_lease
from sync.mailchimp.errors import MailchimpError, Refused, Throttled
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation
from sync.outbox.cancel import REASON, abort_sync
from sync.outbox.pending_batches import record_sending, unconfirmed_batches
from sync.outbox.submit import submit_pending
from sync.outbox.watcher import Watcher
from sync.store.members.member_codec import decode
from sync.store.tables import batch, cache
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site, sync_settings, unsubscribing
from tests.support.member_calls import put_member_operation

ADA, BOB, CY = "ada@example.org", "bob@example.org", "cy@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Batches wait until they are run by hand."""
    async with a_site(database_at(tmp_path / "site.sqlite"), auto_batches=False) as opened:
        yield opened


def tags_for(address: str, *names: str) -> MemberOperation:
    tags = [{"name": name, "status": "active"} for name in names]
    return MemberOperation(
        "tags", "POST", f"members/{subscriber_hash(address)}/tags", {"tags": tags, "is_syncing": True}
    )


def operations(site: Site) -> list[list[str]]:
    """Method and member of each operation of each batch that Mailchimp has, in the order they came."""
    return [
        sorted(f"{one['method']} {one['path'].partition('?')[0].partition('/members/')[2]}" for one in found.todo)
        for found in site.emulator.world.default_account.batches.values()
    ]


async def test_what_is_owed_goes_in_one_batch_with_its_id_kept(site: Site) -> None:
    await site.owe_subscribing(ADA, BOB)
    done = await site.submit()
    assert (done.updates, done.batches, done.left) == (2, 1, 0)
    [row] = await site.batches()
    assert row.mailchimp_batch_id in site.emulator.world.default_account.batches
    assert (row.status, row.total_operations, row.response_processed) == ("pending", 2, 0)
    assert [one.mailchimpsync_batch_id for one in await site.updates()] == [row.id, row.id]


async def test_batches_hold_no_more_than_they_may(tmp_path: Path) -> None:
    settings = sync_settings(batch_size=2, poll_seconds=0.05)
    async with a_site(database_at(tmp_path / "s.sqlite"), settings=settings, auto_batches=False) as site:
        await site.owe_subscribing(*(f"p{n}@example.org" for n in range(5)))
        assert (await site.submit()).batches == 3
        assert [len(found) for found in operations(site)] == [2, 2, 1]


async def test_nothing_owed_sends_nothing(site: Site) -> None:
    assert (await site.submit()).batches == 0
    assert site.posted_batches() == 0
    assert await site.batches() == []


async def test_tags_wait_until_the_member_update_is_done(site: Site) -> None:
    await site.owe_subscribing(ADA)
    [row] = await site.rows()
    await site.owe(row.id, tags_for(ADA, "A"))
    await site.submit()
    assert operations(site) == [[f"PUT {subscriber_hash(ADA)}"]]
    assert (await site.submit()).batches == 0  # sent is not done: Mailchimp promises no order between batches
    site.emulator.run_batches()
    await site.settle_with_batches()
    assert [one.name for one in site.emulator.audience().tags.values()] == ["A"]


async def test_one_member_is_never_in_two_open_batches(site: Site) -> None:
    await site.owe_subscribing(ADA)
    [row] = await site.rows()
    await site.submit()
    await site.owe(row.id, unsubscribing(ADA))
    assert (await site.submit()).batches == 0
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "unsubscribed"
    assert site.posted_batches() == 2


async def test_what_was_sent_is_noted_when_it_is_sent(site: Site) -> None:
    await site.owe_subscribing(ADA)
    [row] = await site.rows()
    assert "sent-status" not in decode(row.mailchimp_data)
    await site.submit()
    [row] = await site.rows()
    assert decode(row.mailchimp_data)["sent-status"] == "subscribed"


async def test_a_full_window_leaves_the_rest_for_later(site: Site) -> None:
    site.ctx = replace(site.ctx, sizes=UnitSizes(operations_in_flight=1))
    site.watcher = Watcher(site.ctx)
    await site.owe_subscribing(ADA)
    await site.submit()
    await site.owe_subscribing(BOB)
    done = await site.submit()
    assert (done.batches, done.left) == (0, 1)
    await site.settle_with_batches()
    assert site.at_mailchimp(BOB) == "subscribed"


async def test_a_run_that_is_out_of_time_stops_before_the_next_batch(site: Site) -> None:
    await site.owe_subscribing(ADA)
    done = await site.submit(expired=lambda: True)
    assert (done.batches, done.left) == (0, 1)


async def test_only_the_rows_asked_for_are_sent(site: Site) -> None:
    await site.owe_subscribing(ADA, BOB)
    rows = await site.rows()
    await site.submit(cache_ids=[rows[1].id])
    assert operations(site) == [[f"PUT {subscriber_hash(BOB)}"]]


async def test_a_compliance_retry_is_live_once_it_is_sent(site: Site) -> None:
    await site.owe_subscribing(ADA)
    await site.store.write(lambda conn: conn.execute(change(cache).values(sync_status="redo")) and None)
    await site.submit()
    assert [row.sync_status for row in await site.rows()] == ["live"]


@pytest.mark.parametrize(
    ("action", "posts"),
    [
        pytest.param("reset_after", 1, id="Mailchimp got it: the batch is found, not sent again."),
        pytest.param("truncated_json", 1, id="Half an answer: the batch is found all the same."),
        pytest.param("reset_before", 2, id="Mailchimp did not get it: it is sent again."),
        pytest.param("502_html", 2, id="A gateway's page says nothing: it is looked for, and sent again."),
        pytest.param("200_html", 2, id="A page with status 200 is no success."),
    ],
)
async def test_the_lost_answer_of_a_submission(site: Site, action: str, posts: int) -> None:
    site.emulator.add_fault(action, method="POST", path="/batches$", count=1)
    await site.owe_subscribing(ADA, BOB)
    await site.submit()
    [row] = await site.batches()
    assert list(site.emulator.world.default_account.batches) == [row.mailchimp_batch_id]
    assert site.posted_batches() == posts
    await site.settle_with_batches()
    assert [site.at_mailchimp(one) for one in (ADA, BOB)] == ["subscribed", "subscribed"]


async def test_a_process_killed_after_the_post_leaves_a_batch_that_the_next_one_finds(site: Site) -> None:
    await site.owe_subscribing(ADA)
    await site.submit()
    forget = change(batch).values(status="submitting", mailchimp_batch_id=None)
    await site.store.write(lambda conn: conn.execute(forget) and None)
    await site.settle_with_batches()
    assert site.posted_batches() == 1
    assert site.at_mailchimp(ADA) == "subscribed"
    assert [one.completed for one in await site.updates()] == [1]


async def test_a_process_killed_before_the_post_leaves_a_batch_that_the_next_one_sends(site: Site) -> None:
    await site.owe_subscribing(ADA)
    await site.submit()
    site.emulator.world.default_account.batches.clear()
    forget = change(batch).values(status="submitting", mailchimp_batch_id=None)
    await site.store.write(lambda conn: conn.execute(forget) and None)
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "subscribed"
    assert len(await site.batches()) == 1


class Killed(BaseException):
    """The end of a process, as far as its rows show."""


FIRST_SENT = [
    pytest.param(timedelta(minutes=1), id="sent a minute ago"),
    pytest.param(timedelta(minutes=10), id="sent ten minutes ago"),
    pytest.param(timedelta(minutes=20), id="sent longer ago than a batch is looked for"),
    pytest.param(timedelta(days=1), id="sent yesterday"),
    pytest.param(timedelta(hours=-1), id="sent an hour from now: the clock was ahead, and was set right"),
]


async def lose_answer(site: Site, sent: timedelta) -> None:
    """Leave the batch rows as a process does that was killed before it had an answer, *sent* ago."""
    submitted_at = site.store.clock.write(datetime.now(UTC) - sent)
    forget = change(batch).values(status="submitting", mailchimp_batch_id=None, submitted_at=submitted_at)
    await site.store.write(lambda conn: conn.execute(forget) and None)
    await site.clients.close()  # the next process has not heard from Mailchimp yet


async def lose_batch(site: Site, sent: timedelta) -> None:
    """A batch row whose batch did not reach Mailchimp, as `lose_answer` leaves it."""
    await site.owe_subscribing(ADA)
    await site.submit()
    site.emulator.world.default_account.batches.clear()
    await lose_answer(site, sent)


@pytest.mark.parametrize("sent", FIRST_SENT)
async def test_a_batch_that_is_sent_again_is_found_when_that_answer_is_lost_too(site: Site, sent: timedelta) -> None:
    await lose_batch(site, sent)
    site.emulator.add_fault("reset_after", method="POST", path="/batches$", count=1)
    await site.settle_with_batches()
    assert len(site.emulator.world.default_account.batches) == 1
    assert site.at_mailchimp(ADA) == "subscribed"


@pytest.mark.parametrize("sent", FIRST_SENT)
async def test_a_batch_that_is_sent_again_by_a_process_then_killed_is_found(site: Site, sent: timedelta) -> None:
    await lose_batch(site, sent)
    client = site.client
    submit = client.submit_batch

    async def and_be_killed(operations: Any, **more: Any) -> Any:
        await submit(operations, **more)
        raise Killed

    client.submit_batch = and_be_killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await site.submit()
    await site.clients.close()
    await site.settle_with_batches()
    assert len(site.emulator.world.default_account.batches) == 1
    assert site.at_mailchimp(ADA) == "subscribed"


@pytest.mark.parametrize("sent", FIRST_SENT)
async def test_a_process_killed_before_it_sends_again_leaves_a_batch_that_is_sent_once(
    site: Site, sent: timedelta
) -> None:
    await lose_batch(site, sent)
    audience = await site.audience()
    async with hold_lease(site.ctx, site.list_id) as mine:
        assert mine is not None
        [pending] = await site.store.read(unconfirmed_batches, site.list_id, audience.clock)
        await site.store.write(record_sending, mine, pending, audience.clock)
    await site.settle_with_batches()
    assert len(site.emulator.world.default_account.batches) == 1
    assert site.at_mailchimp(ADA) == "subscribed"


async def test_whoever_lost_the_lease_neither_dates_a_batch_anew_nor_sends_it(site: Site) -> None:
    await lose_batch(site, timedelta(days=1))
    [before] = await site.batches()
    posted = site.posted_batches()
    find = site.client.iter_batches

    async def slow() -> AsyncIterator[Any]:
        async for one in find():
            yield one
        await site.store.write(leases.revoke, site.list_id)

    site.client.iter_batches = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(LeaseLost):
        await site.submit()
    assert await site.batches() == [before]
    assert site.posted_batches() == posted


@pytest.mark.parametrize("seconds", [-7200, -600, 600, 7200])
async def test_a_process_whose_clock_is_not_mailchimp_s_finds_what_the_killed_one_sent(
    site: Site, seconds: int
) -> None:
    site.emulator.configure(clock_skew_s=seconds)
    await site.owe_subscribing(ADA)
    await site.submit()
    await lose_answer(site, timedelta(0))
    await site.settle_with_batches()
    assert site.posted_batches() == 1
    assert site.at_mailchimp(ADA) == "subscribed"


async def test_another_program_s_batch_of_another_size_is_not_taken_for_ours(site: Site) -> None:
    foreign = await site.client.submit_batch([])
    site.emulator.run_batches()
    site.emulator.add_fault("reset_before", method="POST", path="/batches$", count=1)
    await site.owe_subscribing(ADA)
    await site.submit()
    [row] = await site.batches()
    assert row.mailchimp_batch_id != foreign.id


async def test_a_batch_taken_for_ours_by_mistake_does_no_harm(site: Site) -> None:
    """Nothing but time and size tells batches apart; its results then name none of our operations."""
    await site.client.submit_batch([])
    site.emulator.world.default_account.batches.popitem()
    foreign = await site.client.submit_batch([_foreign_operation(site)])
    site.emulator.add_fault("reset_before", method="POST", path="/batches$", count=1)
    await site.owe_subscribing(ADA)
    await site.submit()
    assert [one.mailchimp_batch_id for one in await site.batches()] == [foreign.id]
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "subscribed"
    assert [one.completed for one in await site.updates()] == [1]


def _foreign_operation(site: Site) -> Any:
    body = {"email_address": CY, "status_if_new": "subscribed"}
    return put_member_operation(site.list_id, subscriber_hash(CY), body, "theirs-1")


@pytest.mark.parametrize(
    ("action", "error"),
    [
        pytest.param("429_json", Throttled, id="turned away as too fast"),
        pytest.param("403_user_disabled", Refused, id="refused: the user is disabled"),
    ],
)
async def test_a_batch_surely_not_taken_waits_again(site: Site, action: str, error: type[MailchimpError]) -> None:
    rule = site.emulator.add_fault(action, method="POST", path="/batches$")
    await site.owe_subscribing(ADA)
    with pytest.raises(error):
        await site.submit()
    assert await site.batches() == []
    assert [one.mailchimpsync_batch_id for one in await site.updates()] == [None]
    rule.count = rule.struck
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "subscribed"


async def test_mailchimp_s_limit_of_open_batches_is_met_by_waiting(site: Site) -> None:
    site.emulator.configure(max_pending_batches=1)
    await site.client.submit_batch([])
    await site.owe_subscribing(ADA)
    with pytest.raises(MailchimpError):
        await site.submit()
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "subscribed"


async def test_whoever_lost_the_lease_sends_nothing(site: Site) -> None:
    await site.owe_subscribing(ADA)
    async with hold_lease(site.ctx, site.list_id) as mine:
        assert mine is not None
        await site.store.write(leases.revoke, site.list_id)
        with pytest.raises(LeaseLost):
            await submit_pending(site.ctx, await site.audience(), mine)
    assert site.posted_batches() == 0
    assert await site.batches() == []


class TestAbort:
    """Calling everything off."""

    async def test_cancels_batches_completes_updates_and_fails_rows(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        await site.owe_subscribing(BOB)
        assert await abort_sync(site.ctx, await site.audience()) == 2
        assert not site.emulator.world.default_account.batches
        assert {(one.completed, one.error_response) for one in await site.updates()} == {(1, REASON)}
        assert {row.sync_status for row in await site.rows()} == {"fail"}
        [row] = await site.batches()
        assert (row.status, row.response_processed) == ("aborted", 2)

    async def test_cancels_batches_that_were_never_polled(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        await site.store.write(lambda conn: conn.execute(change(batch).values(status=None)) and None)
        await abort_sync(site.ctx, await site.audience())
        assert not site.emulator.world.default_account.batches

    async def test_may_be_repeated_and_takes_a_missing_batch_for_gone(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.world.default_account.batches.clear()
        await abort_sync(site.ctx, await site.audience())
        assert await abort_sync(site.ctx, await site.audience()) == 0

    async def test_leaves_the_stage_at_the_start_and_says_so(self, site: Site) -> None:
        await site.run(stop_on="readyToReconcileQueue")
        await abort_sync(site.ctx, await site.audience())
        await site.run(stop_on="readyToFetch")
        assert (await site.status())["locks"]["fetchAndReconcile"] == "readyToFetch"
        assert "Abort!" in [entry["message"] for entry in (await site.status())["log"]]

    async def test_takes_the_lease_from_whoever_works_on_the_audience(self, site: Site) -> None:
        async with hold_lease(site.ctx, site.list_id) as mine:
            assert mine is not None
            await abort_sync(site.ctx, await site.audience())
            with pytest.raises(LeaseLost):
                await site.store.write(leases.check, mine)

    async def test_that_cannot_reach_mailchimp_is_finished_later(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.add_fault("502_html", method="DELETE", path="/batches/")
        with pytest.raises(MailchimpFailed, match="tried again"):
            await abort_sync(site.ctx, await site.audience())
        assert [one.completed for one in await site.updates()] == [1]
        site.emulator.clear_faults()
        await site.settle()
        assert not site.emulator.world.default_account.batches
        assert [one.status for one in await site.batches()] == ["aborted"]

    async def test_while_a_batch_is_on_its_way_calls_that_one_off_too(self, site: Site) -> None:
        """The answer to POST comes after the abort: it brings the id by which the batch can be stopped."""
        await site.owe_subscribing(ADA)
        audience = await site.audience()
        submit = site.client.submit_batch

        async def slow(operations: Any, **more: Any) -> Any:
            sent = await submit(operations, **more)
            await abort_sync(site.ctx, audience)
            return sent

        site.client.submit_batch = slow  # type: ignore[method-assign]
        with pytest.raises(LeaseLost):
            await site.submit()
        assert not site.emulator.world.default_account.batches
        assert [one.status for one in await site.batches()] == ["aborted"]


async def test_leases_are_released(site: Site) -> None:
    await site.owe_subscribing(ADA)
    await site.submit()
    await site.settle_with_batches()
    expires = await site.store.read(lambda conn: list(conn.execute(select(lease.c.expires_ms)).scalars()))
    assert set(expires) == {0}
