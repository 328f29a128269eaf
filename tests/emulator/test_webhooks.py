"""Webhooks of the emulator, and the actions of people and admins that cause them."""

from __future__ import annotations

from typing import Any

import pytest

from sync.emulator.protocol.exchange import Request
from sync.emulator.rules import actions
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, operations, submit, with_interests

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
            mailchimp.world.record_delivery(delivery, 500)
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
    with pytest.raises(actions.UnknownAction, match="sign_up, sign_up_by_sms, confirm"):
        actions.person(mailchimp.world, "dance", ADA)
    with pytest.raises(actions.UnknownAction, match="not in audience"):
        actions.admin(mailchimp.world, "archive", ADA)
