"""GET /lists/{id}/members: filters, order and page.

Status and last-change filters use sorted indexes, so a page costs the same at any depth; the other filters scan once,
and the result is cached until a member changes. The order without a sort field is undocumented at Mailchimp: ours is
the order of joining, or of last change when that is filtered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import from_text
from sync.emulator.model.member_index import EVERYBODY, SORT_VALUES, Scope, sort_key, unique_email_id
from sync.emulator.model.options import AccountOptions
from sync.emulator.model.records import ARCHIVED, STATUSES, UNSUBSCRIBED, Member
from sync.emulator.protocol.exchange import ApiCall, Response, links, ok
from sync.emulator.protocol.problems import Hang, field_error, not_found, schema_failed
from sync.emulator.protocol.rendering import MEMBER_KEYS, MemberView
from sync.emulator.protocol.selection import Selection, is_true, page_of

ANCIENT = int(datetime(2001, 1, 1, tzinfo=UTC).timestamp())
Test = Callable[[Member], bool]


def list_members(call: ApiCall) -> Response:
    """Answer one page of members."""
    audience = call.audience
    count, offset = page_of(call.query)
    selection = Selection.from_query(call.query)
    page, total = find_page(audience, call.query, call.account.options, count, offset)
    keys = selection.keys_within("members", MEMBER_KEYS)
    view = MemberView(audience, call.state.api_root)
    body = {
        "members": [view.render(member, keys) for member in page],
        "list_id": audience.id,
        "total_items": total,
        "_links": links(f"{call.state.api_root}/lists/{audience.id}/members"),
    }
    return ok(selection.apply(body), rows=len(page), page=(count, offset))


def find_page(
    audience: EmulatedAudience, query: Mapping[str, str], options: AccountOptions, count: int, offset: int
) -> tuple[list[Member], int]:
    """Return the members on one page and how many match in all. Raises a 400 for a filter that cannot be read."""
    scope = _scope(query, options)
    low, high = _bounds(query, "last_changed", options)
    sort, descending = _sort(query, ranged=low is not None or high is not None)
    tests = _predicates(audience, query, options)
    if sort != "last_changed" and (low is not None or high is not None):
        tests.append(_within(SORT_VALUES["last_changed"], low, high))
        low = high = None
    order = audience.members.order(scope, sort)
    start = 0 if low is None else order.bisect_left(sort_key(low, 0))
    stop = len(order) if high is None else max(start, order.bisect_left(sort_key(high, 0)))
    if tests:
        keys = _scan(audience, query, options, start, stop, scope, sort, tests)
        return _cut(audience, keys[::-1] if descending else keys, count, offset), len(keys)
    if descending:
        last = max(start, stop - offset)
        wanted = list(order.islice(max(start, last - count), last))[::-1]
    else:
        wanted = list(order.islice(start + offset, min(start + offset + count, stop)))
    return [audience.members.at(key) for key in wanted], stop - start


def _scope(query: Mapping[str, str], options: AccountOptions) -> Scope:
    status = query.get("status", "")
    if "unsubscribed_since" in query and status != UNSUBSCRIBED:
        raise schema_failed([field_error("unsubscribed_since", "Only valid with status=unsubscribed.")])
    if "since_last_campaign" in query and not status:
        raise schema_failed([field_error("since_last_campaign", "A status is required with since_last_campaign.")])
    if status:
        if status not in STATUSES:
            raise schema_failed([field_error("status", "Value must be one of: " + ", ".join(STATUSES))])
        return frozenset({status})
    return EVERYBODY if options.listing_default_archived else EVERYBODY - {ARCHIVED}


def _sort(query: Mapping[str, str], *, ranged: bool) -> tuple[str, bool]:
    asked = query.get("sort_field", "")
    if asked and (asked not in SORT_VALUES or asked == "serial"):
        message = "Value must be one of: timestamp_opt, timestamp_signup, last_changed"
        raise schema_failed([field_error("sort_field", message)])
    direction = query.get("sort_dir", "ASC") or "ASC"
    if direction not in ("ASC", "DESC"):
        raise schema_failed([field_error("sort_dir", "Value must be one of: ASC, DESC")])
    return asked or ("last_changed" if ranged else "serial"), direction == "DESC"


def _bounds(query: Mapping[str, str], name: str, options: AccountOptions) -> tuple[int | None, int | None]:
    """Return the half-open range of whole seconds between ``since_`` and ``before_``."""
    since = _instant(query, f"since_{name}", options)
    before = _instant(query, f"before_{name}", options)
    if since is not None and not options.since_inclusive:
        since += 1
    return since, before


def _instant(query: Mapping[str, str], name: str, options: AccountOptions) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        seconds = from_text(_without_odd_fraction(text), ignore_offset=options.since_ignores_offset)
    except ValueError:
        raise schema_failed([field_error(name, "This value should be a valid datetime.")]) from None
    if name.startswith("since") and seconds < ANCIENT and options.since_ancient_hangs:
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


def _predicates(audience: EmulatedAudience, query: Mapping[str, str], options: AccountOptions) -> list[Test]:
    tests: list[Test] = []
    low, high = _bounds(query, "timestamp_opt", options)
    if low is not None or high is not None:
        tests.append(_within(SORT_VALUES["timestamp_opt"], low, high))
    left_since = _instant(query, "unsubscribed_since", options)
    if left_since is not None:
        tests.append(lambda member: (member.extra or {}).get("unsubscribed_at", member.last_changed) > left_since)
    if kind := query.get("email_type"):
        tests.append(lambda member: member.email_type == kind)
    if is_true(query.get("vip_only")):
        tests.append(lambda member: member.vip)
    if wanted := query.get("unique_email_id"):
        tests.append(lambda member: unique_email_id(member) == wanted)
    return tests + _interest_predicates(audience, query)


INTEREST_MATCHES: dict[str, Callable[[frozenset[str], frozenset[str]], bool]] = {
    "any": lambda wanted, held: bool(wanted & held),
    "all": lambda wanted, held: wanted <= held,
    "none": lambda wanted, held: not wanted & held,
}


def _interest_predicates(audience: EmulatedAudience, query: Mapping[str, str]) -> list[Test]:
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
    audience: EmulatedAudience,
    query: Mapping[str, str],
    options: AccountOptions,
    start: int,
    stop: int,
    scope: Scope,
    sort: str,
    tests: list[Test],
) -> list[int]:
    """Return the keys that pass every test, in ascending order; cached until a member changes."""
    members = audience.members
    filters = tuple(sorted((k, v) for k, v in query.items() if k not in PAGING))
    flags = (options.since_ignores_offset, options.since_inclusive)
    query_key = (members.revision, start, stop, scope, sort, filters, flags)
    cached = audience.cached_scan
    if cached is not None and cached[0] == query_key:
        return cached[1]
    order = members.order(scope, sort)
    keys = [key for key in order.islice(start, stop) if all(test(members.at(key)) for test in tests)]
    audience.cached_scan = (query_key, keys)
    return keys


def _cut(audience: EmulatedAudience, keys: list[int], count: int, offset: int) -> list[Member]:
    return [audience.members.at(key) for key in keys[offset : offset + count]]
