"""Webhooks as data: event bodies, which webhooks get them, retries, and when a webhook is disabled.

Nothing is sent here: the server sends due deliveries and records their status.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import urlencode

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.member_index import email_id, unique_email_id
from sync.emulator.model.records import Batch, Delivery, EmulatedAccount, Hook, Member
from sync.emulator.model.state import EmulatorState

Fields = list[tuple[str, str]]


def announce(
    state: EmulatorState, account: EmulatedAccount, audience: EmulatedAudience, kind: str, source: str, data: Fields
) -> None:
    """Queue event *kind* for every webhook of the audience that is set to it and to *source* (user, admin, api)."""
    for hook in audience.hooks.values():
        wanted = hook.events.get(kind, False) and hook.sources.get(source, False)
        if wanted and hook.enabled:
            queue(state, account, hook, kind, [*data, ("list_id", audience.id)])


def announce_batch(state: EmulatorState, account: EmulatedAccount, batch: Batch, results_url: str) -> None:
    """Queue the event that *batch* is finished for every batch webhook of the account."""
    data = [
        ("id", batch.id),
        ("submitted_at", _stamp(batch.submitted_at)),
        ("completed_at", _stamp(batch.completed_at)),
        ("total_operations", str(batch.total)),
        ("finished_operations", str(batch.finished)),
        ("errored_operations", str(batch.errored)),
        ("response_body_url", results_url),
    ]
    for hook in account.batch_hooks.values():
        if hook.enabled:
            queue(state, account, hook, "batch_operation_completed", data)


def queue(state: EmulatorState, account: EmulatedAccount, hook: Hook, kind: str, data: Fields) -> None:
    """Queue one delivery, or two with the option `webhook_duplicates`."""
    now = state.clock.now()
    pairs = [("type", kind), ("fired_at", _stamp(now)), *((_bracketed(name), value) for name, value in data)]
    body = urlencode(pairs)
    for _ in range(2 if account.options.webhook_duplicates else 1):
        number = state.next_number()
        secret = hook.signing_secret
        state.enqueue(Delivery(number, account.id, hook.id, hook.url, body, now, now, secret))


def profile_data(audience: EmulatedAudience, member: Member) -> Fields:
    """Return ``data`` of subscribe, unsubscribe and profile."""
    held = [one for one in audience.interests().values() if one.id in member.interests]
    names = ", ".join(one.name for one in held)
    data = [
        ("id", unique_email_id(member)),
        ("email", member.email),
        ("email_type", member.email_type),
        ("ip_opt", member.ip_opt),
        ("web_id", str(audience.members.web_id(member))),
        ("merges.EMAIL", member.email),
    ]
    if member.ip_signup:
        data.append(("ip_signup", member.ip_signup))
    for tag in audience.empty_merges():
        data += _merge_pairs(f"merges.{tag}", member.merges.get(tag, ""))
    if audience.categories:
        data.append(("merges.INTERESTS", names))
        data += _groupings(audience, member)
    return data


def unsubscribe_data(
    audience: EmulatedAudience, member: Member, action: str, reason: str, campaign_id: str = ""
) -> Fields:
    """Return ``data`` of unsubscribe: *action* is unsub or delete, *reason* manual or abuse."""
    data = [("action", action), ("reason", reason), *profile_data(audience, member)]
    return [*data, ("campaign_id", campaign_id)] if campaign_id else data


def upemail_data(old: str, new: str) -> Fields:
    """Return ``data`` of upemail, which has no ``email``."""
    return [("new_id", email_id(new)), ("new_email", new), ("old_email", old)]


def cleaned_data(member: Member, reason: str, campaign_id: str = "") -> Fields:
    """Return ``data`` of cleaned: *reason* is hard or abuse."""
    return [("campaign_id", campaign_id), ("reason", reason), ("email", member.email)]


def signature(secret: str, at: int, body: str) -> str:
    """Return the value of ``X-Mailchimp-Signature``: HMAC-SHA256 over time and raw body."""
    digest = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def due(state: EmulatorState, *, everything: bool = False) -> list[Delivery]:
    """Return the queued deliveries that are due (or all), shuffled with the option `webhook_shuffle`."""
    now = state.clock.now()
    found = [one for one in state.queued.values() if one.state == "queued" and (everything or one.due_at <= now)]
    shuffled = [one for one in found if state.account(one.account_id).options.webhook_shuffle]
    if shuffled:
        state.rng.shuffle(shuffled)
        kept = iter(shuffled)
        names = {one.id for one in shuffled}
        found = [next(kept) if one.id in names else one for one in found]
    return found


def settle(state: EmulatorState, delivery: Delivery, status: int) -> None:
    """Record the outcome of a try: its HTTP status, 0 for no answer in time.

    A failed try is repeated after the next gap; after the last gap the webhook is disabled without notice.
    """
    delivery.attempts += 1
    delivery.last_status = status
    account = state.account(delivery.account_id)
    if 200 <= status < 300:
        delivery.state = "delivered"
        state.queued.pop(delivery.id, None)
        return
    gaps = account.options.webhook_retry_gaps
    if delivery.attempts <= len(gaps):
        delivery.state, delivery.due_at = "queued", state.clock.now() + gaps[delivery.attempts - 1]
        return
    delivery.state = "failed"
    state.queued.pop(delivery.id, None)
    if (hook := find_hook(account, delivery.hook_id)) is not None:
        hook.enabled, hook.disabled_by_failures = False, True


def find_hook(account: EmulatedAccount, hook_id: str) -> Hook | None:
    """Return the webhook with this id, of an audience or of the account."""
    everywhere: Iterable[dict[str, Hook]] = [a.hooks for a in account.audiences.values()]
    return next((hooks[hook_id] for hooks in [account.batch_hooks, *everywhere] if hook_id in hooks), None)


def _merge_pairs(name: str, value: object) -> Fields:
    if isinstance(value, dict):
        return [(f"{name}.{part}", str(inner)) for part, inner in value.items()]
    return [(name, str(value))]


def _groupings(audience: EmulatedAudience, member: Member) -> Fields:
    pairs: Fields = []
    for number, category in enumerate(audience.categories.values()):
        held = [one.name for key, one in category.interests.items() if key in member.interests]
        name = f"merges.GROUPINGS.{number}"
        pairs += [(f"{name}.id", str(number + 1)), (f"{name}.unique_id", category.id)]
        pairs += [(f"{name}.name", category.title), (f"{name}.groups", ", ".join(held))]
    return pairs


def _bracketed(name: str) -> str:
    """Return PHP's nested key for a dotted name: ``data[merges][FNAME]``."""
    return "data" + "".join(f"[{step}]" for step in name.split("."))


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
