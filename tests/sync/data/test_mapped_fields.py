"""Merge fields filled by rules: from every kind of source, sent once, and again where either side changes."""

from collections.abc import AsyncIterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from sqlalchemy import Connection

from sync.connections.config import read_config, write_config
from sync.data import sources
from sync.data.rich_text import text_of
from sync.field_rules import ADDRESS, EMAIL, FIXED, PHONE
from sync.field_rules import SOURCES as DECLARED
from sync.reports.checks import last_syncs
from sync.reports.status import QUIET_TOO_LONG
from tests.support.api_caller import ApiCaller
from tests.support.linked_site import TREES_GROUP, Site
from tests.support.merge_fields import a_merge_field, merges, run_sql, sent_updates, use_rules

NOW = datetime.now(UTC)
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


# ── Custom fields whose values stand for something else ─────────────────────────────────────────────────────────────

EXTRA = (
    "CREATE TABLE civicrm_value_extra_1 (id INTEGER PRIMARY KEY, entity_id INT, code_2 VARCHAR(255))",
    "INSERT INTO civicrm_custom_group (id, name, title, extends, table_name, is_multiple, is_active, weight) "
    "VALUES (1, 'Extra', 'Extra', 'Contact', 'civicrm_value_extra_1', 0, 1, 1)",
    "INSERT INTO civicrm_custom_field (id, custom_group_id, name, label, data_type, html_type, column_name, is_active, "
    "weight) VALUES (2, 1, 'Code', 'Code', 'String', 'Text', 'code_2', 1, 1)",
    "INSERT INTO civicrm_value_extra_1 (id, entity_id, code_2) VALUES (1, {id}, 'Known')",
)


@pytest.fixture
async def with_extra(site: Site) -> AsyncIterator[Site]:
    yield site
    await run_sql(site, "DROP TABLE IF EXISTS civicrm_value_extra_1")


# data type, html type, column, whether several values; what is stored (as SQL), what is sent
CUSTOM: list[tuple[str, str, str, int, str, Any]] = [
    ("Country", "Select", "INT", 0, "5001", "Freedonia"),
    ("Country", "Select", "INT", 0, "999999", None),
    ("Country", "Select", "VARCHAR(255)", 1, "'\x015001\x015002\x01'", "Freedonia, Sylvania"),
    ("StateProvince", "Select", "INT", 0, "5003", "Upper Freedonia"),
    ("Memo", "RichTextEditor", "TEXT", 0, "'<p>Hi &amp; <b>b</b>ye</p><p>Ada</p>'", "Hi & bye Ada"),
    ("Memo", "RichTextEditor", "TEXT", 0, "'<p>&nbsp;</p>'", None),
    ("Memo", "TextArea", "TEXT", 0, "'a &lt;b&gt; c'", "a <b> c"),
]


@pytest.mark.parametrize(("data_type", "html_type", "column", "several", "stored", "expected"), CUSTOM)
async def test_a_custom_field_is_sent_as_people_read_it(
    with_extra: Site, data_type: str, html_type: str, column: str, several: int, stored: str, expected: Any
) -> None:
    site = with_extra
    contact_id = await site.person(ADA)
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    a_merge_field(site, "X")
    await run_sql(
        site,
        "INSERT INTO civicrm_country (id, name, iso_code) VALUES (5001, 'Freedonia', 'QQ'), (5002, 'Sylvania', 'QZ')",
        "INSERT INTO civicrm_state_province (id, name, country_id) VALUES (5003, 'Upper Freedonia', 5001)",
        EXTRA[0].replace("VARCHAR(255)", column),
        EXTRA[1],
        EXTRA[2],
        f"UPDATE civicrm_custom_field SET data_type = '{data_type}', html_type = '{html_type}', serialize = {several}",
        f"INSERT INTO civicrm_value_extra_1 (id, entity_id, code_2) VALUES (1, {contact_id}, {stored})",
    )
    await use_rules(site, X="custom:2")
    await site.sync(since="ever", with_data=True)
    assert merges(site, ADA) == ({} if expected is None else {"X": expected})


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("no markup, 1 < 2 > 0", "no markup, 1 < 2 > 0"),
        ("a<br>b<BR/>c", "a b c"),
        ("<ul><li>one</li><li>two</li></ul>", "one two"),
        ("x<!-- > hidden -->y<style>p{}</style>z<SCRIPT>1<2</Script >!", "xyz!"),
        ("<![if !lists]>Word<o:p></o:p><?xml?>", "Word"),
        ("&eacute;&#39;&lt;b&gt;", "é'<b>"),
        ("cut <a href='x", "cut"),
        ("cut <!-- off > more", "cut"),
        ("cut <script> off", "cut"),
    ],
)
def test_rich_text_is_read_as_its_text(html: str, text: str) -> None:
    assert text_of(html) == text


# ── Sources that are gone: that is not an empty value ───────────────────────────────────────────────────────────────

