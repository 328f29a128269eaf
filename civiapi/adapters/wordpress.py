"""``/wp-json/civicrm/v3/rest``: CiviCRM's wrapper for WordPress, which answers in that framework's style.

It differs from ``rest.php`` in what a request means and in its dress: parameters come either from ``json`` or from the
form, never both; scalars are bare, empty results ``[]``, ``values`` always a list. Any verb may do anything.
"""

from typing import Any

from civiapi.adapters import forms
from civiapi.adapters.dress import XML, encode, wrap
from civiapi.adapters.http import Answer, Incoming, shown
from civiapi.adapters.rest import Responder
from civiapi.adapters.xml import to_xml
from civiapi.auth import Auth, Refused
from civiapi.call import Call, Caller
from civiapi.jsontext import NotRead, read_json

NOT_PARAMETERS = frozenset({"entity", "action", "key", "api_key"})
TARGET = ("entity", "action")


class WordPress:
    """The WordPress wrapper."""

    raw_body = False

    def __init__(self, api: Responder, auth: Auth) -> None:
        self._api = api
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        fields = incoming.fields
        missing = [name for name in TARGET if not forms.scalar(fields, name)]
        if missing:
            return missing_parameters(missing)
        try:
            params = params_of(fields)
        except forms.BadJson:
            return invalid_parameter("json")
        for name in ("api_key", "key"):
            if not forms.scalar(fields, name):
                return await self._absent(incoming, name)
        caller = await self._identify(incoming)
        if isinstance(caller, Answer):
            return caller
        entity, action = (forms.scalar(fields, name) for name in TARGET)
        value = await self._api.respond(Call(entity, action, forms.forced(params), caller))
        return dress(value, as_json="json" in fields)

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return problem("civicrm_rest_api_error", message, status)

    async def _identify(self, incoming: Incoming) -> Caller | Answer:
        try:
            return await self._auth.by_key(shown(incoming))
        except Refused as refusal:
            return invalid_parameter("key" if "authenticate key" in refusal.message else "api_key")

    async def _absent(self, incoming: Incoming, name: str) -> Answer:
        """A key is not there: 401, or 403 for someone who is logged in but shows no key."""
        seen = shown(incoming)
        try:
            known = await self._auth.by_authx(seen) if not seen.key and not seen.api_key else None
        except Refused:
            known = None
        return problem("civicrm_rest_api_error", f"Param {name} is not valid.", 401 if known is None else 403)


def params_of(fields: forms.Fields) -> dict[str, Any]:
    """The API parameters: ``json`` alone where it holds any, else all fields. Raises ``BadJson``."""
    text = fields.get("json")
    if text is None or _is_numeric(text):
        return {name: value for name, value in fields.items() if name not in NOT_PARAMETERS}
    if isinstance(text, str):
        try:
            text = read_json(text)
        except NotRead as error:
            raise forms.BadJson from error
    if isinstance(text, dict):
        return dict(text)
    if isinstance(text, list):
        return {str(place): value for place, value in enumerate(text)}
    raise forms.BadJson


def _is_numeric(value: Any) -> bool:
    if isinstance(value, dict | list):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def dress(value: Any, *, as_json: bool) -> Answer:
    """A value as the wrapper sends it."""
    if isinstance(value, dict) and isinstance(value.get("values"), dict):
        value = {**value, "values": list(value["values"].values())}
    if not value:
        value = []
    return Answer(encode(value)) if as_json else Answer(to_xml(wrap(value)), XML)


def problem(code: str, message: str, status: int, **data: Any) -> Answer:
    """An error as WordPress words it."""
    return Answer(encode({"code": code, "message": message, "data": {"status": status, **data}}), status=status)


def invalid_parameter(name: str) -> Answer:
    """A parameter that is there and wrong."""
    details = {name: f"Param {name} is not valid."}
    return problem("rest_invalid_param", f"Invalid parameter(s): {name}", 400, params=details)


def missing_parameters(names: list[str]) -> Answer:
    """Parameters the endpoint cannot do without."""
    return problem("rest_missing_callback_param", f"Missing parameter(s): {', '.join(names)}", 400, params=names)
