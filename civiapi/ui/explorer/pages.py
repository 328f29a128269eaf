"""The API explorer at ``/civicrm/api3``: the reference, and a form that builds a call and sends it.

The page's script sends the call to ``/civicrm/ajax/rest`` with the user's session. Nothing here calls the API: this
module reads parameters from the form and renders samples of the request.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aiohttp import web

from civiapi.api.declaration.reference import COMMON, ActionPage, EntityPage, as_data, make_reference
from civiapi.api.declaration.spec import Registry
from civiapi.api.errors import NoSuchAction
from civiapi.http import forms
from civiapi.ui.core.page import Page, PageRequest
from civiapi.ui.explorer.samples import SECRET_NAMES, samples

PATH = "/civicrm/api3"
PERMISSION = "administer CiviCRM"
HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
MAX_DEPTH = 50  # nesting of a value
MAX_NUMBER = 2**63
MAX_LENGTH = 200_000  # characters of one parameter


class BadForm(ValueError):
    """The form does not contain valid parameters; the text says why."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The form: texts as entered, and the parameters read from them."""

    texts: Mapping[str, str]
    more: str
    params: Mapping[str, Any]
    wrong: str = ""


class Explorer:
    """The pages of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @cached_property
    def _reference(self) -> tuple[EntityPage, ...]:
        return make_reference(self._registry)  # at the first page: it takes 20 ms, and few servers show one

    @cached_property
    def _pages(self) -> dict[str, EntityPage]:
        return {one.name: one for one in self._reference}

    @cached_property
    def _actions(self) -> dict[str, list[str]]:
        return {one.name: [action.name for action in one.actions] for one in self._reference}

    def routes(self) -> tuple[tuple[str, str, Page], ...]:
        """Method, path and page of each."""
        return (
            ("GET", PATH, self.index),
            ("GET", f"{PATH}/reference.json", self.data),
            ("GET", PATH + "/{entity}", self.entity),
            ("GET", PATH + "/{entity}/{action}", self.action),
            ("POST", PATH + "/{entity}/{action}", self.action),
        )

    async def index(self, page: PageRequest) -> web.Response:
        """All entities; with ``entity`` and ``action`` in the query, a redirect to their page."""
        if not (wanted := page.field("entity")):
            return self._show(page, "explorer/index.html")
        entity = self._registry.find_entity(wanted)
        if entity is None:
            return _unknown(page, f"There is no entity {wanted[:64]}.")
        action = self._pages[entity.name].find_action(page.field("action").lower())
        return page.redirect(f"{PATH}/{entity.name}/{action.name}" if action else f"{PATH}/{entity.name}")

    async def data(self, page: PageRequest) -> web.Response:
        """The whole reference as JSON."""
        return page.json({"entities": as_data(self._reference), "common": as_common()})

    async def entity(self, page: PageRequest) -> web.Response:
        """One entity with all its actions."""
        name = page.request.match_info["entity"]
        entity = self._registry.find_entity(name)
        if entity is None:
            return _unknown(page, f"There is no entity {name[:64]}.")
        return self._show(page, "explorer/entity.html", entity=self._pages[entity.name])

    async def action(self, page: PageRequest) -> web.Response:
        """One action with its form and samples of the call; for the script (JSON) only parameters and samples."""
        try:
            entity, action = self._find(page)
        except NoSuchAction as error:
            return _unknown(page, error.message)
        filled = read_form(action, page.incoming.fields if not page.incoming.is_get else {})
        rendered = samples(_base_url(page), entity.name, action.name, filled.params)
        if page.wants_json:
            if filled.wrong:
                return page.json({"error": filled.wrong}, 422)
            texts = {sample.name: sample.text for sample in rendered}
            return page.json({"params": filled.params, "samples": texts})
        status = 422 if filled.wrong else 200
        context = {"entity": entity, "action": action, "filled": filled, "samples": rendered, "is_secret": is_secret}
        return self._show(page, "explorer/action.html", status, **context)

    def _find(self, page: PageRequest) -> tuple[EntityPage, ActionPage]:
        names = page.request.match_info
        entity, action = self._registry.resolve(names["entity"], names["action"])
        entity_page = self._pages[entity.name]
        found = entity_page.find_action(action.name)
        if found is None:
            raise NoSuchAction(entity.name, action.name)
        return entity_page, found

    def _show(self, page: PageRequest, template: str, status: int = 200, **context: Any) -> web.Response:
        shared = {"reference": self._reference, "actions": self._actions, "common": COMMON, "path": PATH}
        return page.render(template, status, **shared, **context)


def as_common() -> list[dict[str, str]]:
    """The parameters that every entity takes, for JSON."""
    return [{"name": one.name, "taken_by": one.taken_by, "description": one.description} for one in COMMON]


def is_secret(name: str) -> bool:
    """Whether the value of a parameter is hidden while it is entered."""
    return SECRET_NAMES.search(name) is not None


def read_form(action: ActionPage, fields: Mapping[str, Any]) -> Filled:
    """The parameters in a posted form: ``p[NAME]``, overridden by the JSON object ``more``. Empty ones are not sent."""
    sent = fields.get("p")
    sent = sent if isinstance(sent, dict) else {}
    texts = {one.name: forms.scalar(sent, one.name) for one in action.parameters}
    texts = {name: text for name, text in texts.items() if text}
    more = forms.scalar(fields, "more")
    try:
        params = {name: _value(name, text) for name, text in texts.items()}
        return Filled(texts, more, params | _object(more))
    except BadForm as bad:
        return Filled(texts, more, {}, str(bad))


def _value(name: str, text: str) -> Any:
    """A parameter: JSON if it begins with { or [, else text."""
    if len(text) > MAX_LENGTH:
        raise BadForm(f"{name} is too long.")
    if text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        return _json(text)
    except ValueError:
        raise BadForm(f"{name} begins like JSON but is not JSON that can be sent.") from None


def _object(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        found = _json(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadForm('More parameters must be a JSON object, such as {"options": {"limit": 5}}.')
    return found


def _json(text: str) -> Any:
    """The value, if every sample language can express it (depth, size of numbers). Raises ``ValueError``."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    level = [found]
    for _ in range(MAX_DEPTH):
        if any(
            isinstance(one, int | float) and not -MAX_NUMBER <= one < MAX_NUMBER for one in level
        ):  # infinities, too
            raise ValueError("a number that is too large")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [each for one in inner for each in one]
    if level:
        raise ValueError("too deep")
    return found


def _unknown(page: PageRequest, text: str) -> web.Response:
    return page.message("Not found", text, 404)


def _base_url(page: PageRequest) -> str:
    """The public address: from the settings, else from this request."""
    if page.site.server.base_url:
        return page.site.server.base_url.rstrip("/")
    host = page.request.host
    scheme = "https" if page.incoming.https else "http"
    return f"{scheme}://{host if HOST.fullmatch(host) else 'localhost'}"
