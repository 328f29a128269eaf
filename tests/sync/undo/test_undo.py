"""A run that is undone: both sides are as before for everybody untouched since, and no sync does it again."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy import update as change

from civiapi.store import leases
from civiapi.store.schema.tables import contact, email, entity_tag, group, group_contact, note
from sync.connections.config import read_config
from sync.connections.config_update import update_config
from sync.errors import SyncError
from sync.reconcile.requeue import include_contacts
from sync.reports.run_view import ChangeFilter, UndoPreview
from sync.store.members.cache import absorb
from sync.store.runs import checkpoints
from sync.store.tables import cache, hold, run_change, run_log
from sync.undo.engine import Undone, preview_undo, undo_run
from tests.support.databases import database_at
from tests.support.linked_site import TREES_GROUP, Site, a_site, link
from tests.support.merge_fields import a_merge_field, merges, run_sql, use_rules
from tests.support.small_changes import give_tag

LATER = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%d %H:%M:%S")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "undo.sqlite")) as found:
        yield found


async def last_run(site: Site) -> int:
    return await site.store.read(
        lambda conn: conn.execute(select(run_log.c.id).order_by(run_log.c.id.desc()).limit(1)).scalar_one()
    )


async def undo(site: Site, run_id: int | None = None) -> Undone:
    """Undo a run (default: the last), and let Mailchimp carry out what follows."""
    done = await undo_run(site.ctx, await site.audience(), run_id or await last_run(site))
    await site.settle()
    return done


async def syncs_find_nothing(site: Site) -> None:
    """Two syncs, an ordinary and a full one, change neither side."""
    for since in (None, "ever"):
        posted = site.posted_batches()
        ran = await site.run(since=since)
        await site.settle()
        told = {
            name: sum(stage.get(name, 0) for stage in ran.counts.values()) for name in ("joined", "left", "created")
        }
        assert told == {"joined": 0, "left": 0, "created": 0}
        assert site.posted_batches() == posted


async def changes(site: Site, run_id: int) -> list[tuple[str, str | None]]:
    wanted = select(run_change.c.kind, run_change.c.was).where(run_change.c.run_id == run_id).order_by(run_change.c.id)
    return [tuple(row) for row in await site.store.read(lambda conn: list(conn.execute(wanted)))]


async def test_a_run_records_what_it_did_to_whom(site: Site) -> None:
    site.joined("new@example.org", "known@example.org")
    await site.person("known@example.org", status=None)
    await site.person("here@example.org")
    await site.sync()
    assert await changes(site, await last_run(site)) == [
        ("new_contact", None),
        ("join_group", None),
        ("join_group", None),
        ("subscribe", None),
    ]


async def test_a_first_sync_is_undone_on_both_sides(site: Site) -> None:
    site.joined("new@example.org", "known@example.org")
    known = await site.person("known@example.org", status=None)
    here = await site.person("here@example.org")
    await site.sync()
    done = await undo(site)
    assert done.counts == {"trash_contact": 1, "group_out": 2, "unsubscribe_again": 1}
    assert [one.id for one in await site.contacts()] == [known, here]  # the new one is in the trash
    assert (await site.standing(known), await site.standing(here)) == (None, "Added")
    assert site.at_mailchimp("new@example.org") == site.at_mailchimp("known@example.org") == "subscribed"
    assert site.at_mailchimp("here@example.org") == "archived"
    assert await site.history(known) == [("Added", "MCsync"), ("Deleted", "MCundo")]
    await syncs_find_nothing(site)
    assert [one.id for one in await site.contacts()] == [known, here]
    assert (await site.standing(known), await site.standing(here)) == (None, "Added")


async def test_who_left_at_either_end_is_back_where_they_were(site: Site) -> None:
    left = await site.person("left@example.org")
    gone = await site.person("gone@example.org")
    await site.sync()
    await site.set_group(left, "Removed")
    site.emulator.person("unsubscribe", "gone@example.org")
    await site.sync()
    assert (site.at_mailchimp("left@example.org"), await site.standing(gone)) == ("unsubscribed", "Removed")
    await undo(site)
    assert (site.at_mailchimp("left@example.org"), await site.standing(left)) == ("subscribed", "Removed")
    assert (site.at_mailchimp("gone@example.org"), await site.standing(gone)) == ("unsubscribed", "Added")
    await syncs_find_nothing(site)


async def test_interests_are_set_back(site: Site) -> None:
    interest = "9143cf3bd1"
    from sync.emulator.model.records import Interest, InterestCategory

    category = InterestCategory("c" * 10, "Topics")
    category.interests[interest] = Interest(interest, category.id, "Trees")
    site.emulator.audience().categories[category.id] = category
    await site.store.write(link, site.emulator.key, site.list_id, {interest: str(TREES_GROUP)})
    site.joined("chose@example.org", interests={interest: True})
    site.joined("grouped@example.org")
    chose = await site.person("chose@example.org")
    grouped = await site.person("grouped@example.org")
    await site.set_group(grouped, "Added", group_id=TREES_GROUP, at=datetime.now(UTC) + timedelta(days=1))
    await site.sync()
    assert await site.standing(chose, TREES_GROUP) == "Added"
    assert interest in site.emulator.member("grouped@example.org").interests
    await undo(site)
    assert await site.standing(chose, TREES_GROUP) is None
    assert interest not in site.emulator.member("grouped@example.org").interests
    await syncs_find_nothing(site)
    assert await site.standing(chose, TREES_GROUP) is None
    assert interest not in site.emulator.member("grouped@example.org").interests


async def data_of(site: Site, address: str) -> tuple[str, list[str]]:
    member = site.emulator.member(address)
    assert member is not None
    names = {one.id: one.name for one in site.emulator.audience().tags.values()}
    return str(member.merges.get("FNAME")), sorted(names[tag] for tag in member.tags or ())


async def test_a_merge_field_that_was_set_back_stays_so_while_its_source_is_gone_and_after(site: Site) -> None:
    a_merge_field(site, "X")
    site.joined("grace@example.org", merge_fields={"FNAME": "Grace", "LNAME": "Hopper", "X": "Mine"})
    await site.person("grace@example.org", first_name="Grace", last_name="Hopper")
    await run_sql(site, "INSERT INTO civicrm_tag (id, name, label) VALUES (77, 'VIP', 'VIP')")
    await use_rules(site, X="tag:77")
    await site.sync(with_data=True)
    assert merges(site, "grace@example.org") == {"X": "No"}
    await undo(site, await last_run(site))
    await run_sql(site, "DELETE FROM civicrm_tag WHERE id = 77")
    await site.sync(since="ever", with_data=True)
    await run_sql(site, "INSERT INTO civicrm_tag (id, name, label) VALUES (77, 'VIP', 'VIP')")
    await site.sync(since="ever", with_data=True)
    assert merges(site, "grace@example.org") == {"X": "Mine"}


async def test_names_are_set_back_until_civicrm_has_others(site: Site) -> None:
    site.joined("grace@example.org", merge_fields={"FNAME": "G.", "LNAME": "Hopper"})
    grace = await site.person("grace@example.org", first_name="Grace", last_name="Hopper")
    await site.sync(with_data=True)
    assert await data_of(site, "grace@example.org") == ("Grace", [])
    run_id = await last_run(site)
    assert {kind for kind, _ in await changes(site, run_id)} == {"names"}
    done = await undo(site, run_id)
    assert done.counts == {"data_back": 1}
    for since in (None, "ever"):
        assert await data_of(site, "grace@example.org") == ("G.", [])
        await site.sync(since=since, with_data=True)
    assert await data_of(site, "grace@example.org") == ("G.", [])
    named = change(contact).where(contact.c.id == grace).values(first_name="Amazing Grace", modified_date=LATER)
    await site.store.write(lambda conn: conn.execute(named) and None)
    await site.sync(since="ever", with_data=True)
    assert await data_of(site, "grace@example.org") == ("Amazing Grace", [])
    named = change(contact).where(contact.c.id == grace).values(first_name="Grace")
    await site.store.write(lambda conn: conn.execute(named) and None)
    await site.sync(since="ever", with_data=True)
    assert (await data_of(site, "grace@example.org"))[0] == "Grace", "it was another name meanwhile"


async def test_tags_that_a_run_took_off_are_added_until_civicrm_has_others(site: Site) -> None:
    site.joined("grace@example.org")
    grace = await site.person("grace@example.org")
    await give_tag(site, grace, "Donor")
    await site.sync(with_data=True)
    given = entity_tag.c.entity_id == grace
    await site.store.write(lambda conn: conn.execute(delete(entity_tag).where(given)) and None)
    await site.sync(since="ever", with_data=True)
    assert (await data_of(site, "grace@example.org"))[1] == []
    assert (await undo(site)).counts == {"data_back": 1}
    for since in (None, "ever"):
        assert (await data_of(site, "grace@example.org"))[1] == ["CiviCRM: Donor"]
        await site.sync(since=since, with_data=True)
    await give_tag(site, grace, "Volunteer")
    await site.sync(since="ever", with_data=True)
    assert (await data_of(site, "grace@example.org"))[1] == ["CiviCRM: Donor", "CiviCRM: Volunteer"]


async def test_tags_that_a_run_added_stay_as_the_member_may_have_had_them_before(site: Site) -> None:
    site.joined("grace@example.org", tags=["CiviCRM: Donor"])
    grace = await site.person("grace@example.org")
    await give_tag(site, grace, "Donor")
    await site.sync(with_data=True)
    [plan] = [one for one in await site.plan_undo(await last_run(site)) if "tags" in one.reason]
    assert (plan.kind, "is not known" in plan.reason) == ("left", True)
    await undo(site)
    assert (await data_of(site, "grace@example.org"))[1] == ["CiviCRM: Donor"]


async def test_who_changed_since_is_left_with_a_reason(site: Site) -> None:
    site.joined("one@example.org", "two@example.org", "three@example.org")
    one = await site.person("one@example.org", status=None)
    await site.sync()
    here = await site.person("here@example.org")
    await site.sync()
    run_id = 1
    await site.set_group(one, "Removed")
    [two] = [row.civicrm_contact_id for row in await site.rows() if row.mailchimp_email == "two@example.org"]
    three = (await site.row("three@example.org")).civicrm_contact_id
    noted = insert(note).values(entity_table="civicrm_contact", entity_id=two, note="A call.", contact_id=None)
    await site.store.write(lambda conn: conn.execute(noted) and None)
    plans = await site.plan_undo(run_id)
    assert [(plan.change.contact_id, plan.kind) for plan in plans] == [
        (two, "left"),
        (three, "trash_contact"),
        (one, "left"),
        (two, "group_out"),
        (three, "group_out"),
    ]
    assert "Removed by Admin" in plans[2].reason
    done = await undo(site, run_id)
    assert done.counts == {"left": 2, "trash_contact": 1, "group_out": 2}
    assert await site.standing(here) == "Added"  # of the other run
    assert [one.id for one in await site.contacts()] == [one, two, here]


@pytest.mark.parametrize("asked", [{}, {"kinds": ("group_out",)}, {"search": "t"}], ids=["all", "a kind", "a search"])
@pytest.mark.parametrize("per_unit", [1, 2, 500])
async def test_the_pages_of_a_preview_are_together_the_whole_wherever_its_units_end(
    site: Site, per_unit: int, asked: dict[str, Any]
) -> None:
    site.joined(*(f"{name}@example.org" for name in ("one", "two", "three", "thirteen", "six")))
    await site.sync()
    ctx = replace(site.ctx, sizes=replace(site.ctx.sizes, reconciled_rows_per_unit=per_unit))

    async def preview(limit: int, offset: int) -> dict[str, Any]:
        shown = UndoPreview(ChangeFilter(**asked, limit=limit, offset=offset))
        await preview_undo(ctx, await site.audience(), 1, shown.add)
        return shown.as_values()

    whole = await preview(0, 0)
    assert whole["count"] == len(whole["people"]) > 3
    pages = [await preview(3, offset) for offset in range(0, whole["count"] + 3, 3)]
    assert [person for page in pages for person in page["people"]] == whole["people"]
    assert {(page["count"], str(page["summary"])) for page in pages} == {(whole["count"], str(whole["summary"]))}


async def test_an_undo_after_a_sync_that_is_dated_in_the_future_asks_about_everybody(site: Site) -> None:
    """A wrong clock had dated it: what changed since at Mailchimp would not be seen."""
    await site.person("here@example.org")
    await site.sync()

    def date_in_the_future(conn: Connection) -> None:
        checkpoint = checkpoints.load(conn, site.list_id, for_update=True)
        checkpoint.last_sync_time = site.store.clock.write(datetime.now(UTC) + timedelta(days=14))
        checkpoints.save(conn, checkpoint)

    await site.store.write(date_in_the_future)
    site.emulator.clear_requests()
    await undo(site)
    asked = [one.query.get("since_last_changed") for one in site.emulator.requests if one.path.endswith("/members")]
    assert asked
    assert set(asked) == {None}


async def test_a_second_undo_is_refused_and_an_undo_is_not_undone(site: Site) -> None:
    await site.person("here@example.org")
    await site.sync()
    run_id = await last_run(site)
    await undo(site, run_id)
    audience = await site.audience()
    with pytest.raises(SyncError, match=f"Run {run_id} was undone already"):
        await undo_run(site.ctx, audience, run_id)
    with pytest.raises(SyncError, match="is the undo of run"):
        await undo_run(site.ctx, audience, await last_run(site))
    with pytest.raises(SyncError, match="There is no run 4711"):
        await site.plan_undo(4711)


async def link_with(site: Site, group_id: int, trees: int = TREES_GROUP) -> None:
    def relink(conn: Connection) -> None:
        config = read_config(conn)
        [(list_id, stored)] = config.raw["lists"].items()
        interests = dict.fromkeys(stored["interests"], str(trees))
        raw = {
            **config.raw,
            "lists": {list_id: {**stored, "subscriptionGroup": str(group_id), "interests": interests}},
        }
        update_config(conn, raw)

    await site.store.write(relink)


async def test_a_hold_is_of_the_group_that_was_linked(site: Site) -> None:
    """The usual way to mend a first sync with the wrong group: undo it, link the right one, sync."""
    site.joined("new@example.org", "known@example.org")
    known = await site.person("known@example.org", status=None)
    await site.sync()
    await undo(site)
    other = {"id": 77, "name": "right", "title": "Right"}
    await site.store.write(lambda conn: conn.execute(insert(group).values(other)) and None)
    await link_with(site, 77)
    await site.sync(since="ever")
    of_right = select(group_contact.c.contact_id).where(group_contact.c.group_id == 77)
    joined = set(await site.store.read(lambda conn: conn.execute(of_right).scalars().all()))
    assert len(joined) == 2
    assert known in joined
    assert await site.standing(known) is None, "the wrong group"


class AbortedAtSecondUnit:
    """Stands for the request to stop, which is looked at before each unit, and for the store: never asks to stop, and
    takes the lease away before the second unit."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._looked = 0

    @property
    def is_asked(self) -> bool:
        self._looked += 1
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site.store, name)

    async def write(self, *args: Any, **more: Any) -> Any:
        if self._looked == 2:
            self._looked += 1
            await self._site.store.write(leases.revoke, self._site.list_id)
        return await self._site.store.write(*args, **more)