SMART = (
    "INSERT INTO civicrm_group (id, name, title, saved_search_id, is_active, cache_date) "
    "VALUES (77, 'smart', 'Smart', 5, 1, '2026-01-09 00:00:00')"
)
A_TAG = "INSERT INTO civicrm_tag (id, name, label) VALUES (77, 'VIP', 'VIP')"
FORMAL_TITLE = "this CiviCRM has no formal_title"
# how it goes away: its source, what makes it, what ends it, and whether a person has to do something about that
GOES_AWAY: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], bool]] = {
    "A field that an older CiviCRM does not have": ("contact:formal_title", (), (FORMAL_TITLE,), True),
    "A custom field that is switched off": (
        "custom:2", EXTRA, ("UPDATE civicrm_custom_field SET is_active = 0 WHERE id = 2",), True,
    ),
    "A custom field whose group is switched off": (
        "custom:2", EXTRA, ("UPDATE civicrm_custom_group SET is_active = 0 WHERE id = 1",), True,
    ),
    "A custom field whose group may have several rows": (
        "custom:2", EXTRA, ("UPDATE civicrm_custom_group SET is_multiple = 1 WHERE id = 1",), True,
    ),
    "A custom field that is deleted": (
        "custom:2", EXTRA, ("DELETE FROM civicrm_custom_field WHERE id = 2",), True,
    ),
    "A group that is switched off": (
        f"group:{TREES_GROUP}", (), (f"UPDATE civicrm_group SET is_active = 0 WHERE id = {TREES_GROUP}",), True,
    ),
    "A group that is deleted": (
        f"group:{TREES_GROUP}", (), (f"DELETE FROM civicrm_group WHERE id = {TREES_GROUP}",), True,
    ),
    "A smart group of which CiviCRM has discarded the members": (
        "group:77", (SMART,), ("UPDATE civicrm_group SET cache_date = NULL WHERE id = 77",), False,
    ),
    "A tag that is deleted": ("tag:77", (A_TAG,), ("DELETE FROM civicrm_tag WHERE id = 77",), True),
    "Memberships, on a site without them": ("membership:end_date", (), (), True),
    "Contributions, on a site without them": ("contribution:count", (), (), True),
}  # fmt: skip


def test_every_kind_of_source_that_may_go_away_is_tried() -> None:
    tried = {source.partition(":")[0] for source, *_ in GOES_AWAY.values()}
    assert tried | {ADDRESS, PHONE, EMAIL, FIXED} == set(DECLARED)


@pytest.mark.parametrize(("source", "made", "ended", "is_reported"), GOES_AWAY.values(), ids=GOES_AWAY)
async def test_a_source_that_is_gone_leaves_what_mailchimp_has_and_is_reported(
    with_extra: Site,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    made: tuple[str, ...],
    ended: tuple[str, ...],
    is_reported: bool,
) -> None:
    site = with_extra
    monkeypatch.setattr(sources, "_there", WeakKeyDictionary())  # tables of the sites of other tests
    contact_id = await site.person(ADA)
    a_merge_field(site, "X")
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron", "X": "Known"})
    await run_sql(site, *(one.format(id=contact_id) for one in made))
    if ended == (FORMAL_TITLE,):
        columns = sources.live_columns
        monkeypatch.setattr(
            sources, "live_columns", lambda conn, of: [one for one in columns(conn, of) if one.name != "formal_title"]
        )
    else:
        await run_sql(site, *ended)
    await use_rules(site, X={"source": source, "clear": 1})
    await site.run(since="ever", with_data=True)
    log = (await site.status())["log"]
    await site.settle()
    assert (merges(site, ADA), await sent_updates(site)) == ({"X": "Known"}, 0)
    assert any(f"X, which keeps its values: its source {source} is " in one["message"] for one in log)
    assert [f"its source {source} is " in one for one in (await site.explain(contact_id))["data"]["left_out"]] == [True]
    status = (await ApiCaller(site)("getstatus", health=1))[site.list_id]
    assert status["merge_sources_gone"] == ({"X": source} if is_reported else [])
    found = await site.store.read(lambda conn: list(last_syncs(conn, site.store.clock, NOW, QUIET_TOO_LONG)))
    told = [one.sentence for one in found if one.code == f"mailchimpsyncFields:{site.list_id}"]
    assert [f"X ({source})" in one for one in told] == ([True] if is_reported else [])


async def test_a_source_that_is_back_sends_what_changed_meanwhile(with_extra: Site) -> None:
    site = with_extra
    ada, bob = await site.person(ADA), await site.person(BOB, first_name="Bob")
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    site.joined(BOB, merge_fields={"FNAME": "Bob", "LNAME": "Byron"})
    a_merge_field(site, "X")
    await run_sql(site, *(one.format(id=ada) for one in EXTRA))
    await run_sql(site, f"INSERT INTO civicrm_value_extra_1 (id, entity_id, code_2) VALUES (2, {bob}, 'Same')")
    await use_rules(site, X={"source": "custom:2", "clear": 1})
    await site.sync(since="ever", with_data=True)
    count = await sent_updates(site)
    await run_sql(site, "UPDATE civicrm_custom_field SET is_active = 0")
    await site.sync(with_data=True)
    await run_sql(site, "UPDATE civicrm_value_extra_1 SET code_2 = NULL WHERE id = 1")
    await site.sync(with_data=True)
    assert [merges(site, one) for one in (ADA, BOB)] == [{"X": "Known"}, {"X": "Same"}]
    assert await sent_updates(site) == count
    await run_sql(site, "UPDATE civicrm_custom_field SET is_active = 1")
    await site.sync(with_data=True)
    assert [merges(site, one) for one in (ADA, BOB)] == [{}, {"X": "Same"}]
    assert await sent_updates(site) == count + 1
