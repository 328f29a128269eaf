"""Updates that are sent long after a fetch: a later change at Mailchimp overrules them, one that they are about does
not."""

from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from civiapi.store.schema.tables import contact
from sync.connections.config import read_config, write_config
from sync.errors import MailchimpFailed
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site, sync_settings

ADA = "ada@example.org"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0, on_opt_out="unsubscribe")) as opened:
            yield opened


async def change_twice(site: Site, first: str, second: str) -> int:
    """A contact whose group changes, and changes back while Mailchimp is carrying the first change out."""
    ada = await site.person(ADA, status=None)
    changes = ["Added", first, second] if first == "Removed" else [first, second]
    for minutes, status in zip((9, 6, 3), changes, strict=False):
        await site.set_group(ada, status, at=datetime.now(UTC) - timedelta(minutes=minutes))
        site.emulator.configure(auto_batches=(minutes, first) == (9, "Removed"))
        await site.run()
        if (minutes, first) == (9, "Removed"):
            await site.settle()
    site.emulator.run_batches()
    return ada


@pytest.mark.parametrize(
    ("first", "second", "after"), [("Removed", "Added", "subscribed"), ("Added", "Removed", "unsubscribed")]
)
async def test_our_own_change_carried_out_late_does_not_overrule_the_one_that_takes_it_back(
    site: Site, first: str, second: str, after: str
) -> None:
    ada = await change_twice(site, first, second)
    await site.age()
    await site.settle_with_batches()
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == (after, second)


async def test_a_change_of_the_member_s_after_ours_does(site: Site) -> None:
    ada = await change_twice(site, "Removed", "Added")
    site.emulator.advance(60)
    site.emulator.person("sign_up", ADA)
    site.emulator.advance(60)
    site.emulator.person("unsubscribe", ADA)
    await site.age()
    await site.settle_with_batches()
    assert site.at_mailchimp(ADA) == "unsubscribed"
    await site.sync()
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == ("unsubscribed", "Removed")


async def run_and_send_late(site: Site) -> None:
    """A full sync that stops as Mailchimp does not take its batch; that is sent long after, and the sync continued."""
    site.emulator.advance(60)
    site.emulator.add_fault("500", method="POST", path="/batches$")
    with pytest.raises(MailchimpFailed):
        await site.run(since="ever")
    site.emulator.clear_faults()
    await site.age()
    await site.settle_with_batches()
    await site.sync()


async def objects(site: Site, contact_id: int, value: int) -> None:
    changed = update(contact).where(contact.c.id == contact_id).values(is_opt_out=value)
    await site.store.write(lambda conn: conn.execute(changed) and None)


async def test_who_objects_to_mail_is_unsubscribed_however_late(site: Site) -> None:
    site.emulator.configure(auto_batches=True)
    ada = await site.person(ADA)
    await site.sync()
    await objects(site, ada, 1)
    await run_and_send_late(site)
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == ("unsubscribed", "Added")
    await objects(site, ada, 0)
    await site.sync(since="ever")
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == ("subscribed", "Added")


def trust_civicrm(conn: Connection, list_id: str) -> None:
    raw = deepcopy(dict(read_config(conn).raw))
    raw["lists"][list_id]["trustOverride"] = {"subscription": "CiviCRM"}
    write_config(conn, raw)


@pytest.mark.parametrize(("group", "member"), [("Added", "unsubscribed"), ("Removed", "subscribed")])
async def test_civicrm_takes_precedence_over_earlier_changes_at_mailchimp_however_late(
    site: Site, group: str, member: str
) -> None:
    site.emulator.configure(auto_batches=True)
    ada = await site.person(ADA, status=group, at=datetime.now(UTC) - timedelta(hours=1))
    site.joined(ADA, status=member)
    await site.store.write(trust_civicrm, site.list_id)
    await run_and_send_late(site)
    after = {"Added": "subscribed", "Removed": "unsubscribed"}[group]
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == (after, group)
    await site.sync(since="ever")
    assert (site.at_mailchimp(ADA), await site.standing(ada)) == (after, group)