async def test_an_undo_that_is_aborted_says_how_it_goes_on_and_does(site: Site) -> None:
    people = [await site.person(f"p{number}@example.org", status=None) for number in range(4)]
    site.joined(*(f"p{number}@example.org" for number in range(4)))
    await site.sync()
    run_id, stop = await last_run(site), AbortedAtSecondUnit(site)
    sizes = replace(site.ctx.sizes, reconciled_rows_per_unit=1)
    ctx = replace(site.ctx, store=stop, stop=stop, sizes=sizes)  # type: ignore[arg-type]
    with pytest.raises(
        SyncError, match=f"or this was aborted. The undo of run {run_id} goes on when it is called again"
    ):
        await undo_run(ctx, await site.audience(), run_id)
    assert len({await site.standing(one) for one in people}) == 2, "some are back, some are not yet"
    await undo(site, run_id)
    assert {await site.standing(one) for one in people} == {None}


@pytest.mark.parametrize("which", ["the group", "the member", "included"])
async def test_a_hold_ends_when_a_side_changes(site: Site, which: str) -> None:
    site.joined("known@example.org")
    known = await site.person("known@example.org", status=None)
    await site.sync()
    await undo(site)
    await syncs_find_nothing(site)
    if which == "the group":
        await site.set_group(known, "Removed")
    elif which == "the member":
        site.emulator.person("unsubscribe", "known@example.org")
        await site.sync()
        site.emulator.person("sign_up", "known@example.org")
    else:
        await site.store.write(include_contacts, [known])
    await site.sync()
    ended = {
        "the group": (None, "unsubscribed"),
        "the member": ("Added", "subscribed"),
        "included": ("Added", "subscribed"),  # as by the sync that was undone
    }
    standing = await site.standing(known)
    assert (None if standing == "Removed" else standing, site.at_mailchimp("known@example.org")) == ended[which]
    assert not await site.store.read(lambda conn: conn.execute(select(hold)).all())


