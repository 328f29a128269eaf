"""Account and audience endpoints: root, ping, lists, and the bulk call for up to 500 members."""

from __future__ import annotations

from typing import Any

from sync.emulator.endpoints.members import change_context
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import to_wire
from sync.emulator.model.records import ARCHIVED, CLEANED, SUBSCRIBED, UNSUBSCRIBED, Json, Member
from sync.emulator.protocol.exchange import ApiCall, Response, links, ok
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import Problem, fake_address, field_error, schema_failed
from sync.emulator.protocol.rendering import MemberView
from sync.emulator.protocol.schemas import check
from sync.emulator.protocol.selection import is_true
from sync.emulator.rules import membership
from sync.emulator.rules.membership import ChangeContext

NO_CONTACT = dict.fromkeys(("company", "address1", "address2", "city", "state", "zip", "country", "phone"), "")
NO_DEFAULTS = dict.fromkeys(("from_name", "from_email", "subject"), "") | {"language": "en"}


def ping(call: ApiCall) -> Response:
    """GET /ping."""
    return ok({"health_status": "Everything's Chimpy!"})


def root(call: ApiCall) -> Response:
    """GET /: the account of this key."""
    account = call.account
    subscribers = sum(audience.members.counts[SUBSCRIBED] for audience in account.audiences.values())
    user = account.users[0]
    body: Json = {
        "account_id": account.id,
        "login_id": user.login,
        "account_name": account.name,
        "email": account.email,
        "username": account.name.lower().replace(" ", ""),
        "role": user.role,
        "account_timezone": account.timezone,
        "total_subscribers": subscribers,
        "_links": links(call.state.api_root + "/", "lists", "batches"),
    }
    return one(call, body)


def list_audiences(call: ApiCall) -> Response:
    """GET /lists, by creation; filters on creation date and on a member's address."""
    found = [audience for audience in call.account.audiences.values() if _wanted(call, audience)]
    if call.query.get("sort_dir") == "DESC":
        found.reverse()
    limits = {"may_create": True, "max_instances": 500, "current_total_instances": len(call.account.audiences)}
    return collection(call, "lists", found, lambda audience: show(call, audience), constraints=limits)


def read(call: ApiCall) -> Response:
    """GET /lists/{id}."""
    return one(call, show(call, call.audience))


def show(call: ApiCall, audience: EmulatedAudience) -> Json:
    """Return an audience as Mailchimp renders it."""
    own = f"{call.state.api_root}/lists/{audience.id}"
    shown: Json = {
        "id": audience.id,
        "web_id": audience.web_id,
        "name": audience.name,
        "contact": NO_CONTACT,
        "permission_reminder": "You signed up for updates from us.",
        "use_archive_bar": False,
        "campaign_defaults": NO_DEFAULTS,
        "notify_on_subscribe": "",
        "notify_on_unsubscribe": "",
        "date_created": to_wire(audience.created_at),
        "list_rating": 0,
        "email_type_option": audience.email_type_option,
        "subscribe_url_short": "",
        "subscribe_url_long": "",
        "beamer_address": "",
        "visibility": "prv",
        "double_optin": audience.double_optin,
        "has_welcome": False,
        "marketing_permissions": bool(audience.marketing_permissions),
        "modules": [],
        "stats": _stats(call, audience),
        "_links": links(own, "members", "merge-fields", "interest-categories", "segments", "webhooks"),
    }
    if is_true(call.query.get("include_total_contacts")):
        shown["stats"] = shown["stats"] | {"total_contacts": len(audience.members)}
    return shown


def bulk(call: ApiCall) -> Response:
    """POST /lists/{id}: up to 500 members at once; 200 however many of them fail."""
    check("bulk", call.request.body)
    ctx = change_context(call)
    sent = call.body["members"]
    limit = call.account.options.max_bulk_members
    if len(sent) > limit:
        raise schema_failed([field_error("members", f"Number of members exceeds the maximum of {limit}.")])
    made: dict[str, list[Any]] = {"new_members": [], "updated_members": [], "errors": []}
    view = MemberView(ctx.audience, call.state.api_root)
    seen: set[str] = set()
    for entry in sent:
        email = str(entry.get("email_address") or "").strip()
        if email.lower() in seen:
            if not is_true(call.query.get("skip_duplicate_check")):
                made["errors"].append(_error(email, "ERROR_GENERIC", f"{email} is in this request twice."))
            continue
        seen.add(email.lower())
        kind, result = _bulk_one(call, ctx, entry, email)
        made[kind].append(result if isinstance(result, dict) else _bulk_shape(view, result))
    body = {
        **made,
        "total_created": len(made["new_members"]),
        "total_updated": len(made["updated_members"]),
        "error_count": len(made["errors"]),
        "_links": links(f"{call.state.api_root}/lists/{ctx.audience.id}"),
    }
    return ok(body)


