"""``/wp-json/civicrm/v3/rest``: CiviCRM's endpoint for WordPress, in the style of that framework.

Unlike in ``rest.php``, parameters come either from ``json`` or from the form, never both; scalars are not wrapped,
empty results are ``[]``, and ``values`` is always a list.
"""

from typing import Any

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.api.call import Call, Caller
from civiapi.auth.authenticator import AuthenticationFailed
from civiapi.endpoints.rest import ApiEndpoint, allowed_by, destructive_get
from civiapi.http import forms
from civiapi.http.messages import HttpRequest, HttpResponse, credentials_of, refuse
from civiapi.http.rendering import XML, encode, off_loop, wrap
from civiapi.http.xml import to_xml

NOT_PARAMETERS = frozenset({"entity", "action", "key", "api_key"})
TARGET = ("entity", "action")


class WordPress(ApiEndpoint):
    """The endpoint of the WordPress plugin."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
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
        if isinstance(caller, HttpResponse):
            return caller
        entity, action = (forms.scalar(fields, name) for name in TARGET)
        if not allowed_by(incoming, action):
            return render(destructive_get(incoming), as_json="json" in fields)
        call = Call(entity, action, forms.forced(params), caller, read_only=not incoming.may_write)
        value = await self._api.respond(call)
        return await off_loop(value, render, value, as_json="json" in fields)

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        return problem("civicrm_rest_api_error", message, status)

    async def _identify(self, incoming: HttpRequest) -> Caller | HttpResponse:
        try:
            return await self._auth.by_key(credentials_of(incoming))
        except AuthenticationFailed as refusal:
            if refusal.retry_after:
                return refuse(problem("civicrm_rest_api_error", refusal.message, 429), refusal)
            return invalid_parameter("key" if "authenticate key" in refusal.message else "api_key")

    async def _absent(self, incoming: HttpRequest, name: str) -> HttpResponse:
        """A key is missing: 401, or 403 for a caller who is logged in."""
        seen = credentials_of(incoming)
        try:
            known = await self._auth.by_authx(seen) if not seen.key and not seen.api_key else None
        except AuthenticationFailed as refusal:
            if refusal.retry_after:
                return refuse(problem("civicrm_rest_api_error", refusal.message, 429), refusal)
            known = None
        return problem("civicrm_rest_api_error", f"Param {name} is not valid.", 401 if known is None else 403)


def params_of(fields: forms.Fields) -> dict[str, Any]:
    """The API parameters: those in ``json`` if there are any, else all fields. Raises ``BadJson``."""
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


def render(value: Any, *, as_json: bool) -> HttpResponse:
    """A value in the format of this endpoint."""
    if isinstance(value, dict) and isinstance(value.get("values"), dict):
        value = {**value, "values": list(value["values"].values())}
    if not value:
        value = []
    return HttpResponse(encode(value)) if as_json else HttpResponse(to_xml(wrap(value)), XML)


def problem(code: str, message: str, status: int, **data: Any) -> HttpResponse:
    """An error in WordPress's format."""
    return HttpResponse(encode({"code": code, "message": message, "data": {"status": status, **data}}), status=status)


def invalid_parameter(name: str) -> HttpResponse:
    """The error for an invalid parameter."""
    details = {name: f"Param {name} is not valid."}
    return problem("rest_invalid_param", f"Invalid parameter(s): {name}", 400, params=details)


def missing_parameters(names: list[str]) -> HttpResponse:
    """The error for missing parameters."""
    return problem("rest_missing_callback_param", f"Missing parameter(s): {', '.join(names)}", 400, params=names)
