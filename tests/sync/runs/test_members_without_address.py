"""Members who gave Mailchimp a phone number only are counted, with the reason, and never synced."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import Site, a_site

PHONE, OTHER = "+15550100", "+15550101"


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url) as opened:
            yield opened


async def noted(site: Site) -> Any:
    return (await ApiCaller(site)("getstatus"))[site.list_id].get("without_address", False)


async def test_members_without_an_address_are_counted_once_with_the_reason(site: Site) -> None:
    site.joined("ada@example.org")
    await site.sync(since="ever")
    assert await noted(site) is False
    site.emulator.person("sign_up_by_sms", PHONE)
    await site.sync()
    await site.sync()
    site.emulator.person("sign_up_by_sms", OTHER)
    await site.sync(since="ever")
    found = await noted(site)
    assert (found["count"], "SMS only" in found["why"], "not synced" in found["why"]) == (2, True, True)
    assert [row.mailchimp_email for row in await site.rows()] == ["ada@example.org"]


@pytest.mark.parametrize("since", [None, "ever"], ids=["incremental", "full"])
async def test_one_who_gives_an_address_is_synced_and_no_longer_counted(site: Site, since: str | None) -> None:
    site.emulator.person("sign_up_by_sms", PHONE)
    await site.sync(since="ever")
    assert (await noted(site))["count"] == 1
    site.emulator.person("change_email", PHONE, new_email="ada@example.org")
    await site.sync(since=since)
    assert await noted(site) is False
    assert [row.mailchimp_email for row in await site.rows()] == ["ada@example.org"]


async def test_one_who_is_deleted_is_no_longer_counted_after_a_full_sync(site: Site) -> None:
    site.emulator.person("sign_up_by_sms", PHONE)
    await site.sync(since="ever")
    site.emulator.admin("delete_permanently", PHONE)
    await site.sync(since="ever")
    assert await noted(site) is False
