"""A run that is undone once another group is linked: the way back from a first sync with the wrong group."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from civiapi.store.schema.tables import group
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site
from tests.sync.undo.test_undo import last_run, link_with, undo

RIGHT = 77


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "relinked.sqlite")) as found:
        other = {"id": RIGHT, "name": "right", "title": "Right"}
        await found.store.write(lambda conn: conn.execute(insert(group).values(other)) and None)
        yield found


async def synced_with_the_wrong_group(site: Site) -> int:
    """Sync, then link the right group; the run's id."""
    await site.sync()
    await link_with(site, RIGHT)
    return await last_run(site)


async def test_contacts_that_the_run_made_are_trashed_though_their_group_is_linked_no_more(site: Site) -> None:
    site.joined("new@example.org")
    run_id = await synced_with_the_wrong_group(site)
    assert sorted(one.kind for one in await site.plan_undo(run_id)) == ["group_out", "trash_contact"]
    assert (await undo(site, run_id)).counts == {"trash_contact": 1, "group_out": 1}
    assert await site.contacts() == []


async def test_a_contact_that_a_sync_put_into_the_right_group_stays(site: Site) -> None:
    site.joined("new@example.org")
    run_id = await synced_with_the_wrong_group(site)
    await site.sync(since="ever")
    [new] = await site.contacts()
    assert (await undo(site, run_id)).counts == {"left": 1, "group_out": 1}
    assert (await site.standing(new.id), await site.standing(new.id, RIGHT)) == (None, "Added")


async def test_who_was_put_into_the_right_group_before_the_run_has_not_changed_since(site: Site) -> None:
    here = await site.person("here@example.org")
    await site.set_group(here, "Removed", group_id=RIGHT)
    run_id = await synced_with_the_wrong_group(site)
    assert (await undo(site, run_id)).counts == {"unsubscribe_again": 1}
    await site.sync(since="ever")
    assert (site.at_mailchimp("here@example.org"), await site.standing(here, RIGHT)) == ("archived", "Removed")


async def test_who_changed_in_the_wrong_group_since_is_left(site: Site) -> None:
    here = await site.person("here@example.org")
    run_id = await synced_with_the_wrong_group(site)
    await site.set_group(here, "Added")
    [left] = await site.plan_undo(run_id)
    assert (left.kind, left.reason) == ("left", "CiviCRM has changed since (Added by Admin).")


async def test_nothing_is_held_of_the_right_group(site: Site) -> None:
    site.joined("new@example.org")
    here = await site.person("here@example.org")
    await site.set_group(here, "Added", group_id=RIGHT)
    run_id = await synced_with_the_wrong_group(site)
    await undo(site, run_id)
    await site.sync(since="ever")
    assert site.at_mailchimp("here@example.org") == "subscribed"
    assert [await site.standing(one.id, RIGHT) for one in await site.contacts()] == ["Added", "Added"]