async def test_who_is_included_is_synced_as_by_the_run_that_was_undone(site: Site) -> None:
    """What the undo did at Mailchimp is no change of anybody's mind: it does not outlast the hold."""
    here, gone = await site.person("here@example.org"), await site.person("gone@example.org")
    site.joined("gone@example.org")
    await site.sync()
    await undo(site)
    assert site.at_mailchimp("here@example.org") == "archived"
    await site.set_group(gone, "Removed")
    await site.sync()
    await undo(site)
    assert site.at_mailchimp("gone@example.org") == "subscribed"
    await site.store.write(include_contacts, [here, gone])
    await site.sync()
    assert (site.at_mailchimp("here@example.org"), await site.standing(here)) == ("subscribed", "Added")
    assert (site.at_mailchimp("gone@example.org"), await site.standing(gone)) == ("unsubscribed", "Removed")


async def test_who_was_archived_since_the_run_unsubscribed_them_is_left(site: Site) -> None:
    left = await site.person("left@example.org")
    await site.sync()
    await site.set_group(left, "Removed")
    await site.sync()
    site.emulator.admin("archive", "left@example.org")
    assert (await undo(site)).counts == {"left": 1}
    assert site.at_mailchimp("left@example.org") == "archived"


async def test_who_is_not_to_be_mailed_is_not_subscribed_again(site: Site) -> None:
    left = await site.person("left@example.org")
    await site.sync()
    await site.set_group(left, "Removed")
    await site.sync()
    opted_out = change(contact).where(contact.c.id == left).values(is_opt_out=1)
    await site.store.write(lambda conn: conn.execute(opted_out) and None)
    assert (await undo(site)).counts == {"left": 1}
    assert site.at_mailchimp("left@example.org") == "unsubscribed"


