"""The emulator's world without HTTP: each row is a sentence of Mailchimp's behaviour as we understand it."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.mailchimp.emulator import actions
from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.clock import Clock, from_text, to_wire
from sync.mailchimp.emulator.exchange import UNREADABLE, Request, Response
from sync.mailchimp.emulator.faults import FaultRule
from sync.mailchimp.emulator.generate import Shares, generate
from sync.mailchimp.emulator.knobs import Knobs
from sync.mailchimp.emulator.model import STATUSES, Hook, Interest, InterestCategory, Member, MergeField
from sync.mailchimp.emulator.ordering import BLOCK, OrderedKeys
from sync.mailchimp.emulator.problems import Problem
from sync.mailchimp.emulator.routes import ROUTES
from sync.mailchimp.emulator.seeding import BadRecord, Seeder, restore, snapshot
from sync.mailchimp.emulator.selection import Selection
from sync.mailchimp.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
ADA = "ada@example.org"
LIST = "a1b2c3d4e5"


class Mailchimp:
    """A frozen world with one audience, and short ways to speak to it."""

    def __init__(self, **knobs: Any) -> None:
        self.world = World(seed=7, clock=Clock.frozen_at(NOON))
        self.audience = self.world.add_audience(list_id=LIST)
        self.world.turn_knobs(knobs)

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Response:
        account = self.world.default_account
        return self.world.handle(Request(method, path, query, body, account))

    def put(self, email: str, **body: Any) -> Response:
        sent = {"email_address": email, "status_if_new": "subscribed", **body}
        return self.ask("PUT", member_path(email), sent)

    def members(self, **query: str) -> list[str]:
        query = {"fields": "members.email_address", "count": "1000", **query}
        answer = self.ask("GET", f"/lists/{LIST}/members", **query)
        assert answer.status == 200, answer.body
        return [row["email_address"] for row in answer.body["members"]]

    def member(self, email: str = ADA) -> Member:
        found = self.audience.members.find_address(email)
        assert found is not None
        return found

    def a_member(self, status: str, email: str = ADA, by: str = "") -> Member:
        """Place a member as it stands; *by* is who unsubscribed them."""
        record = {"kind": "member", "email_address": email, "status": status, "unsubscribed_by": by}
        Seeder(self.world).take(record)
        return self.member(email)

    def hook(self, **sources: bool) -> Hook:
        events = dict.fromkeys(("subscribe", "unsubscribe", "profile", "cleaned", "upemail"), True)
        hook = Hook(
            "hook", "http://crm.example/hook", LIST, events, {"user": True, "admin": True, "api": False} | sources
        )
        self.audience.hooks[hook.id] = hook
        return hook

    def heard(self) -> list[dict[str, str]]:
        return [
            {k: v[0] for k, v in parse_qs(one.body, keep_blank_values=True).items()} for one in self.world.deliveries
        ]

    def later(self, seconds: float = 60) -> None:
        self.world.clock.advance(seconds)


def member_path(email: str) -> str:
    return f"/lists/{LIST}/members/{subscriber_hash(email)}"


@pytest.fixture
def mailchimp() -> Mailchimp:
    return Mailchimp()


COMPLIANCE, FORGOTTEN = "Member In Compliance State", "Forgotten Email Not Subscribed"
RESUBSCRIBE = [
    ("unsubscribed", "api", "subscribed", None, "Unsubscribed by the API: may be subscribed again"),
    ("unsubscribed", "admin", "subscribed", None, "Unsubscribed by an admin: may be subscribed again"),
    ("unsubscribed", "user", "subscribed", COMPLIANCE, "Unsubscribed by themself: only they may come back"),
    ("unsubscribed", "user", "pending", None, "Unsubscribed by themself: may be asked"),
    ("unsubscribed", "api", "pending", None, "Unsubscribed by the API: may be asked"),
    ("cleaned", "", "subscribed", COMPLIANCE, "Bounced: not subscribed again"),
    ("cleaned", "", "pending", COMPLIANCE, "Bounced: not asked either"),
    ("archived", "", "subscribed", None, "Archived: revived"),
    ("archived", "", "pending", None, "Archived: may be asked"),
    ("archived", "user", "subscribed", COMPLIANCE, "Archived after unsubscribing themself: still theirs to say"),
    ("pending", "", "subscribed", None, "Pending: the API's word counts"),
    ("pending", "user", "subscribed", COMPLIANCE, "Asked after unsubscribing themself: only they may confirm"),
    ("subscribed", "", "unsubscribed", None, "Subscribed: may be unsubscribed"),
    ("subscribed", "", "pending", None, "Subscribed: may be asked again"),
    ("transactional", "", "subscribed", None, "Transactional: may be subscribed"),
    ("subscribed", "", "archived", "Invalid Resource", "Archived is not a status to ask for"),
    ("subscribed", "", "transactional", "Invalid Resource", "Nobody becomes transactional"),
]


@pytest.mark.parametrize(
    ("status", "by", "wanted", "title"), [row[:4] for row in RESUBSCRIBE], ids=[r[4] for r in RESUBSCRIBE]
)
@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
def test_moves_between_statuses(
    mailchimp: Mailchimp, verb: str, status: str, by: str, wanted: str, title: str | None
) -> None:
    mailchimp.a_member(status, by=by)
    answer = mailchimp.ask(verb, member_path(ADA), {"status": wanted})
    assert (answer.status, answer.body.get("title")) == (400 if title else 200, title)
    assert mailchimp.member().status == (status if title else wanted)


def test_whether_the_api_may_undo_its_own_unsubscribe_is_a_knob() -> None:
    strict = Mailchimp(resubscribe_api_unsubscribed="compliance")
    strict.a_member("unsubscribed", by="api")
    assert strict.put(ADA, status="subscribed").body["title"] == COMPLIANCE


ARCHIVABLE = {
    "subscribed": 204,
    "unsubscribed": 204,
    "transactional": 204,
    "cleaned": 405,
    "pending": 405,
    "archived": 405,
}


@pytest.mark.parametrize(("status", "code"), ARCHIVABLE.items())
def test_delete_archives_or_says_405_with_allow(mailchimp: Mailchimp, status: str, code: int) -> None:
    mailchimp.a_member(status)
    answer = mailchimp.ask("DELETE", member_path(ADA))
    assert answer.status == code
    assert mailchimp.member().status == ("archived" if code == 204 else status)
    if code == 405:
        assert answer.headers["Allow"] == "GET, PUT"
        assert "cannot be removed" in answer.body["detail"]


def test_post_of_a_current_member_is_refused_and_of_an_archived_one_revives_it(mailchimp: Mailchimp) -> None:
    first = mailchimp.put(ADA, merge_fields={"FNAME": "Ada"}).body
    body = {"email_address": ADA, "status": "subscribed", "tags": ["Back"]}
    assert mailchimp.ask("POST", f"/lists/{LIST}/members", body).body["title"] == "Member Exists"
    mailchimp.ask("DELETE", member_path(ADA))
    mailchimp.later()
    revived = mailchimp.ask("POST", f"/lists/{LIST}/members", body).body
    assert [revived[k] for k in ("status", "contact_id", "web_id")] == [
        "subscribed",
        first["contact_id"],
        first["web_id"],
    ]
    assert revived["merge_fields"]["FNAME"] == "Ada"
    assert [tag["name"] for tag in revived["tags"]] == ["Back"]
    assert revived["timestamp_opt"] == revived["last_changed"] == "2026-01-09T12:01:00+00:00"


def test_put_with_only_status_if_new_leaves_an_archived_member_archived(mailchimp: Mailchimp) -> None:
    mailchimp.a_member("archived")
    assert mailchimp.put(ADA).body["status"] == "archived"


def test_put_changes_only_what_is_sent(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    changed = mailchimp.put(ADA, merge_fields={"LNAME": ""}).body
    assert (changed["merge_fields"]["FNAME"], changed["merge_fields"]["LNAME"]) == ("Ada", "")


def test_put_ignores_tags_and_post_takes_them(mailchimp: Mailchimp) -> None:
    assert mailchimp.put(ADA, tags=["Nope"]).body["tags"] == []
    body = {"email_address": "b@example.org", "status": "subscribed", "tags": ["Yes"]}
    assert mailchimp.ask("POST", f"/lists/{LIST}/members", body).body["tags_count"] == 1


def test_put_of_an_unknown_member_needs_address_and_status(mailchimp: Mailchimp) -> None:
    answer = mailchimp.ask("PUT", member_path(ADA), {})
    assert answer.body["errors"] == [
        {"field": "", "message": "Required fields were not provided: email_address, status_if_new"}
    ]


def test_the_permanently_deleted_come_back_only_by_their_own_doing(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA)
    assert mailchimp.ask("POST", member_path(ADA) + "/actions/delete-permanent").status == 204
    assert mailchimp.ask("GET", member_path(ADA)).status == 404
    assert mailchimp.members(status="archived") == []
    for status in ("subscribed", "pending"):
        assert mailchimp.put(ADA, status_if_new=status).body["title"] == FORGOTTEN
    actions.person(mailchimp.world, "sign_up", ADA)
    assert mailchimp.ask("GET", member_path(ADA)).body["status"] == "subscribed"


def test_an_admin_can_delete_permanently_too(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA)
    actions.admin(mailchimp.world, "delete_permanently", ADA)
    assert mailchimp.put(ADA).body["title"] == FORGOTTEN


LISTED = [
    ("compliance_emails", "subscribed", COMPLIANCE),
    ("forgotten_emails", "subscribed", FORGOTTEN),
    ("throttled_emails", "subscribed", "Invalid Resource"),
    ("reject_domains", "subscribed", "Invalid Resource"),
]


@pytest.mark.parametrize(("knob", "status", "title"), LISTED)
def test_addresses_can_be_made_to_fail(knob: str, status: str, title: str) -> None:
    mailchimp = Mailchimp(**{knob: ["example.org" if knob == "reject_domains" else "ADA@example.org"]})
    answer = mailchimp.put(ADA, status_if_new=status)
    assert (answer.status, answer.body["title"]) == (400, title)
    assert ADA in answer.body["detail"]
    assert "errors" not in answer.body


def test_an_address_that_is_none_looks_fake(mailchimp: Mailchimp) -> None:
    assert "looks fake or invalid" in mailchimp.put("ada at home").body["detail"]


def test_changing_the_address_gives_a_new_id_and_keeps_the_contact(mailchimp: Mailchimp) -> None:
    before = mailchimp.put(ADA).body
    after = mailchimp.ask("PATCH", member_path(ADA), {"email_address": "Countess@example.org"}).body
    assert after["id"] == subscriber_hash("countess@example.org")
    assert after["contact_id"] == before["contact_id"]
    assert mailchimp.ask("GET", member_path(ADA)).status == 404
    assert mailchimp.ask("PATCH", member_path(ADA), {"email_address": "x@example.org"}).status == 404
    repeat = mailchimp.ask(
        "PUT", member_path(ADA), {"email_address": "countess@example.org", "status_if_new": "subscribed"}
    )
    assert repeat.body["title"] == "Member Exists"


@pytest.mark.parametrize("status", ["unsubscribed", "cleaned"])
def test_those_who_left_keep_their_address(mailchimp: Mailchimp, status: str) -> None:
    mailchimp.a_member(status)
    assert mailchimp.ask("PATCH", member_path(ADA), {"email_address": "x@example.org"}).status == 400


def test_an_address_in_another_case_is_the_same_member(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA)
    answer = mailchimp.put("ADA@Example.org")
    assert (answer.body["email_address"], len(mailchimp.audience.members)) == ("ADA@Example.org", 1)


def test_a_member_is_found_by_hash_address_and_contact_id(mailchimp: Mailchimp) -> None:
    made = mailchimp.put(ADA).body
    for key in (made["id"], made["id"].upper(), ADA, "Ada%40Example.org", made["contact_id"]):
        assert mailchimp.ask("GET", f"/lists/{LIST}/members/{key}").body["id"] == made["id"]


def test_a_legacy_member_answers_to_its_own_id_only(mailchimp: Mailchimp) -> None:
    legacy = "0" * 31 + "1"
    Seeder(mailchimp.world).take({"kind": "member", "id": legacy, "email_address": "Ada@Example.org"})
    assert mailchimp.ask("GET", f"/lists/{LIST}/members/{legacy}").status == 200
    assert mailchimp.ask("GET", member_path(ADA)).status == 404
    body = {"email_address": ADA, "status": "subscribed"}
    assert mailchimp.ask("POST", f"/lists/{LIST}/members", body).body["title"] == "Member Exists"


def test_the_subscriber_hash_of_the_contracts_vector() -> None:
    assert subscriber_hash("Urist.McVankab@freddiesjokes.com ") == "62eeb292278cc15f5817cb78f7790b08"


SCHEMA_ERRORS = [
    ({"email_address": None}, "email_address", "Schema describes string, NULL found instead"),
    (
        {"merge_fields": {"FNAME": None}},
        "merge_fields.FNAME",
        "Data did not match any of the schemas described in anyOf.",
    ),
    (
        {"merge_fields": {"FNAME": True}},
        "merge_fields.FNAME",
        "Data did not match any of the schemas described in anyOf.",
    ),
    ({"merge_fields": []}, "merge_fields", "Schema describes object, array found instead"),
    ({"interests": {"x": "yes"}}, "interests.x", "Schema describes boolean, string found instead"),
    ({"status": 1}, "status", "Schema describes string, integer found instead"),
    ([], "", "Schema describes object, array found instead"),
    (None, "", "Schema describes object, NULL found instead"),
    ({"timestamp_opt": "2026-02-31T00:00:00+00:00"}, "timestamp_opt", "This value should be a valid datetime."),
]


@pytest.mark.parametrize(("body", "where", "words"), SCHEMA_ERRORS)
def test_schema_errors_name_a_dotted_path(mailchimp: Mailchimp, body: Any, where: str, words: str) -> None:
    mailchimp.put(ADA)
    answer = mailchimp.ask("PATCH", member_path(ADA), body)
    assert answer.status == 400
    assert {"field": where, "message": words} in answer.body["errors"]


def test_missing_fields_are_gathered_in_one_error(mailchimp: Mailchimp) -> None:
    answer = mailchimp.ask("POST", f"/lists/{LIST}/members", {})
    assert answer.body["errors"] == [
        {"field": "", "message": "Required fields were not provided: email_address, status"}
    ]


MERGES = [
    ("number", "12", 12, "A number may come as text"),
    ("number", "many", None, "A number is a number"),
    ("number", "1e30", 1e30, "A number may be too large to be whole"),
    ("date", "2026-01-09", "2026-01-09", "A date is year, month, day"),
    ("date", "9 January", None, "A date is nothing else"),
    ("birthday", "02/29", "02/29", "A birthday is month and day"),
    ("birthday", "29.2.", None, "A birthday is nothing else"),
    ("zip", "90210", "90210", "A zip code has five digits"),
    ("url", "example.org", None, "A link needs a scheme"),
    ("dropdown", "Red", "Red", "A choice is one of its choices"),
    ("dropdown", "Blue", None, "A choice is no other"),
    ("address", {"addr1": "1 Way", "city": "Ely", "state": "Cambs", "zip": "CB7"}, {"addr1": "1 Way"}, "An address"),
    ("address", {"addr1": "1 Way"}, None, "An address is complete or refused"),
    ("text", "é" * 200, "é" * 127, "Text is cut at 255 bytes"),
]


@pytest.mark.parametrize(("kind", "sent", "kept"), [row[:3] for row in MERGES], ids=[row[3] for row in MERGES])
def test_merge_values_fit_their_type(mailchimp: Mailchimp, kind: str, sent: Any, kept: Any) -> None:
    mailchimp.audience.merge_fields[9] = MergeField(9, "X", "X", kind, options={"choices": ["Red"]})
    answer = mailchimp.put(ADA, merge_fields={"X": sent, "UNKNOWN": "ignored"})
    if kept is None:
        assert answer.body["detail"] == "Your merge fields were invalid."
        assert answer.body["errors"][0]["field"] == "X"
    else:
        value = answer.body["merge_fields"]["X"]
        assert value == kept or kept.items() <= value.items()
        assert "UNKNOWN" not in answer.body["merge_fields"]


def test_a_required_merge_field_binds_the_api_too(mailchimp: Mailchimp) -> None:
    mailchimp.audience.merge_fields[1].required = True
    assert mailchimp.put(ADA).body["errors"] == [{"field": "FNAME", "message": "Please enter a value"}]
    skipped = mailchimp.ask(
        "PUT", member_path(ADA), {"email_address": ADA, "status_if_new": "subscribed"}, skip_merge_validation="true"
    )
    assert skipped.status == 200
    assert mailchimp.put(ADA).status == 400
    assert mailchimp.put(ADA, merge_fields={"FNAME": "Ada"}).status == 200


def with_interests(mailchimp: Mailchimp, kind: str = "checkboxes") -> None:
    category = InterestCategory("c" * 10, "Causes", kind)
    category.interests = {key: Interest(key, category.id, key.upper()) for key in ("trees", "seas")}
    mailchimp.audience.categories[category.id] = category


def test_interests_are_a_yes_or_no_for_each_and_unknown_ones_are_refused(mailchimp: Mailchimp) -> None:
    assert "interests" not in mailchimp.put(ADA).body
    with_interests(mailchimp)
    assert mailchimp.put(ADA, interests={"trees": True}).body["interests"] == {"trees": True, "seas": False}
    assert mailchimp.put(ADA, interests={"nope": True}).status == 400
    mailchimp.ask("DELETE", f"/lists/{LIST}/interest-categories/{'c' * 10}/interests/trees")
    assert mailchimp.ask("GET", member_path(ADA)).body["interests"] == {"seas": False}


def test_a_radio_category_holds_one_choice(mailchimp: Mailchimp) -> None:
    with_interests(mailchimp, "radio")
    mailchimp.put(ADA, interests={"trees": True})
    assert mailchimp.put(ADA, interests={"seas": True}).body["interests"] == {"trees": False, "seas": True}


def test_a_member_has_its_keys_in_the_recorded_order(mailchimp: Mailchimp) -> None:
    assert " ".join(mailchimp.put(ADA).body) == (
        "id email_address unique_email_id contact_id full_name web_id email_type status "
        "consents_to_one_to_one_messaging merge_fields stats ip_signup timestamp_signup ip_opt timestamp_opt "
        "member_rating last_changed language vip email_client location source tags_count tags list_id _links"
    )


CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("status", {"status": "unsubscribed"}),
    ("a merge field", {"merge_fields": {"FNAME": "A"}}),
    ("the address", {"email_address": "x@example.org"}),
    ("VIP", {"vip": True}),
    ("language", {"language": "de"}),
    ("nothing", {}),
]


@pytest.mark.parametrize("body", [c[1] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_any_write_moves_last_changed(mailchimp: Mailchimp, body: dict[str, Any]) -> None:
    mailchimp.put(ADA)
    mailchimp.later()
    assert mailchimp.ask("PATCH", member_path(ADA), body).body["last_changed"] == "2026-01-09T12:01:00+00:00"


def test_whether_an_unchanged_put_moves_last_changed_is_a_knob() -> None:
    mailchimp = Mailchimp(unchanged_write_bumps=False)
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada"})
    mailchimp.later()
    assert mailchimp.put(ADA, merge_fields={"FNAME": "Ada"}).body["last_changed"] == "2026-01-09T12:00:00+00:00"
    assert mailchimp.put(ADA, merge_fields={"FNAME": "A"}).body["last_changed"] == "2026-01-09T12:01:00+00:00"


def test_tags_are_added_removed_searched_and_are_static_segments(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA)
    tags = member_path(ADA) + "/tags"
    change = {
        "tags": [{"name": "Donors", "status": "active"}, {"name": "Gone", "status": "inactive"}],
        "is_syncing": True,
    }
    for _ in range(2):
        answer = mailchimp.ask("POST", tags, change)
        assert (answer.status, answer.body) == (204, None)
    assert [tag["name"] for tag in mailchimp.ask("GET", tags).body["tags"]] == ["Donors"]
    assert mailchimp.ask("GET", f"/lists/{LIST}/tag-search", name="don").body["total_items"] == 1
    segment = mailchimp.ask("GET", f"/lists/{LIST}/segments", type="static").body["segments"][0]
    assert (segment["name"], segment["member_count"], segment["type"]) == ("Donors", 1, "static")
    mailchimp.ask("POST", tags, {"tags": [{"name": "donors", "status": "inactive"}]})
    assert mailchimp.ask("GET", tags).body["total_items"] == 0
    assert mailchimp.ask("POST", member_path("nobody@example.org") + "/tags", change).status == 404


def three_members(mailchimp: Mailchimp) -> list[str]:
    emails = ["a@example.org", "b@example.org", "c@example.org"]
    for email in emails:
        mailchimp.put(email)
        mailchimp.later(1)
    return emails


def test_since_leaves_out_its_own_second_unless_the_knob_says_otherwise(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    noon = {"since_last_changed": "2026-01-09T12:00:00+00:00"}
    assert mailchimp.members(**noon) == emails[1:]
    mailchimp.world.turn_knobs({"since_inclusive": True})
    assert mailchimp.members(**noon) == emails
    assert mailchimp.members(**noon, before_last_changed="2026-01-09T12:00:02+00:00") == emails[:2]


def test_since_ignores_the_zone_unless_the_knob_says_otherwise(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    since = {"since_last_changed": "2026-01-09T14:00:00+02:00"}
    assert mailchimp.members(**since) == []
    mailchimp.world.turn_knobs({"since_ignores_offset": False})
    assert mailchimp.members(**since) == emails[1:]


SINCE = [
    ("2026-01-09T11:59:59.1234567+00:00", 200, "Seven fractional digits return everybody"),
    ("2030-01-01T00:00:00.1234567+00:00", 200, "Seven fractional digits return everybody, whatever the time"),
    ("yesterday-ish", 400, "Junk is refused"),
    ("1970-01-01T00:00:00+00:00", 504, "An ancient time hangs"),
    ("1900-01-01T00:00:00+00:00", 504, "A more ancient time hangs as well"),
]


@pytest.mark.parametrize(("since", "status"), [row[:2] for row in SINCE], ids=[row[2] for row in SINCE])
def test_odd_times(mailchimp: Mailchimp, since: str, status: int) -> None:
    three_members(mailchimp)
    answer = mailchimp.ask("GET", f"/lists/{LIST}/members", since_last_changed=since)
    assert (answer.status, answer.hangs) == (status, status == 504)
    if status == 200:
        assert answer.body["total_items"] == 3


def test_an_ancient_time_can_be_made_to_work() -> None:
    mailchimp = Mailchimp(since_ancient_hangs=False)
    assert mailchimp.members(since_last_changed="1970-01-01T00:00:00+00:00") == []


def test_without_a_status_everybody_but_the_archived_is_listed(mailchimp: Mailchimp) -> None:
    for status in STATUSES:
        mailchimp.a_member(status, f"{status}@example.org")
    assert set(mailchimp.members()) == {f"{status}@example.org" for status in STATUSES} - {"archived@example.org"}
    for status in STATUSES:
        assert mailchimp.members(status=status) == [f"{status}@example.org"]
    mailchimp.world.turn_knobs({"listing_default_archived": True})
    assert len(mailchimp.members()) == len(STATUSES)


REFUSED_QUERIES: list[dict[str, str]] = [
    {"count": "1001"},
    {"count": "-1"},
    {"count": "ten"},
    {"offset": "9" * 5000},
    {"status": "gone"},
    {"sort_field": "email"},
    {"sort_dir": "up"},
    {"unsubscribed_since": "2026-01-01T00:00:00+00:00"},
    {"since_last_campaign": "true"},
    {"interest_ids": "a"},
]


@pytest.mark.parametrize("query", REFUSED_QUERIES, ids=str)
def test_queries_that_are_refused(mailchimp: Mailchimp, query: dict[str, str]) -> None:
    answer = mailchimp.ask("GET", f"/lists/{LIST}/members", **query)
    assert (answer.status, answer.body["title"]) == (400, "Invalid Resource")


def test_a_page_has_ten_members_unless_asked_otherwise(mailchimp: Mailchimp) -> None:
    generate(mailchimp.audience, 25, now=mailchimp.world.clock.seconds(), shares=Shares(0, 0, 0, 0, 0))
    body = mailchimp.ask("GET", f"/lists/{LIST}/members").body
    assert (len(body["members"]), body["total_items"]) == (10, 25)
    assert len(mailchimp.members(count="20", offset="20")) == 5
    assert mailchimp.members(offset="99") == []


def test_fields_are_paths_from_the_root(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada"})
    path = f"/lists/{LIST}/members"
    only = mailchimp.ask("GET", path, fields="members.id,members.merge_fields.FNAME").body
    assert only == {"members": [{"id": subscriber_hash(ADA), "merge_fields": {"FNAME": "Ada"}}]}
    without = mailchimp.ask("GET", path, exclude_fields="_links,members._links,members.merge_fields.FNAME").body
    assert "_links" not in without
    assert "_links" not in without["members"][0]
    assert "FNAME" not in without["members"][0]["merge_fields"]
    assert mailchimp.ask("GET", path, fields="total_items").body == {"total_items": 1}
    assert mailchimp.ask("GET", path, fields="members..id").body["title"] == "Requested Fields Invalid"
    assert mailchimp.ask("GET", member_path(ADA), fields="status").body == {"status": "subscribed"}


def test_sorting_by_last_change_goes_both_ways(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    mailchimp.put(emails[0])
    assert mailchimp.members(sort_field="last_changed") == [*emails[1:], emails[0]]
    assert mailchimp.members(sort_field="last_changed", sort_dir="DESC", count="2") == [emails[0], emails[2]]
    assert mailchimp.members(sort_field="last_changed", sort_dir="DESC", count="2", offset="2") == [emails[1]]


def test_a_row_that_changes_while_one_pages_makes_another_row_unseen(mailchimp: Mailchimp) -> None:
    emails = three_members(mailchimp)
    query = {"sort_field": "last_changed", "count": "1"}
    seen = mailchimp.members(**query)
    mailchimp.put(emails[0])
    seen += mailchimp.members(**query, offset="1") + mailchimp.members(**query, offset="2")
    assert emails[1] not in seen


FILTERS: list[tuple[dict[str, str], list[str]]] = [
    ({"vip_only": "true"}, ["b@example.org"]),
    ({"email_type": "text"}, ["c@example.org"]),
    ({"since_timestamp_opt": "2026-01-09T12:00:00+00:00"}, ["b@example.org", "c@example.org"]),
    ({"interest_category_id": "c" * 10, "interest_ids": "trees,seas", "interest_match": "any"}, ["a@example.org"]),
    ({"interest_category_id": "c" * 10, "interest_ids": "trees,seas", "interest_match": "all"}, []),
    (
        {"interest_category_id": "c" * 10, "interest_ids": "trees", "interest_match": "none", "vip_only": "1"},
        ["b@example.org"],
    ),
    ({"since_last_changed": "2026-01-09T12:00:30+00:00", "sort_field": "timestamp_opt"}, []),
]


@pytest.mark.parametrize(("query", "found"), FILTERS, ids=[str(row[0]) for row in FILTERS])
def test_the_rarer_filters(mailchimp: Mailchimp, query: dict[str, str], found: list[str]) -> None:
    with_interests(mailchimp)
    three_members(mailchimp)
    mailchimp.member("a@example.org").interests = frozenset({"trees"})
    mailchimp.member("b@example.org").vip = True
    mailchimp.member("c@example.org").email_type = "text"
    assert mailchimp.members(**query) == found
    assert mailchimp.members(**query) == found


def test_the_bulk_call_answers_200_whatever_fails(mailchimp: Mailchimp) -> None:
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada"})
    mailchimp.a_member("unsubscribed", "left@example.org", by="user")
    rows = [ADA, "new@example.org", "left@example.org", "nonsense", "NEW@example.org"]
    body = {"members": [{"email_address": one, "status": "subscribed"} for one in rows], "update_existing": True}
    answer = mailchimp.ask("POST", f"/lists/{LIST}", body)
    counts = [answer.body[name] for name in ("total_created", "total_updated", "error_count")]
    assert (answer.status, counts) == (200, [1, 1, 3])
    assert {error["error_code"] for error in answer.body["errors"]} == {"ERROR_GENERIC"}
    again = mailchimp.ask("POST", f"/lists/{LIST}", {"members": body["members"][:1]})
    assert again.body["errors"][0]["error_code"] == "ERROR_CONTACT_EXISTS"
    assert mailchimp.ask("POST", f"/lists/{LIST}", {"members": body["members"][:1] * 501}).status == 400


def test_sync_tags_in_the_bulk_call_replaces_all_tags(mailchimp: Mailchimp) -> None:
    row = {"email_address": ADA, "status": "subscribed"}
    for tags, sync_tags in ((["One"], False), (["Two"], False), (["Three"], True)):
        body = {"members": [row | {"tags": tags}], "update_existing": True, "sync_tags": sync_tags}
        answer = mailchimp.ask("POST", f"/lists/{LIST}", body).body
    assert [tag["name"] for tag in answer["updated_members"][0]["tags"]] == ["Three"]


def test_audience_counts_leave_the_archived_out_and_may_lag(mailchimp: Mailchimp) -> None:
    for status in STATUSES:
        mailchimp.a_member(status, f"{status}@example.org")
    body = mailchimp.ask("GET", f"/lists/{LIST}", include_total_contacts="true").body
    names = ("member_count", "unsubscribe_count", "cleaned_count", "total_contacts")
    assert [body["stats"][name] for name in names] == [1, 1, 1, 6]
    mailchimp.world.turn_knobs({"stats_lag_s": 120.0})
    mailchimp.put(ADA)
    assert mailchimp.ask("GET", f"/lists/{LIST}").body["stats"]["member_count"] == 1
    mailchimp.later(120)
    assert mailchimp.ask("GET", f"/lists/{LIST}").body["stats"]["member_count"] == 2


WRONG_WAYS = [
    ("GET", "/nowhere", 404, "Resource Not Found"),
    ("GET", "/lists/0000000000", 404, "Resource Not Found"),
    ("GET", "/lists/" + LIST + "/members/" + "f" * 32, 404, "Resource Not Found"),
    ("GET", "/batches/none", 404, "Resource Not Found"),
    ("DELETE", "/lists", 405, "Method Not Allowed"),
    ("GET", "/a/b/c/d/e/f/g/h/i/j/k", 414, "Resource Nesting Too Deep"),
]


@pytest.mark.parametrize(("method", "path", "status", "title"), WRONG_WAYS)
def test_wrong_ways(mailchimp: Mailchimp, method: str, path: str, status: int, title: str) -> None:
    answer = mailchimp.ask(method, path)
    assert (answer.status, answer.body["title"]) == (status, title)
    assert answer.body["instance"] == answer.headers["X-Request-Id"]
    assert ("Allow" in answer.headers) == (status == 405)


def test_problems_may_come_without_a_type() -> None:
    assert "type" not in Mailchimp(problem_without_type=True).ask("GET", "/nowhere").body


def test_what_is_not_json_is_a_parse_error(mailchimp: Mailchimp) -> None:
    assert mailchimp.ask("POST", "/batches", UNREADABLE).body["title"] == "JSON Parse Error"


def operations(*emails: str) -> list[dict[str, Any]]:
    body = {"status_if_new": "subscribed"}
    return [
        {
            "method": "PUT",
            "path": member_path(email),
            "operation_id": email,
            "body": orjson.dumps(body | {"email_address": email}).decode(),
        }
        for email in emails
    ]


def submit(mailchimp: Mailchimp, sent: list[dict[str, Any]]) -> str:
    answer = mailchimp.ask("POST", "/batches", {"operations": sent})
    assert answer.status == 200, answer.body
    return str(answer.body["id"])


def state(mailchimp: Mailchimp, batch_id: str) -> dict[str, Any]:
    body: dict[str, Any] = mailchimp.ask("GET", f"/batches/{batch_id}").body
    return body


def test_a_batch_is_pending_with_no_counts_and_then_finished_with_all(mailchimp: Mailchimp) -> None:
    answer = mailchimp.ask("POST", "/batches", {"operations": operations(ADA, "no address")}).body
    assert [answer[k] for k in ("status", "total_operations", "completed_at", "response_body_url")] == [
        "pending",
        0,
        "",
        "",
    ]
    mailchimp.world.run_batches()
    done = state(mailchimp, answer["id"])
    names = ("status", "total_operations", "finished_operations", "errored_operations")
    assert [done[name] for name in names] == ["finished", 2, 2, 1]
    assert mailchimp.members() == [ADA]


def test_a_batchs_states_take_the_time_that_knobs_say() -> None:
    mailchimp = Mailchimp(batch_start_delay=10, batch_ops_per_second=2, batch_finalize_delay=30)
    batch = submit(mailchimp, operations("a@example.org", "b@example.org", "c@example.org", "d@example.org"))
    seen = []
    for _ in range(60):
        while mailchimp.world.run_batches(now_or_never=False):
            pass
        seen.append((state(mailchimp, batch)["status"], state(mailchimp, batch)["finished_operations"]))
        mailchimp.later(1)
    assert [status for status, _ in pairwise_distinct([s for s, _ in seen])] == [
        "preprocessing",
        "started",
        "finalizing",
        "finished",
    ]
    assert sorted({done for _, done in seen}) == [0, 2, 4]


def pairwise_distinct(words: list[str]) -> list[tuple[str, int]]:
    return [(word, i) for i, word in enumerate(words) if i == 0 or words[i - 1] != word]


def test_one_batch_runs_at_a_time() -> None:
    mailchimp = Mailchimp(batch_ops_per_second=1)
    first, second = submit(mailchimp, operations(ADA, "b@example.org")), submit(mailchimp, operations("c@example.org"))
    mailchimp.world.run_batches(now_or_never=False)
    mailchimp.later(1)
    mailchimp.world.run_batches(now_or_never=False)
    assert (state(mailchimp, first)["status"], state(mailchimp, second)["status"]) == ("started", "pending")


def test_a_stuck_batch_stays_finalizing_until_let_go() -> None:
    mailchimp = Mailchimp(batch_stuck_finalizing=True)
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    assert (state(mailchimp, batch)["status"], state(mailchimp, batch)["finished_operations"]) == ("finalizing", 1)
    mailchimp.world.turn_knobs({"batch_stuck_finalizing": False})
    mailchimp.world.run_batches()
    assert state(mailchimp, batch)["status"] == "finished"


def test_batches_run_in_an_order_nobody_promised_and_the_same_seed_gives_the_same() -> None:
    emails = [f"p{n}@example.org" for n in range(30)]

    def joined() -> list[str]:
        mailchimp = Mailchimp()
        submit(mailchimp, operations(*emails))
        mailchimp.world.run_batches()
        return mailchimp.members()

    assert joined() == joined() != emails


def test_a_deleted_batch_keeps_its_work_and_loses_its_results() -> None:
    mailchimp = Mailchimp(batch_ops_per_second=1)
    batch = submit(mailchimp, operations(ADA, "b@example.org"))
    mailchimp.world.run_batches(now_or_never=False)
    mailchimp.later(1)
    mailchimp.world.run_batches(now_or_never=False)
    assert mailchimp.ask("DELETE", f"/batches/{batch}").status == 204
    assert mailchimp.ask("GET", f"/batches/{batch}").status == 404
    mailchimp.world.run_batches()
    assert len(mailchimp.audience.members) == 1


def test_there_is_a_limit_to_batches_and_to_operations() -> None:
    mailchimp = Mailchimp(max_pending_batches=1, max_batch_ops=2)
    submit(mailchimp, operations(ADA))
    assert mailchimp.ask("POST", "/batches", {"operations": operations(ADA)}).status == 429
    assert mailchimp.ask("POST", "/batches", {"operations": operations(ADA) * 3}).status == 400
    assert mailchimp.ask("POST", "/batches", {"operations": {}}).status == 400


def test_skip_merge_validation_counts_in_params_and_in_the_path(mailchimp: Mailchimp) -> None:
    mailchimp.audience.merge_fields[1].required = True
    plain, in_path, in_params = operations("a@example.org", "b@example.org", "c@example.org")
    in_path["path"] += "?skip_merge_validation=true"
    in_params["params"] = {"skip_merge_validation": True}
    submit(mailchimp, [plain, in_path, in_params])
    mailchimp.world.run_batches()
    assert set(mailchimp.members()) == {"b@example.org", "c@example.org"}


def test_a_get_in_a_batch_counts_each_page(mailchimp: Mailchimp) -> None:
    generate(mailchimp.audience, 25, now=mailchimp.world.clock.seconds(), shares=Shares(0, 0, 0, 0, 0))
    batch = submit(mailchimp, [{"method": "GET", "path": f"/lists/{LIST}/members", "operation_id": "all"}])
    mailchimp.world.run_batches()
    assert state(mailchimp, batch)["total_operations"] == 3


def test_results_links_last_ten_minutes_and_results_seven_days(mailchimp: Mailchimp) -> None:
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    url = state(mailchimp, batch)["response_body_url"]
    assert url != state(mailchimp, batch)["response_body_url"]
    name, token = url.rpartition("/")[2].split("?token=")
    assert mailchimp.world.download(name, token)[0] == 200
    assert mailchimp.world.download(name, token[:-1] + "x")[0] == 403
    mailchimp.later(601)
    assert mailchimp.world.download(name, token)[0] == 403
    fresh = state(mailchimp, batch)["response_body_url"].split("?token=")[1]
    assert mailchimp.world.download(name, fresh)[0] == 200
    mailchimp.later(7 * 24 * 3600)
    assert mailchimp.ask("GET", f"/batches/{batch}").status == 404
    assert mailchimp.ask("GET", "/batches").body["total_items"] == 0


BATCH_FAULTS = [
    ("429_json", 429, 1),
    ("500", 500, 1),
    ("503_block", 503, 1),
    ("reset_after", None, 0),
    ("reset_before", None, 0),
]


@pytest.mark.parametrize(("action", "status", "rows"), BATCH_FAULTS)
def test_faults_strike_inside_batches(mailchimp: Mailchimp, action: str, status: int | None, rows: int) -> None:
    mailchimp.world.turn_knobs(
        {"fault_rules": [{"action": action, "operation_id": ADA}], "batch_stuck_finalizing": True}
    )
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    results = mailchimp.world.default_account.batches[batch].results
    assert [row["status_code"] for row in results] == [status] * rows
    assert mailchimp.members() == ([ADA] if action == "reset_after" else [])


EVENTS: list[tuple[str, list[tuple[str, str, dict[str, Any]]], list[str]]] = [
    ("Signing up says subscribe", [("person", "sign_up", {})], ["subscribe"]),
    (
        "Asking says nothing, confirming says subscribe",
        [("person", "sign_up", {"status": "pending"}), ("person", "confirm", {})],
        ["subscribe"],
    ),
    (
        "Leaving says unsubscribe",
        [("person", "sign_up", {}), ("person", "unsubscribe", {})],
        ["subscribe", "unsubscribe"],
    ),
    (
        "Complaining says unsubscribe",
        [("person", "sign_up", {}), ("person", "complain", {})],
        ["subscribe", "unsubscribe"],
    ),
    (
        "Editing says profile",
        [("person", "sign_up", {}), ("person", "edit_profile", {"merge_fields": {"FNAME": "A"}})],
        ["subscribe", "profile"],
    ),
    (
        "A new address says upemail and profile",
        [("person", "sign_up", {}), ("person", "change_email", {"new_email": "x@example.org"})],
        ["subscribe", "upemail", "profile"],
    ),
    ("Bouncing says cleaned", [("person", "sign_up", {}), ("person", "hard_bounce", {})], ["subscribe", "cleaned"]),
    ("Archiving says unsubscribe", [("person", "sign_up", {}), ("admin", "archive", {})], ["subscribe", "unsubscribe"]),
    ("An import says nothing", [("admin", "import", {})], []),
    (
        "An admin's edit says profile",
        [("admin", "import", {}), ("admin", "edit", {"merge_fields": {"FNAME": "A"}})],
        ["profile"],
    ),
]


@pytest.mark.parametrize(("steps", "kinds"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
def test_what_webhooks_say(
    mailchimp: Mailchimp, steps: list[tuple[str, str, dict[str, Any]]], kinds: list[str]
) -> None:
    mailchimp.hook()
    for who, action, more in steps:
        act = actions.person if who == "person" else actions.admin
        act(mailchimp.world, action, ADA, **more)
    assert [event["type"] for event in mailchimp.heard()] == kinds


def test_api_changes_are_heard_only_by_hooks_that_want_them(mailchimp: Mailchimp) -> None:
    hook = mailchimp.hook()
    mailchimp.put(ADA)
    assert mailchimp.heard() == []
    hook.sources["api"] = True
    mailchimp.put(ADA, status="unsubscribed")
    assert [event["type"] for event in mailchimp.heard()] == ["unsubscribe"]


def test_the_keys_of_webhook_bodies(mailchimp: Mailchimp) -> None:
    with_interests(mailchimp)
    mailchimp.hook()
    actions.person(mailchimp.world, "sign_up", ADA, interests={"trees": True}, merge_fields={"FNAME": "Ada"})
    actions.person(mailchimp.world, "change_email", ADA, new_email="x@example.org")
    actions.person(mailchimp.world, "unsubscribe", "x@example.org")
    joined, moved, _, left = mailchimp.heard()
    assert joined["data[merges][FNAME]"] == "Ada"
    assert joined["data[merges][INTERESTS]"] == joined["data[merges][GROUPINGS][0][groups]"] == "TREES"
    assert (len(joined["data[id]"]), joined["data[list_id]"], joined["fired_at"]) == (10, LIST, "2026-01-09 12:00:00")
    assert set(moved) == {"type", "fired_at", "data[list_id]", "data[new_id]", "data[new_email]", "data[old_email]"}
    assert (left["data[action]"], left["data[reason]"], left["data[campaign_id]"]) == ("unsub", "manual", "c0ffee0001")


def test_a_hook_that_keeps_failing_is_disabled_and_gone_from_the_listing(mailchimp: Mailchimp) -> None:
    mailchimp.hook()
    actions.person(mailchimp.world, "sign_up", ADA)
    tries = 0
    while mailchimp.world.queued:
        for delivery in mailchimp.world.due_deliveries():
            tries += 1
            mailchimp.world.settle_delivery(delivery, 500)
        mailchimp.later(60)
    assert tries == 7
    assert mailchimp.ask("GET", f"/lists/{LIST}/webhooks").body["total_items"] == 0
    assert mailchimp.ask("GET", f"/lists/{LIST}/webhooks/hook").status == 404


def test_deliveries_may_come_twice_and_in_any_order() -> None:
    mailchimp = Mailchimp(webhook_duplicates=True, webhook_shuffle=True)
    mailchimp.hook()
    for number in range(20):
        actions.person(mailchimp.world, "sign_up", f"p{number}@example.org")
    due = [delivery.id for delivery in mailchimp.world.due_deliveries()]
    assert len(due) == 40
    assert due != sorted(due)


def test_batch_webhooks_hear_of_finished_batches_and_there_are_twenty_at_most(mailchimp: Mailchimp) -> None:
    for number in range(20):
        body = {"url": f"http://crm.example/{number}", "enabled": number == 0}
        assert mailchimp.ask("POST", "/batch-webhooks", body).status == 200
    assert mailchimp.ask("POST", "/batch-webhooks", {"url": "http://crm.example/20"}).status == 400
    batch = submit(mailchimp, operations(ADA))
    mailchimp.world.run_batches()
    (event,) = mailchimp.heard()
    assert (event["type"], event["data[id]"], event["data[total_operations]"]) == (
        "batch_operation_completed",
        batch,
        "1",
    )


def test_a_webhooks_url_must_answer_and_be_new(mailchimp: Mailchimp) -> None:
    path, body = f"/lists/{LIST}/webhooks", {"url": "http://crm.example/hook?secret=1"}
    account = mailchimp.world.default_account
    assert mailchimp.world.handle(Request("POST", path, {}, body, account, url_answers=False)).status == 400
    made = mailchimp.ask("POST", path, body).body
    assert all(made["events"].values())
    assert all(made["sources"].values())
    assert mailchimp.ask("POST", path, body).status == 400
    assert mailchimp.ask("POST", path, {"url": "not a url"}).status == 400


def test_double_opt_in_makes_a_form_ask_and_leaves_the_api_alone(mailchimp: Mailchimp) -> None:
    mailchimp.audience.double_optin = True
    assert mailchimp.put(ADA).body["status"] == "subscribed"
    member = actions.person(mailchimp.world, "sign_up", "form@example.org")
    assert member is not None
    assert member.status == "pending"


def test_a_person_who_left_may_sign_up_again_and_an_admin_may_archive_anybody(mailchimp: Mailchimp) -> None:
    mailchimp.a_member("unsubscribed", by="user")
    actions.person(mailchimp.world, "sign_up", ADA)
    assert (mailchimp.member().status, mailchimp.member().unsubscribed_by) == ("subscribed", "")
    mailchimp.a_member("cleaned", "b@example.org")
    actions.admin(mailchimp.world, "archive", "b@example.org")
    assert mailchimp.member("b@example.org").archived_from == "cleaned"


def test_unknown_actions_name_what_there_is(mailchimp: Mailchimp) -> None:
    with pytest.raises(actions.UnknownAction, match="sign_up, confirm"):
        actions.person(mailchimp.world, "dance", ADA)
    with pytest.raises(actions.UnknownAction, match="not in audience"):
        actions.admin(mailchimp.world, "archive", ADA)


KEYS = [
    (None, "API Key Missing"),
    ("nonsense-us1", "API Key Invalid"),
    ("0123456789abcdef0123456789abcdef-us9", "Wrong Datacenter"),
]


@pytest.mark.parametrize(("key", "title"), KEYS)
def test_bad_keys(mailchimp: Mailchimp, key: str | None, title: str) -> None:
    with pytest.raises(Problem) as caught:
        mailchimp.world.authenticate(key)
    assert caught.value.title == title


def test_a_disabled_user_and_a_viewer_are_refused(mailchimp: Mailchimp) -> None:
    account = mailchimp.world.add_account("Other", key="f" * 32 + "-us2")
    account.users[0].role = "viewer"
    assert mailchimp.world.authenticate("f" * 32 + "-us2", "GET") is account
    with pytest.raises(Problem, match="Forbidden"):
        mailchimp.world.authenticate("f" * 32 + "-us2", "PUT")
    account.users[0].disabled = True
    with pytest.raises(Problem, match="User Disabled"):
        mailchimp.world.authenticate("f" * 32 + "-us2")


def test_a_snapshot_restores_everything_and_a_bad_one_changes_nothing(mailchimp: Mailchimp) -> None:
    with_interests(mailchimp)
    mailchimp.hook()
    mailchimp.put("gone@example.org")
    made = mailchimp.put(ADA, interests={"trees": True}, merge_fields={"FNAME": "Ada"}).body
    mailchimp.ask("POST", member_path("gone@example.org") + "/actions/delete-permanent")
    actions.person(mailchimp.world, "unsubscribe", ADA)
    mailchimp.ask("POST", member_path(ADA) + "/tags", {"tags": [{"name": "T", "status": "active"}]})
    batch = submit(mailchimp, operations("b@example.org"))
    mailchimp.world.turn_knobs({"since_inclusive": True, "fault_rules": [{"action": "500", "count": 0}]})
    taken = orjson.loads(orjson.dumps(snapshot(mailchimp.world)))
    other = World()
    restore(other, taken)
    assert snapshot(other) == taken
    answer = other.handle(Request("GET", member_path(made["contact_id"]), account=other.default_account))
    assert other.find_audience(LIST)[1].members.find(made["contact_id"]) is not None
    assert answer.status == 404
    other.run_batches()
    assert other.default_account.batches[batch].status == "finished"
    with pytest.raises(BadRecord):
        restore(mailchimp.world, {**taken, "records": [*taken["records"], {"kind": "member"}]})
    assert snapshot(mailchimp.world) == taken


BAD_RECORDS = [
    {},
    {"kind": "member"},
    {"kind": "member", "email_address": "x"},
    {"kind": "tag", "id": 1},
    {"kind": "clock"},
]


@pytest.mark.parametrize("record", BAD_RECORDS, ids=str)
def test_bad_records_are_named(mailchimp: Mailchimp, record: dict[str, Any]) -> None:
    with pytest.raises(BadRecord):
        Seeder(mailchimp.world).take(record)


def test_the_generator_gives_the_shares_asked_for_and_the_same_for_a_seed(mailchimp: Mailchimp) -> None:
    def made() -> Audience:
        audience = World(clock=Clock.frozen_at(NOON)).add_audience(list_id=LIST)
        generate(audience, 3000, now=int(NOON.timestamp()), seed=3)
        return audience

    audience = made()
    assert [(row.email, row.status) for row in audience.members] == [(row.email, row.status) for row in made().members]
    for status, share in (("unsubscribed", 0.15), ("cleaned", 0.03), ("archived", 0.025)):
        assert audience.members.counts[status] / 3000 == pytest.approx(share, abs=0.015)
    assert any(not row.merges for row in audience.members)
    assert any(not row.email.isascii() for row in audience.members)
    assert any(row.email != row.email.lower() for row in audience.members)


def test_the_clock_can_be_set_frozen_advanced_hurried_and_skewed() -> None:
    real = [1000.0]
    clock = Clock(lambda: real[0])
    real[0] += 5
    assert clock.now() == 1005
    clock.run_at(10)
    real[0] += 1
    assert clock.now() == 1015
    clock.freeze()
    real[0] += 100
    assert clock.now() == 1015
    clock.advance(0.5)
    clock.skew = -3
    assert (clock.now(), clock.seconds()) == (1012.5, 1012)
    with pytest.raises(ValueError, match="set it to go back"):
        clock.advance(-1)


def test_knobs_name_what_is_wrong_and_then_turn_nothing() -> None:
    knobs = Knobs()
    with pytest.raises(ValueError, match="max_connections"):
        knobs.turn({"webhook_shuffle": True, "max_connections": "many"})
    with pytest.raises(ValueError, match="no knob 'nope'"):
        knobs.turn({"nope": 1})
    assert knobs == Knobs()


def test_fault_rules_can_skip_count_and_match() -> None:
    rule = FaultRule.from_json({"action": "500", "method": "put", "path": "/members/", "skip": 1, "count": 1})
    struck = [rule.strikes("PUT", "/lists/a/members/b", set(), "", Random(1)) for _ in range(3)]
    assert struck == [False, True, False]
    assert not rule.strikes("GET", "/lists/a/members/b", set(), "", Random(1))
    for wrong in ({"action": "explode"}, {"action": "500", "colour": 1}, {"action": "500", "path": "("}):
        with pytest.raises(ValueError, match="fault"):
            FaultRule.from_json(wrong)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=200), st.integers(0, 320), st.integers(0, 320))
def test_ordered_keys_are_a_sorted_set(steps: list[tuple[bool, int]], low: int, high: int) -> None:
    keys, plain = OrderedKeys(range(0, 300, 7)), set(range(0, 300, 7))
    for adds, key in steps:
        if adds and key not in plain:
            keys.add(key)
            plain.add(key)
        elif not adds and key in plain:
            keys.remove(key)
            plain.discard(key)
    ordered = sorted(plain)
    assert list(keys.slice(0, len(keys))) == ordered
    assert list(keys.slice(low, high)) == ordered[low:high]
    assert keys.rank(low) == sum(key < low for key in plain)


def test_ordered_keys_split_their_blocks() -> None:
    keys = OrderedKeys()
    for key in range(5 * BLOCK):
        keys.add(key)
    assert all(a < b for a, b in pairwise(keys.slice(0, len(keys))))
    assert keys.rank(3 * BLOCK) == 3 * BLOCK
    for key in range(5 * BLOCK):
        keys.remove(key)
    assert len(keys) == 0
    with pytest.raises(KeyError):
        keys.remove(1)


def test_times_on_the_wire() -> None:
    assert to_wire(0) == ""
    assert from_text("2026-01-09 12:00:00") == from_text("2026-01-09T14:00:00+02:00") == int(NOON.timestamp())


paths = st.text(string.ascii_lowercase + "{}.,", max_size=12)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers(0, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=10,
)


@given(paths, bodies)
def test_selecting_never_adds_anything(path: str, body: Any) -> None:
    try:
        kept = Selection.from_query({"fields": path}).apply(body)
        dropped = Selection.from_query({"exclude_fields": path}).apply(body)
    except Problem:
        return
    for shown in (kept, dropped):
        assert len(orjson.dumps(shown)) <= len(orjson.dumps(body))


EMAILS = st.sampled_from([f"{name}@example.org" for name in ("a", "b", "c", "A")])
WRITES = st.tuples(
    st.sampled_from(["PUT", "PATCH", "DELETE", "POST", "sign_up", "unsubscribe", "confirm", "hard_bounce", "archive"]),
    EMAILS,
    st.sampled_from([None, *STATUSES]),
)


@settings(max_examples=150)
@given(st.lists(WRITES, max_size=25))
def test_whatever_happens_counts_and_orders_stay_true(steps: list[tuple[str, str, str | None]]) -> None:
    mailchimp = Mailchimp()
    mailchimp.members(sort_field="last_changed")
    for verb, email, status in steps:
        mailchimp.later(1)
        _do(mailchimp, verb, email, status)
    rows = list(mailchimp.audience.members)
    assert +mailchimp.audience.members.counts == +type(mailchimp.audience.members.counts)(row.status for row in rows)
    shown = [row for row in rows if row.status != "archived"]
    by_change = sorted(shown, key=lambda row: (row.last_changed, row.serial))
    assert mailchimp.members(sort_field="last_changed") == [row.email for row in by_change]
    assert len({row.email.lower() for row in rows}) == len(rows)
    for row in rows:
        assert row.status != "subscribed" or not row.unsubscribed_by


def _do(mailchimp: Mailchimp, verb: str, email: str, status: str | None) -> None:
    body = {"email_address": email, "status": status} if status else {"email_address": email}
    if verb in ("PUT", "PATCH", "DELETE"):
        assert mailchimp.ask(verb, member_path(email), body).status in (200, 204, 400, 404, 405)
        return
    if verb == "POST":
        assert mailchimp.ask("POST", f"/lists/{LIST}/members", body).status in (200, 400)
        return
    try:
        (actions.admin if verb == "archive" else actions.person)(mailchimp.world, verb, email)
    except (actions.UnknownAction, Problem):
        return


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.just(ADA),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "email_address",
                    "status",
                    "status_if_new",
                    "merge_fields",
                    "interests",
                    "tags",
                    "members",
                    "operations",
                    "method",
                    "path",
                    "body",
                    "url",
                    "events",
                    "sources",
                    "name",
                    "type",
                    "tag",
                    "title",
                    "location",
                    "timestamp_opt",
                    "static_segment",
                    "FNAME",
                    "params",
                    "options",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
PLACES = st.sampled_from([(verb, path) for path, verbs in ROUTES.items() for verb in verbs])
IDS = st.sampled_from([LIST, subscriber_hash(ADA), "c" * 10, "trees", "1", "5000001", "%00", "é", "²"])
QUERIES = st.dictionaries(
    st.sampled_from("count offset fields status since_last_changed since_created_at type sort_field name".split()),  # noqa: SIM905
    st.sampled_from(["", "1", "-1", "²", "x", "2026-01-09", "9999-12-31T23:59:59-23:59", "archived", "last_changed"]),
    max_size=3,
)


@settings(max_examples=400)
@given(PLACES, st.lists(IDS, min_size=3, max_size=3), QUERIES, JUNK)
def test_nothing_a_caller_sends_makes_the_world_raise(
    place: tuple[str, str], ids: list[str], query: dict[str, str], body: Any
) -> None:
    mailchimp = Mailchimp()
    with_interests(mailchimp)
    mailchimp.put(ADA)
    verb, path = place
    for one in [LIST, *ids]:
        path = path.replace("{}", one, 1)
    answer = mailchimp.ask(verb, "/" + path, body, **query)
    mailchimp.world.run_batches()
    assert answer.status in (200, 204, 400, 404, 405, 422, 504)
    orjson.dumps(answer.body)
