"""Whom an undo does not subscribe again: who is not to be mailed as CiviCRM is at that time."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete
from sqlalchemy import update as change

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.schema.tables import contact, email
from sync.store.tables import cache
from sync.undo.engine import undo_run
from tests.support.databases import database_at
from tests.support.linked_site import GROUP, Site, a_site
from tests.sync.undo.test_undo import last_run

LEFT = "left@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "undo.sqlite")) as found:
        yield found


async def leave(site: Site, *, method: str = "Admin") -> int:
    """A contact whom a sync unsubscribed, because they had left the group."""
    left = await site.person(LEFT)
    await site.sync()
    await site.store.write(set_status, GROUP, [left], "Removed", method=method, at=site.store.clock.now())
    await site.sync()
    assert site.at_mailchimp(LEFT) == "unsubscribed"
    return left


async def undo_and_sync(site: Site) -> str:
    """The reason why the undo leaves the person, who is left by later syncs too."""
    run_id = await last_run(site)
    [plan] = await site.plan_undo(run_id)
    done = await undo_run(site.ctx, await site.audience(), run_id)
    await site.settle()
    assert (plan.kind, done.counts) == ("left", {"left": 1})
    for _ in range(2):
        assert site.at_mailchimp(LEFT) == "unsubscribed"
        await site.sync(since="ever")
    return plan.reason


def trash(conn: Connection, left: int) -> None:
    conn.execute(change(contact).where(contact.c.id == left).values(is_deleted=1))


def put_on_hold(conn: Connection, left: int) -> None:
    conn.execute(change(email).where(email.c.contact_id == left).values(on_hold=1))


def remove_address(conn: Connection, left: int) -> None:
    conn.execute(delete(email).where(email.c.contact_id == left))


def change_address(conn: Connection, left: int) -> None:
    conn.execute(change(email).where(email.c.contact_id == left).values(email="other@example.org"))


def opt_out(conn: Connection, left: int) -> None:
    conn.execute(change(contact).where(contact.c.id == left).values(is_opt_out=1))


def do_not_email(conn: Connection, left: int) -> None:
    conn.execute(change(contact).where(contact.c.id == left).values(do_not_email=1))


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (trash, "The contact is in the trash"),
        (put_on_hold, "The address is on hold"),
        (remove_address, "does not have the member's address any more"),
        (change_address, "does not have the member's address any more"),
        (opt_out, "is not to be mailed"),
        (do_not_email, "is not to be mailed"),
    ],
)
async def test_who_cannot_be_mailed_any_more_is_not_subscribed_again(
    site: Site, happens: Callable[[Connection, int], None], reason: str
) -> None:
    left = await leave(site)
    await site.store.write(happens, left)
    assert reason in await undo_and_sync(site)


@pytest.mark.parametrize("method", ["Email", "Web"])
async def test_who_left_the_group_in_person_is_not_subscribed_again(site: Site, method: str) -> None:
    await leave(site, method=method)
    assert "left the group in person" in await undo_and_sync(site)


async def test_after_a_merge_the_contact_of_today_counts(site: Site) -> None:
    left = await leave(site)
    other = await site.person("other@example.org", status=None)

    def merge(conn: Connection) -> None:
        trash(conn, left)
        opt_out(conn, other)
        conn.execute(change(email).where(email.c.contact_id == left).values(contact_id=other))
        conn.execute(change(cache).where(cache.c.civicrm_contact_id == left).values(civicrm_contact_id=other))

    await site.store.write(merge)
    run_id = await last_run(site)
    [plan] = await site.plan_undo(run_id)
    assert (plan.kind, plan.reason) == ("left", "The contact is not to be mailed: not subscribed again.")


async def test_a_plan_names_who_is_in_the_group_again_though_they_left_at_mailchimp(site: Site) -> None:
    await site.person(LEFT)
    await site.sync()
    site.emulator.person("unsubscribe", LEFT)
    await site.sync()
    [plan] = await site.plan_undo(await last_run(site))
    assert plan.kind == "group_again"
    assert plan.reason == (
        "The run removed the contact from the group: Added again. "
        "CiviMail mails them then, though they are unsubscribed at Mailchimp."
    )