async def test_a_hold_stays_when_its_row_becomes_another(site: Site) -> None:
    await site.person("here@example.org")
    await site.sync()
    await undo(site)
    row = await site.row("here@example.org")
    twin = insert(cache).values(mailchimp_list_id=site.list_id, mailchimp_email="here@example.org")
    twin_id = await site.store.write(lambda conn: int(conn.execute(twin).lastrowid))
    await site.store.write(absorb, row.id, twin_id)
    held = select(hold.c.cache_id, hold.c.field)
    assert await site._all(held) == [(twin_id, "status")]


async def test_who_was_unsubscribed_by_an_undo_is_not_subscribed_at_an_address_they_have_since(site: Site) -> None:
    here = await site.person("here@example.org")
    await site.sync()
    await undo(site)
    moved = change(email).where(email.c.contact_id == here).values(email="there@example.org")
    await site.store.write(lambda conn: conn.execute(moved) and None)
    await syncs_find_nothing(site)
    assert (site.at_mailchimp("here@example.org"), site.at_mailchimp("there@example.org")) == ("archived", None)


async def test_a_run_whose_rows_became_others_is_undone(site: Site) -> None:
    await site.person("here@example.org")
    await site.sync()
    row = await site.row("here@example.org")

    def merge(conn: Connection) -> None:
        values = {name: value for name, value in row._mapping.items() if name != "id"}
        twin = int(conn.execute(insert(cache).values(values)).lastrowid)
        absorb(conn, row.id, twin)

    await site.store.write(merge)
    assert (await undo(site)).counts == {"unsubscribe_again": 1}
    assert site.at_mailchimp("here@example.org") == "archived"
    await syncs_find_nothing(site)
