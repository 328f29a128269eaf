"""What fills an audience's merge fields: ``/civicrm/mailchimpsync/config/fields?list_id=…``.

The table has Mailchimp's merge fields as they are now (``Mailchimpsync.getmergefields``), each with a list of sources;
saving is ``setmergefields``, called as the user. The form carries the digest of the configuration it was filled in
from, so that a rule that was stored meanwhile is not replaced unseen.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from civiapi.http import forms
from civiapi.ui.config.link import KEPT
from civiapi.ui.config.model import AudienceView, StoredConfig, read_stored
from civiapi.ui.config.pages import CHANGED, GONE, done, show_index
from civiapi.ui.core.page import CallFailed, PageRequest
from sync.connections.config_values import as_map

PATH = "/civicrm/mailchimpsync/config/fields"
PERMISSION = "administer CiviCRM"
FIXED = "text:"
TYPES = {
    "text": "text", "number": "number", "address": "address", "phone": "phone number", "date": "date", "url": "website",
    "imageurl": "image", "radio": "choice", "dropdown": "choice", "birthday": "birthday", "zip": "zip code",
}  # fmt: skip


async def form(page: PageRequest) -> web.Response:
    """The table, filled in from the stored rules."""
    stored = await read_stored(page)
    audience = _audience(page, stored)
    if audience is None or audience.connection is None:
        return await show_index(page, GONE, 409)
    try:
        shown = await page.api_values("Mailchimpsync", "getmergefields", {"group_id": audience.connection.group_id})
    except CallFailed as failed:
        return await show_index(page, failed.message, 422)
    return _show(page, stored, audience, shown)


async def submit(page: PageRequest) -> web.Response:
    """Store the rules of the table."""
    stored = await read_stored(page)
    audience = _audience(page, stored)
    if audience is None or audience.connection is None:
        return await show_index(page, GONE, 409)
    if stored.digest != page.field("digest"):
        return await _show_entered(page, stored, audience, CHANGED + KEPT, 409)
    group_id, rules = audience.connection.group_id, _read(page)
    asked = {"group_id": group_id, "rules": orjson.dumps(rules).decode(), "names": int(bool(page.field("names")))}
    try:
        await page.call_api("Mailchimpsync", "setmergefields", asked)
    except CallFailed as failed:
        return await _show_entered(page, stored, audience, failed.message, 422)
    return done(page, "fields", list_id=audience.id)


def _audience(page: PageRequest, stored: StoredConfig) -> AudienceView | None:
    found = stored.find_audience(page.field("list_id"))
    return found[1] if found else None


async def _show_entered(
    page: PageRequest, stored: StoredConfig, audience: AudienceView, wrong: str, status: int
) -> web.Response:
    """The table again, with what was entered."""
    assert audience.connection is not None  # noqa: S101  the callers looked
    try:
        asked = {"group_id": audience.connection.group_id}
        shown = await page.api_values("Mailchimpsync", "getmergefields", asked)
    except CallFailed as failed:
        return await show_index(page, failed.message, 422)
    rules = _read(page)
    entered = [{**one, **rules.get(one["tag"], {"source": "", "clear": 0})} for one in shown["fields"]]
    found = {**shown, "fields": entered, "names": bool(page.field("names"))}
    return _show(page, stored, audience, found, wrong, status)


def _read(page: PageRequest) -> dict[str, dict[str, Any]]:
    """The rules of the form by tag; rows without a source are left out."""
    sources, texts, clear = (as_map(page.incoming.fields.get(name)) for name in ("source", "text", "clear"))
    found = {}
    for tag in sources:
        source = forms.scalar(sources, tag)
        if source == FIXED:
            source += forms.scalar(texts, tag).strip()
        if source:
            found[tag] = {"source": source, "clear": int(bool(forms.scalar(clear, tag)))}
    return found


def _show(
    page: PageRequest,
    stored: StoredConfig,
    audience: AudienceView,
    shown: Mapping[str, Any],
    wrong: str = "",
    status: int = 200,
) -> web.Response:
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for one in shown["sources"]:
        kinds.setdefault(one["kind"], []).append(one)
    return page.render(
        "config/fields.html",
        status,
        audience=audience,
        digest=stored.digest,
        fields=shown["fields"],
        names=shown["names"],
        kinds=kinds,
        known={one["source"] for one in shown["sources"]},
        types=TYPES,
        fixed=FIXED,
        wrong=wrong,
        path=PATH,
    )


ROUTES = (("GET", PATH, form), ("POST", PATH, submit))
