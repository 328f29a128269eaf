"""What a sync exchanges besides the subscription: interests, names, tags; and whose word wins."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.schema.tables import contact, entity_tag, tag
from sync.connections.config import read_config, write_config
from sync.data import plugins as tags
from sync.outbox.cancel import abort_sync
from sync.store.members.blobs import dump_data, load_data
from sync.store.tables import cache
from tests.support.linked_site import TREES_GROUP, Site, link
from tests.support.small_changes import (
    TREES,
    give_tag,
    offer_trees,
    with_trees,
)
from tests.sync.runs.stages.by_hand import BEFORE, LATER, NOON, stop_before, sync_by_hand, tags_at_mailchimp


async def test_a_newcomer_keeps_their_interest_groups(site: Site, clock: Traveller) -> None:
    trees = await with_trees(site)
    contact_id = await site.person("ada@example.org")
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=NOON)
    await sync_by_hand(site, since="ever")
    clock.shift(7200)
    await sync_by_hand(site, since="ever")
    assert await site.standing(contact_id, TREES_GROUP) == "Added"
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert trees in found.interests


async def test_interests_go_both_ways(site: Site) -> None:
    trees = await with_trees(site)
    there = await site.person("ada@example.org", at=BEFORE)
    here = await site.person("bob@example.org", at=BEFORE)
    site.joined("ada@example.org", interests={trees: True})
    site.joined("bob@example.org")
    await site.set_group(here, "Added", group_id=TREES_GROUP, at=LATER)
    await sync_by_hand(site, since="ever")
    assert await site.standing(there, TREES_GROUP) == "Added"
    found = site.emulator.member("bob@example.org")
    assert found is not None
    assert trees in found.interests


async def test_an_interest_linked_later_is_looked_at_for_everybody(site: Site) -> None:
    offer_trees(site)
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", interests={TREES: True})
    await sync_by_hand(site, since="ever")
    await site.store.write(link, site.emulator.key, site.list_id, {TREES: str(TREES_GROUP)})
    await sync_by_hand(site)
    assert await site.standing(contact_id, TREES_GROUP) == "Added"


async def test_trust_is_used_for_one_run_and_taken_out_of_the_configuration(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=LATER)
    site.joined("ada@example.org")
    site.emulator.person("unsubscribe", "ada@example.org")

    def trust(conn: Connection) -> None:
        raw: Any = deepcopy(dict(read_config(conn).raw))
        raw["lists"][site.list_id]["trustOverride"] = {"subscription": "Mailchimp"}
        write_config(conn, raw)

    await site.store.write(trust)
    await sync_by_hand(site, since="ever")
    assert await site.standing(contact_id) == "Removed"
    config = await site.store.read(read_config)
    assert config.links[site.list_id].trust_override == {}


async def test_tags_are_sent_once_removed_when_gone_and_nobody_elses_touched(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", tags=["Theirs"])
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever", with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs", "CiviCRM: Volunteer"}
    sent = len(await site.updates())
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == sent
    await site.store.write(lambda conn: conn.execute(delete(entity_tag)).rowcount)
    await sync_by_hand(site, with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs"}


async def test_a_tag_that_is_renamed_in_another_case_stays_at_mailchimp_until_it_is_taken_off(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await give_tag(site, contact_id, "volunteer")
    await sync_by_hand(site, since="ever", with_data=True)
    await site.store.write(lambda conn: conn.execute(change(tag).values(name="VOLUNTEER")).rowcount)
    for since in (None, "ever"):
        await sync_by_hand(site, since=since, with_data=True)
        assert tags_at_mailchimp(site) == {"CiviCRM: volunteer"}
    await site.store.write(lambda conn: conn.execute(delete(entity_tag)).rowcount)
    await sync_by_hand(site, with_data=True)
    assert tags_at_mailchimp(site) == set()


async def test_a_tag_that_the_extension_sent_is_taken_off_when_it_is_gone_in_civicrm(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org", tags=["Theirs", "CiviCRM: Volunteer", "CiviCRM: Donor"])
    await sync_by_hand(site, since="ever")
    await give_tag(site, contact_id, "Volunteer")
    await give_tag(site, contact_id, "Donor")
    donor = await site.store.read(lambda conn: conn.execute(select(tag.c.id).where(tag.c.name == "Donor")).scalar_one())
    await site.store.write(lambda conn: conn.execute(delete(entity_tag).where(entity_tag.c.tag_id == donor)).rowcount)
    await note_data(site, mcs_tags={"mailchimp_updates": {}, "tag_updates": {}, "previous": f"{donor - 1},{donor}"})
    await sync_by_hand(site, with_data=True)
    assert tags_at_mailchimp(site) == {"Theirs", "CiviCRM: Volunteer"}
    assert load_data((await site.row("ada@example.org")).civicrm_data)["mcs_tags"]["previous"] == str(donor - 1)


async def test_a_tag_that_the_extension_took_off_since_is_sent_again_when_civicrm_has_it_again(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever", with_data=True)
    await note_data(site, mcs_tags={"mailchimp_updates": {}, "tag_updates": {}, "previous": ""})
    sent = len(await site.updates())
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == sent + 1


async def test_what_was_owed_for_a_contact_in_the_trash_stays_with_the_reason(site: Site) -> None:
    await site.owe_subscribing("ada@example.org")
    await site.store.write(lambda conn: conn.execute(change(contact).values(is_deleted=1)).rowcount)
    await sync_by_hand(site, since="ever")
    [owed] = await site.updates()
    assert (owed.completed, owed.mailchimpsync_batch_id) == (1, None)
    assert owed.error_response.startswith("Overtaken: ")
    [row] = await site.rows()
    assert (row.civicrm_contact_id, row.sync_status) == (None, "ok")


async def test_names_are_sent_where_mailchimp_has_others_and_an_empty_one_is_not(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE, first_name="Ada", last_name="")
    await site.person("bob@example.org", at=BEFORE, first_name="Bob", last_name="Bell")
    site.joined("ada@example.org", merge_fields={"FNAME": "Eda", "LNAME": "Byron"})
    site.joined("bob@example.org", merge_fields={"FNAME": "Bob", "LNAME": "Bell"})
    await sync_by_hand(site, since="ever", with_data=True)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert (found.merges["FNAME"], found.merges["LNAME"]) == ("Ada", "Byron")
    assert len(await site.updates()) == 1
    row = await site.row("ada@example.org")
    assert load_data(row.civicrm_data)["mcs_names"]["previous"] == {"first_name": "Ada"}
    assert (row.civicrm_contact_id, row.sync_status) == (contact_id, "ok")
    await sync_by_hand(site, with_data=True)
    assert len(await site.updates()) == 1


async def test_what_an_abort_called_off_is_thought_about_again_by_the_next_full_sync(site: Site) -> None:
    """Who is a member and in the group differs in nothing that a comparison sees; interests and tags were owed."""
    trees = await with_trees(site)
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await site.set_group(contact_id, "Added", group_id=TREES_GROUP, at=LATER)
    await give_tag(site, contact_id, "Volunteer")
    await stop_before(site, "readyToSubmitUpdates", with_data=True)
    await abort_sync(site.ctx, await site.audience())
    assert [row.sync_status for row in await site.rows()] == ["fail"]
    await sync_by_hand(site, since="ever", with_data=True)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert trees in found.interests
    assert [row.sync_status for row in await site.rows()] == ["ok"]


async def test_without_data_asked_for_no_tag_is_sent(site: Site) -> None:
    contact_id = await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await give_tag(site, contact_id, "Volunteer")
    await sync_by_hand(site, since="ever")
    assert await site.updates() == []


async def test_a_plugin_says_what_else_to_send(site: Site) -> None:
    class Donors:
        @tags.hookimpl
        def contact_tags(self, conn: Connection, contact_ids: list[int]) -> dict[int, list[str]]:
            return {contact_id: ["Donors 2026"] for contact_id in contact_ids}

    site.ctx = replace(site.ctx, plugins=tags.data_plugins(Donors()))
    await site.person("ada@example.org", at=BEFORE)
    site.joined("ada@example.org")
    await sync_by_hand(site, since="ever", with_data=True)
    assert tags_at_mailchimp(site) == {"Donors 2026"}


async def note_data(site: Site, **sources: Any) -> None:
    """What the extension noted as sent for the only row."""
    [row] = await site.rows()
    noted = dump_data({**load_data(row.civicrm_data), **sources})
    await site.store.write(lambda conn: conn.execute(change(cache).values(civicrm_data=noted)).rowcount)
