"""Properties that hold for any input."""

from __future__ import annotations

import string
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.emulator.endpoints.routes import ROUTES
from sync.emulator.model.records import STATUSES
from sync.emulator.protocol.problems import Problem
from sync.emulator.protocol.selection import Selection
from sync.emulator.rules import actions
from sync.mailchimp.wire import subscriber_hash
from tests.emulator.mailchimp import ADA, LIST, Mailchimp, member_path, with_interests

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
    ctx: tuple[str, str], ids: list[str], query: dict[str, str], body: Any
) -> None:
    mailchimp = Mailchimp()
    with_interests(mailchimp)
    mailchimp.put(ADA)
    verb, path = ctx
    for one in [LIST, *ids]:
        path = path.replace("{}", one, 1)
    answer = mailchimp.ask(verb, "/" + path, body, **query)
    mailchimp.world.run_batches()
    assert answer.status in (200, 204, 400, 404, 405, 422, 504)
    orjson.dumps(answer.body)
