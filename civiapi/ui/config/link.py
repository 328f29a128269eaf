"""Linking one audience with a group, and its interests with groups: ``/civicrm/mailchimpsync/config/link``.

New groups are created with ``Group.create``. The form carries the digest of the configuration it was filled in from, so
that a concurrent change is never overwritten unseen.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from civiapi.http import forms
from civiapi.ui.config.model import AudienceView, StoredConfig, read_stored, save
from civiapi.ui.config.pages import CHANGED, GONE, done, show_index
from civiapi.ui.core.page import CallFailed, PageRequest
from sync.audience import is_permission
from sync.connections.config_values import as_map, interests_apart

PATH = "/civicrm/mailchimpsync/config/link"
PERMISSION = "administer CiviCRM"
NEW = "new"
SUBSCRIPTION = "subscription"
NO_GROUP = "Choose the group that mirrors this audience, or create one."
NO_TITLE = "Give the new group a name."
NO_NUMBER = "A limit of the brake must be empty or a number of at least 0."
BRAKE = {
    "percent": ("Stop before removing more than this share of the group or the audience, in percent", "brake_percent"),
    "people": ("… and more than this many people", "brake_people"),
    "additions": ("Stop before adding more than this many members at Mailchimp", "brake_additions"),
    "data": ("Stop before new rules change merge fields of more than this share of the members, in percent",
             "brake_data_percent"),
}  # fmt: skip
SECTIONS = {
    False: (
        "Interests",
        "Each interest of the audience can have its own group: people who select it at Mailchimp are added to that "
        "group, and vice versa.",
    ),
    True: (
        "Marketing permissions",
        "Each permission of an audience with GDPR fields can have its own group: people who give it at Mailchimp are "
        "added to that group, and people in the group are given it at Mailchimp, also those who are newly subscribed. "
        "Link only a group of people who gave this permission. One that is not linked is never given.",
    ),
}
"""What can be linked with groups besides the subscription, by whether it is permissions: title, help."""
SYSTEM_GROUPS = ("Administrators",)
"""Names of groups that CiviCRM makes for itself."""

MAX_COUNTED = 50
LIMIT = re.compile(r"\d{1,8}(\.\d{1,4})?", re.ASCII)
KEPT = " The form still has what you entered; saving it replaces what is stored."


@dataclass(frozen=True, slots=True)
class Choice:
    """The values of the form: group ids as text, ``new`` for a group to be created, ``""`` for none."""

    group: str
    title: str
    interests: Mapping[str, str] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)
    brake: Mapping[str, str] = field(default_factory=dict)
    leavers: str = ""
    """What becomes of who leaves a smart group."""


async def form(page: PageRequest) -> web.Response:
    """The form, filled in from the stored configuration."""
    stored = await read_stored(page)
    found = stored.find_audience(page.field("list_id"))
    if found is None:
        return await show_index(page, GONE, 409)
    return await _show(page, stored, found[1], _stored_choice(found[1]))


async def submit(page: PageRequest) -> web.Response:
    """Create the new groups and save the connection."""
    stored = await read_stored(page)
    found = stored.find_audience(page.field("list_id"))
    if found is None:
        return await show_index(page, GONE, 409)
    account, audience = found
    chosen = _read(page, audience)
    if stored.digest != page.field("digest"):
        return await _show(page, stored, audience, chosen, CHANGED + KEPT, 409)
    if problem := _problem(chosen):
        return await _show(page, stored, audience, chosen, problem, 422)
    is_first = not any(one.linked for one in stored.accounts)
    try:
        chosen = await _with_groups(page, audience, chosen)
        link = _link(stored, audience, chosen) | {"apiKey": stored.find_key(account.id)}
        lists = stored.lists | {audience.id: link}
        await save(page, stored.changed(lists=lists), stored.digest)
    except _GroupNotCreated as failed:
        return await _show(page, stored, audience, failed.chosen, failed.message, 422)
    except CallFailed as failed:
        now = await read_stored(page)
        message = failed.message if now.digest == stored.digest else CHANGED + KEPT
        return await _show(page, now, audience, chosen, message, 422)
    return done(page, "first-link" if is_first else "linked", list_id=audience.id)


class _GroupNotCreated(Exception):
    """A group could not be created; ``chosen`` has the ids of those that were."""

    def __init__(self, message: str, chosen: Choice) -> None:
        super().__init__(message)
        self.message = message
        self.chosen = chosen


def new_title(audience: AudienceView, interest_id: str) -> str:
    """The title of a group created for an interest."""
    return f"{audience.name}: {audience.interests[interest_id]}"[:255]


def _stored_choice(audience: AudienceView) -> Choice:
    link = audience.connection
    if link is None:
        return Choice(NEW, audience.name)
    return Choice(link.group_id, audience.name, link.interests, link.trust, link.brake, link.leavers)


def _read(page: PageRequest, audience: AudienceView) -> Choice:
    interests, trust, brake = (as_map(page.incoming.fields.get(name)) for name in ("interest", "trust", "brake"))
    chosen = {one: forms.scalar(interests, one) for one in audience.interests}
    sides = {one: forms.scalar(trust, one) for one in (SUBSCRIPTION, *audience.interests)}
    return Choice(
        page.field("group"),
        page.field("title").strip(),
        {one: group for one, group in chosen.items() if group},
        {one: side for one, side in sides.items() if side},
        {one: limit for one in BRAKE if (limit := forms.scalar(brake, one).strip())},
        page.field("leavers"),
    )


def _problem(chosen: Choice) -> str:
    if not chosen.group:
        return NO_GROUP
    if chosen.group == NEW and not chosen.title:
        return NO_TITLE
    return "" if all(LIMIT.fullmatch(one) for one in chosen.brake.values()) else NO_NUMBER


async def _with_groups(page: PageRequest, audience: AudienceView, chosen: Choice) -> Choice:
    """Create the groups that are ``new`` in the choice and put in their ids. Raises ``_GroupNotCreated``."""
    try:
        if chosen.group == NEW:
            chosen = replace(chosen, group=await _create_group(page, chosen.title))
        for interest_id, group in chosen.interests.items():
            if group == NEW:
                made = await _create_group(page, new_title(audience, interest_id))
                chosen = replace(chosen, interests={**chosen.interests, interest_id: made})
    except CallFailed as failed:
        raise _GroupNotCreated(f"The group could not be created: {failed.message}", chosen) from failed
    return chosen


async def _create_group(page: PageRequest, title: str) -> str:
    made = await page.call_api("Group", "create", {"title": title, "group_type": ["Mailing List"]})
    return str(made["id"])


def _link(stored: StoredConfig, audience: AudienceView, chosen: Choice) -> dict[str, Any]:
    """The link to store; keys that the form does not have stay."""
    link = dict(as_map(stored.lists.get(audience.id)))
    parts = interests_apart(chosen.interests)
    link |= {"subscriptionGroup": chosen.group, "interests": parts["interests"]}
    if parts["permissions"] or link.get("permissions"):
        link["permissions"] = parts["permissions"]
    for name, given in (("trustOverride", chosen.trust), ("brake", chosen.brake)):
        if given or link.get(name):
            link[name] = dict(given)
    if chosen.leavers or link.get("oneWayLeavers"):
        link["oneWayLeavers"] = chosen.leavers
    return link


async def _show(
    page: PageRequest, stored: StoredConfig, audience: AudienceView, chosen: Choice, wrong: str = "", status: int = 200
) -> web.Response:
    taken = {
        group: other.name
        for account in stored.accounts
        for other in account.linked
        if other.connection and other.id != audience.id
        for group in (other.connection.group_id, *other.connection.interests.values())
    }
    return page.render(
        "config/link.html",
        status,
        audience=audience,
        chosen=chosen,
        groups=await _ordinary_groups(page),
        smart_groups=await _smart_groups(page),
        taken=taken,
        brakes=BRAKE,
        limits={name: _limit_text(name, getattr(page.site.sync, setting)) for name, (_, setting) in BRAKE.items()},
        titles={one: new_title(audience, one) for one in audience.interests},
        sections=[
            (title, help_text, [one for one in audience.interests if is_permission(one) is wanted])
            for wanted, (title, help_text) in SECTIONS.items()
        ],
        digest=stored.digest,
        wrong=wrong,
        path=PATH,
    )


def _limit_text(name: str, limit: float) -> str:
    """A limit of the settings file, as the form shows it."""
    if not limit and name != "people":
        return "no limit"
    return f"{limit:g} %" if name in ("percent", "data") else f"{limit:,.0f}"


async def _ordinary_groups(page: PageRequest) -> list[dict[str, Any]]:
    """Groups that contacts can be added to, by title, with ``people`` in them and whether they are CiviCRM's own.

    Smart, hidden and inactive ones are left out. Of many groups the people are not counted (None).
    """
    asked = {"is_active": 1, "is_hidden": 0, "saved_search_id": {"IS NULL": 1}}
    options = {"limit": 0, "sort": "title"}
    groups = await page.rows("Group", {**asked, "options": options, "return": ["id", "title", "name", "is_reserved"]})
    for one in groups:
        one["is_system"] = str(one["is_reserved"]) == "1" or one["name"] in SYSTEM_GROUPS
        counted = {"group_id": one["id"], "status": "Added"}
        answer = await page.call_api("GroupContact", "getcount", counted) if len(groups) <= MAX_COUNTED else None
        one["people"] = answer["result"] if isinstance(answer, dict) else answer
    return groups


async def _smart_groups(page: PageRequest) -> list[dict[str, Any]]:
    """Smart groups, which can be sources, by title."""
    asked = {"is_active": 1, "is_hidden": 0, "saved_search_id": {"IS NOT NULL": 1}}
    return await page.rows("Group", {**asked, "options": {"limit": 0, "sort": "title"}, "return": ["id", "title"]})


ROUTES = (("GET", PATH, form), ("POST", PATH, submit))
