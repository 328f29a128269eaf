"""An interest that is deleted at Mailchimp keeps nobody from being subscribed with the others."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sync.connections.config import note_interests, read_config, write_config
from sync.emulator.model.records import Interest, InterestCategory
from sync.reports.checks import Severity, configuration
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site

I1, I2 = "1111111111", "2222222222"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            interests = {key: Interest(key, "c", name) for key, name in ((I1, "Trees"), (I2, "Pets"))}
            opened.emulator.audience().categories["c"] = InterestCategory("c", "Topics", interests=interests)
            raw = (await opened.store.read(read_config)).copy_raw()
            link = raw["lists"][opened.list_id]
            link["interests"] = {I1: str(TREES_GROUP), I2: str(await a_group(opened))}
            names = {I1: "Topics: Trees", I2: "Topics: Pets"}
            raw["accounts"][opened.emulator.key]["audiences"][opened.list_id]["interests"] = names
            await opened.store.write(write_config, raw)
            yield opened


async def a_group(site: Site) -> int:
    answer = await ApiCaller(site).answer("create", "Group", title="Pets")
    return int(answer["id"])


async def sync(site: Site) -> None:
    await site.run(since="ever")
    await site.settle()


async def test_a_new_person_in_the_groups_of_both_is_subscribed_with_the_one_that_is_left(site: Site) -> None:
    ask = ApiCaller(site)
    pets = (await site.audience()).interests[I2]
    del site.emulator.audience().categories["c"].interests[I2]
    new = await site.person("new@example.org")
    for group_id in (TREES_GROUP, pets):
        await site.set_group(new, "Added", group_id=group_id)
    await sync(site)
    found = site.emulator.member("new@example.org")
    assert found is not None
    assert (found.status, found.interests) == ("subscribed", {I1})
    assert [await site.standing(new, one) for one in (GROUP, TREES_GROUP, pets)] == ["Added"] * 3
    assert (await site.row("new@example.org")).sync_status in ("ok", "todo")
    status = (await ask("getstatus"))[site.list_id]
    assert status["interests_gone"] == {I2: "Topics: Pets"}
    gone = [
        one for one in await site.store.read(lambda conn: list(configuration(conn, site.store.clock))) if I2 in one.code
    ]
    assert [(one.severity, "gone at Mailchimp" in one.sentence) for one in gone] == [(Severity.WARNING, True)]

    updates = len(await site.updates())
    await sync(site)
    await sync(site)
    assert len(await site.updates()) == updates
    assert (await site.row("new@example.org")).sync_status == "ok"
    assert await site.standing(new, pets) == "Added"


async def test_an_interest_that_is_there_again_is_no_longer_marked(site: Site) -> None:
    await site.store.write(note_interests, site.list_id, {I1: "Topics: Trees"})
    assert set((await site.audience()).interests) == {I1}
    await site.store.write(note_interests, site.list_id, {I1: "Topics: Trees", I2: "Topics: Pets"})
    assert set((await site.audience()).interests) == {I1, I2}


async def test_a_change_of_nothing_but_a_deleted_interest_is_dropped(site: Site) -> None:
    site.joined("ada@example.org")
    ada = await site.person("ada@example.org")
    await sync(site)
    pets = (await site.audience()).interests[I2]
    del site.emulator.audience().categories["c"].interests[I2]
    await site.set_group(ada, "Added", group_id=pets)
    await site.run()
    await site.settle()
    await site.run()
    await site.settle()
    assert site.at_mailchimp("ada@example.org") == "subscribed"
    assert (await site.row("ada@example.org")).sync_status == "ok"
    assert await site.standing(ada, pets) == "Added"
