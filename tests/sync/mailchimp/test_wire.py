"""What goes over the wire to Mailchimp, and what its refusals mean, without any HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.mailchimp import errors, wire
from sync.mailchimp.errors import InvalidApiKey, Refused, Throttled, Unreachable, mask_secrets
from sync.mailchimp.transport import data_centre, resolve_base_url
from sync.mailchimp.wire import Batch, BatchOperation, BatchWebhook, OperationResult, Webhook, subscriber_hash
from tests.support.member_calls import archive_member_operation, put_member_operation, update_tags_operation

KEY = "0123456789abcdef0123456789abcdef-us19"
LIST = "a1b2c3d4e5"
ADA_ID = subscriber_hash("ada@example.org")


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        pytest.param(
            "urist.mcvankab@freddiesjokes.com", "62eeb292278cc15f5817cb78f7790b08", id="The vendor's own vector holds."
        ),
        pytest.param(
            "Urist.McVankab@FreddiesJokes.com",
            "62eeb292278cc15f5817cb78f7790b08",
            id="Case makes no difference.",
        ),
        pytest.param(
            "  urist.mcvankab@freddiesjokes.com\n",
            "62eeb292278cc15f5817cb78f7790b08",
            id="Space around an address is no part of it.",
        ),
    ],
)
def test_subscriber_hash(email: str, expected: str) -> None:
    assert subscriber_hash(email) == expected


def test_lower_casing_is_not_case_folding() -> None:
    assert subscriber_hash("straße@example.org") != subscriber_hash("strasse@example.org")
    assert subscriber_hash("ZOË@example.org") == subscriber_hash("zoë@example.org")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", None, id="An empty string is no time."),
        pytest.param(None, None, id="Null is no time."),
        pytest.param(
            "2026-01-09T10:00:00+00:00", datetime(2026, 1, 9, 10, tzinfo=UTC), id="Mailchimp's own form is read."
        ),
        pytest.param("2026-01-09T12:00:00+02:00", datetime(2026, 1, 9, 10, tzinfo=UTC), id="A zone is converted."),
        pytest.param("2026-01-09 10:00:00", datetime(2026, 1, 9, 10, tzinfo=UTC), id="No zone is taken for UTC."),
    ],
)
def test_parse_instant(text: str | None, expected: datetime | None) -> None:
    assert wire.parse_instant(text) == expected


def test_a_time_goes_out_in_utc_and_whole_seconds_whatever_its_zone() -> None:
    instant = datetime(2026, 1, 9, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert wire.format_instant(instant) == "2026-01-09T10:00:00+00:00"


def test_a_time_without_zone_is_never_sent() -> None:
    with pytest.raises(ValueError, match="zone"):
        wire.format_instant(datetime(2026, 1, 9))


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_the_wire_to_the_second(instant: datetime) -> None:
    assert wire.parse_instant(wire.format_instant(instant)) == instant.replace(microsecond=0)


def test_a_put_operation_carries_skip_merge_validation_in_params_and_in_the_path() -> None:
    operation = put_member_operation(LIST, ADA_ID, {"status_if_new": "subscribed"}, "sync-42-0001").to_wire()
    assert operation == {
        "method": "PUT",
        "path": f"/lists/{LIST}/members/{ADA_ID}?skip_merge_validation=true",
        "params": {"skip_merge_validation": "true"},
        "operation_id": "sync-42-0001",
        "body": '{"status_if_new":"subscribed"}',
    }


def test_an_operations_method_is_always_upper_case() -> None:
    assert BatchOperation("patch", "/lists", "1").to_wire()["method"] == "PATCH"


def test_an_operations_body_is_a_string_of_json_and_absent_when_there_is_none() -> None:
    assert "body" not in archive_member_operation(LIST, ADA_ID, "1").to_wire()
    body = update_tags_operation(LIST, ADA_ID, {"Vip": True, "Old": False}, "1").to_wire()["body"]
    assert isinstance(body, str)
    assert orjson.loads(body) == {
        "tags": [{"name": "Vip", "status": "active"}, {"name": "Old", "status": "inactive"}],
        "is_syncing": True,
    }


def test_an_operations_path_that_has_a_query_keeps_it() -> None:
    assert BatchOperation("PUT", "/x?a=1", "1", params={"b": "2"}).to_wire()["path"] == "/x?a=1&b=2"


@pytest.mark.parametrize("value", ["", " ", ".", "..", ". ."])
def test_an_id_that_would_name_the_whole_collection_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        wire.path_segment(value)


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    assert wire.path_segment("../../batches?x#y") == "..%2F..%2Fbatches%3Fx%23y"


def test_a_fresh_batch_has_no_times_and_no_counts() -> None:
    batch = Batch.from_wire({"id": "734a070347", "status": "pending", "completed_at": "", "response_body_url": ""})
    assert (batch.total_operations, batch.completed_at, batch.is_finished) == (0, None, False)


def test_signed_links_and_webhook_secrets_stay_out_of_representations() -> None:
    batch = Batch.from_wire({"id": "1", "status": "finished", "response_body_url": "https://s3/x?Signature=hush"})
    hook = Webhook.from_wire({"id": "1", "url": "https://crm/hook?secret=hush", "signing_secret": "hush"})
    batch_hook = BatchWebhook.from_wire({"id": "1", "url": "https://crm/hook?secret=hush"})
    assert "hush" not in repr((batch, hook, batch_hook))
    assert hook.signing_secret == "hush"


@pytest.mark.parametrize(
    ("status", "response", "again"),
    [
        pytest.param(200, {}, False, id="What succeeded is not sent again."),
        pytest.param(400, {"title": "Invalid Resource"}, False, id="What was refused is not sent again."),
        pytest.param(429, None, True, id="A throttled operation is queued again."),
        pytest.param(500, None, True, id="A server error is queued again."),
        pytest.param(403, None, True, id="A bare 403 is queued again."),
        pytest.param(403, {"title": "Forbidden"}, False, id="A 403 with a problem document is a refusal."),
        pytest.param(0, None, True, id="An operation with no status told is queued again."),
    ],
)
def test_which_results_are_queued_again(status: int, response: dict[str, Any] | None, again: bool) -> None:
    assert OperationResult("1", status, response).may_be_retried is again


PROBLEMS = [
    pytest.param(
        errors.is_compliance_state,
        {"title": "Member In Compliance State", "status": 400},
        id="A compliance state is known by its title.",
    ),
    pytest.param(
        errors.is_compliance_state,
        {"title": "Mitglied gesperrt", "detail": "ada@example.org is in a compliance state due to unsubscribe, bounce"},
        id="A compliance state with a translated title is known by its detail.",
    ),
    pytest.param(errors.is_member_exists, {"title": "Member Exists"}, id="A member that exists is known by its title."),
    pytest.param(
        errors.is_member_exists,
        {"title": "?", "detail": "a@b is already a list member. Use PUT to insert or update list members."},
        id="A member that exists with a translated title is known by its detail.",
    ),
]


@pytest.mark.parametrize(("predicate", "problem"), PROBLEMS)
def test_what_a_problem_means(predicate: Any, problem: dict[str, Any]) -> None:
    others = {row.values[0] for row in PROBLEMS} - {predicate}
    assert predicate(problem)
    assert predicate(Refused("PUT /x", 400, problem))
    assert not any(other(problem) for other in others)
    assert not predicate(None)
    assert not predicate({"title": "Invalid Resource", "detail": "Your merge fields were invalid."})


def test_a_refusal_says_which_fields_were_wrong_and_which_request_it_was() -> None:
    problem = {
        "title": "Invalid Resource",
        "status": 400,
        "detail": "Your merge fields were invalid.",
        "instance": "0f0e6a5e",
        "errors": [{"field": "LNAME", "message": "Please enter a value"}, {"field": "", "message": "no"}, "junk"],
    }
    error = Refused("PUT /lists/{audience}/members/{member}", 400, problem)
    assert [(one.field, one.message) for one in error.errors] == [("LNAME", "Please enter a value"), ("", "no")]
    assert str(error) == (
        "Mailchimp refused PUT /lists/{audience}/members/{member}: 400 Invalid Resource: "
        "Your merge fields were invalid. (LNAME: Please enter a value; body: no) [request 0f0e6a5e]"
    )


def test_only_what_may_pass_may_be_retried() -> None:
    assert Throttled("GET /", 429).may_be_retried
    assert not Throttled("GET /", 429).outcome_unknown
    lost = Unreachable("POST /batches", "reset", outcome_unknown=True)
    assert lost.may_be_retried
    assert "may have been carried out" in str(lost)
    assert not Refused("GET /", 400, {}).may_be_retried


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        pytest.param(f"key {KEY} is bad", KEY, id="An API key is masked."),
        pytest.param("https://crm/hook?secret=long-random&x=1", "long-random", id="A webhook secret is masked."),
        pytest.param("url https%3A%2F%2Fcrm%3Fsecret%3Dlong-random", "long-random", id="An encoded one as well."),
        pytest.param("https://s3/x?X-Amz-Signature=abc123&e=1", "abc123", id="A link's signature is masked."),
        pytest.param("https://s3/x?AWSAccessKeyId=AKIA99", "AKIA99", id="A link's credential is masked."),
        pytest.param("Authorization: Basic Y2l2aTprZXk=", "Y2l2aTprZXk", id="Basic credentials are masked."),
        pytest.param("?api_key=hush", "hush", id="An api_key parameter is masked."),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    assert secret not in mask_secrets(text)
    assert "***" in mask_secrets(text)


def test_masking_leaves_ordinary_text_alone() -> None:
    text = "ada@example.org looks fake or invalid; member 5bfcf2d8e394674550332640d72db509, keyed=1"
    assert mask_secrets(text) == text


IDS = st.text("0123456789abcdef", min_size=1, max_size=10)
CHOSEN = st.dictionaries(IDS | IDS.map(lambda one: wire.PERMISSION + one), st.booleans())


@given(st.fixed_dictionaries({}, optional={"status": st.just("subscribed"), "interests": CHOSEN}))
def test_a_body_comes_back_from_the_wire_as_it_was(body: dict[str, Any]) -> None:
    sent = wire.body_to_wire(body)
    assert not [key for key in sent.get("interests", ()) if key.startswith(wire.PERMISSION)]
    assert wire.body_from_wire(sent) == body


@pytest.mark.parametrize(
    ("value", "count"),
    [(40, 40), ("40", 40), (" 040\n", 40), (0, 0), ("0", 0), (2**40, wire.MAX_COUNT), ("9" * 18, wire.MAX_COUNT)]
    + [(odd, None) for odd in (None, True, -1, "-1", "", "4 0", "4e1", 1.5, "٤٠", "9" * 5000, [], {})],
)
def test_what_counts_as_a_number(value: Any, count: int | None) -> None:
    assert wire.find_count(value) == count
    assert wire.as_count(value) == (count or 0)


@pytest.mark.parametrize("given", [True, "true", " TRUE", "1", 1])
@pytest.mark.parametrize("withheld", [False, "false", "0", 0, None, "", "maybe", [], 2])
def test_interests_and_permissions_may_be_written_as_text_or_as_numbers(given: Any, withheld: Any) -> None:
    listed = [
        {"marketing_permission_id": name, "text": "Mail", "enabled": held}
        for name, held in (("p", given), (7, withheld))
    ]
    read = wire.read_member({"interests": {"a": given, "b": withheld}, "marketing_permissions": listed})
    assert read["interests"] == {"a": True, "b": False, "permission:p": True, "permission:7": False}
    assert BatchWebhook.from_wire({"id": "x", "enabled": given}).enabled
    assert not BatchWebhook.from_wire({"id": "x", "enabled": withheld}).enabled


def test_ids_of_a_member_may_be_numbers() -> None:
    assert wire.read_member({"id": 12, "contact_id": 34}) == {"id": "12", "contact_id": "34"}


def test_the_permissions_of_a_member_are_among_its_interests_too() -> None:
    named = [{"marketing_permission_id": "a1", "text": "Email", "enabled": True}]
    named += [{"marketing_permission_id": "b2", "text": "Post", "enabled": False}]
    found = {wire.PERMISSION + "a1": True, wire.PERMISSION + "b2": False}
    assert wire.read_member({"marketing_permissions": named})["interests"] == found
    both = wire.read_member({"interests": {"i1": True}, "marketing_permissions": named})
    assert both["interests"] == {"i1": True, **found}
    assert "interests" not in wire.read_member({"marketing_permissions": []})


@pytest.mark.parametrize(
    "key", ["", "0123456789abcdef", "nohyphen", "-us1", "key-", "key-us1.evil.example", "key-us/1"]
)
def test_a_key_without_a_data_centre_is_refused_before_any_request(key: str) -> None:
    with pytest.raises(InvalidApiKey) as caught:
        data_centre(key)
    assert str(caught.value) == "Invalid API key - could not extract datacentre from given API key."


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        pytest.param("", "https://us19.api.mailchimp.com/3.0", id="The key names the data centre."),
        pytest.param("http://127.0.0.1:9", "http://127.0.0.1:9/3.0", id="A base with no path gets /3.0."),
        pytest.param("http://127.0.0.1:9/", "http://127.0.0.1:9/3.0", id="A lone slash is no path."),
        pytest.param("https://proxy/mc/3.0/", "https://proxy/mc/3.0", id="A base with a path is used as it is."),
    ],
)
def test_where_an_account_lives(base: str, expected: str) -> None:
    assert resolve_base_url(KEY, base) == expected
