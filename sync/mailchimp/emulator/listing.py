"""GET /lists/{id}/members: filters, order and page.

Status and last-change filters go through the roster's orders, so a page costs the same at any depth; the rarer
filters scan once and are remembered until somebody changes. With no sort asked for the order is undocumented at
Mailchimp: ours is the order of joining, or of last change when the filter is on that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.clock import from_text
from sync.mailchimp.emulator.exchange import Call, Response, links, ok
from sync.mailchimp.emulator.knobs import Knobs
from sync.mailchimp.emulator.model import ARCHIVED, STATUSES, UNSUBSCRIBED, Member
from sync.mailchimp.emulator.problems import Hang, field_error, not_found, schema_failed
from sync.mailchimp.emulator.rendering import MEMBER_KEYS, MemberView
from sync.mailchimp.emulator.roster import EVERYBODY, SORT_VALUES, Scope, sort_key, unique_email_id
from sync.mailchimp.emulator.selection import Selection, is_true, page_of

ANCIENT = int(datetime(2001, 1, 1, tzinfo=UTC).timestamp())
Test = Callable[[Member], bool]


def list_members(call: Call) -> Response:
    """Answer one page of members."""
    audience = call.audience
    count, offset = page_of(call.query)
    selection = Selection.from_query(call.query)
    page, total = find_page(audience, call.query, call.account.knobs, count, offset)
    keys = selection.keys_within("members", MEMBER_KEYS)
    view = MemberView(audience, call.world.api_root)
    body = {
        "members": [view.render(member, keys) for member in page],
        "list_id": audience.id,
        "total_items": total,
        "_links": links(f"{call.world.api_root}/lists/{audience.id}/members"),
    }
    return ok(selection.apply(body), rows=len(page), page=(count, offset))


def find_page(
    audience: Audience, query: Mapping[str, str], knobs: Knobs, count: int, offset: int
) -> tuple[list[Member], int]:
    """Return the members on one page and how many match in all. Raises a 400 for a filter that cannot be read."""
    scope = _scope(query, knobs)
    low, high = _bounds(query, "last_changed", knobs)
    sort, descending = _sort(query, ranged=low is not None or high is not None)
    tests = _tests(audience, query, knobs)
    if sort != "last_changed" and (low is not None or high is not None):
        tests.append(_within(SORT_VALUES["last_changed"], low, high))
        low = high = None
    order = audience.members.order(scope, sort)
    start = 0 if low is None else order.rank(sort_key(low, 0))
    stop = len(order) if high is None else max(start, order.rank(sort_key(high, 0)))
    if tests:
        keys = _scan(audience, query, knobs, start, stop, scope, sort, tests)
        return _cut(audience, keys[::-1] if descending else keys, count, offset), len(keys)
    if descending:
        last = max(start, stop - offset)
        wanted = list(order.slice(max(start, last - count), last))[::-1]
    else:
        wanted = list(order.slice(start + offset, min(start + offset + count, stop)))
    return [audience.members.at(key) for key in wanted], stop - start


def _scope(query: Mapping[str, str], knobs: Knobs) -> Scope:
    status = query.get("status", "")
    if "unsubscribed_since" in query and status != UNSUBSCRIBED:
        raise schema_failed([field_error("unsubscribed_since", "Only valid with status=unsubscribed.")])
    if "since_last_campaign" in query and not status:
        raise schema_failed([field_error("since_last_campaign", "A status is required with since_last_campaign.")])
    if status:
        if status not in STATUSES:
            raise schema_failed([field_error("status", "Value must be one of: " + ", ".join(STATUSES))])
        return frozenset({status})
    return EVERYBODY if knobs.listing_default_archived else EVERYBODY - {ARCHIVED}


def _sort(query: Mapping[str, str], *, ranged: bool) -> tuple[str, bool]:
    asked = query.get("sort_field", "")
    if asked and (asked not in SORT_VALUES or asked == "serial"):
        message = "Value must be one of: timestamp_opt, timestamp_signup, last_changed"
        raise schema_failed([field_error("sort_field", message)])
    direction = query.get("sort_dir", "ASC") or "ASC"
    if direction not in ("ASC", "DESC"):
        raise schema_failed([field_error("sort_dir", "Value must be one of: ASC, DESC")])
    return asked or ("last_changed" if ranged else "serial"), direction == "DESC"


def _bounds(query: Mapping[str, str], name: str, knobs: Knobs) -> tuple[int | None, int | None]:
    """Return the half-open range of whole seconds that ``since_`` and ``before_`` leave."""
    since = _instant(query, f"since_{name}", knobs)
    before = _instant(query, f"before_{name}", knobs)
    if since is not None and not knobs.since_inclusive:
        since += 1
    return since, before


def _instant(query: Mapping[str, str], name: str, knobs: Knobs) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        seconds = from_text(_without_odd_fraction(text), ignore_offset=knobs.since_ignores_offset)
    except ValueError:
        raise schema_failed([field_error(name, "This value should be a valid datetime.")]) from None
    if name.startswith("since") and seconds < ANCIENT and knobs.since_ancient_hangs:
        raise Hang
    return max(0, seconds) if _fraction_digits(text) <= 6 else 0


def _fraction_digits(text: str) -> int:
    _, dot, tail = text.partition(".")
    return len(tail) - len(tail.lstrip("0123456789")) if dot else 0


def _without_odd_fraction(text: str) -> str:
    """Cut a fraction of seven digits and more: Mailchimp was seen to take such a time and to return every member."""
    digits = _fraction_digits(text)
    head, _, tail = text.partition(".")
    return head + tail[digits:] if digits else text


def _tests(audience: Audience, query: Mapping[str, str], knobs: Knobs) -> list[Test]:
    tests: list[Test] = []
    low, high = _bounds(query, "timestamp_opt", knobs)
    if low is not None or high is not None:
        tests.append(_within(SORT_VALUES["timestamp_opt"], low, high))
    left_since = _instant(query, "unsubscribed_since", knobs)
    if left_since is not None:
        tests.append(lambda member: (member.rare or {}).get("unsubscribed_at", member.last_changed) > left_since)
    if kind := query.get("email_type"):
        tests.append(lambda member: member.email_type == kind)
    if is_true(query.get("vip_only")):
        tests.append(lambda member: member.vip)
    if wanted := query.get("unique_email_id"):
        tests.append(lambda member: unique_email_id(member) == wanted)
    return tests + _interest_tests(audience, query)


INTEREST_MATCHES: dict[str, Callable[[frozenset[str], frozenset[str]], bool]] = {
    "any": lambda wanted, held: bool(wanted & held),
    "all": lambda wanted, held: wanted <= held,
    "none": lambda wanted, held: not wanted & held,
}


def _interest_tests(audience: Audience, query: Mapping[str, str]) -> list[Test]:
    names = ("interest_category_id", "interest_ids", "interest_match")
    given = [name for name in names if query.get(name)]
    if not given:
        return []
    if len(given) < len(names):
        missing = [name for name in names if name not in given]
        raise schema_failed([field_error(name, "Required with the other interest filters.") for name in missing])
    if query["interest_category_id"] not in audience.categories:
        raise not_found()
    match = INTEREST_MATCHES.get(query["interest_match"])
    if match is None:
        raise schema_failed([field_error("interest_match", "Value must be one of: any, all, none")])
    wanted = frozenset(query["interest_ids"].split(","))
    return [lambda member: match(wanted, member.interests)]


def _within(value: Callable[[Member], int], low: int | None, high: int | None) -> Test:
    return lambda member: (low is None or value(member) >= low) and (high is None or value(member) < high)


PAGING = {"count", "offset", "fields", "exclude_fields", "sort_dir"}


def _scan(
    audience: Audience,
    query: Mapping[str, str],
    knobs: Knobs,
    start: int,
    stop: int,
    scope: Scope,
    sort: str,
    tests: list[Test],
) -> list[int]:
    """Return the keys that pass every test, in ascending order; remembered while the roster stays as it is."""
    members = audience.members
    filters = tuple(sorted((k, v) for k, v in query.items() if k not in PAGING))
    question = (members.revision, start, stop, scope, sort, filters, knobs.since_ignores_offset, knobs.since_inclusive)
    remembered = audience.remembered_scan
    if remembered is not None and remembered[0] == question:
        return remembered[1]
    order = members.order(scope, sort)
    keys = [key for key in order.slice(start, stop) if all(test(members.at(key)) for test in tests)]
    audience.remembered_scan = (question, keys)
    return keys


def _cut(audience: Audience, keys: list[int], count: int, offset: int) -> list[Member]:
    return [audience.members.at(key) for key in keys[offset : offset + count]]
