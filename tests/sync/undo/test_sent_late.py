"""Updates of an undo that are sent late, or again: a member's change overrules them if it came after the undo."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy import update as change

from civiapi.store.schema.tables import contact
from sync.errors import MailchimpFailed, SyncError
from sync.outbox.pending_batches import create_batch
from sync.store.tables import run_log, update_detail
from sync.undo.engine import Undone, undo_run
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site

LEFT, JOINED, BACK = "left@example.org", "joined@example.org", "back@example.org"
SYNCED = {LEFT: "unsubscribed", JOINED: "subscribed", BACK: "subscribed"}
UNDONE = {LEFT: "subscribed", JOINED: "archived", BACK: "unsubscribed"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A sync has unsubscribed one, subscribed one who was no member, and one who was unsubscribed."""
    async with a_site(database_at(tmp_path / "undo.sqlite")) as found:
        left = await found.person(LEFT)
        found.joined(BACK, status="unsubscribed")
        back = await found.person(BACK, status=None)
        await found.sync()
        await found.set_group(left, "Removed")
        await found.person(JOINED)
        await found.set_group(back, "Added", at=datetime.now(UTC) + timedelta(hours=1))
        await found.sync()
        assert at_mailchimp(found) == SYNCED
        yield found


def at_mailchimp(site: Site) -> dict[str, str | None]:
    return {address: site.at_mailchimp(address) for address in SYNCED}


async def last_sync(site: Site) -> int:
    newest = select(run_log.c.id).where(run_log.c.undoes.is_(None)).order_by(run_log.c.id.desc()).limit(1)
    return await site.store.read(lambda conn: conn.execute(newest).scalar_one())


async def undo(site: Site, run_id: int) -> Undone:
    done = await undo_run(site.ctx, await site.audience(), run_id)
    await site.settle()
    return done


def fail_to_send(site: Site) -> None:
    site.emulator.add_fault("500", method="POST", path="/batches$")


def change_at_mailchimp(site: Site, address: str, status: str, after: timedelta) -> None:
    """Somebody changes the member, *after* now."""
    member = site.emulator.member(address)
    assert member is not None
    moment = int((datetime.now(UTC) + after).timestamp())
    with site.emulator.audience().members.changing(member, moment):
        member.status, member.timestamp_opt = status, moment


async def test_an_undo_long_after_the_last_sync_changes_members(site: Site) -> None:
    await site.age()
    done = await undo(site, await last_sync(site))
    assert at_mailchimp(site) == UNDONE
    assert done.sent == 3


@pytest.mark.parametrize("following", ["a sync", "the undo"])
async def test_what_mailchimp_did_not_take_is_sent_by_what_comes_next(site: Site, following: str) -> None:
    run_id = await last_sync(site)
    fail_to_send(site)
    with pytest.raises(MailchimpFailed, match="What waits is sent later"):
        await undo(site, run_id)
    site.emulator.clear_faults()
    if following == "a sync":
        await site.sync()
    else:
        assert (await undo(site, run_id)).sent == 3
    assert at_mailchimp(site) == UNDONE
    await site.sync(since="ever")
    assert at_mailchimp(site) == UNDONE


async def test_what_was_about_to_be_sent_when_the_process_was_killed_is_sent_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await last_sync(site)

    async def put_into_a_batch_and_die(ctx: object, audience: object, lease: object) -> None:
        await site.store.write(create_batch, ctx, audience, lease, None)
        raise SyncError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("sync.undo.engine.submit_pending", put_into_a_batch_and_die)
        with pytest.raises(SyncError, match="killed"):
            await undo_run(site.ctx, await site.audience(), run_id)
    await site.age()
    assert at_mailchimp(site) == SYNCED
    assert (await undo(site, run_id)).sent == 3
    assert at_mailchimp(site) == UNDONE


async def test_who_changed_after_the_undo_is_left_alone(site: Site) -> None:
    """One came back and left again; the other left and came back, before the undo reached Mailchimp."""
    run_id = await last_sync(site)
    fail_to_send(site)
    with pytest.raises(MailchimpFailed):
        await undo(site, run_id)
    site.emulator.clear_faults()
    change_at_mailchimp(site, LEFT, "unsubscribed", timedelta(minutes=1))
    change_at_mailchimp(site, BACK, "subscribed", timedelta(minutes=1))
    await site.send()
    assert at_mailchimp(site) == {LEFT: "unsubscribed", JOINED: "archived", BACK: "subscribed"}


async def test_what_the_run_had_under_way_does_not_overrule_its_undo(site: Site) -> None:
    """Mailchimp carries the run's update out only after the undo has looked at the members."""
    site.emulator.configure(auto_batches=False)
    await site.set_group((await site.row(JOINED)).civicrm_contact_id, "Removed", at=datetime.now(UTC))
    await site.run()
    done = await undo_run(site.ctx, await site.audience(), await last_sync(site))
    assert (done.counts, done.sent) == ({"subscribe_again": 1}, 0)
    looked = change(update_detail).values(decided_s=update_detail.c.decided_s - 60)
    await site.store.write(lambda conn: conn.execute(looked) and None)
    await site.age()
    await site.settle_with_batches()
    assert [one.error_response for one in await site.updates() if one.error_response] == []
    assert at_mailchimp(site) == SYNCED


@pytest.mark.parametrize(
    "values", [{"is_opt_out": 1}, {"do_not_email": 1}, {"is_deleted": 1}], ids=lambda values: next(iter(values))
)
async def test_who_is_not_to_be_mailed_any_more_is_not_subscribed_by_what_was_left_waiting(
    site: Site, values: dict[str, int]
) -> None:
    run_id = await last_sync(site)
    fail_to_send(site)
    with pytest.raises(MailchimpFailed):
        await undo(site, run_id)
    site.emulator.clear_faults()
    contact_id = (await site.row(LEFT)).civicrm_contact_id
    objects = change(contact).where(contact.c.id == contact_id).values(values)
    await site.store.write(lambda conn: conn.execute(objects) and None)
    await site.sync()
    assert at_mailchimp(site) == {**UNDONE, LEFT: "unsubscribed"}
    assert [plan.kind for plan in await site.plan_undo(run_id)] == ["left"]


async def test_what_was_overruled_is_not_counted_and_is_planned_again(site: Site) -> None:
    """By a change that is no longer the later one when the undo is called again."""
    run_id = await last_sync(site)
    await site.age()
    change_at_mailchimp(site, LEFT, "unsubscribed", timedelta(minutes=1))
    done = await undo(site, run_id)
    assert (done.counts["subscribe_again"], done.sent) == (1, 2)
    assert at_mailchimp(site) == {**UNDONE, LEFT: "unsubscribed"}
    change_at_mailchimp(site, LEFT, "unsubscribed", timedelta(minutes=-1))
    assert [plan.kind for plan in await site.plan_undo(run_id)] == ["subscribe_again"]
    done = await undo(site, run_id)
    assert (done.counts, done.sent) == ({"subscribe_again": 1}, 1)
    assert at_mailchimp(site) == UNDONE
    with pytest.raises(SyncError, match="was undone already"):
        await undo(site, run_id)
