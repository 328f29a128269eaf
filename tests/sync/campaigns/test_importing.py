"""Campaigns become activities: the real client against the emulator, stopped anywhere, and twice at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, update

from civiapi.settings import RetentionSettings, Settings
from civiapi.store.engine import open_store
from civiapi.store.schema.tables import activity, activity_contact, lease, option_group, option_value
from sync.campaigns import rows
from sync.campaigns.importing import ImportRequest, import_campaigns
from sync.campaigns.rows import TARGET
from sync.connections.config import read_config
from sync.context import SyncContext, UnitSizes
from sync.emulator.model.records import Campaign
from sync.emulator.rules import campaigns
from sync.errors import MailchimpFailed
from sync.reports.campaigns import read_campaigns, read_campaigns_of, read_last_import
from sync.store import retention
from sync.store.tables import campaign, campaign_response, campaign_unknown
from tests.support.databases import database_at
from tests.support.linked_site import GROUP, Site, a_site

SENT = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
PEOPLE = ("ada@example.org", "bea@example.org", "cy@example.org")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return database_at(tmp_path / "site.sqlite")


@pytest.fixture
async def site(url: str) -> AsyncIterator[Site]:
    async with a_site(url) as opened:
        yield opened


async def members(site: Site, *addresses: str) -> dict[str, int]:
    """People in the group and at Mailchimp, synced; their contacts by address."""
    site.joined(*addresses)
    found = {one: await site.person(one) for one in addresses}
    site.emulator.configure(auto_batches=True)
    await site.sync(since="ever")
    return found


def send(site: Site, subject: str = "Spring", at: datetime = SENT, **more: Any) -> Campaign:
    return campaigns.send(site.emulator.world, subject, site.list_id, sent_at=int(at.timestamp()), **more)


async def run_import(site: Site, **request: Any) -> list[dict[str, Any]]:
    links = list((await site.store.read(read_config)).links.values())
    return await import_campaigns(site.ctx, links, ImportRequest(**request))


async def activities(site: Site) -> list[Any]:
    return await site.store.read(lambda conn: conn.execute(select(activity).order_by(activity.c.id)).all())


async def targets(site: Site, activity_id: int) -> list[int]:
    mine = activity_contact.c.activity_id == activity_id, activity_contact.c.record_type_id == TARGET
    wanted = select(activity_contact.c.contact_id).where(*mine).order_by(activity_contact.c.contact_id)
    return await site.store.read(lambda conn: list(conn.execute(wanted).scalars()))


async def test_a_campaign_becomes_a_completed_activity_with_its_recipients_as_targets(site: Site) -> None:
    people = await members(site, *PEOPLE)
    sent = send(site, "Spring <in> Town", only=PEOPLE[:2])
    assert await run_import(site) == [
        {"list_id": site.list_id, "group_id": GROUP, "outcome": "finished", "campaigns": 1}
    ]
    [made] = await activities(site)
    kinds = select(option_value.c.value, option_value.c.name)
    names = {int(row.value): row.name for row in await site._all(kinds.where(option_value.c.name.like("Mailchimp%")))}
    assert names == {made.activity_type_id: "Mailchimp Campaign"}
    assert (made.subject, made.status_id, made.activity_date_time) == ("Spring <in> Town", 2, "2026-03-01 22:30:00")
    assert f'<a href="{sent.archive_url}"' in made.details
    assert "Spring &lt;in&gt; Town" in made.details
    assert await targets(site, made.id) == sorted(people[one] for one in PEOPLE[:2])


async def test_the_date_is_site_time(site: Site, url: str) -> None:
    send(site)
    berlin = await open_store(url, timezone="Europe/Berlin")
    try:
        site.ctx = SyncContext(berlin, site.clients, site.ctx.settings, holder="tests")
        await run_import(site)
    finally:
        await berlin.close()
    [made] = await activities(site)
    assert made.activity_date_time == "2026-03-01 23:30:00"


async def test_only_what_was_sent_to_a_linked_audience_is_imported(site: Site) -> None:
    other = site.emulator.world.add_audience("Other")
    campaigns.send(site.emulator.world, "Elsewhere", other.id)
    send(site, "Draft", status="save")
    send(site, "Scheduled", status="schedule")
    send(site, "Out")
    await run_import(site)
    assert [one.subject for one in await activities(site)] == ["Out"]


async def test_a_campaign_is_imported_once_and_a_late_one_with_an_earlier_date_too(site: Site) -> None:
    await members(site, *PEOPLE)
    send(site, "First")
    await run_import(site)
    send(site, "Took three days to send", SENT - timedelta(days=3))
    await run_import(site)
    await run_import(site, since="ever")
    assert [one.subject for one in await activities(site)] == ["First", "Took three days to send"]


async def test_two_imports_at_once_make_one_activity(site: Site, url: str) -> None:
    await members(site, *PEOPLE)
    for number in range(3):
        send(site, f"Number {number}", SENT + timedelta(hours=number))
    second = await open_store(url)
    other = SyncContext(second, site.clients, site.ctx.settings, holder="another process")
    links = list((await site.store.read(read_config)).links.values())
    try:
        done = await asyncio.gather(
            import_campaigns(site.ctx, links, ImportRequest()), import_campaigns(other, links, ImportRequest())
        )
    finally:
        await second.close()
    assert len(await activities(site)) == 3
    assert sum(one["campaigns"] for [one] in done) == 3


@pytest.mark.parametrize("units", range(1, 11))
async def test_an_import_that_is_killed_after_any_unit_continues_there(site: Site, units: int) -> None:
    people = await members(site, *PEOPLE)
    for number in range(2):
        sent = send(site, f"Number {number}", SENT + timedelta(hours=number), links=["https://example.org/a"])
        campaigns.open_mail(site.emulator.world, sent.id, PEOPLE[0])
        campaigns.click(site.emulator.world, sent.id, PEOPLE[1], "https://example.org/a")
    await killed_after(site, units)
    await run_import(site, figures=True)
    made = await activities(site)
    assert [one.subject for one in made] == ["Number 0", "Number 1"]
    for one in made:
        assert await targets(site, one.id) == sorted(people.values())
    shown = await site.store.read(read_campaigns, {site.list_id: GROUP}, site.store.clock, limit=0, offset=0)
    assert [(one["opens"], one["clicks"], one["targets"]) for one in shown] == [(1, 1, 3), (1, 1, 3)]


async def killed_after(site: Site, units: int) -> None:
    """An import whose process ends after so many of its units: nothing else of it happens, its lease runs out."""
    real = site.ctx.store

    class Killed(BaseException):
        pass

    class Dying:
        left = units + 2  # the lease, and the note of the start

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        async def write(self, *args: Any, **more: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return await real.write(*args, **more)

    links = list((await real.read(read_config)).links.values())
    dying = SyncContext(Dying(), site.clients, site.ctx.settings, holder="dies")  # type: ignore[arg-type]
    with suppress(Killed):
        await import_campaigns(dying, links, ImportRequest(figures=True))
    await real.write(lambda conn: conn.execute(update(lease).values(expires_ms=0)))


async def test_recipients_come_by_the_thousand_and_a_deletion_in_the_middle_hides_nobody(site: Site) -> None:
    addresses = [f"person{number:04}@example.org" for number in range(2_050)]
    site.joined(*addresses)
    for one in addresses[:3]:
        await site.person(one)
    last = await site.person(addresses[1_000])
    send(site)
    deleted = False

    def on_commit() -> None:
        nonlocal deleted
        if not deleted and any("sent-to" in one.path for one in site.emulator.requests):
            deleted = True
            for one in addresses[3:13]:
                site.emulator.admin("delete_permanently", one)

    ctx = Watched(site.ctx.store, on_commit)
    site.ctx = SyncContext(ctx, site.clients, site.ctx.settings, holder="tests")  # type: ignore[arg-type]
    await run_import(site)
    [made] = await activities(site)
    assert last in await targets(site, made.id)


class Watched:
    """A store that calls *after* each write."""

    def __init__(self, store: Any, after: Any) -> None:
        self._store, self._after = store, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, *args: Any, **more: Any) -> Any:
        result = await self._store.write(*args, **more)
        self._after()
        return result


async def test_a_recipient_who_is_no_member_any_more_is_found_by_an_address_of_their_own(site: Site) -> None:
    site.joined("ada@example.org", "shared@example.org", "jose@example.org")
    sent = send(site)
    ada = await site.person("Ada@example.org")
    await site.person("shared@example.org")
    await site.person("shared@example.org")
    await site.person("josé@example.org")
    await run_import(site)
    [made] = await activities(site)
    assert await targets(site, made.id) == [ada]
    [shown] = await site.store.read(read_campaigns, {site.list_id: GROUP}, site.store.clock, limit=0, offset=0)
    assert (shown["targets"], shown["unknown"], shown["emails_sent"]) == (1, 2, 3)
    assert shown["campaign_id"] == sent.id


async def unknown(site: Site) -> list[str]:
    wanted = select(campaign_unknown.c.address).order_by(campaign_unknown.c.address)
    return await site.store.read(lambda conn: list(conn.execute(wanted).scalars()))


async def test_a_recipient_who_becomes_a_contact_later_is_a_target_after_the_next_import(site: Site) -> None:
    site.joined(*PEOPLE)
    send(site, "First")
    send(site, "Second", SENT + timedelta(hours=1), only=PEOPLE[:2])
    await run_import(site)
    first, second = await activities(site)
    assert (await targets(site, first.id), await unknown(site)) == ([], sorted([*PEOPLE, *PEOPLE[:2]]))
    ada = await site.person(PEOPLE[0])
    await run_import(site)
    assert (await targets(site, first.id), await targets(site, second.id)) == ([ada], [ada])
    assert await unknown(site) == sorted([PEOPLE[1], PEOPLE[1], PEOPLE[2]])
    shown = await site.store.read(read_campaigns, {site.list_id: GROUP}, site.store.clock, limit=0, offset=0)
    assert [(one["targets"], one["unknown"]) for one in shown] == [(1, 1), (1, 2)]


async def test_recipients_are_looked_up_again_only_when_addresses_were_added(site: Site) -> None:
    site.joined(*PEOPLE)
    send(site)
    await run_import(site)
    await site.person("somebody@example.org")
    assert await site.store.read(rows.newest_email, site.list_id) is not None
    await run_import(site)
    assert await site.store.read(rows.newest_email, site.list_id) is None


async def test_unknown_recipients_are_looked_up_in_pieces(site: Site) -> None:
    site.joined(*PEOPLE)
    send(site)
    await run_import(site)
    people = [await site.person(one) for one in PEOPLE]
    site.ctx = SyncContext(
        site.store, site.clients, site.ctx.settings, holder="tests", sizes=UnitSizes(rows_per_unit=2)
    )
    await run_import(site)
    [made] = await activities(site)
    assert (await targets(site, made.id), await unknown(site)) == (people, [])


async def test_unknown_recipients_go_after_the_days_of_the_settings(site: Site) -> None:
    site.joined(*PEOPLE)
    send(site)
    send(site, "Lately", datetime.now(UTC) - timedelta(days=1), only=PEOPLE[:1])
    await run_import(site)
    before = datetime.now(UTC) - timedelta(days=10)
    last = await site.store.read(retention.last_old, "unknown_recipients", before, site.store.clock)
    await site.store.write(retention.delete_some, "unknown_recipients", before, site.store.clock, 0, last)
    assert await unknown(site) == [PEOPLE[0]]


async def test_opens_and_clicks_are_read_on_request_and_again_while_they_may_change(site: Site) -> None:
    people = await members(site, *PEOPLE)
    now = datetime.now(UTC).replace(microsecond=0)
    fresh = send(site, "Fresh", now - timedelta(days=1), links=["https://example.org/a", "https://example.org/b"])
    ada = people[PEOPLE[0]]
    await run_import(site)
    assert await mine(site, ada) == [("Fresh", 0, "", 0)]
    campaigns.open_mail(site.emulator.world, fresh.id, PEOPLE[0], int((now - timedelta(hours=2)).timestamp()))
    campaigns.open_mail(site.emulator.world, fresh.id, PEOPLE[0], int((now - timedelta(hours=1)).timestamp()))
    campaigns.click(site.emulator.world, fresh.id, PEOPLE[0], "https://example.org/a")
    await run_import(site, figures=True)
    opened = site.store.clock.write(now - timedelta(hours=1))
    assert await mine(site, ada) == [("Fresh", 2, opened, 1)]
    for _ in range(2):
        campaigns.click(site.emulator.world, fresh.id, PEOPLE[0], "https://example.org/b")
    await run_import(site, figures=True)
    await run_import(site, figures=True)
    assert await mine(site, ada) == [("Fresh", 2, opened, 3)]
    assert await mine(site, people[PEOPLE[1]]) == [("Fresh", 0, "", 0)]


async def mine(site: Site, contact_id: int) -> list[tuple[Any, ...]]:
    found = await site.store.read(read_campaigns_of, contact_id, site.store.clock, limit=0, offset=0)
    return [(one["subject"], one["opens"], one["last_open"], one["clicks"]) for one in found]


async def test_figures_of_a_campaign_that_ended_are_asked_for_once(site: Site) -> None:
    await members(site, *PEOPLE)
    send(site)
    await run_import(site, figures=True)
    site.emulator.clear_requests()
    await run_import(site, figures=True)
    assert [one.path for one in site.emulator.requests if "/reports/" in one.path] == []


async def test_figures_that_were_never_read_or_longest_ago_come_first(site: Site) -> None:
    """Else imports with too little time for all would read those of the oldest campaign again and again."""
    await members(site, *PEOPLE)
    now = datetime.now(UTC)
    sent = [send(site, f"{days} days ago", now - timedelta(days=days)) for days in (4, 3, 2, 1)]
    await run_import(site, figures=True)
    for one, read in zip(sent, (300, 100, 200, None), strict=True):
        ago = None if read is None else int(now.timestamp()) - 1000 + read
        changed = update(campaign).where(campaign.c.campaign_id == one.id).values(figures_s=ago)
        await site.store.write(lambda conn, changed=changed: conn.execute(changed) and None)
    site.emulator.clear_requests()
    await run_import(site, figures=True)
    asked = dict.fromkeys(part for one in site.emulator.requests for part in one.path.split("/"))
    by_id = {one.id: one.subject for one in sent}
    assert [by_id[one] for one in asked if one in by_id] == ["1 days ago", "3 days ago", "2 days ago", "4 days ago"]


async def test_opens_and_clicks_go_after_the_days_of_the_settings_and_do_not_come_back(site: Site) -> None:
    await members(site, *PEOPLE)
    sent = send(site, at=datetime.now(UTC) - timedelta(days=20))
    campaigns.open_mail(site.emulator.world, sent.id, PEOPLE[0])
    await run_import(site, figures=True)
    before = datetime.now(UTC) - timedelta(days=10)
    last = await site.store.read(retention.last_old, "campaigns", before, site.store.clock)
    count, _ = await site.store.write(retention.delete_some, "campaigns", before, site.store.clock, 0, last)
    assert count == 1
    kept = Settings(retention=RetentionSettings(campaigns_days=10))
    site.ctx = SyncContext(site.store, site.clients, kept, holder="tests")
    await run_import(site, figures=True)
    left = select(func.count()).select_from(campaign_response)
    assert await site.store.read(lambda conn: conn.execute(left).scalar_one()) == 0
    assert len(await activities(site)) == 1


async def test_a_report_that_is_gone_does_not_keep_other_campaigns_from_being_imported(site: Site) -> None:
    await members(site, *PEOPLE)
    gone = send(site, "Gone")
    send(site, "Here", SENT + timedelta(hours=1))
    await run_import(site)
    await site.store.write(
        lambda conn: conn.execute(update(campaign).where(campaign.c.campaign_id == gone.id).values(state="recipients"))
    )
    del site.emulator.world.default_account.campaigns[gone.id]
    send(site, "Later", SENT + timedelta(hours=2))
    assert (await run_import(site))[0]["outcome"] == "finished"
    assert [one.subject for one in await activities(site)] == ["Gone", "Here", "Later"]


async def test_a_report_that_fails_does_not_keep_other_campaigns_from_being_imported_and_is_named(site: Site) -> None:
    people = await members(site, *PEOPLE)
    poison, later = send(site, "Poison"), send(site, "Later", SENT + timedelta(hours=1))
    campaigns.open_mail(site.emulator.world, later.id, PEOPLE[0])
    path = f"/reports/{poison.id}"
    site.emulator.add_fault("500", path=path)
    named = (
        rf"^1 campaign of .*“Poison” \({poison.id}\): .*{path}/sent-to: status 500[^;{{]*\. The next import tries again"
    )
    for _ in range(2):
        with pytest.raises(MailchimpFailed, match=named):
            await run_import(site, figures=True)
    made = {one.subject: one.id for one in await activities(site)}
    assert await targets(site, made["Later"]) == sorted(people.values())
    assert (await mine(site, people[PEOPLE[0]]))[0][:2] == ("Later", 1)
    last = await site.store.read(read_last_import, site.list_id, site.store.clock)
    assert isinstance(last, dict)
    assert (last["outcome"], "“Poison”" in last["error"], last["campaigns"]) == ("failed", True, 0)
    assert await errors(site) == {"Poison": True, "Later": False}
    site.emulator.clear_faults()
    await run_import(site, figures=True)
    assert await targets(site, made["Poison"]) == sorted(people.values())
    assert await errors(site) == {"Poison": False, "Later": False}


async def errors(site: Site) -> dict[str, bool]:
    shown = await site.store.read(read_campaigns, {site.list_id: GROUP}, site.store.clock, limit=0, offset=0)
    return {one["subject"]: bool(one["error"]) for one in shown}


async def test_figures_that_fail_once_are_read_the_next_time(site: Site) -> None:
    people = await members(site, *PEOPLE)
    sent = send(site)
    campaigns.open_mail(site.emulator.world, sent.id, PEOPLE[0])
    site.emulator.add_fault("500", path=f"/reports/{sent.id}/open-details")
    with pytest.raises(MailchimpFailed, match="Spring"):
        await run_import(site, figures=True)
    site.emulator.clear_faults()
    await run_import(site, figures=True)
    assert (await mine(site, people[PEOPLE[0]]))[0][:2] == ("Spring", 1)
    assert await errors(site) == {"Spring": False}


@pytest.mark.parametrize("fault", ["429_json", "403_user_disabled"])
async def test_a_wrong_key_and_throttling_stop_an_import_at_once(site: Site, fault: str) -> None:
    await members(site, *PEOPLE)
    first, second = send(site, "First"), send(site, "Second", SENT + timedelta(hours=1))
    site.emulator.add_fault(fault, path=f"/reports/{first.id}")
    site.emulator.clear_requests()
    with pytest.raises(MailchimpFailed, match=r"^The campaigns of .*continues there"):
        await run_import(site)
    assert not [one.path for one in site.emulator.requests if second.id in one.path]
    assert await errors(site) == {"First": False, "Second": False}


async def test_a_failed_import_is_noted_and_the_next_one_mends_it(site: Site) -> None:
    await members(site, *PEOPLE)
    send(site)
    site.emulator.add_fault("500", path="/sent-to")
    with pytest.raises(MailchimpFailed, match="could not be imported"):
        await run_import(site)
    last = await site.store.read(read_last_import, site.list_id, site.store.clock)
    assert isinstance(last, dict)
    assert (last["outcome"], "sent-to" in last["error"]) == ("failed", True)
    site.emulator.clear_faults()
    await run_import(site)
    last = await site.store.read(read_last_import, site.list_id, site.store.clock)
    assert isinstance(last, dict)
    assert (last["outcome"], last["error"], last["campaigns"]) == ("finished", "", 1)


async def test_an_activity_that_somebody_deleted_does_not_come_back(site: Site) -> None:
    await members(site, *PEOPLE)
    send(site)
    await run_import(site)
    await site.store.write(lambda conn: conn.execute(delete(activity)))
    await run_import(site, since="ever", figures=True)
    assert await activities(site) == []


async def test_an_archive_link_that_is_no_web_page_is_left_out(site: Site) -> None:
    sent = send(site)
    sent.archive_url = "javascript:alert(1)"
    await run_import(site)
    [made] = await activities(site)
    assert "javascript" not in made.details


async def test_a_count_that_no_column_holds_is_cut_and_a_link_without_a_usable_id_left_out(site: Site) -> None:
    """One odd row of a report must not keep the others, and all later imports, from being stored."""
    people = await members(site, *PEOPLE)
    url = "https://example.org"
    sent = send(site, links=[url])
    [link_id] = sent.links
    ada, bea, cy = (next(one for one in sent.recipients.values() if one.email == name) for name in PEOPLE)
    ada.clicks, bea.clicks, cy.clicks = {link_id: 2**40}, {link_id: 2}, {"L" * 100: 1}
    sent.links["L" * 100] = url
    assert (await run_import(site, figures=True))[0]["outcome"] == "finished"
    clicks = [[one[3] for one in await mine(site, people[name])] for name in PEOPLE]
    assert clicks == [[2**31 - 1], [2], [0]]


async def test_a_type_that_somebody_made_before_is_used(site: Site) -> None:
    found = select(option_group.c.id).where(option_group.c.name == "activity_type")
    group_id = await site.store.read(lambda conn: conn.execute(found).scalar_one())
    made = {"option_group_id": group_id, "label": "Mailchimp Campaign", "name": "mc", "value": "77", "weight": 9}
    await site.store.write(lambda conn: conn.execute(insert(option_value).values(**made)))
    send(site)
    await run_import(site)
    assert [one.activity_type_id for one in await activities(site)] == [77]


async def test_an_import_without_time_pauses_and_says_so(site: Site) -> None:
    await members(site, *PEOPLE)
    send(site)
    assert (await run_import(site, max_time=0))[0]["outcome"] == "paused"
    assert (await run_import(site))[0]["outcome"] == "finished"
