"""Merge fields filled by rules: from every kind of source, sent once, and again where either side changes."""

from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import Connection

from sync.connections.config import read_config, write_config
from tests.support.linked_site import TREES_GROUP, Site
from tests.support.merge_fields import a_merge_field, merges, run_sql, sent_updates, use_rules

ADA, BOB = "ada@example.org", "bob@example.org"
MEMBERSHIPS = (
    "CREATE TABLE civicrm_membership (id INTEGER PRIMARY KEY, contact_id INT, join_date DATE, start_date DATE, "
    "end_date DATE, is_test INT)",
    "CREATE TABLE civicrm_membership_log (id INTEGER PRIMARY KEY, membership_id INT)",
)
CONTRIBUTIONS = (
    "CREATE TABLE civicrm_contribution (id INTEGER PRIMARY KEY, contact_id INT, receive_date DATETIME, "
    "total_amount DECIMAL(20,2), is_test INT, is_template INT, contribution_status_id INT)",
)


def touched(contact_id: int) -> str:
    """CiviCRM's triggers move a contact's date when its own tables change."""
    return f"UPDATE civicrm_contact SET modified_date = '2037-01-01 00:00:00' WHERE id = {contact_id}"


def contribution(number: int, contact_id: int, day: str, amount: str, *, test: int = 0, status: int = 1) -> str:
    return (
        f"INSERT INTO civicrm_contribution VALUES ({number}, {contact_id}, '{day} 10:00:00', {amount}, {test}, 0, "
        f"{status})"
    )


# source, type of the merge field, how it comes to CiviCRM, what Mailchimp has, how it changes, what Mailchimp has then
SOURCES: list[tuple[str, str, tuple[str, ...], Any, tuple[str, ...], Any]] = [
    (
        "contact:job_title", "text",
        ("UPDATE civicrm_contact SET job_title = 'Poet' WHERE id = {id}",), "Poet",
        ("UPDATE civicrm_contact SET job_title = 'Engine &lt;1' WHERE id = {id}", "{touch}"), "Engine <1",
    ),
    (
        "contact:gender_id", "radio",
        ("UPDATE civicrm_contact SET gender_id = 1 WHERE id = {id}",), "Female",
        ("UPDATE civicrm_contact SET gender_id = 2 WHERE id = {id}", "{touch}"), "Male",
    ),
    (
        "contact:birth_date", "birthday",
        ("UPDATE civicrm_contact SET birth_date = '1815-12-10' WHERE id = {id}",), "12/10",
        ("UPDATE civicrm_contact SET birth_date = '1815-12-11' WHERE id = {id}", "{touch}"), "12/11",
    ),
    (
        "address:city", "text",
        ("INSERT INTO civicrm_address (contact_id, city, is_primary) VALUES ({id}, 'Troy', 1)",), "Troy",
        ("UPDATE civicrm_address SET city = 'Rome'", "{touch}"), "Rome",
    ),
    (
        "phone:phone", "phone",
        ("INSERT INTO civicrm_phone (contact_id, phone, is_primary) VALUES ({id}, '+49 30 1', 1)",
         "INSERT INTO civicrm_phone (contact_id, phone, is_primary) VALUES ({id}, '+49 30 2', 0)"), "+49 30 1",
        ("UPDATE civicrm_phone SET phone = '+49 30 3' WHERE is_primary = 1", "{touch}"), "+49 30 3",
    ),
    (
        "email:location_type", "text", (), "Home",
        ("UPDATE civicrm_email SET location_type_id = 2 WHERE contact_id = {id}", "{touch}"), "Work",
    ),
    (
        "membership:end_date", "date",
        (*MEMBERSHIPS, "INSERT INTO civicrm_membership VALUES (1, {id}, '2020-01-01', '2026-01-01', '2026-12-31', 0)",
         "INSERT INTO civicrm_membership VALUES (2, {id}, '2020-01-01', '2036-01-01', '2036-12-31', 1)"), "2026-12-31",
        ("UPDATE civicrm_membership SET end_date = '2027-12-31' WHERE id = 1",
         "INSERT INTO civicrm_membership_log VALUES (1, 1)"), "2027-12-31",
    ),
    (
        "contribution:last_amount", "number",
        (*CONTRIBUTIONS, "{c1}", "{c2}", "{c3}", "{c4}"), 25,
        ("{c5}",), 7.5,
    ),
    (
        "contribution:largest_date", "date",
        (*CONTRIBUTIONS, "{c1}", "{c2}", "{c3}", "{c4}"), "2025-05-01",
        ("DELETE FROM civicrm_contribution WHERE id = 1",), "2026-01-05",
    ),
    (
        "contribution:count", "number",
        (*CONTRIBUTIONS, "{c1}", "{c2}", "{c3}", "{c4}"), 2,
        ("{c5}",), 3,
    ),
    (
        f"group:{TREES_GROUP}", "radio",
        (), "No",
        (f"INSERT INTO civicrm_group_contact (group_id, contact_id, status) VALUES ({TREES_GROUP}, {{id}}, 'Added')",
         f"INSERT INTO civicrm_subscription_history (contact_id, group_id, date, method, status) VALUES "
         f"({{id}}, {TREES_GROUP}, '2026-01-09 00:00:00', 'Admin', 'Added')"), "Yes",
    ),
    (
        "tag:77", "radio",
        ("INSERT INTO civicrm_tag (id, name, label) VALUES (77, 'VIP', 'VIP')",), "No",
        ("INSERT INTO civicrm_entity_tag (entity_table, entity_id, tag_id) VALUES ('civicrm_contact', {id}, 77)",),
        "Yes",
    ),
    ("text:Friends of trees", "text", (), "Friends of trees", (), "Friends of trees"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "kind", "before", "expected", "change", "then"), SOURCES, ids=[one[0] for one in SOURCES]
)
async def test_a_source_fills_a_field_and_is_sent_again_when_it_changes(
    site: Site, source: str, kind: str, before: tuple[str, ...], expected: Any, change: tuple[str, ...], then: Any
) -> None:
    contact_id, _ = await site.person(ADA), await site.person(BOB, first_name="Bob")
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    site.joined(BOB, merge_fields={"FNAME": "Bob", "LNAME": "Byron"})
    a_merge_field(site, "X", kind, options={"choices": ["Female", "Male", "Yes", "No"]} if kind == "radio" else {})
    known = {
        "id": contact_id,
        "touch": touched(contact_id),
        "c1": contribution(1, contact_id, "2025-05-01", "100.00"),
        "c2": contribution(2, contact_id, "2026-01-05", "25.00"),
        "c3": contribution(3, contact_id, "2026-02-01", "900.00", test=1),
        "c4": contribution(4, contact_id, "2026-03-01", "800.00", status=2),
        "c5": contribution(5, contact_id, "2026-04-01", "7.50"),
    }
    try:
        await run_sql(site, *(one.format(**known) for one in before))
        await use_rules(site, X=source)
        await site.sync(since="ever", with_data=True)
        assert merges(site, ADA) == {"X": expected}
        count = await sent_updates(site)
        await site.sync(with_data=True)
        await site.sync(since="ever", with_data=True)
        assert await sent_updates(site) == count
        await run_sql(site, *(one.format(**known) for one in change))
        await site.sync(with_data=True)
        assert merges(site, ADA) == {"X": then}
        await site.sync(with_data=True)
        assert await sent_updates(site) == count + (then != expected) + source.startswith("tag:")  # the tag itself
        assert {row.sync_status for row in await site.rows()} == {"ok"}
    finally:
        names = ("civicrm_membership", "civicrm_membership_log", "civicrm_contribution")
        await run_sql(site, *(f"DROP TABLE IF EXISTS {name}" for name in names))


