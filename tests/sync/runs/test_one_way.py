"""A smart group as a source: its members are subscribed, who leaves is unsubscribed, and choices at Mailchimp stay.

CiviCRM's cache of the group is written here as CiviCRM does; the group itself is never written.
"""

from collections.abc import AsyncIterator, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from civiapi.settings import SyncSettings
from civiapi.store.schema.tables import contact, email, group, group_contact, group_contact_cache, subscription_history
from sync.audience import Privacy
from sync.connections.config import read_config, write_config
from sync.connections.config_update import update_config
from sync.errors import BadConfig, SyncBraked, SyncError
from sync.reconcile.matching import PersonQuery
from sync.reports.checks import configuration
from sync.reports.preview import PlanFilter, make_plan, read_plan
from sync.reports.status import read_statuses
from sync.store.tables import run_log, source_contact
from sync.undo.engine import undo_run
from tests.support.databases import database_at
from tests.support.linked_site import GROUP, Site, a_site

ADA, BEA, CY = "ada@example.org", "bea@example.org", "cy@example.org"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        await opened.store.write(_make_smart)
        raw = deepcopy(dict((await opened.store.read(read_config)).raw))
        await opened.store.write(update_config, raw)
        opened.emulator.configure(auto_batches=True)
        yield opened


def _make_smart(conn: Connection) -> None:
    conn.execute(update(group).where(group.c.id == GROUP).values(saved_search_id=1))


async def search_finds(site: Site, *contact_ids: int, ago: timedelta = timedelta(0)) -> None:
    """CiviCRM computes the members of the smart group."""

    def compute(conn: Connection) -> None:
        conn.execute(delete(group_contact_cache).where(group_contact_cache.c.group_id == GROUP))
        rows = [{"group_id": GROUP, "contact_id": one} for one in contact_ids]
        if rows:
            conn.execute(insert(group_contact_cache), rows)
        computed = site.store.clock.write(datetime.now(UTC) - ago)
        conn.execute(update(group).where(group.c.id == GROUP).values(cache_date=computed))

    await site.store.write(compute)


async def people(site: Site, *addresses: str) -> list[int]:
    return [await site.person(one, status=None) for one in addresses]


async def sync(site: Site, **request: Any) -> None:
    """A run some seconds after the last, so that no two changes are of one second."""
    site.emulator.advance(5)
    await site.sync(**request)


async def later(site: Site, found: Sequence[int], seconds: int) -> None:
    """The search finds these, that many seconds from now."""
    await search_finds(site, *found, ago=timedelta(seconds=-seconds))


def statuses(site: Site, *addresses: str) -> list[str | None]:
    return [site.at_mailchimp(one) for one in addresses]


async def test_members_of_the_smart_group_are_subscribed_and_nothing_is_written_to_it(site: Site) -> None:
    ada, bea, cy = await people(site, ADA, BEA, CY)
    await search_finds(site, ada, bea)
    site.joined("elsewhere@example.org")
    await sync(site)
    assert statuses(site, ADA, BEA, CY, "elsewhere@example.org") == ["subscribed", "subscribed", None, "subscribed"]
    for table in (group_contact, subscription_history):
        assert await site._all(select(table).where(table.c.group_id == GROUP)) == []
    assert [one.id for one in await site.contacts()] == [ada, bea, cy]  # nobody is made of a member


async def test_who_leaves_is_unsubscribed_and_subscribed_again_when_they_are_back(site: Site) -> None:
    ada, bea = await people(site, ADA, BEA)
    await search_finds(site, ada, bea, ago=timedelta(minutes=9))
    await sync(site)
    await search_finds(site, bea, ago=timedelta(minutes=6))
    await sync(site)
    assert statuses(site, ADA, BEA) == ["unsubscribed", "subscribed"]
    await search_finds(site, ada, bea, ago=timedelta(minutes=3))
    await sync(site)
    assert statuses(site, ADA, BEA) == ["subscribed", "subscribed"]


