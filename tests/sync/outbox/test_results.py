"""Results of batches written down: every outcome, lost ones, repeated ones, and processing that was killed half-way."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select
from sqlalchemy import update as change

from civiapi.store import leases
from sync.connections.connection_share import RESULTS
from sync.context import UnitSizes
from sync.errors import SyncError
from sync.leases import hold_lease
from sync.mailchimp.errors import Unreachable
from sync.mailchimp.wire import subscriber_hash
from sync.model import BatchRow, MemberOperation
from sync.outbox import apply_results, results
from sync.outbox.results import parse_operation_id, process_completed
from sync.store.members.blobs import load_data
from sync.store.members.member_codec import decode
from sync.store.tables import batch, cache, update_detail
from sync.store.updates import MEMBER_GONE
from tests.support.databases import database_at
from tests.support.linked_site import Site, a_site, subscribing, unsubscribing

ADA, BOB, CY = "ada@example.org", "bob@example.org", "cy@example.org"
PUT = {"method": "PUT", "path": "/members/"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(database_at(tmp_path / "site.sqlite")) as opened:
        yield opened


async def a_member(site: Site, address: str, status: str = "subscribed", **more: Any) -> Any:
    """A member with a row and a contact who is Added, as after a sync; the row."""
    site.joined(address, status=status, **more)
    contact_id = await site.person(address)
    await site.sync(since="ever")
    row = await site.row(address)
    assert (row.civicrm_contact_id, row.sync_status) == (contact_id, "ok")
    return row


def archive(address: str) -> MemberOperation:
    return MemberOperation("archive", "DELETE", f"members/{subscriber_hash(address)}", {}, datetime.now(UTC))


def move(old: str, new: str) -> MemberOperation:
    return MemberOperation(
        "email", "PATCH", f"members/{subscriber_hash(old)}", {"email_address": new}, datetime.now(UTC)
    )


def tags(address: str, **names: bool) -> MemberOperation:
    states = [{"name": name, "status": "active" if on else "inactive"} for name, on in names.items()]
    return MemberOperation(
        "tags", "POST", f"members/{subscriber_hash(address)}/tags", {"tags": states, "is_syncing": True}
    )


async def problems(site: Site) -> list[str]:
    """The titles of what went wrong, update by update; empty where nothing did."""
    return [orjson.loads(one.error_response)["title"] if one.error_response else "" for one in await site.updates()]


class TestSuccess:
    async def test_makes_a_contact_s_row_the_member_s(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.send()
        row = await site.row(ADA)
        assert (row.mailchimp_member_id, row.mailchimp_status) == (subscriber_hash(ADA), "subscribed")
        assert row.sync_status == "ok"
        [one] = await site.updates()
        assert (one.completed, one.error_response) == (1, None)
        [found] = await site.batches()
        assert (found.status, found.response_processed, found.finished_operations) == ("finished", 2, 1)
        assert found.completed_at is not None

    async def test_dates_the_status_by_the_word_that_caused_it(self, site: Site) -> None:
        cause = datetime.now(UTC) - timedelta(hours=3)
        await site.owe(await site.new_row(ADA), subscribing(ADA, cause=cause))
        await site.send()
        data = decode((await site.row(ADA)).mailchimp_data)
        assert data["status@"] == cause.strftime("%Y%m%d%H%M%S")
        assert not [key for key in data if key.startswith("sent-")]

    async def test_leaves_a_row_live_while_it_owes_more(self, site: Site) -> None:
        row = await a_member(site, ADA)
        site.emulator.configure(auto_batches=False)
        await site.owe(row.id, unsubscribing(ADA))
        await site.submit()
        await site.owe(row.id, tags(ADA, A=True))
        site.emulator.run_batches()
        [one] = await site.batches()
        await process_completed(site.ctx, one.id)
        assert (await site.row(ADA)).sync_status == "live"

    async def test_leaves_a_row_to_be_thought_about_that_was_marked_so_meanwhile(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.submit()
        await site.store.write(lambda conn: conn.execute(change(cache).values(sync_status="todo")) and None)
        await site.settle()
        assert (await site.row(ADA)).sync_status == "todo"

    async def test_of_two_rows_that_turn_out_to_be_one_member_keeps_one(self, site: Site) -> None:
        site.joined(ADA)
        await site.owe_subscribing(ADA)
        await site.run(since="ever", stop_on="readyToFixContactIds")
        assert len(await site.rows()) == 2
        await site.send()
        row = await site.row(ADA)
        assert (row.mailchimp_status, row.civicrm_contact_id is not None) == ("subscribed", True)

    async def test_does_not_take_older_news_for_newer(self, site: Site) -> None:
        """The person left after our write; the fetch saw it before the results were read."""
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        site.emulator.advance(5)
        site.emulator.person("unsubscribe", ADA)
        await site.run(since="ever", stop_on="readyToFixContactIds")
        await site.settle_with_batches()
        rows = await site.rows()
        assert {row.mailchimp_status for row in rows} == {"unsubscribed"}


class TestArchiving:
    async def test_leaves_an_archived_row_with_what_was_known(self, site: Site) -> None:
        row = await a_member(site, ADA, merge_fields={"FNAME": "Ada"})
        await site.owe(row.id, archive(ADA))
        await site.send()
        row = await site.row(ADA)
        assert (row.mailchimp_status, row.sync_status) == ("archived", "ok")
        assert decode(row.mailchimp_data)["first_name"] == "Ada"

    async def test_of_one_archived_already_is_success(self, site: Site) -> None:
        row = await a_member(site, ADA)
        site.emulator.admin("archive", ADA)
        await site.owe(row.id, archive(ADA))
        await site.send()
        assert await problems(site) == [""]
        assert (await site.row(ADA)).mailchimp_status == "archived"

    async def test_of_one_deleted_for_good_is_success(self, site: Site) -> None:
        row = await a_member(site, ADA)
        site.emulator.admin("delete_permanently", ADA)
        await site.owe(row.id, archive(ADA))
        await site.send()
        assert await problems(site) == [""]
        assert (await site.row(ADA)).mailchimp_status == "archived"

    async def test_of_a_cleaned_member_fails_with_405_and_tells_the_status(self, site: Site) -> None:
        row = await a_member(site, ADA)
        site.emulator.person("hard_bounce", ADA)
        await site.owe(row.id, archive(ADA))
        await site.send()
        assert await problems(site) == ["Method Not Allowed"]
        assert (await site.row(ADA)).mailchimp_status == "cleaned"


class TestChangeOfAddress:
    async def test_takes_the_row_and_what_waits_along(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, move(ADA, BOB))
        await site.owe(row.id, tags(ADA, A=True))
        await site.send()
        [row] = await site.rows()
        assert (row.mailchimp_email, row.mailchimp_member_id) == (BOB, subscriber_hash(BOB))
        member = site.emulator.member(BOB)
        assert member is not None
        assert len(member.tags) == 1
        assert await problems(site) == ["", ""]

    async def test_whose_answer_was_lost_is_found_done(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, move(ADA, BOB))
        site.emulator.person("change_email", ADA, new_email=BOB)
        await site.send()
        [row] = await site.rows()
        assert (row.mailchimp_email, await problems(site)) == (BOB, [""])

    async def test_to_an_address_that_is_a_member_is_thought_about_again(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, move(ADA, BOB))
        site.joined(BOB)
        await site.send()
        found = {one.mailchimp_email: one.sync_status for one in await site.rows()}
        assert found == {ADA: "todo", BOB: "todo"}

    async def test_of_somebody_who_is_gone_tells_so(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, move(ADA, BOB))
        site.emulator.admin("delete_permanently", ADA)
        await site.send()
        [row] = await site.rows()
        assert (row.mailchimp_status, row.sync_status) == ("archived", "todo")


class TestTags:
    async def test_are_remembered_once_mailchimp_has_them(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, tags(ADA, A=True, B=True))
        await site.send()
        await site.owe(row.id, tags(ADA, A=False))
        await site.send()
        row = await site.row(ADA)
        assert load_data(row.civicrm_data)["tags"] == {"B": True}
        assert row.sync_status == "ok"

    async def test_that_were_refused_are_not_remembered(self, site: Site) -> None:
        row = await a_member(site, ADA)
        await site.owe(row.id, tags(ADA, A=True))
        site.emulator.admin("delete_permanently", ADA)
        await site.send()
        row = await site.row(ADA)
        assert "tags" not in load_data(row.civicrm_data)
        assert row.mailchimp_status == "archived"  # whoever was to be tagged is gone for good


PATH = f"members/{subscriber_hash(ADA)}"
ABOUT_A_MEMBER: dict[str, Callable[[], MemberOperation]] = {
    "tags": lambda: tags(ADA, A=True),
    "another address": lambda: move(ADA, BOB),
    "names": lambda: MemberOperation("names", "PATCH", PATH, {"merge_fields": {"FNAME": "Ada"}}),
    "merge fields": lambda: MemberOperation("fields", "PATCH", PATH, {"merge_fields": {"JOB": "Singer"}}),
    "interests": lambda: MemberOperation(
        "member", "PUT", PATH, {"email_address": ADA, "status_if_new": "unsubscribed", "interests": {"a1": True}}
    ),
}


@pytest.mark.parametrize("operation", ABOUT_A_MEMBER.values(), ids=ABOUT_A_MEMBER)
async def test_a_change_of_somebody_who_was_deleted_is_no_failure(
    site: Site, operation: Callable[[], MemberOperation]
) -> None:
    row = await a_member(site, ADA)
    await site.owe(row.id, operation())
    site.emulator.admin("delete_permanently", ADA)
    await site.send()
    [one] = await site.updates()
    assert (one.completed, one.error_response) == (1, MEMBER_GONE)
    row = await site.row(ADA)
    assert (row.mailchimp_status, row.sync_status) == ("archived", "todo")


class TestRefusals:
    async def test_a_fake_address_fails_with_mailchimp_s_own_words(self, site: Site) -> None:
        site.emulator.configure(reject_domains=["example.org"])
        await site.owe_subscribing(ADA)
        await site.send()
        [one] = await site.updates()
        assert "looks fake or invalid" in orjson.loads(one.error_response)["detail"]
        row = await site.row(ADA)
        assert row.sync_status == "fail"
        assert not [key for key in decode(row.mailchimp_data) if key.startswith("sent-")]

    async def test_someone_forgotten_fails_for_good(self, site: Site) -> None:
        site.emulator.configure(forgotten_emails=[ADA])
        await site.owe_subscribing(ADA)
        await site.send()
        assert await problems(site) == ["Forgotten Email Not Subscribed"]
        assert (await site.row(ADA)).sync_status == "fail"
        assert site.posted_batches() == 1

    async def test_a_compliance_refusal_is_followed_by_one_request_for_pending(self, site: Site) -> None:
        site.joined(ADA)
        site.emulator.person("unsubscribe", ADA)
        await site.owe_subscribing(ADA)
        await site.send()
        assert await problems(site) == ["Member In Compliance State", ""]
        assert [one.completed for one in await site.updates()] == [1, 1]
        row = await site.row(ADA)
        assert (row.mailchimp_status, row.sync_status) == ("pending", "ok")

    async def test_refused_as_pending_too_it_is_at_rest(self, site: Site) -> None:
        site.joined(ADA)
        site.emulator.person("hard_bounce", ADA)
        await site.owe_subscribing(ADA)
        await site.send()
        assert await problems(site) == ["Member In Compliance State", "Member In Compliance State"]
        assert (await site.row(ADA)).sync_status == "fail"
        assert site.posted_batches() == 2

    async def test_no_pending_is_asked_for_once_civicrm_wants_the_person_out(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False, compliance_emails=[ADA])
        [_] = await site.owe_subscribing(ADA)
        [row] = await site.rows()
        await site.submit()
        await site.owe(row.id, unsubscribing(ADA))
        await site.settle_with_batches()
        assert site.at_mailchimp(ADA) is None, "who never got in is not made a member to be unsubscribed"
        assert await problems(site) == ["Member In Compliance State", ""]

    async def test_member_exists_for_someone_who_is_as_wanted_is_success(self, site: Site) -> None:
        """Ours go by PUT, which never meets this; the extension posted, and its updates may be waiting."""
        site.joined(ADA)
        body = {"email_address": ADA, "status": "subscribed"}
        await site.owe(await site.new_row(ADA), MemberOperation("member", "POST", "members", body, datetime.now(UTC)))
        await site.send()
        assert await problems(site) == [""]
        row = await site.row(ADA)
        assert (row.mailchimp_status, row.sync_status) == ("subscribed", "ok")
        assert site.posted_batches() == 1


class TestPassingTrouble:
    @pytest.mark.parametrize(
        "action",
        [
            pytest.param("429_json", id="429 inside a batch"),
            pytest.param("500", id="500 inside a batch"),
            pytest.param("403_html", id="a bare 403 inside a batch"),
            pytest.param("reset_before", id="an operation missing from the results, not carried out"),
            pytest.param("reset_after", id="an operation missing from the results, carried out"),
        ],
    )
    async def test_is_sent_again(self, site: Site, action: str) -> None:
        site.emulator.add_fault(action, count=1, **PUT)
        await site.owe_subscribing(ADA, BOB)
        await site.send()
        assert [site.at_mailchimp(one) for one in (ADA, BOB)] == ["subscribed", "subscribed"]
        assert await problems(site) == ["", ""]
        assert [row.sync_status for row in await site.rows()] == ["ok", "ok"]
        assert site.posted_batches() == 2

    async def test_that_never_passes_is_given_up(self, site: Site) -> None:
        site.emulator.add_fault("500", email=ADA, **PUT)
        await site.owe_subscribing(ADA)
        await site.send()
        assert site.posted_batches() == apply_results.MAX_TRIES
        assert await problems(site) == [f"Given up after {apply_results.MAX_TRIES} tries"]
        assert (await site.row(ADA)).sync_status == "fail"

    async def test_counts_tries_in_the_detail(self, site: Site) -> None:
        site.emulator.add_fault("500", count=2, **PUT)
        await site.owe_subscribing(ADA)
        await site.send()
        tries = await site.store.read(lambda conn: conn.execute(select(update_detail.c.tries)).scalar())
        assert tries == 2

    async def test_a_later_wish_takes_the_place_of_what_would_be_sent_again(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        site.emulator.add_fault("500", count=1, **PUT)
        await site.owe_subscribing(ADA)
        [row] = await site.rows()
        await site.submit()
        await site.owe(row.id, unsubscribing(ADA))
        await site.settle_with_batches()
        assert site.at_mailchimp(ADA) is None, "who never got in is not made a member to be unsubscribed"
        overtaken, sent = await site.updates()
        assert (overtaken.completed, sent.completed) == (1, 1)
        assert overtaken.error_response.startswith("Overtaken")


class TestBatchesThatVanish:
    async def test_a_batch_that_mailchimp_knows_no_more_is_sent_again(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.world.default_account.batches.clear()
        await site.settle_with_batches()
        assert site.at_mailchimp(ADA) == "subscribed"
        assert [one.status for one in await site.batches()] == ["expired", "finished"]

    async def test_results_that_expired_after_seven_days_are_sent_for_again(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        site.emulator.advance(8 * 24 * 3600)
        await site.settle_with_batches()
        assert [row.sync_status for row in await site.rows()] == ["ok"]
        assert [one.completed for one in await site.updates()] == [1]

    @pytest.mark.parametrize(
        "archive_bytes",
        [
            pytest.param(b"", id="an empty archive"),
            pytest.param(b"\x1f\x8bnot a gzip", id="a broken archive"),
            pytest.param(b"<html>", id="no archive at all"),
        ],
    )
    async def test_an_archive_that_says_nothing_sends_it_all_again(self, site: Site, archive_bytes: bytes) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA, BOB)
        await site.submit()
        site.emulator.run_batches()
        for one in site.emulator.world.default_account.batches.values():
            one.archive = archive_bytes
        await site.settle_with_batches()
        assert [row.sync_status for row in await site.rows()] == ["ok", "ok"]
        assert await problems(site) == ["", ""]

    async def test_a_link_that_expired_is_asked_for_anew(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        [one] = await site.batches()
        await site.client.find_batch(one.mailchimp_batch_id)
        site.emulator.advance(3600)
        await site.settle_with_batches()
        assert site.posted_batches() == 1


class TestRepeating:
    async def test_results_processed_again_leave_the_same_rows(self, site: Site) -> None:
        site.emulator.configure(reject_domains=["fake.example.org"])
        await site.owe_subscribing(ADA, BOB, "x@fake.example.org")
        await site.send()
        before = await site.snapshot()
        [one] = await site.batches()
        await process_completed(site.ctx, one.id, force=True)
        assert await site.snapshot() == before

    async def test_results_processed_again_much_later_undo_nothing(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.send()
        site.emulator.advance(5)
        site.emulator.person("unsubscribe", ADA)
        await site.run(since="ever", stop_on="readyToFixContactIds")
        before = await site.snapshot()
        [one] = await site.batches()
        await process_completed(site.ctx, one.id, force=True)
        after = await site.snapshot()
        assert after["cache"] == before["cache"]

    async def test_processing_that_was_killed_half_way_goes_on(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site.ctx = replace(site.ctx, sizes=UnitSizes(results_per_unit=1))
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA, BOB, CY)
        await site.submit()
        site.emulator.run_batches()
        applied, calls = results.apply_outcomes, 0

        def killed(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise Unreachable("a power cut", "killed", outcome_unknown=False)
            return applied(*args, **kwargs)

        monkeypatch.setattr(results, "apply_outcomes", killed)
        [one] = await site.batches()
        with pytest.raises(SyncError):
            await process_completed(site.ctx, one.id)
        [one] = await site.batches()
        assert (one.response_processed, sum(u.completed for u in await site.updates())) == (1, 1)
        await site.settle()
        [one] = await site.batches()
        assert (one.response_processed, sum(u.completed for u in await site.updates())) == (2, 3)
        assert site.posted_batches() == 1

    async def test_whoever_lost_the_lease_writes_nothing(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        applied = results.apply_outcomes

        def frozen(conn: Any, *args: Any, **kwargs: Any) -> Any:
            leases.revoke(conn, RESULTS + site.list_id)
            return applied(conn, *args, **kwargs)

        monkeypatch.setattr(results, "apply_outcomes", frozen)
        [one] = await site.batches()
        with pytest.raises(leases.LeaseLost):
            await results.process_batch(
                site.ctx,
                await site.audience(),
                BatchRow(one.id, site.list_id, one.mailchimp_batch_id, "pending", 0),
            )
        assert [u.completed for u in await site.updates()] == [0]


class TestProcessCompleted:
    async def test_answers_the_row(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        [one] = await site.batches()
        row = await process_completed(site.ctx, one.id)
        assert (row["id"], row["status"], row["response_processed"]) == (one.id, "finished", 2)

    async def test_of_an_unknown_id_says_so(self, site: Site) -> None:
        with pytest.raises(SyncError, match=r"^MailchimpsyncBatch\.processCompleted given id not found$"):
            await process_completed(site.ctx, 99)

    async def test_of_a_batch_that_goes_on_says_how_it_stands(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        [one] = await site.batches()
        with pytest.raises(
            SyncError, match=rf"^Batch {one.mailchimp_batch_id} has not finished\. Got status: pending$"
        ):
            await process_completed(site.ctx, one.id)

    async def test_of_a_processed_one_says_so_unless_forced(self, site: Site) -> None:
        await site.owe_subscribing(ADA)
        await site.send()
        [one] = await site.batches()
        told = f"Batch {one.id} ({one.mailchimp_batch_id}) already processed. Use the force parameter"
        with pytest.raises(SyncError) as failure:
            await process_completed(site.ctx, one.id)
        assert str(failure.value).startswith(told)
        assert (await process_completed(site.ctx, one.id, force=True))["response_processed"] == 2

    async def test_of_one_being_processed_says_so_only_while_somebody_is_at_it(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.run_batches()
        await site.store.write(lambda conn: conn.execute(change(batch).values(response_processed=1)) and None)
        [one] = await site.batches()
        async with hold_lease(site.ctx, RESULTS + site.list_id, brief=True):
            with pytest.raises(SyncError, match="currently being processed"):
                await process_completed(site.ctx, one.id)
        assert (await process_completed(site.ctx, one.id))["response_processed"] == 2

    async def test_without_mailchimp_says_why(self, site: Site) -> None:
        site.emulator.configure(auto_batches=False)
        await site.owe_subscribing(ADA)
        await site.submit()
        site.emulator.add_fault("502_html")
        [one] = await site.batches()
        with pytest.raises(SyncError, match=rf"Batch {one.id} .*502"):
            await process_completed(site.ctx, one.id)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("civiapi-7-12", 12, id="ours"),
        pytest.param("civiapi-8-12", None, id="of another batch of ours"),
        pytest.param("civiapi-7-x", None, id="no number"),
        pytest.param("civiapi-7--1", None, id="a number below zero"),
        pytest.param("sync-7-12", None, id="another program's"),
        pytest.param(None, None, id="none at all"),
        pytest.param("", None, id="empty"),
    ],
)
def test_an_operation_id(text: str | None, found: int | None) -> None:
    assert parse_operation_id(text, 7) == found
