"""Linking one audience with a group, and its interests with groups: ``/civicrm/mailchimpsync/config/link``.

A group that is not there yet is made on the spot, by ``Group.create``. The form carries the digest of the configuration
it was filled in over: what somebody else saved meanwhile is never overwritten unseen.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from civiapi.adapters import forms
from civiapi.ui.config import CHANGED, GONE, done, show_index
from civiapi.ui.config_view import Audience, Stored, as_map, read_stored, save
from civiapi.ui.visit import CallFailed, Visit

PATH = "/civicrm/mailchimpsync/config/link"
PERMISSION = "administer CiviCRM"
NEW = "new"
SUBSCRIPTION = "subscription"
NO_GROUP = "Choose the group that mirrors this audience, or make one."
NO_TITLE = "Give the new group a name."
NO_NUMBER = "A limit of the brake is a number that is not negative, or empty."
BRAKE = {
    "percent": ("Stop before removing more than this share of the group or the audience, in percent", "brake_percent"),
    "people": ("… and more than this many people", "brake_people"),
    "additions": ("Stop before adding more than this many members at Mailchimp", "brake_additions"),
}
LIMIT = re.compile(r"\d{1,8}(\.\d{1,4})?", re.ASCII)
KEPT = " What you had entered stands in the form: save it to put it over what is stored."


@dataclass(frozen=True, slots=True)
class Choice:
    """What stands in the form: group ids as text, ``new`` for one to be made, ``""`` for none."""

    group: str
    title: str
    interests: Mapping[str, str] = field(default_factory=dict)
    trust: Mapping[str, str] = field(default_factory=dict)
    brake: Mapping[str, str] = field(default_factory=dict)


async def form(visit: Visit) -> web.Response:
    """The form, filled in with what is stored."""
    stored = await read_stored(visit)
    found = stored.find_audience(visit.field("list_id"))
    if found is None:
        return await show_index(visit, GONE, 409)
    return await _show(visit, stored, found[1], _stored_choice(found[1]))


async def submit(visit: Visit) -> web.Response:
    """Make the groups that are wanted new, and save the connection."""
    stored = await read_stored(visit)
    found = stored.find_audience(visit.field("list_id"))
    if found is None:
        return await show_index(visit, GONE, 409)
    account, audience = found
    chosen = _read(visit, audience)
    if stored.digest != visit.field("digest"):
        return await _show(visit, stored, audience, chosen, CHANGED + KEPT, 409)
    if problem := _problem(chosen):
        return await _show(visit, stored, audience, chosen, problem, 422)
    is_first = not any(one.linked for one in stored.accounts)
    try:
        chosen = await _with_groups(visit, audience, chosen)
        link = _link(stored, audience, chosen) | {"apiKey": stored.find_key(account.id)}
        lists = stored.lists | {audience.id: link}
        await save(visit, stored.changed(lists=lists), stored.digest)
    except _Unmade as failed:
        return await _show(visit, stored, audience, failed.chosen, failed.message, 422)
    except CallFailed as failed:
        now = await read_stored(visit)
        words = failed.message if now.digest == stored.digest else CHANGED + KEPT
        return await _show(visit, now, audience, chosen, words, 422)
    return done(visit, "first-link" if is_first else "linked", list_id=audience.id)


class _Unmade(Exception):
    """A group could not be made; ``chosen`` has those that were."""

    def __init__(self, message: str, chosen: Choice) -> None:
        super().__init__(message)
        self.message = message
        self.chosen = chosen


def new_title(audience: Audience, interest_id: str) -> str:
    """What a group made for an interest is called."""
    return f"{audience.name}: {audience.interests[interest_id]}"[:255]


def _stored_choice(audience: Audience) -> Choice:
    link = audience.connection
    if link is None:
        return Choice(NEW, audience.name)
    return Choice(link.group_id, audience.name, link.interests, link.trust, link.brake)


def _read(visit: Visit, audience: Audience) -> Choice:
    interests, trust, brake = (as_map(visit.incoming.fields.get(name)) for name in ("interest", "trust", "brake"))
    chosen = {one: forms.scalar(interests, one) for one in audience.interests}
    sides = {one: forms.scalar(trust, one) for one in (SUBSCRIPTION, *audience.interests)}
    return Choice(
        visit.field("group"),
        visit.field("title").strip(),
        {one: group for one, group in chosen.items() if group},
        {one: side for one, side in sides.items() if side},
        {one: limit for one in BRAKE if (limit := forms.scalar(brake, one).strip())},
    )


def _problem(chosen: Choice) -> str:
    if not chosen.group:
        return NO_GROUP
    if chosen.group == NEW and not chosen.title:
        return NO_TITLE
    return "" if all(LIMIT.fullmatch(one) for one in chosen.brake.values()) else NO_NUMBER


async def _with_groups(visit: Visit, audience: Audience, chosen: Choice) -> Choice:
    """The choice with ids of groups made for what is ``new`` in it. Raises ``_Unmade``."""
    try:
        if chosen.group == NEW:
            chosen = replace(chosen, group=await _make_group(visit, chosen.title))
        for interest_id, group in chosen.interests.items():
            if group == NEW:
                made = await _make_group(visit, new_title(audience, interest_id))
                chosen = replace(chosen, interests={**chosen.interests, interest_id: made})
    except CallFailed as failed:
        raise _Unmade(f"The group could not be made: {failed.message}", chosen) from failed
    return chosen


async def _make_group(visit: Visit, title: str) -> str:
    made = await visit.ask("Group", "create", {"title": title, "group_type": ["Mailing List"]})
    return str(made["id"])


def _link(stored: Stored, audience: Audience, chosen: Choice) -> dict[str, Any]:
    """The link as it is to be stored; what the form knows nothing of stays."""
    link = dict(as_map(stored.lists.get(audience.id)))
    link |= {"subscriptionGroup": chosen.group, "interests": dict(chosen.interests)}
    for name, given in (("trustOverride", chosen.trust), ("brake", chosen.brake)):
        if given or link.get(name):
            link[name] = dict(given)
    return link


async def _show(
    visit: Visit, stored: Stored, audience: Audience, chosen: Choice, wrong: str = "", status: int = 200
) -> web.Response:
    taken = {
        group: other.name
        for account in stored.accounts
        for other in account.linked
        if other.connection and other.id != audience.id
        for group in (other.connection.group_id, *other.connection.interests.values())
    }
    return visit.show(
        "config_link.html",
        status,
        audience=audience,
        chosen=chosen,
        groups=await _ordinary_groups(visit),
        taken=taken,
        brakes=BRAKE,
        titles={one: new_title(audience, one) for one in audience.interests},
        digest=stored.digest,
        wrong=wrong,
        path=PATH,
    )


async def _ordinary_groups(visit: Visit) -> list[dict[str, Any]]:
    """Groups that people can be added to, by title: not smart, not hidden, in use."""
    asked = {"is_active": 1, "is_hidden": 0, "saved_search_id": {"IS NULL": 1}, "return": ["id", "title"]}
    options = {"limit": 0, "sort": "title"}
    found: list[dict[str, Any]] = (await visit.ask("Group", "get", {**asked, "options": options, "sequential": 1}))[
        "values"
    ]
    return found


ROUTES = (("GET", PATH, form), ("POST", PATH, submit))
