"""``extern/rest.php``, wherever a CMS puts it: query and form to one call, the dressed answer back.

Also what the AJAX paths share with it: which call a request means, and which calls a GET may make. Whoever gets
anything wrong still gets HTTP 200: CiviCRM's clients read the body.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from civiapi.adapters import forms
from civiapi.adapters.dress import UNDECODABLE, dress, dress_error
from civiapi.adapters.http import Answer, Incoming, shown
from civiapi.auth import Auth, Refused
from civiapi.call import Call, Caller

NO_TARGET = 'missing mandatory params "entity=" or "action="'
MALFORMED_PATH = "ERROR: Malformed REST path"
UNKNOWN_FUNCTION = "Unknown function invocation."


class Responder(Protocol):
    """What an adapter needs of ``civiapi.dispatch.Api``."""

    async def respond(self, call: Call) -> Any:
        """The answer to a call, good or bad; never raises."""


class NoTarget(Exception):
    """The request names no entity and action."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Rest:
    """CiviCRM's REST endpoint."""

    raw_body = False

    def __init__(self, api: Responder, auth: Auth) -> None:
        self._api = api
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        fields = incoming.fields
        if path_of(fields) == "civicrm/ping" and not forms.scalar(fields, "entity"):
            return dress({"is_error": 0, "message": "PONG: "}, fields)
        try:
            caller = await self._identify(incoming)
        except Refused as refusal:
            return dress_error(refusal.message, fields)
        try:
            entity, action = target(fields, malformed=MALFORMED_PATH)
            if not allowed_by(incoming, action):
                return dress(security_error(incoming, GET_REASON, GET_MESSAGE), fields)
            call = Call(entity, action, forms.api_params(fields), caller)
        except NoTarget as lack:
            return dress_error(lack.message, fields)
        except forms.BadJson:
            return dress_error(UNDECODABLE, fields)
        return dress(await self._api.respond(call), fields)

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return dress_error(message, query, status)

    async def _identify(self, incoming: Incoming) -> Caller:
        """By site key and API key; a request without either may show itself by a header instead."""
        seen = shown(incoming)
        bearer = seen.x_civi_auth or seen.authorization.lower().startswith("bearer ")
        if bearer and not seen.key and not seen.api_key:
            caller = await self._auth.by_authx(seen)
            if caller is not None:
                return caller
        return await self._auth.by_key(seen)


def path_of(fields: Mapping[str, Any]) -> str:
    """The old ``civicrm/ENTITY/ACTION`` spelling of a target, ``""`` without it. ``fnName`` overrides ``q``."""
    return forms.scalar(fields, "fnName") or forms.scalar(fields, "q")


def target(fields: Mapping[str, Any], *, malformed: str, not_a_target: str = "") -> tuple[str, str]:
    """Entity and action of a request. Raises ``NoTarget`` with the text that fits.

    ``q`` counts only without an entity, and not where it is the path of the endpoint itself (*not_a_target*).
    """
    entity, action = forms.scalar(fields, "entity"), forms.scalar(fields, "action")
    path = path_of(fields)
    if not entity and path and path.strip("/") != not_a_target:
        parts = path.strip("/").split("/")
        if len(parts) != 3 or parts[0] != "civicrm":
            raise NoTarget(malformed)
        entity, action = parts[1], parts[2]
    if not entity or not action:
        raise NoTarget(NO_TARGET)
    return entity, action


GET_REASON = "Destructive HTTP GET"
GET_MESSAGE = "SECURITY: All requests that modify the database must be http POST, not GET."


def allowed_by(incoming: Incoming, action: str) -> bool:
    """Whether the request's verb may call this action: a GET only what reads."""
    return not incoming.is_get or action[:3].lower() == "get" or action.lower() == "check"


def security_error(incoming: Incoming, reason: str, message: str) -> dict[str, Any]:
    """The error for a request that another site may have made its browser send."""
    return {
        "IP": incoming.address,
        "level": "security",
        "referer": incoming.header("Referer") or None,
        "reason": reason,
        "is_error": 1,
        "error_message": message,
    }
