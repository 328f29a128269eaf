"""Every table of CiviCRM and the extension, before a run of ours, after it, and after the database was handed back."""

from typing import Any

import phpserialize

from civiapi.maintenance.release import hand_back
from sync.emulator.model.records import Interest, InterestCategory
from sync.mailchimp.wire import subscriber_hash
from sync.model import MemberOperation
from tests.support.civicrm import INTEREST
from tests.support.databases import sql
from tests.support.extension import Tables, changed, log_in_detail, rows_of
from tests.support.linked_site import Site
from tests.support.their_site import Theirs

OF_THE_SYNC = {
    "civicrm_mailchimpsync_batch",
    "civicrm_mailchimpsync_cache",
    "civicrm_mailchimpsync_status",
    "civicrm_mailchimpsync_update",
}
OF_NEWCOMERS = {
    "civicrm_contact",
    "civicrm_email",
    "civicrm_group_contact",
    "civicrm_subscription_history",
    "log_civicrm_contact",
    "log_civicrm_email",
    "log_civicrm_group_contact",
}


def offer_trees(theirs: Theirs) -> None:
    """Let the audience offer the interest that is linked, which one member has chosen."""
    category = InterestCategory("c" * 10, "Topics")
    category.interests[INTEREST] = Interest(INTEREST, category.id, "Trees")
    theirs.emulator.audience().categories[category.id] = category
    theirs.emulator.person("edit_profile", "bob@example.org", interests={INTEREST: True})


async def run(site: Site) -> None:
    await site.run(since="ever")
    await site.settle_with_batches()


def member_data(theirs: Theirs) -> dict[str, Any]:
    """What the cache has of each member, as PHP reads it."""
    found = sql(
        "SELECT mailchimp_email, HEX(mailchimp_data) FROM civicrm_mailchimpsync_cache WHERE mailchimp_email <> ''",
        database=theirs.extension.database,
    )
    return {address: phpserialize.loads(bytes.fromhex(data), decode_strings=True) for address, data in found}


def lost(before: Tables, after: Tables) -> dict[str, list[list[str]]]:
    """The rows by id that are gone."""
    there = {name: {row[0] for row in rows} for name, rows in after.items()}
    gone = {name: [row for row in rows if row[0] not in there[name]] for name, rows in before.items()}
    return {name: rows for name, rows in gone.items() if rows}


async def test_a_run_changes_the_tables_of_the_sync_and_of_newcomers_alone_and_deletes_no_row(theirs: Theirs) -> None:
    log_in_detail(theirs.url)
    offer_trees(theirs)
    theirs.extension.store("readyToFetch")
    before = rows_of(theirs.url)
    async with theirs.taken_over() as site:
        adopted = rows_of(theirs.url)
        assert changed(before, adopted) == set()
        await run(site)
        after = rows_of(theirs.url)
    assert changed(before, after) == OF_THE_SYNC | OF_NEWCOMERS
    assert lost(before, after) == {}
    statuses = sql("SELECT DISTINCT sync_status FROM civicrm_mailchimpsync_cache", database=theirs.extension.database)
    assert statuses == [["ok"]]


async def test_handing_back_changes_nothing_and_the_next_turn_finds_everything_in_step(theirs: Theirs) -> None:
    log_in_detail(theirs.url)
    offer_trees(theirs)
    theirs.extension.store("readyToFetch")
    async with theirs.taken_over() as site:
        await run(site)
        after = rows_of(theirs.url)
    await hand_back(theirs.settings)
    assert changed(after, rows_of(theirs.url)) == set()
    assert theirs.extension.starts()
    for address, data in member_data(theirs).items():
        assert data["interests"] == {INTEREST: address == "bob@example.org"}, address
        assert data[f"interest-{INTEREST}"] == (address == "bob@example.org"), address
    async with theirs.taken_over() as site:
        await run(site)
    assert changed(after, rows_of(theirs.url)) <= {"civicrm_mailchimpsync_status"}


async def test_what_only_civiapi_can_send_is_the_extensions_to_decide_when_the_database_is_handed_back(
    theirs: Theirs,
) -> None:
    theirs.extension.store("readyToFetch")
    async with theirs.taken_over() as site:
        await run(site)
        row = await site.row("bob@example.org")
        path = f"members/{subscriber_hash('bob@example.org')}"
        await site.owe(row.id, MemberOperation("email", "PATCH", path, {"email_address": "new@example.org"}))
        await site.owe(row.id, MemberOperation("tags", "POST", f"{path}/tags", {"tags": []}))
        before = rows_of(theirs.url)
    await hand_back(theirs.settings)
    assert lost(before, rows_of(theirs.url)) == {}
    database = theirs.extension.database
    assert sql("SELECT id FROM civicrm_mailchimpsync_update WHERE completed = 0", database=database) == []
    assert sql(f"SELECT sync_status FROM civicrm_mailchimpsync_cache WHERE id = {row.id}", database=database) == [
        ["todo"]
    ]


async def test_every_stage_that_a_run_may_rest_at_is_one_that_the_extension_knows(theirs: Theirs) -> None:
    async with theirs.taken_over() as site:
        for stage in ("readyToProcessEmailChanges", "readyToCheckForDataUpdates", "readyToReconcileQueue"):
            theirs.extension.store("readyToFetch")
            await site.run(since="ever", with_data=True, stop_on=stage, force_restart=True)
            assert (await site.status())["locks"]["fetchAndReconcile"] == stage
            assert theirs.extension.starts()
