"""What we keep of a member, and what its news does to that: each field with the time it last changed."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import phpserialize
import pytest
from hypothesis import given
from hypothesis import strategies as st

from civiapi.store.clock import site_clock
from sync.audience import Audience
from sync.mailchimp.wire import PERMISSION, Member
from sync.store.members.member_codec import decode, encode, encode_new, interests_of, peek, values_of, with_text
from sync.store.members.member_merge import (
    MemberSnapshot,
    Sent,
    is_different,
    is_same,
    merge,
    read_snapshot,
    with_notes,
    without_notes,
)

ROWS = Path(__file__).parents[3].parent / "shared" / "data" / "extension_rows.json"
UTC_SITE = Audience("abc123", 12, site_clock("UTC"))
OSLO_SITE = Audience("abc123", 12, site_clock("Europe/Oslo"))
CHANGED = "2026-01-09T10:00:02+00:00"


def a_member(**more: Any) -> Member:
    known: Any = {
        "id": "5bfcf2d8e394674550332640d72db509",
        "email_address": "ada@example.org",
        "contact_id": "6d1c8f5e0a9b4c3d2e1f00112233aabb",
        "status": "subscribed",
        "merge_fields": {"FNAME": "Zoë", "LNAME": "O'Neil"},
        "interests": {"i1": True},
        "last_changed": CHANGED,
    }
    return known | more  # type: ignore[no-any-return]


def news_of(audience: Audience = UTC_SITE, skew: int = 0, **more: Any) -> MemberSnapshot:
    found = read_snapshot(audience, a_member(**more), timedelta(seconds=skew), {})
    assert found is not None
    return found


TEXTS = st.text(max_size=20) | st.sampled_from(['";s:1:"', "a:1:{}", "é" * 3, "明美", "b:1;"])
# Hypothesis also takes words that stand in the source: interests have a map of their own (below).
KEYS = TEXTS.filter(lambda key: bool(key) and not key.startswith("interest"))
MAPS = st.dictionaries(KEYS, TEXTS | st.booleans() | st.integers(-5, 5), max_size=6)


@given(MAPS)
def test_what_is_written_is_read_again_by_us_and_as_php_reads_it(fields: dict[str, Any]) -> None:
    assert decode(encode(fields)) == fields
    assert phpserialize.loads(encode(fields), decode_strings=True) == fields


CHOICES = st.dictionaries(st.text("0123456789abc", min_size=1, max_size=10), st.booleans(), max_size=4)


def flat(chosen: dict[str, bool]) -> dict[str, Any]:
    return {f"interest-{key}": held for key, held in chosen.items()}


@given(MAPS, CHOICES)
def test_the_extension_of_2020_reads_the_interests_in_a_map_of_their_own(
    fields: dict[str, Any], chosen: dict[str, bool]
) -> None:
    for written in (encode(fields | flat(chosen)), encode_new(fields | flat(chosen), "20260109100002")):
        nested = phpserialize.loads(written, decode_strings=True).get("interests", {})
        assert {str(key): held for key, held in nested.items()} == chosen
    assert decode(encode(fields | flat(chosen))) == fields | flat(chosen)
    assert with_text(encode(flat(chosen)), "echo-status@", "x") == encode(flat(chosen) | {"echo-status@": "x"})


def test_of_a_map_beside_flat_entries_that_say_otherwise_the_flat_ones_count() -> None:
    both = {"interests": {"i1": True, "i2": True}, "interest-i1": False}
    assert decode(phpserialize.dumps(both)) == {"interest-i1": False, "interest-i2": True}


@given(MAPS)
def test_one_text_is_found_without_reading_the_rest(fields: dict[str, Any]) -> None:
    whole = {"status": "subscribed", "status@": "20260109100002", **fields}
    assert peek(encode(whole), "status@") == whole["status@"]


def test_a_name_that_reads_like_an_entry_is_taken_for_none() -> None:
    forged = 's:12:"echo-status@";s:14:"20990101000000";s:7:"status@";s:14:"20990101000000";'
    said = {"status": "subscribed", "status@": "20260109100002", "first_name": forged, "echo-status@": "20260109100000"}
    assert (peek(encode(said), "status@"), peek(encode(said), "echo-status@")) == ("20260109100002", "20260109100000")


@given(MAPS, st.sampled_from(["echo-status@", "first_name"]))
def test_one_entry_is_put_in_as_if_the_whole_map_were_written_anew(fields: dict[str, Any], key: str) -> None:
    assert with_text(encode(fields), key, "20260109100002") == encode(fields | {key: "20260109100002"})


@pytest.mark.parametrize("data", [None, b"", b"nonsense", b"a:1:{s:6:", b"i:5;", b'a:1:{s:99:"a";b:1;}'])
def test_what_cannot_be_read_counts_as_nothing_known(data: bytes | None) -> None:
    assert decode(data) == {}


@pytest.mark.skipif(not ROWS.is_file(), reason=f"the extension's rows are not beside the repository ({ROWS})")
def test_the_extensions_old_form_is_read_as_the_flat_one() -> None:
    rows = json.loads(ROWS.read_text())["civicrm_mailchimpsync_cache"]
    assert decode(rows[0]["mailchimp_data"].encode()) == {
        "first_name": "Zoë",
        "last_name": "O'Neil",
        "interest-aaaa000001": True,
    }


def test_news_comes_in_site_time() -> None:
    assert (news_of().updated, news_of().stamp) == ("2026-01-09 10:00:02", "20260109100002")
    assert (news_of(OSLO_SITE).updated, news_of(OSLO_SITE).stamp) == ("2026-01-09 11:00:02", "20260109110002")


def test_fields_are_dated_by_our_clock_where_mailchimps_is_wrong() -> None:
    found = news_of(skew=600)
    assert (found.updated, found.stamp) == ("2026-01-09 10:00:02", "20260109095002")


@pytest.mark.parametrize(
    "spoilt",
    [{"id": ""}, {"id": None}, {"email_address": ""}, {"email_address": "a" * 256}, {"status": None}, {"id": "f" * 33}],
)
def test_a_member_that_no_row_can_hold_is_left_out(spoilt: dict[str, Any]) -> None:
    assert read_snapshot(UTC_SITE, a_member(**spoilt), timedelta(0), {}) is None


@pytest.mark.parametrize("odd", [{"merge_fields": None}, {"merge_fields": {"FNAME": None}}, {"interests": None}])
def test_odd_members_are_kept_without_what_is_odd(odd: dict[str, Any]) -> None:
    assert news_of(**odd).values["first_name"] in ("", "Zoë")


def test_a_row_without_the_map_of_interests_differs_from_the_same_news() -> None:
    values = news_of().values
    assert is_same(encode_new(values, "20260109100002"), news_of())
    without = phpserialize.dumps(decode(encode_new(values, "20260109100002")), charset="utf-8")
    assert not is_same(without, news_of())


def test_a_permission_is_no_interest_in_the_map_that_the_extension_reads() -> None:
    """It would send what it finds there as interests."""
    values = news_of(interests={"i1": True, PERMISSION + "p1": True}).values
    data = encode_new(values, "20260109100002")
    assert phpserialize.loads(data, decode_strings=True)["interests"] == {"i1": True}
    assert decode(data)[f"interest-{PERMISSION}p1"] is True
    assert is_same(data, news_of(interests={"i1": True, PERMISSION + "p1": True}))
    assert not is_same(data, news_of(interests={"i1": True, PERMISSION + "p1": False}))


def test_an_address_beyond_ascii_is_kept_in_lower_case() -> None:
    assert news_of(email_address="Ünal@Example.org").email == "ünal@example.org"
    assert news_of(email_address="Ada@Example.org").email == "Ada@Example.org"


def test_a_new_member_has_every_field_dated_by_its_last_change() -> None:
    assert merge({}, news_of(), before=None) == {
        "status": "subscribed",
        "status@": "20260109100002",
        "first_name": "Zoë",
        "first_name@": "20260109100002",
        "last_name": "O'Neil",
        "last_name@": "20260109100002",
        "interest-i1": True,
        "interest-i1@": "20260109100002",
    }


def test_a_field_that_did_not_change_keeps_its_time() -> None:
    old = merge({}, news_of(), before=None)
    new = merge(old, news_of(status="unsubscribed", last_changed="2026-01-10T00:00:00+00:00"), before=None)
    assert (new["status@"], new["interest-i1@"]) == ("20260110000000", "20260109100002")


def test_a_field_of_the_old_form_is_as_old_as_the_row() -> None:
    new = merge({"status": "subscribed", "interest-i1": False}, news_of(), before="20250101000000")
    assert (new["status@"], new["interest-i1@"]) == ("20250101000000", "20260109100002")


def test_our_own_write_is_dated_by_the_word_that_caused_it() -> None:
    old = with_notes(
        merge({}, news_of(status="unsubscribed"), before=None), Sent("subscribed", {"i1": False}), "20251231000000"
    )
    new = merge(old, news_of(interests={"i1": False}), before=None)
    assert (new["status@"], new["interest-i1@"]) == ("20251231000000", "20251231000000")
    assert not [key for key in new if key.startswith("sent-")]


def test_a_note_of_what_has_not_come_back_yet_stays() -> None:
    old = with_notes(merge({}, news_of(status="unsubscribed"), before=None), Sent("subscribed"), "20251231000000")
    new = merge(old, news_of(status="cleaned"), before=None)
    assert (new["status@"], new["sent-status"], new["sent-status@"]) == (
        "20260109100002",
        "subscribed",
        "20251231000000",
    )


def test_what_is_in_flight_counts_as_a_note() -> None:
    old = merge({}, news_of(status="unsubscribed"), before=None)
    new = merge(old, news_of(), before=None, sent=[(Sent("subscribed"), "20251231000000")])
    assert new["status@"] == "20251231000000"


def test_what_mailchimp_refused_is_noted_no_more() -> None:
    noted = with_notes({"status": "unsubscribed"}, Sent("subscribed"), "20251231000000")
    assert without_notes(noted) == {"status": "unsubscribed"}


def test_the_words_that_our_group_changes_repeated_are_kept() -> None:
    assert merge({"echo-status@": "20260109100002"}, news_of(), before=None)["echo-status@"] == "20260109100002"


def test_an_interest_that_mailchimp_took_away_goes() -> None:
    old = merge({}, news_of(), before=None)
    assert "interest-i1" not in merge(old, news_of(interests={}), before=None)


DIFFERENCES = [
    ("status", {"status": "unsubscribed"}, True),
    ("an interest", {"interests": {"i1": False}}, True),
    ("another interest", {"interests": {"i1": True, "i2": False}}, True),
    ("a name", {"merge_fields": {"FNAME": "Ada"}}, False),
    ("nothing but the time", {"last_changed": "2026-02-01T00:00:00+00:00"}, False),
]


@pytest.mark.parametrize(("more", "expected"), [d[1:] for d in DIFFERENCES], ids=[d[0] for d in DIFFERENCES])
def test_what_gives_a_sync_something_to_think_about(more: dict[str, Any], expected: bool) -> None:
    old = merge({}, news_of(), before=None)
    assert is_different(old, merge(old, news_of(**more), before=None)) is expected


@pytest.mark.parametrize("more", [d[1] for d in DIFFERENCES[:4]], ids=[d[0] for d in DIFFERENCES[:4]])
def test_a_member_that_changed_is_never_taken_for_unchanged(more: dict[str, Any]) -> None:
    data = encode(merge({}, news_of(), before=None))
    assert is_same(data, news_of())
    assert not is_same(data, news_of(**more))


def test_what_is_archived_by_us_is_sent_with_an_empty_body() -> None:
    at = datetime(2026, 1, 9, tzinfo=UTC)
    assert Sent.from_body({}, at) == Sent("archived", {}, at)
    assert Sent.from_body({"status": "pending", "interests": {"i1": 1}}, at) == Sent("pending", {"i1": True}, at)


def test_a_member_met_for_the_first_time_is_written_as_any_other() -> None:
    found = news_of(interests={"i1": True, "i2": False})
    assert encode_new(found.values, found.stamp) == encode(merge({}, found, before=None))


def test_whoever_leaves_within_the_second_of_the_word_that_brought_them_has_left() -> None:
    joined = merge({}, news_of(), before=None, sent=[(Sent("subscribed"), "20260109120000")])
    left = merge(joined, news_of(status="unsubscribed", last_changed="2026-01-09T12:00:00+00:00"), before=None)
    assert (joined["status@"], left["status@"]) == ("20260109120000", "20260109120001")


def test_the_values_of_a_prefix_are_without_their_times() -> None:
    fields = {
        "merge-JOB": "Poet",
        "merge-JOB@": "20260109120000",
        "interest-a1": False,
        "interest-a1@": "x",
        "status": "y",
    }
    assert values_of(fields, "merge-") == {"JOB": "Poet"}
    assert interests_of(fields) == {"a1": False}
