"""Members of the emulator: statuses, addresses, permanent deletion, tags."""

from __future__ import annotations

import pytest

from sync.emulator.data.seeding import Seeder
from sync.emulator.rules import actions
from sync.mailchimp.wire import subscriber_hash
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, member_path

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


def test_whether_the_api_may_undo_its_own_unsubscribe_is_an_option() -> None:
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


@pytest.mark.parametrize(("option", "status", "title"), LISTED)
def test_addresses_can_be_made_to_fail(option: str, status: str, title: str) -> None:
    mailchimp = Mailchimp(**{option: ["example.org" if option == "reject_domains" else "ADA@example.org"]})
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
    Seeder(mailchimp.world).add({"kind": "member", "id": legacy, "email_address": "Ada@Example.org"})
    assert mailchimp.ask("GET", f"/lists/{LIST}/members/{legacy}").status == 200
    assert mailchimp.ask("GET", member_path(ADA)).status == 404
    body = {"email_address": ADA, "status": "subscribed"}
    assert mailchimp.ask("POST", f"/lists/{LIST}/members", body).body["title"] == "Member Exists"


def test_the_subscriber_hash_of_the_contracts_vector() -> None:
    assert subscriber_hash("Urist.McVankab@freddiesjokes.com ") == "62eeb292278cc15f5817cb78f7790b08"


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


@pytest.mark.parametrize("verb", ["PUT", "PATCH"])
def test_permissions_that_a_change_does_not_name_stay(mailchimp: Mailchimp, verb: str) -> None:
    mailchimp.audience.marketing_permissions = [{"marketing_permission_id": one} for one in ("p1", "p2", "p3")]
    mailchimp.a_member("subscribed")

    def after(**named: bool) -> list[str]:
        sent = [{"marketing_permission_id": key, "enabled": enabled} for key, enabled in named.items()]
        answer = mailchimp.ask(verb, member_path(ADA), {"marketing_permissions": sent})
        assert answer.status == 200, answer.body
        return [one["marketing_permission_id"] for one in answer.body["marketing_permissions"] if one["enabled"]]

    assert after(p3=True, p1=True) == ["p1", "p3"]
    assert after(p1=False, p2=True) == ["p2", "p3"]
    assert after() == ["p2", "p3"]


def test_a_permission_that_the_audience_does_not_have_is_refused_and_nothing_changes(mailchimp: Mailchimp) -> None:
    mailchimp.audience.marketing_permissions = [{"marketing_permission_id": "p1"}]
    mailchimp.a_member("subscribed")
    sent = [{"marketing_permission_id": one, "enabled": True} for one in ("p1", "p2")]
    assert mailchimp.put(ADA, marketing_permissions=sent).status == 400
    assert not (mailchimp.member().extra or {}).get("marketing_permissions")