async def in_step(site: Site, kind: str = "text", **rule: Any) -> int:
    contact_id = await site.person(ADA)
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    a_merge_field(site, "X", kind)
    await run_sql(site, "UPDATE civicrm_contact SET job_title = 'Poet'")
    await use_rules(site, X={"source": "contact:job_title", **rule})
    await site.sync(since="ever", with_data=True)
    return contact_id


async def test_civicrm_wins_where_the_value_was_changed_at_mailchimp(site: Site) -> None:
    await in_step(site)
    site.emulator.person("edit_profile", ADA, merge_fields={"X": "Countess"})
    await site.sync(with_data=True)
    assert merges(site, ADA) == {"X": "Poet"}


@pytest.mark.parametrize(("clear", "left"), [(False, {"X": "Poet"}), (True, {})])
async def test_an_empty_value_sends_nothing_unless_the_rule_says_clear(site: Site, clear: bool, left: Any) -> None:
    contact_id = await in_step(site, clear=clear)
    await run_sql(site, f"UPDATE civicrm_contact SET job_title = '' WHERE id = {contact_id}", touched(contact_id))
    await site.sync(with_data=True)
    assert merges(site, ADA) == left
    count = await sent_updates(site)
    await site.sync(since="ever", with_data=True)
    assert await sent_updates(site) == count


async def test_what_does_not_fit_is_left_out_and_the_rest_is_sent(site: Site) -> None:
    a_merge_field(site, "Y")
    await in_step(site, "number")
    await use_rules(site, X="contact:job_title", Y="contact:last_name")
    await site.run(with_data=True)
    log = (await site.status())["log"]
    await site.settle()
    assert merges(site, ADA) == {"Y": "Byron"}
    assert any("values of 1 members are left out" in one["message"] for one in log)


async def test_a_merge_field_that_mailchimp_has_no_more_is_not_sent_and_said(site: Site) -> None:
    await in_step(site)
    site.emulator.audience().merge_fields.clear()
    await site.run(since="ever", with_data=True)
    log = (await site.status())["log"]
    await site.settle()
    assert any("no merge field X any more" in one["message"] for one in log)


async def test_a_newcomer_gets_the_values_after_being_subscribed(site: Site) -> None:
    await in_step(site)
    await site.person(BOB, first_name="Bob")
    await run_sql(site, "UPDATE civicrm_contact SET job_title = 'Smith' WHERE first_name = 'Bob'")
    await site.sync(with_data=True)
    assert site.at_mailchimp(BOB) == "subscribed"
    await site.sync(with_data=True)
    assert merges(site, BOB) == {"X": "Smith"}


async def test_without_data_asked_for_nothing_is_sent(site: Site) -> None:
    await site.person(ADA)
    site.joined(ADA)
    a_merge_field(site, "X")
    await use_rules(site, X="text:x")
    await site.sync(since="ever")
    assert merges(site, ADA) == {}


async def test_names_are_not_sent_where_the_connection_says_so(site: Site) -> None:
    def switch_off(conn: Connection) -> None:
        raw: Any = deepcopy(dict(read_config(conn).raw))
        raw["lists"][site.list_id]["sendNames"] = False
        write_config(conn, raw)

    await site.store.write(switch_off)
    await site.person(ADA)
    site.joined(ADA, merge_fields={"FNAME": "Eda"})
    await site.sync(since="ever", with_data=True)
    found = site.emulator.member(ADA)
    assert found is not None
    assert found.merges["FNAME"] == "Eda"
