"""Member bodies: schema errors, merge values, interests, keys, ``last_changed``."""

from __future__ import annotations

from typing import Any

import pytest

from sync.emulator.model.records import MergeField
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, member_path, with_interests

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


def test_whether_an_unchanged_put_moves_last_changed_is_an_option() -> None:
    mailchimp = Mailchimp(unchanged_write_bumps=False)
    mailchimp.put(ADA, merge_fields={"FNAME": "Ada"})
    mailchimp.later()
    assert mailchimp.put(ADA, merge_fields={"FNAME": "Ada"}).body["last_changed"] == "2026-01-09T12:00:00+00:00"
    assert mailchimp.put(ADA, merge_fields={"FNAME": "A"}).body["last_changed"] == "2026-01-09T12:01:00+00:00"
