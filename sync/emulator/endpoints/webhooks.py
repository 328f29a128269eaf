"""Webhook endpoints: those of an audience, and the account's batch webhooks.

The server makes the GET that Mailchimp sends to a URL before registering it, when `url_to_check` says so.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.records import Hook, Json
from sync.emulator.protocol.exchange import ApiCall, Response, links, no_content, ok
from sync.emulator.protocol.paging import collection, one
from sync.emulator.protocol.problems import (
    TOO_MANY_BATCH_WEBHOOKS,
    URL_NOT_ANSWERING,
    field_error,
    invalid,
    not_found,
    schema_failed,
)
from sync.emulator.protocol.schemas import check

MAX_BATCH_HOOKS = 20
EVENTS = ("subscribe", "unsubscribe", "profile", "cleaned", "upemail", "campaign")
SOURCES = ("user", "admin", "api")


def list_hooks(call: ApiCall) -> Response:
    """GET an audience's webhooks, ten at a time unless asked otherwise."""
    audience = call.audience
    enabled = [hook for hook in audience.hooks.values() if hook.enabled]
    return collection(call, "webhooks", enabled, lambda hook: show(call, audience, hook), list_id=audience.id)


def create(call: ApiCall) -> Response:
    """POST a webhook; events and sources that are not sent are on."""
    check("hook_create", call.request.body)
    audience = call.audience
    url = _checked_url(call, [hook for hook in audience.hooks.values() if hook.enabled])
    hook = Hook(call.state.new_id(), url, audience.id)
    hook.events = _flags(EVENTS, call.body.get("events"))
    hook.sources = _flags(SOURCES, call.body.get("sources"))
    audience.hooks[hook.id] = hook
    body = show(call, audience, hook)
    if call.account.options.webhook_signing:
        hook.signing_secret = call.state.new_id(32)
        body["signing_secret"] = hook.signing_secret
    return ok(body)


def read(call: ApiCall) -> Response:
    """GET one webhook."""
    return ok(show(call, call.audience, _hook_of(call)))


def change(call: ApiCall) -> Response:
    """PATCH a webhook: flags that are not sent stay."""
    check("hook_change", call.request.body)
    hook = _hook_of(call)
    if "url" in call.body and call.body["url"] != hook.url:
        hook.url = _checked_url(call, [other for other in call.audience.hooks.values() if other.enabled])
    hook.events |= call.body.get("events") or {}
    hook.sources |= call.body.get("sources") or {}
    return ok(show(call, call.audience, hook))


def delete(call: ApiCall) -> Response:
    """DELETE a webhook."""
    del call.audience.hooks[_hook_of(call).id]
    return no_content()


def show(call: ApiCall, audience: EmulatedAudience, hook: Hook) -> Json:
    """Return a webhook as Mailchimp shows it: the URL with its secret in clear."""
    return {
        "id": hook.id,
        "url": hook.url,
        "events": dict(hook.events),
        "sources": dict(hook.sources),
        "list_id": audience.id,
        "_links": links(f"{_root(call, audience)}/{hook.id}"),
    }


def list_batch_hooks(call: ApiCall) -> Response:
    """GET the account's batch webhooks."""
    return collection(call, "webhooks", _current(call), lambda hook: show_batch_hook(call, hook))


def create_batch_hook(call: ApiCall) -> Response:
    """POST a batch webhook; the 21st is refused."""
    check("batch_hook_create", call.request.body)
    if len(_current(call)) >= MAX_BATCH_HOOKS:
        raise invalid(TOO_MANY_BATCH_WEBHOOKS)
    hook = Hook(call.state.new_id(), _checked_url(call, _current(call)), enabled=call.body.get("enabled", True))
    call.account.batch_hooks[hook.id] = hook
    return one(call, show_batch_hook(call, hook))


def read_batch_hook(call: ApiCall) -> Response:
    """GET one batch webhook."""
    return one(call, show_batch_hook(call, _batch_hook_of(call)))


def change_batch_hook(call: ApiCall) -> Response:
    """PATCH a batch webhook's URL or whether it is enabled."""
    check("batch_hook_change", call.request.body)
    hook = _batch_hook_of(call)
    if "url" in call.body and call.body["url"] != hook.url:
        hook.url = _checked_url(call, _current(call))
    hook.enabled = call.body.get("enabled", hook.enabled)
    return one(call, show_batch_hook(call, hook))


def delete_batch_hook(call: ApiCall) -> Response:
    """DELETE a batch webhook."""
    del call.account.batch_hooks[_batch_hook_of(call).id]
    return no_content()


def show_batch_hook(call: ApiCall, hook: Hook) -> Json:
    """Return a batch webhook as Mailchimp shows it."""
    href = f"{call.state.api_root}/batch-webhooks/{hook.id}"
    return {"id": hook.id, "url": hook.url, "enabled": hook.enabled, "_links": links(href)}


def url_to_check(method: str, path: str, body: object) -> str:
    """Return the URL that must answer a GET before this request is carried out; ``""`` when there is none."""
    steps = path.strip("/").split("/")
    ours = steps[0] == "batch-webhooks" or (len(steps) > 2 and steps[0] == "lists" and steps[2] == "webhooks")
    url = body.get("url") if isinstance(body, dict) else None
    return url if ours and method in ("POST", "PATCH") and _is_url(url) and isinstance(url, str) else ""


def _is_url(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _checked_url(call: ApiCall, others: list[Hook]) -> str:
    url = call.body["url"]
    if not _is_url(url):
        raise schema_failed([field_error("url", "The URL is not valid.")])
    if any(other.url == url for other in others):
        raise schema_failed([field_error("url", "Sorry, you can't set up multiple WebHooks for one URL")])
    if not call.request.url_answers:
        raise schema_failed([field_error("url", URL_NOT_ANSWERING)])
    return str(url)


def _flags(names: tuple[str, ...], sent: dict[str, bool] | None) -> dict[str, bool]:
    """Nothing sent: all on; something sent: what it does not name is off."""
    return dict.fromkeys(names, True) if sent is None else {name: sent.get(name, False) for name in names}


def _hook_of(call: ApiCall) -> Hook:
    hook = call.audience.hooks.get(call.ids[1])
    if hook is None or not hook.enabled:
        raise not_found()
    return hook


def _current(call: ApiCall) -> list[Hook]:
    return [hook for hook in call.account.batch_hooks.values() if not hook.disabled_by_failures]


def _batch_hook_of(call: ApiCall) -> Hook:
    hook = call.account.batch_hooks.get(call.ids[0])
    if hook is None or hook.disabled_by_failures:
        raise not_found()
    return hook


def _root(call: ApiCall, audience: EmulatedAudience) -> str:
    return f"{call.state.api_root}/lists/{audience.id}/webhooks"
