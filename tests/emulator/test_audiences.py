"""Audiences, the bulk call, credentials, and requests that are refused."""

from __future__ import annotations

import pytest

from sync.emulator.model.records import STATUSES
from sync.emulator.protocol.exchange import UNREADABLE
from sync.emulator.protocol.problems import Problem
from tests.emulator.mailchimp import ADA, LIST, Mailchimp


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
    mailchimp.world.configure({"stats_lag_s": 120.0})
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
