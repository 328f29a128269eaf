"""The API explorer at ``/civicrm/api3``: the reference to read, and a form that words a call and tries it.

The form's own script sends the call to ``/civicrm/ajax/rest`` with the visitor's session, so whatever that allows and
answers is what is shown; nothing here calls the API. Here parameters are read from the form and samples are worded.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from civiapi.adapters import forms
from civiapi.errors import NotFound
from civiapi.reference import COMMON, ActionPage, EntityPage, as_data, make_reference
from civiapi.registry import Registry
from civiapi.ui.samples import SECRET_NAMES, samples
from civiapi.ui.visit import Visit

PATH = "/civicrm/api3"
PERMISSION = "administer CiviCRM"
HOST = re.compile(r"[A-Za-z0-9.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
DEEPEST = 50  # levels of a value; real calls have a handful
LARGEST = 2**63
LONGEST = 200_000  # characters of one parameter; more is a mistake or mischief


class BadForm(ValueError):
    """What was filled in is no set of parameters; the text says why."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What stands in the form: the texts as typed, and the parameters they make."""

    texts: Mapping[str, str]
    more: str
    params: Mapping[str, Any]
    wrong: str = ""


class Explorer:
    """The pages, over one catalogue."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._reference = make_reference(registry)
        self._pages = {page.name: page for page in self._reference}
        self._actions = {page.name: [action.name for action in page.actions] for page in self._reference}

    async def index(self, visit: Visit) -> web.Response:
        """Every entity; with ``entity`` and ``action`` in the query, on to their page."""
        if not (wanted := visit.field("entity")):
            return self._show(visit, "explorer_index.html")
        entity = self._registry.find_entity(wanted)
        if entity is None:
            return _unknown(visit, f"There is no entity {wanted[:64]}.")
        action = self._pages[entity.name].find_action(visit.field("action").lower())
        return visit.go(f"{PATH}/{entity.name}/{action.name}" if action else f"{PATH}/{entity.name}")

    async def data(self, visit: Visit) -> web.Response:
        """The whole reference as JSON."""
        return visit.data({"entities": as_data(self._reference), "common": as_common()})

    async def entity(self, visit: Visit) -> web.Response:
        """One entity with all its actions."""
        name = visit.request.match_info["entity"]
        entity = self._registry.find_entity(name)
        if entity is None:
            return _unknown(visit, f"There is no entity {name[:64]}.")
        return self._show(visit, "explorer_entity.html", entity=self._pages[entity.name])

    async def action(self, visit: Visit) -> web.Response:
        """One action with its form; posted, the same with samples of the call, or those alone for the script."""
        try:
            entity, action = self._find(visit)
        except NotFound as lack:
            return _unknown(visit, lack.message)
        filled = read_form(action, visit.incoming.fields if not visit.incoming.is_get else {})
        worded = samples(_base_url(visit), entity.name, action.name, filled.params)
        if visit.wants_json:
            if filled.wrong:
                return visit.data({"error": filled.wrong}, 422)
            texts = {sample.name: sample.text for sample in worded}
            return visit.data({"params": filled.params, "samples": texts})
        status = 422 if filled.wrong else 200
        context = {"entity": entity, "action": action, "filled": filled, "samples": worded, "is_secret": is_secret}
        return self._show(visit, "explorer_action.html", status, **context)

    def _find(self, visit: Visit) -> tuple[EntityPage, ActionPage]:
        names = visit.request.match_info
        entity, action = self._registry.resolve(names["entity"], names["action"])
        page = self._pages[entity.name]
        found = page.find_action(action.name)
        if found is None:
            raise NotFound(entity.name, action.name)
        return page, found

    def _show(self, visit: Visit, template: str, status: int = 200, **context: Any) -> web.Response:
        shared = {"reference": self._reference, "actions": self._actions, "common": COMMON, "path": PATH}
        return visit.show(template, status, **shared, **context)


def as_common() -> list[dict[str, str]]:
    """What every entity takes, ready for JSON."""
    return [{"name": one.name, "taken_by": one.taken_by, "description": one.description} for one in COMMON]


def is_secret(name: str) -> bool:
    """Whether a parameter is not to be read over somebody's shoulder."""
    return SECRET_NAMES.search(name) is not None


def read_form(action: ActionPage, fields: Mapping[str, Any]) -> Filled:
    """The parameters in a posted form: ``p[NAME]`` as typed, ``more`` an object laid over them. Empty: not sent."""
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
    """A parameter as typed: JSON if it begins so, else text."""
    if len(text) > LONGEST:
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
        raise BadForm('Further parameters must be a JSON object, such as {"options": {"limit": 5}}.')
    return found


def _json(text: str) -> Any:
    """The value, if every language can write it down: not too deep, no number beyond them. Raises ``ValueError``."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None
    level = [found]
    for _ in range(DEEPEST):
        if any(isinstance(one, int | float) and not -LARGEST <= one < LARGEST for one in level):  # infinities, too
            raise ValueError("a number that is too large")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [each for one in inner for each in one]
    if level:
        raise ValueError("too deep")
    return found


def _unknown(visit: Visit, text: str) -> web.Response:
    return visit.say("Not found", text, 404)


def _base_url(visit: Visit) -> str:
    """Where callers reach us: as the settings say, else as this visitor did."""
    if visit.site.server.base_url:
        return visit.site.server.base_url.rstrip("/")
    host = visit.request.host
    scheme = "https" if visit.incoming.https else "http"
    return f"{scheme}://{host if HOST.fullmatch(host) else 'localhost'}"
