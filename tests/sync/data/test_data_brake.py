"""Rules that would change too many members stop a run before anything is sent; and who asks is told what would be."""

from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import Connection, update

from civiapi.store.schema.tables import contact as contacts
from sync.connections.config import read_config, write_config
from sync.errors import SyncBraked
from tests.support.api_caller import ApiCaller
from tests.support.linked_site import GROUP, Site
from tests.support.merge_fields import a_merge_field, merges, use_rules

PEOPLE = [f"member{number}@example.org" for number in range(30)]
NAMES = {"FNAME": "Ada", "LNAME": "Byron"}


@pytest.fixture
async def people(site: Site) -> Site:
    """Thirty people in step, and no rule yet."""
    for address in PEOPLE:
        await site.person(address)
        site.joined(address, merge_fields=NAMES)
    a_merge_field(site, "X")
    await site.sync(since="ever", with_data=True)
    return site


async def test_new_rules_for_too_many_stop_first_and_go_on_when_confirmed(people: Site) -> None:
    site, ask = people, ApiCaller(people)
    await use_rules(site, X="contact:last_name")
    before = len(await site.updates())
    with pytest.raises(SyncBraked, match=r"change merge fields of 30 of 30 members.*10 % and 25 people"):
        await site.sync(with_data=True)
    assert len(await site.updates()) == before
    shown = (await ask("getstatus", health=1))[site.list_id]
    assert (shown["brake"]["kind"], shown["brake"]["data_changes"]) == ("data", 30)
    assert shown["health"]["state"] == "needs you"
    await site.sync(with_data=True, confirm=True)
    assert merges(site, PEOPLE[0]) == merges(site, PEOPLE[29]) == {"X": "Byron"}
    shown = (await ask("getstatus", health=1))[site.list_id]
    assert (shown["brake"], shown["data"]["merge_fields"]) == (False, 1)


async def test_what_was_confirmed_once_is_not_asked_again(people: Site) -> None:
    await use_rules(people, X="contact:last_name")
    await people.sync(with_data=True, confirm=True)
    for contact in await people.contacts():
        await people.store.write(_rename, contact.id)
    await people.sync(since="ever", with_data=True)
    assert merges(people, PEOPLE[7]) == {"X": "Lovelace"}


async def test_confirming_merge_fields_confirms_no_removals(people: Site) -> None:
    await use_rules(people, X="contact:last_name")
    for contact in await people.contacts():
        await people.set_group(contact.id, "Removed")
    with pytest.raises(SyncBraked, match="change merge fields"):
        await people.sync(with_data=True)
    with pytest.raises(SyncBraked, match="remove 30 of 30 people"):
        await people.sync(with_data=True, confirm=True)
    assert people.at_mailchimp(PEOPLE[0]) == "subscribed"


@pytest.mark.parametrize(("limit", "stops"), [("0", False), ("100", False), ("50", True)])
async def test_a_connection_has_a_limit_of_its_own(people: Site, limit: str, stops: bool) -> None:
    await use_rules(people, X="contact:last_name")
    await people.store.write(_limit, people.list_id, limit)
    if stops:
        with pytest.raises(SyncBraked):
            await people.sync(with_data=True)
    else:
        await people.sync(with_data=True)
        assert merges(people, PEOPLE[0]) == {"X": "Byron"}


async def test_a_plan_with_data_shows_what_would_be_sent_of_whom_and_what_is_left_out(people: Site) -> None:
    ask = ApiCaller(people)
    a_merge_field(people, "N", "number")
    await use_rules(people, X="contact:last_name", N={"source": "contact:first_name", "type": "number"})
    plan = await ask("plan", group_id=GROUP, with_data=1)
    assert {one["kind"]: one["count"] for one in plan["summary"]} == {"data": 30, "data_left_out": 30, "in_step": 30}
    [one] = (await ask("plan", plan_id=plan["plan_id"], group_id=GROUP, kind="data", search=PEOPLE[3]))["people"]
    assert one["reason"] == "Sent to Mailchimp: X becomes Byron."
    plan = await ask("plan", group_id=GROUP)
    assert {one["kind"] for one in plan["summary"]} == {"in_step"}
    assert len(await people.updates()) == 0


async def test_an_explanation_says_what_a_sync_would_send_and_what_it_leaves_out(people: Site) -> None:
    ask = ApiCaller(people)
    await use_rules(people, X="contact:last_name", N={"source": "contact:first_name", "type": "number"})
    [one] = await ask("explain", email=PEOPLE[0])
    assert one["data"] == {
        "merge_fields": {"X": "Byron"},
        "tags": {},
        "sentence": "Sent to Mailchimp: X becomes Byron.",
        "left_out": ["N is left out: “Ada” is not a number."],
    }


# ── The rules over the API ──────────────────────────────────────────────────────────────────────────────────────────


async def test_rules_are_stored_and_shown_beside_what_mailchimp_has(people: Site) -> None:
    ask = ApiCaller(people)
    a_merge_field(people, "C", "dropdown", options={"choices": ["A", "B"]}, required=True)
    shown = await ask("getmergefields", group_id=GROUP)
    assert (shown["names"], [one["source"] for one in shown["fields"]]) == (True, [""] * 6)
    assert {"source": "contact:job_title", "kind": "Contact", "title": "Job title"} in shown["sources"]
    assert not any(one["source"].startswith("membership") for one in shown["sources"])
    rules = '{"x":"contact:job_title","C":{"source":"text:A","clear":"1"},"FNAME":""}'
    shown = await ask("setmergefields", group_id=GROUP, rules=rules, names=0)
    stored = {one["tag"]: (one["source"], one["clear"]) for one in shown["fields"] if one["source"]}
    assert stored == {"X": ("contact:job_title", False), "C": ("text:A", True)}
    assert shown["names"] is False
    audience = await people.audience()
    assert audience.merge_fields["C"].field.choices == ("A", "B")
    shown = await ask("setmergefields", group_id=GROUP, names=1)
    assert shown["names"] is True
    assert len((await people.audience()).merge_fields) == 2


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('{"NOPE":"contact:job_title"}', "no merge field 'NOPE'"),
        ('{"X":"contact:api_key"}', "no source 'contact:api_key'"),
        ('{"X":"custom:99"}', "this site has no 'custom:99'"),
        ('{"X":"membership:end_date"}', "this site has no 'membership:end_date'"),
        ('{"EMAIL":"email:email"}', "no merge field 'EMAIL'"),
        ("[1]", "must be a JSON object"),
        ("{", "must be a JSON object"),
    ],
)
async def test_what_is_no_rule_is_refused_and_nothing_is_stored(people: Site, rules: str, why: str) -> None:
    ask = ApiCaller(people)
    answer = await ask.answer("setmergefields", group_id=GROUP, rules=rules, names=0)
    assert answer["is_error"] == 1
    assert why in answer["error_message"]
    audience = await people.audience()
    assert (audience.merge_fields, audience.sends_names) == ({}, True)


def _rename(conn: Connection, contact_id: int) -> None:
    conn.execute(update(contacts).where(contacts.c.id == contact_id).values(last_name="Lovelace"))


def _limit(conn: Connection, list_id: str, limit: str) -> None:
    raw: Any = deepcopy(dict(read_config(conn).raw))
    raw["lists"][list_id]["brake"] = {"data": limit}
    write_config(conn, raw)
