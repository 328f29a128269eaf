"""What Mailchimp refuses for now is asked again after a day, three days, a week; what it refuses for good is not."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy import update as change
from time_machine import Traveller

from civiapi.store.schema.tables import email, entity_tag, tag
from sync.mailchimp.errors import is_temporary
from sync.store.tables import retry
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, Site, a_site, sync_settings

NOON = datetime(2026, 1, 9, 12, 0, tzinfo=UTC)
ADDRESS = "busy@example.org"


@pytest.fixture(autouse=True)
def clock() -> Iterator[Traveller]:
    with time_machine.travel(NOON) as traveller:
        yield traveller


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: Traveller) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
            yield opened


async def sync(site: Site, **request: Any) -> int:
    """A run and what follows it; returns how many updates were sent to Mailchimp in it."""
    before = len(await site.updates())
    await site.run(**request)
    await site.settle()
    return len(await site.updates()) - before


async def test_a_signup_that_is_throttled_is_asked_again_after_a_day_three_days_and_a_week(
    site: Site, clock: Traveller
) -> None:
    site.emulator.configure(throttled_emails=[ADDRESS])
    await site.person(ADDRESS)
    await site.person("calm@example.org")
    assert await sync(site, since="ever") == 2
    assert (await site.row(ADDRESS)).sync_status == "fail"
    assert site.at_mailchimp("calm@example.org") == "subscribed"
    for days in (1, 3, 7):
        clock.shift(timedelta(days=days, hours=-2))
        assert await sync(site) == 0
        assert await sync(site, since="ever") == 0
        clock.shift(timedelta(hours=2, minutes=1))
        assert await sync(site) == 1
        assert (await site.row(ADDRESS)).sync_status == "fail"
        assert await sync(site) == 0
    site.emulator.configure(throttled_emails=[])
    clock.shift(timedelta(days=14, minutes=1))
    assert await sync(site) == 1
    assert site.at_mailchimp(ADDRESS) == "subscribed"
    assert (await site.row(ADDRESS)).sync_status == "ok"
    assert await site.store.read(lambda conn: conn.execute(select(retry)).all()) == []


async def test_the_row_says_when_it_is_asked_again(site: Site) -> None:
    ask = ApiCaller(site)
    site.emulator.configure(throttled_emails=[ADDRESS])
    contact_id = await site.person(ADDRESS)
    await sync(site, since="ever")
    [explained] = await ask("explain", contact_id=contact_id)
    assert "signed up to a lot of lists very recently" in explained["reason"]
    assert "sent again by the first sync after 2026-01-10 12:0" in explained["reason"]
    [row] = await ask("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, troubleshoot=1)
    assert "sent again by the first sync after 2026-01-10 12:0" in row["errors"]
    status = (await ask("getstatus"))[site.list_id]
    assert status["refused_for_now"]["count"] == 1
    assert status["refused_for_now"]["next"].startswith("2026-01-10 12:0")


async def test_including_the_contact_asks_at_once(site: Site) -> None:
    ask = ApiCaller(site)
    site.emulator.configure(throttled_emails=[ADDRESS])
    contact_id = await site.person(ADDRESS)
    await sync(site, since="ever")
    site.emulator.configure(throttled_emails=[])
    await ask("includecontact", contact_id=contact_id)
    assert await sync(site) == 1
    assert site.at_mailchimp(ADDRESS) == "subscribed"


async def test_a_change_of_mind_in_civicrm_is_sent_at_once(site: Site, clock: Traveller) -> None:
    site.emulator.configure(throttled_emails=[ADDRESS])
    contact_id = await site.person(ADDRESS)
    await sync(site, since="ever")
    site.emulator.configure(throttled_emails=[])
    clock.shift(timedelta(minutes=5))
    await site.set_group(contact_id, "Removed")
    await sync(site)
    clock.shift(timedelta(minutes=5))
    await site.set_group(contact_id, "Added")
    assert await sync(site) == 1
    assert site.at_mailchimp(ADDRESS) == "subscribed"


async def test_a_lasting_refusal_is_not_repeated(site: Site, clock: Traveller) -> None:
    site.emulator.configure(forgotten_emails=[ADDRESS])
    await site.person(ADDRESS)
    assert await sync(site, since="ever") == 1
    for days in (2, 40, 400):
        clock.shift(timedelta(days=days))
        assert await sync(site, since="ever") == 0
    assert (await site.row(ADDRESS)).sync_status == "fail"


async def test_a_write_that_is_always_answered_with_500_is_given_up_for_a_day_with_mailchimps_words(
    site: Site, clock: Traveller
) -> None:
    fault = site.emulator.add_fault("500", method="PUT", email=ADDRESS)
    await site.person(ADDRESS)
    assert await sync(site, since="ever") == 1
    row = await site.row(ADDRESS)
    assert row.sync_status == "fail"
    assert fault.struck == 5
    assert await sync(site, since="ever") == 0
    [found] = await ApiCaller(site)("get", "MailchimpsyncCache", mailchimp_list_id=site.list_id, troubleshoot=1)
    assert "Internal Server Error" in found["errors"]
    clock.shift(timedelta(days=1, minutes=1))
    assert await sync(site) == 1
    assert fault.struck == 6  # once a day, not five times
    assert await sync(site) == 0


async def test_a_change_of_address_that_is_always_answered_with_500_backs_off_too(site: Site, clock: Traveller) -> None:
    contact_id = await site.person("old@example.org")
    await sync(site, since="ever")
    site.emulator.add_fault("500", method="PATCH")
    renamed = change(email).where(email.c.contact_id == contact_id).values(email="new@example.org")
    await site.store.write(lambda conn: conn.execute(renamed).rowcount)
    assert await sync(site, since="ever") == 1
    assert (await site.row("old@example.org")).sync_status == "fail"
    assert await sync(site, since="ever") == 0
    site.emulator.clear_faults()
    clock.shift(timedelta(days=1, minutes=1))
    assert await sync(site) >= 1
    assert site.at_mailchimp("new@example.org") == "subscribed"
    assert await site.standing(contact_id, GROUP) == "Added"


async def test_tags_that_are_always_answered_with_500_back_off_until_they_change(site: Site, clock: Traveller) -> None:
    contact_id = await site.person(ADDRESS)
    await sync(site, since="ever")
    await give_tag(site, contact_id, 71, "Donor")
    fault = site.emulator.add_fault("500", method="POST", path="/tags")
    assert await sync(site, with_data=True) == 1
    assert (fault.struck, await sync(site, with_data=True)) == (5, 0)
    await give_tag(site, contact_id, 72, "Volunteer")
    assert await sync(site, with_data=True) == 1
    site.emulator.clear_faults()
    clock.shift(timedelta(days=3, minutes=1))
    assert await sync(site, with_data=True) == 1
    assert await sync(site, with_data=True) == 0


async def give_tag(site: Site, contact_id: int, tag_id: int, name: str) -> None:
    def make(conn: Connection) -> None:
        conn.execute(insert(tag).values(id=tag_id, name=name))
        values = {"entity_table": "civicrm_contact", "entity_id": contact_id, "tag_id": tag_id}
        conn.execute(insert(entity_tag).values(**values))

    await site.store.write(make)


@pytest.mark.parametrize(
    ("status", "detail", "temporary"),
    [
        (400, "a@b.org has signed up to a lot of lists very recently; we're not allowing more signups for now", True),
        (400, "This list is being imported; please try again later.", True),
        (400, "The service is temporarily unavailable.", True),
        (400, "a@b.org looks fake or invalid, please enter a real email address.", False),
        (400, "a@b.org was permanently deleted and cannot be re-imported.", False),
        (400, "a@b.org is in a compliance state due to unsubscribe, bounce, or compliance review.", False),
        (400, "Your merge fields were invalid.", False),
        (404, "The requested resource could not be found.", False),
        (429, "", True),
        (500, "", True),
        (503, "This method has been disabled.", True),
        (0, "", True),
        (None, "", True),
    ],
)
def test_what_mailchimp_calls_temporary(status: int | None, detail: str, temporary: bool) -> None:
    assert is_temporary({"status": status, "detail": detail, "title": "Invalid Resource"}) is temporary


async def test_who_has_no_address_when_it_is_time_waits_no_longer_and_is_asked_about_once_there_is_one(
    site: Site, clock: Traveller
) -> None:
    site.emulator.configure(throttled_emails=[ADDRESS])
    contact_id = await site.person(ADDRESS)
    assert await sync(site, since="ever") == 1
    gone = delete(email).where(email.c.contact_id == contact_id)
    await site.store.write(lambda conn: conn.execute(gone) and None)
    clock.shift(timedelta(days=1, minutes=1))
    assert await sync(site) == 0
    assert await site.store.read(lambda conn: conn.execute(select(retry)).all()) == []
    site.emulator.configure(throttled_emails=[])
    again = insert(email).values(contact_id=contact_id, email=ADDRESS, is_primary=1, location_type_id=1)
    await site.store.write(lambda conn: conn.execute(again) and None)
    assert await sync(site, since="ever") == 1
    assert site.at_mailchimp(ADDRESS) == "subscribed"
