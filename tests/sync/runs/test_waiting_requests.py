"""A request to join a group that waits for an answer (``Pending``) is no leave."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sync.emulator.model.records import Interest, InterestCategory
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import TREES_GROUP, Site, a_site, link

LATER = timedelta(minutes=1)
TREES = "9143cf3bd1"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def sync(site: Site) -> None:
    await site.run(since="ever")
    await site.settle()


async def test_nothing_is_sent_while_a_request_waits_and_the_answer_counts(site: Site) -> None:
    site.joined("ada@example.org", "bob@example.org")
    now = datetime.now(UTC)
    ada, bob = [
        await site.person(one, status="Pending", at=now + LATER) for one in ("ada@example.org", "bob@example.org")
    ]
    await sync(site)
    await sync(site)
    assert await site.updates() == []
    assert (await site.standing(ada), await site.standing(bob)) == ("Pending", "Pending")
    [explained] = await ApiCaller(site)("explain", contact_id=ada)
    assert "waits for an answer" in explained["reason"]
    await site.set_group(ada, "Added", at=now + 2 * LATER)
    await site.set_group(bob, "Removed", at=now + 2 * LATER)
    await sync(site)
    assert (site.at_mailchimp("ada@example.org"), site.at_mailchimp("bob@example.org")) == (
        "subscribed",
        "unsubscribed",
    )


async def test_a_request_of_somebody_who_is_not_at_mailchimp_subscribes_nobody(site: Site) -> None:
    await site.person("new@example.org", status="Pending")
    await sync(site)
    assert site.at_mailchimp("new@example.org") is None


async def test_a_waiting_request_for_an_interest_group_takes_no_interest_away(site: Site) -> None:
    audience = site.emulator.audience()
    audience.categories["c"] = InterestCategory("c", "Topics", interests={TREES: Interest(TREES, "c", "Trees")})
    await site.store.write(link, site.emulator.key, site.list_id, {TREES: str(TREES_GROUP)})
    site.joined("ada@example.org", interests={TREES: True})
    ada = await site.person("ada@example.org")
    await site.set_group(ada, "Pending", group_id=TREES_GROUP, at=datetime.now(UTC) + LATER)
    await sync(site)
    found = site.emulator.member("ada@example.org")
    assert found is not None
    assert found.interests == {TREES}
    assert await site.standing(ada, TREES_GROUP) == "Pending"
