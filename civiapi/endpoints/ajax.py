"""``/civicrm/ajax/rest`` with its multi-call, and the older ``/civicrm/api/json``.

Callers are browsers with a session and programs with authx credentials. Another site can make a browser send a request
with its session or basic credentials, so these two flows require ``X-Requested-With``.
"""

from typing import Any

from civiapi.api.call import Call, Caller
from civiapi.auth.authenticator import AuthenticationFailed
from civiapi.endpoints.authx import identify, refused
from civiapi.endpoints.rest import (
    NO_TARGET,
    UNKNOWN_FUNCTION,
    ApiEndpoint,
    NoTarget,
    allowed_by,
    destructive_get,
    security_error,
    target,
)
from civiapi.http import forms
from civiapi.http.messages import HttpRequest, HttpResponse
from civiapi.http.rendering import UNDECODABLE, AnswerTotal, render, render_error, rendered

CSRF_REASON = "CSRF suspected"
CSRF_MESSAGE = "SECURITY ALERT: Ajax requests can only be issued by javascript clients, eg. CRM.api3()."
NEED_HEADER = frozenset({"session", "header"})
AJAX, BACKEND = "access AJAX API", "access CiviCRM"  # either permits to call the API here
FORBIDDEN = b"<!DOCTYPE html><html><head><title>Forbidden</title></head><body><h1>Access denied</h1></body></html>"
MAX_CALLS = 1000  # of one request
BAD_FORMAT = 'invalid json format: ?{"param_with_double_quote":"value"}'


class Ajax(ApiEndpoint):
    """The endpoint of CRM.api3 and of most libraries."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        try:
            identity = await identify(self._auth, incoming)
        except AuthenticationFailed as refusal:
            return refused(refusal)
        if identity.redirect is not None:
            return identity.redirect
        denied = check_access(incoming, identity.caller)
        return identity.add_cookie(denied or await self._answer(incoming, identity.caller))

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        return render_error(message, query, status)

    async def _answer(self, incoming: HttpRequest, caller: Caller) -> HttpResponse:
        fields = incoming.fields
        try:
            entity, action = target(fields, malformed=UNKNOWN_FUNCTION, not_a_target="civicrm/ajax/rest")
            if entity.lower() == "api3" and action.lower() == "call":
                return await self._several(incoming, caller)
            if not allowed_by(incoming, action):
                return render(destructive_get(incoming), fields)
            call = Call(entity, action, forms.api_params(fields), caller, read_only=not incoming.may_write)
        except NoTarget as error:
            return render_error(error.message, fields)
        except forms.BadJson:
            return render_error(UNDECODABLE, fields)
        return await rendered(await self._api.respond(call), fields)

    async def _several(self, incoming: HttpRequest, caller: Caller) -> HttpResponse:
        """A list or map of ``[entity, action, params]``, answered in order under the same keys."""
        calls = forms.json_of(incoming.fields)
        if not calls:
            return render_error(UNDECODABLE, incoming.fields)
        if len(calls) > MAX_CALLS:
            return render_error(f"One request makes at most {MAX_CALLS} calls.", incoming.fields)
        total = AnswerTotal()
        answers = {}
        for key, each in calls.items() if isinstance(calls, dict) else enumerate(calls):
            answers[key] = total.refusal or await self._one(incoming, caller, each)
            await total.add(answers[key])
        return await rendered(list(answers.values()) if isinstance(calls, list) else answers, incoming.fields)

    async def _one(self, incoming: HttpRequest, caller: Caller, triple: Any) -> Any:
        """The unwrapped answer to one of several calls; an error is its answer and does not stop the others."""
        parts = list(triple.values()) if isinstance(triple, dict) else triple
        if not isinstance(parts, list) or len(parts) < 2 or not all(isinstance(p, str) and p for p in parts[:2]):
            return {"error_message": NO_TARGET, "is_error": 1}
        if not allowed_by(incoming, parts[1]):
            return destructive_get(incoming)
        params = parts[2] if len(parts) > 2 else {}
        if not params:
            params = {}
        if not isinstance(params, dict):
            return {"error_message": "Input variable `params` is not an array", "error_code": 2000, "is_error": 1}
        call = Call(parts[0], parts[1], forms.forced(dict(params)), caller, read_only=not incoming.may_write)
        return await self._api.respond(call)


class ApiJson(Ajax):
    """The older path: ``json`` must be an object, and answers are sequential."""

    async def _answer(self, incoming: HttpRequest, caller: Caller) -> HttpResponse:
        fields = incoming.fields
        try:
            params = forms.json_of(fields)
        except forms.BadJson:
            params = None
        if not isinstance(params, dict):
            return render_error(BAD_FORMAT, {"json": 1})
        entity = forms.scalar(fields, "entity") or forms.scalar(params, "entity")
        action = forms.scalar(fields, "action") or forms.scalar(params, "action")
        if not entity:
            return render_error("missing entity param", fields)
        if not action:
            return render_error(NO_TARGET, fields)
        if not allowed_by(incoming, action):
            return render(destructive_get(incoming), fields)
        forced = forms.forced({**params, "sequential": 1})
        call = Call(entity, action, forced, caller, read_only=not incoming.may_write)
        return await rendered(await self._api.respond(call), fields)


def check_access(incoming: HttpRequest, caller: Caller) -> HttpResponse | None:
    """The response to a caller without access; ``None`` for one with access."""
    if not (caller.may(AJAX) or caller.may(BACKEND)):
        return HttpResponse(FORBIDDEN, "text/html; charset=utf-8", 403)
    needs_header = caller.flow in NEED_HEADER and incoming.method != "OPTIONS"
    if needs_header and incoming.header("X-Requested-With").lower() != "xmlhttprequest":
        return render(security_error(incoming, CSRF_REASON, CSRF_MESSAGE), incoming.fields)
    return None