def _bulk_one(call: ApiCall, ctx: ChangeContext, entry: Json, email: str) -> tuple[str, Member | Json]:
    """Write one member of a bulk call; a refusal is an entry in ``errors``."""
    known = ctx.audience.members.find_address(email)
    if known is not None and known.status != ARCHIVED and not call.body.get("update_existing"):
        text = f"{email} is already a list member, do you want to update? please provide update_existing:true"
        return "errors", _error(email, "ERROR_CONTACT_EXISTS", text)
    try:
        return _bulk_write(call, ctx, entry, email, known)
    except Problem as problem:
        first = (problem.errors or [{}])[0]
        where = (first.get("field", ""), first.get("message", ""))
        return "errors", _error(email, "ERROR_GENERIC", problem.detail, *where)


def _bulk_write(call: ApiCall, ctx: ChangeContext, entry: Json, email: str, known: Member | None) -> tuple[str, Member]:
    if not email:
        raise fake_address(email)
    skip = call.skips_merge_validation
    names = dict.fromkeys(entry.get("tags") or (), True)
    untagged = {key: value for key, value in entry.items() if key != "tags"}
    if known is None:
        if not entry.get("status"):
            raise schema_failed([field_error("status", "Required fields were not provided: status")])
        member = membership.join(ctx, untagged, entry["status"], skip_required=skip)
    else:
        member = known
        membership.update(ctx, member, untagged, skip_required=skip)
        if call.body.get("sync_tags") and "tags" in entry:
            held = [ctx.audience.tags[key].name for key in member.tags or () if key in ctx.audience.tags]
            names = {**dict.fromkeys(held, False), **names}
    membership.set_tags(ctx, member, names)
    return ("new_members" if known is None else "updated_members"), member


def _bulk_shape(view: MemberView, member: Member) -> Json:
    """Return a member in the older shape of the bulk answer."""
    dropped = ("contact_id", "full_name", "web_id", "consents_to_one_to_one_messaging", "source", "unsubscribe_reason")
    return {key: value for key, value in view.render(member).items() if key not in dropped}


def _error(email: str, code: str, text: str, name: str = "", message: str = "") -> Json:
    return {"email_address": email, "error": text, "error_code": code, "field": name, "field_message": message}


def _wanted(call: ApiCall, audience: EmulatedAudience) -> bool:
    created = to_wire(audience.created_at)
    since, before = call.query.get("since_date_created"), call.query.get("before_date_created")
    email = call.query.get("email")
    return (
        (not since or created > since)
        and (not before or created < before)
        and (not email or audience.members.find_address(email) is not None)
    )


def _stats(call: ApiCall, audience: EmulatedAudience) -> Json:
    """Return the counts, up to ``stats_lag_s`` old."""
    now = call.state.clock.now()
    if audience.cached_stats and 0 <= now - audience.cached_stats[0] < call.account.options.stats_lag_s:
        return audience.cached_stats[1]
    counts = audience.members.counts
    stats: Json = {
        "member_count": counts[SUBSCRIBED],
        "unsubscribe_count": counts[UNSUBSCRIBED],
        "cleaned_count": counts[CLEANED],
        "member_count_since_send": counts[SUBSCRIBED],
        "unsubscribe_count_since_send": 0,
        "cleaned_count_since_send": 0,
        "campaign_count": 0,
        "campaign_last_sent": "",
        "merge_field_count": len(audience.merge_fields),
        "avg_sub_rate": 0,
        "avg_unsub_rate": 0,
        "target_sub_rate": 0,
        "open_rate": 0,
        "click_rate": 0,
        "last_sub_date": to_wire(audience.last_sub_at),
        "last_unsub_date": to_wire(audience.last_unsub_at),
    }
    audience.cached_stats = (now, stats)
    return stats
