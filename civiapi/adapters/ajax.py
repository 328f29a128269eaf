"""``/civicrm/ajax/rest`` with its multi-call, and the older ``/civicrm/api/json``.

Callers are browsers with a session and programs with authx credentials. Browsers could be made to send a request by
another site, which is why those two ways of showing who calls need ``X-Requested-With`` and the others do not.
"""

from typing import Any

from civiapi.adapters import forms
from civiapi.adapters.authx import identify, refused
from civiapi.adapters.dress import UNDECODABLE, dress, dress_error
from civiapi.adapters.http import Answer, Incoming
from civiapi.adapters.rest import (
    GET_MESSAGE,
    GET_REASON,
    NO_TARGET,
    UNKNOWN_FUNCTION,
    NoTarget,
    Responder,
    allowed_by,
    security_error,
    target,
)
from civiapi.auth import Auth, Refused
from civiapi.call import Call, Caller

CSRF_REASON = "CSRF suspected"
CSRF_MESSAGE = "SECURITY ALERT: Ajax requests can only be issued by javascript clients, eg. CRM.api3()."
NEED_HEADER = frozenset({"session", "header"})
PERMISSIONS = ("access AJAX API", "access CiviCRM")
FORBIDDEN = b"<!DOCTYPE html><html><head><title>Forbidden</title></head><body><h1>Access denied</h1></body></html>"
MOST_CALLS = 1000  # of one request
BAD_FORMAT = 'invalid json format: ?{"param_with_double_quote":"value"}'


class Ajax:
    """The endpoint of CRM.api3 and of most libraries."""

    raw_body = False

    def __init__(self, api: Responder, auth: Auth) -> None:
        self._api = api
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        try:
            identity = await identify(self._auth, incoming)
        except Refused as refusal:
            return refused(refusal)
        if identity.redirect is not None:
            return identity.redirect
        barred = bar(incoming, identity.caller)
        return identity.dressed(barred or await self._answer(incoming, identity.caller))

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return dress_error(message, query, status)

    async def _answer(self, incoming: Incoming, caller: Caller) -> Answer:
        fields = incoming.fields
        try:
            entity, action = target(fields, malformed=UNKNOWN_FUNCTION, not_a_target="civicrm/ajax/rest")
            if entity.lower() == "api3" and action.lower() == "call":
                return await self._several(incoming, caller)
            if not allowed_by(incoming, action):
                return dress(security_error(incoming, GET_REASON, GET_MESSAGE), fields)
            call = Call(entity, action, forms.api_params(fields), caller)
        except NoTarget as lack:
            return dress_error(lack.message, fields)
        except forms.BadJson:
            return dress_error(UNDECODABLE, fields)
        return dress(await self._api.respond(call), fields)

    async def _several(self, incoming: Incoming, caller: Caller) -> Answer:
        """A list or map of ``[entity, action, params]``, answered in order under the same keys."""
        calls = forms.json_of(incoming.fields)
        if not calls:
            return dress_error(UNDECODABLE, incoming.fields)
        if len(calls) > MOST_CALLS:
            return dress_error(f"One request makes at most {MOST_CALLS} calls.", incoming.fields)
        if isinstance(calls, list):
            return dress([await self._one(incoming, caller, each) for each in calls], incoming.fields)
        answers = {key: await self._one(incoming, caller, each) for key, each in calls.items()}
        return dress(answers, incoming.fields)

    async def _one(self, incoming: Incoming, caller: Caller, triple: Any) -> Any:
        """The bare answer to one of several calls; its error stands in its place and stops no other."""
        parts = list(triple.values()) if isinstance(triple, dict) else triple
        if not isinstance(parts, list) or len(parts) < 2 or not all(isinstance(p, str) and p for p in parts[:2]):
            return {"error_message": NO_TARGET, "is_error": 1}
        if not allowed_by(incoming, parts[1]):
            return security_error(incoming, GET_REASON, GET_MESSAGE)
        params = parts[2] if len(parts) > 2 else {}
        if not params:
            params = {}
        if not isinstance(params, dict):
            return {"error_message": "Input variable `params` is not an array", "error_code": 2000, "is_error": 1}
        return await self._api.respond(Call(parts[0], parts[1], forms.forced(dict(params)), caller))


class ApiJson(Ajax):
    """The older path: ``json`` must be an object, answers are sequential."""

    async def _answer(self, incoming: Incoming, caller: Caller) -> Answer:
        fields = incoming.fields
        try:
            params = forms.json_of(fields)
        except forms.BadJson:
            params = None
        if not isinstance(params, dict):
            return dress_error(BAD_FORMAT, {"json": 1})
        entity = forms.scalar(fields, "entity") or forms.scalar(params, "entity")
        action = forms.scalar(fields, "action") or forms.scalar(params, "action")
        if not entity:
            return dress_error("missing entity param", fields)
        if not action:
            return dress_error(NO_TARGET, fields)
        if not allowed_by(incoming, action):
            return dress(security_error(incoming, GET_REASON, GET_MESSAGE), fields)
        call = Call(entity, action, forms.forced({**params, "sequential": 1}), caller)
        return dress(await self._api.respond(call), fields)


def bar(incoming: Incoming, caller: Caller) -> Answer | None:
    """The answer that keeps a caller out, or ``None`` for one who may come in."""
    if not any(caller.may(permission) for permission in PERMISSIONS):
        return Answer(FORBIDDEN, "text/html; charset=utf-8", 403)
    needs_header = caller.flow in NEED_HEADER and incoming.method != "OPTIONS"
    if needs_header and incoming.header("X-Requested-With").lower() != "xmlhttprequest":
        return dress(security_error(incoming, CSRF_REASON, CSRF_MESSAGE), incoming.fields)
    return None