async def test_who_is_back_while_mailchimp_is_unsubscribing_them_is_subscribed_however_late(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.configure(auto_batches=False)
    await search_finds(site, ago=timedelta(minutes=6))
    await site.run()
    await search_finds(site, ada, ago=timedelta(minutes=3))
    await site.run()
    site.emulator.run_batches()
    await site.age()
    await site.settle_with_batches()
    assert statuses(site, ADA) == ["subscribed"]


async def test_who_unsubscribed_is_never_subscribed_again_even_when_they_left_and_came_back(site: Site) -> None:
    ada, bea = await people(site, ADA, BEA)
    await search_finds(site, ada, bea, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.person("unsubscribe", ADA)
    for found in ([ada, bea], [bea], [ada, bea]):
        await search_finds(site, *found)
        await sync(site)
        assert statuses(site, ADA, BEA) == ["unsubscribed", "subscribed"], found
    assert await site.standing(ada) is None


async def test_who_unsubscribed_is_not_subscribed_at_an_address_they_have_since(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.person("unsubscribe", ADA)
    moved = update(email).where(email.c.contact_id == ada).values(email=BEA)
    await site.store.write(lambda conn: conn.execute(moved) and None)
    for found in ([ada], [], [ada]):
        await search_finds(site, *found)
        await sync(site, since="ever", confirm=True)
        assert statuses(site, ADA, BEA) == ["unsubscribed", None], found


@pytest.mark.parametrize("after", [[BEA, ADA, CY], [BEA, CY, ADA], [BEA, CY, "dee@example.org"]])
async def test_who_takes_over_the_address_of_a_member_is_subscribed_at_it(site: Site, after: list[str]) -> None:
    contacts = await people(site, ADA, BEA, CY)
    await search_finds(site, *contacts, ago=timedelta(minutes=9))
    await sync(site)
    for contact_id, address in zip(contacts, after, strict=True):
        moved = update(email).where(email.c.contact_id == contact_id).values(email=address)
        await site.store.write(lambda conn, moved=moved: conn.execute(moved) and None)
    for _ in range(2):  # the first takes the old addresses out of the audience, where the new ones are members
        await search_finds(site, *contacts)
        await sync(site, since="ever")
    assert set(statuses(site, *after)) == {"subscribed"}
    owners = [(await site.row(one)).civicrm_contact_id for one in after]
    assert owners == contacts


async def test_who_has_the_address_of_somebody_who_unsubscribed_meets_their_member(site: Site) -> None:
    ada, cy = await people(site, ADA, CY)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.person("unsubscribe", ADA)
    for contact_id, address in ((ada, BEA), (cy, ADA)):
        moved = update(email).where(email.c.contact_id == contact_id).values(email=address)
        await site.store.write(lambda conn, moved=moved: conn.execute(moved) and None)
    await search_finds(site, ada, cy)
    await sync(site, since="ever")
    assert statuses(site, ADA) == ["unsubscribed"]
    assert (await site.row(ADA)).civicrm_contact_id == cy


async def test_who_signed_up_again_after_leaving_stays(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    await search_finds(site, ago=timedelta(minutes=6))
    await sync(site, confirm=True)
    assert statuses(site, ADA) == ["unsubscribed"]
    site.emulator.person("sign_up", ADA)
    await search_finds(site, ago=timedelta(minutes=3))
    await sync(site, since="ever")
    assert statuses(site, ADA) == ["subscribed"]


async def test_a_member_who_was_never_in_the_smart_group_stays(site: Site) -> None:
    await people(site, ADA)
    site.joined(ADA)
    await search_finds(site)
    await sync(site, since="ever")
    assert statuses(site, ADA) == ["subscribed"]
    [shown] = (await site.store.read(read_statuses, site.store.clock, datetime.now(UTC))).values()
    assert shown["in_sync"]
    assert shown["one_way"]["missing"] == ""


async def archive_leavers(site: Site) -> None:
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    raw["lists"][site.list_id]["oneWayLeavers"] = "archive"
    await site.store.write(update_config, raw)


async def test_who_leaves_is_archived_where_the_connection_says_so(site: Site) -> None:
    await archive_leavers(site)
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    await search_finds(site, ago=timedelta(minutes=6))
    await sync(site)
    assert statuses(site, ADA) == ["archived"]
    await search_finds(site, ada, ago=timedelta(minutes=3))
    await sync(site)
    assert statuses(site, ADA) == ["subscribed"]


async def test_who_unsubscribes_before_we_archive_them_is_not_subscribed_again_when_they_are_back(site: Site) -> None:
    await archive_leavers(site)
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.configure(auto_batches=False)
    await search_finds(site, ago=timedelta(minutes=6))
    await site.run()
    site.emulator.advance(5)
    site.emulator.person("unsubscribe", ADA)
    await site.run(since="ever")
    await site.settle_with_batches()
    await search_finds(site, ada, ago=timedelta(minutes=3))
    await sync(site)
    assert statuses(site, ADA) == ["archived"]


@pytest.mark.parametrize(
    ("computed", "why"),
    [(None, "has not computed"), (timedelta(hours=25), "more than a day ago")],
)
async def test_without_a_fresh_cache_nothing_is_done_and_the_reason_is_said(
    site: Site, computed: timedelta | None, why: str
) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada)
    await sync(site)
    if computed is None:  # CiviCRM has discarded it
        await search_finds(site)
        await site.store.write(lambda conn: conn.execute(update(group).values(cache_date=None)))
    else:
        await search_finds(site, ago=computed)
    with pytest.raises(SyncError, match=why):
        await sync(site)
    assert statuses(site, ADA) == ["subscribed"]
    found = await site.store.read(lambda conn: list(configuration(conn, site.store.clock)))
    [finding] = [one for one in found if not one.ok]
    assert why in finding.sentence
    assert "Rebuild Smart Group Cache" in finding.remedy


async def test_the_brake_holds_when_the_search_suddenly_finds_nobody(site: Site) -> None:
    addresses = [f"p{number}@example.org" for number in range(30)]
    found = await people(site, *addresses)
    await search_finds(site, *found, ago=timedelta(minutes=9))
    await sync(site)
    await search_finds(site)
    site.ctx = replace(site.ctx, settings=replace(site.ctx.settings, sync=SyncSettings(brake_people=5)))
    with pytest.raises(SyncBraked):
        await sync(site)
    assert set(statuses(site, *addresses)) == {"subscribed"}
    await sync(site, confirm=True)
    assert set(statuses(site, *addresses)) == {"unsubscribed"}


async def test_preview_explanation_and_sync_agree(site: Site) -> None:
    ada, bea, cy = await people(site, ADA, BEA, CY)
    await search_finds(site, ada, bea, ago=timedelta(minutes=9))
    await sync(site)
    site.emulator.person("unsubscribe", BEA)
    await search_finds(site, bea, cy, ago=timedelta(minutes=3))
    audience = await site.audience()
    plan_id = await make_plan(site.ctx, audience, None)
    plan = await site.store.read(read_plan, plan_id, site.list_id, GROUP, site.store.clock, PlanFilter())
    assert {one["kind"]: one["contact_id"] for one in plan["people"]} == {"unsubscribe": ada, "subscribe": cy}
    assert (
        await site._all(select(source_contact).where(source_contact.c.contact_id == cy)) == []
    )  # a preview writes nothing
    await sync(site)
    assert statuses(site, ADA, BEA, CY) == ["unsubscribed", "unsubscribed", "subscribed"]
    one = await site.explain(bea)
    assert (one["one_way"], one["kind"], one["civicrm"]["status"]) == (True, "in_step", "Added")
    assert "choice made at Mailchimp" in one["reason"]


async def test_a_webhook_changes_nothing_in_civicrm(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    from sync.inbox.sync_contact import sync_contact

    site.emulator.person("unsubscribe", ADA)
    await sync_contact(site.ctx, await site.audience(), PersonQuery(ada, ""))
    await site.settle()
    assert statuses(site, ADA) == ["unsubscribed"]
    assert await site._all(select(group_contact)) == []


async def test_no_contact_is_made_of_a_member_whose_webhook_comes(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada)
    await sync(site)
    site.emulator.person("sign_up", BEA)
    told = {"type": "subscribe", "fired_at": "2026-01-09 10:00:00", "data": {"email": BEA, "list_id": site.list_id}}
    assert await site.inbox.receive_audience_webhook(told)
    await site.inbox.process_due()
    assert [one.id for one in await site.contacts()] == [ada]
    assert statuses(site, BEA) == ["subscribed"]


async def test_who_objected_is_subscribed_again_once_that_is_over(site: Site) -> None:
    site.ctx = replace(site.ctx, settings=replace(site.ctx.settings, sync=SyncSettings(on_opt_out=Privacy.UNSUBSCRIBE)))
    [ada] = await people(site, ADA)
    await search_finds(site, ada)
    for opted_out, expected in ((0, "subscribed"), (1, "unsubscribed"), (0, "subscribed")):
        values = {"is_opt_out": opted_out, "modified_date": site.store.clock.now()}
        changed = update(contact).where(contact.c.id == ada).values(values)
        await site.store.write(lambda conn, changed=changed: conn.execute(changed) and None)
        await sync(site, since="ever")
        assert statuses(site, ADA) == [expected]


async def test_what_an_undo_took_back_is_held_until_the_search_changes(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=9))
    await sync(site)
    newest = select(run_log.c.id).order_by(run_log.c.id.desc()).limit(1)
    [(run_id,)] = await site._all(newest)
    assert (await undo_run(site.ctx, await site.audience(), run_id)).counts == {"unsubscribe_again": 1}
    await site.settle()
    await sync(site, since="ever")
    assert statuses(site, ADA) == ["archived"]
    await later(site, [], 1)
    await sync(site, confirm=True)
    assert statuses(site, ADA) == ["archived"]
    await later(site, [ada], 2)
    await sync(site)
    assert statuses(site, ADA) == ["subscribed"]


async def test_nothing_changed_costs_nothing(site: Site) -> None:
    [ada] = await people(site, ADA)
    await search_finds(site, ada, ago=timedelta(minutes=5))
    await sync(site)
    before = await site.snapshot()
    outcome = await site.run()
    assert outcome.counts["readyToAddCiviOnly"] == {"added": 0}
    assert await site.snapshot() == before


async def test_a_contact_in_the_trash_and_one_who_objects_are_not_subscribed(site: Site) -> None:
    ada, bea = await people(site, ADA, BEA)
    await site.store.write(lambda conn: conn.execute(update(contact).where(contact.c.id == ada).values(is_deleted=1)))
    await site.store.write(lambda conn: conn.execute(update(contact).where(contact.c.id == bea).values(is_opt_out=1)))
    await search_finds(site, ada, bea)
    await sync(site)
    assert statuses(site, ADA, BEA) == [None, None]


async def test_of_two_contacts_with_one_address_that_in_the_smart_group_stands_for_it(site: Site) -> None:
    await people(site, ADA)
    second = await site.person(ADA, status=None)
    await search_finds(site, second, ago=timedelta(minutes=9))
    await sync(site)
    assert statuses(site, ADA) == ["subscribed"]
    await search_finds(site, ago=timedelta(minutes=6))
    await sync(site)
    assert statuses(site, ADA) == ["unsubscribed"]


async def test_a_smart_group_is_a_source_once_it_is_saved_and_never_that_of_an_interest(site: Site) -> None:
    raw = deepcopy(dict((await site.store.read(read_config)).raw))
    assert raw["lists"][site.list_id]["oneWay"] is True
    with pytest.raises(BadConfig, match="oneWayLeavers"):
        await site.store.write(
            update_config, raw | {"lists": {site.list_id: raw["lists"][site.list_id] | {"oneWayLeavers": "delete"}}}
        )
    plain = {key: value for key, value in raw["lists"][site.list_id].items() if key != "oneWay"}
    await site.store.write(write_config, raw | {"lists": {site.list_id: plain}})
    with pytest.raises(SyncError, match="saved again"):
        await site.run()
    await site.store.write(lambda conn: conn.execute(update(group).values(saved_search_id=None)))
    cleaned = await site.store.write(update_config, raw)
    assert "oneWay" not in cleaned.raw["lists"][site.list_id]
