"""``extern/rest.php`` at any prefix: query and form become one call.

Also what other endpoints share with it: the call of a request, and the calls allowed to a GET. Errors have HTTP status
200 too: CiviCRM's clients read the body.
"""

from collections.abc import Mapping
from typing import Any

from civiapi.api.call import Call, Caller, Responder
from civiapi.api.errors import WritesInReadOnlyCall
from civiapi.api.resolution import is_read_action
from civiapi.auth.authenticator import Auth, AuthenticationFailed
from civiapi.http import forms
from civiapi.http.messages import HttpRequest, HttpResponse, credentials_of, refuse
from civiapi.http.rendering import UNDECODABLE, render, render_error, rendered

NO_TARGET = 'missing mandatory params "entity=" or "action="'
MALFORMED_PATH = "ERROR: Malformed REST path"
UNKNOWN_FUNCTION = "Unknown function invocation."


class NoTarget(Exception):
    """The request names no entity and action."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiEndpoint:
    """What the endpoints that answer API calls share."""

    max_body: int | None = None
    raw_body = False

    def __init__(self, api: Responder, auth: Auth) -> None:
        self._api = api
        self._auth = auth


class Rest(ApiEndpoint):
    """CiviCRM's REST endpoint."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        fields = incoming.fields
        if path_of(fields) == "civicrm/ping" and not forms.scalar(fields, "entity"):
            return render({"is_error": 0, "message": "PONG: "}, fields)
        try:
            caller = await self._identify(incoming)
        except AuthenticationFailed as refusal:
            return refuse(render_error(refusal.message, fields), refusal)
        try:
            entity, action = target(fields, malformed=MALFORMED_PATH)
            if not allowed_by(incoming, action):
                return render(destructive_get(incoming), fields)
            call = Call(entity, action, forms.api_params(fields), caller, read_only=not incoming.may_write)
        except NoTarget as error:
            return render_error(error.message, fields)
        except forms.BadJson:
            return render_error(UNDECODABLE, fields)
        return await rendered(await self._api.respond(call), fields)

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        return render_error(message, query, status)

    async def _identify(self, incoming: HttpRequest) -> Caller:
        """By site key and API key; a request without either may have a bearer header instead."""
        seen = credentials_of(incoming)
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
    """Entity and action of a request. Raises ``NoTarget``.

    ``q`` counts only without an entity, and not if it is the path of the endpoint itself (*not_a_target*).
    """
    entity, action = forms.scalar(fields, "entity"), forms.scalar(fields, "action")
    if not entity and (path := path_of(fields)) and path.strip("/") != not_a_target:
        parts = path.strip("/").split("/")
        if len(parts) != 3 or parts[0] != "civicrm":
            raise NoTarget(malformed)
        entity, action = parts[1], parts[2]
    if not entity or not action:
        raise NoTarget(NO_TARGET)
    return entity, action


GET_REASON = "Destructive HTTP GET"


def allowed_by(incoming: HttpRequest, action: str) -> bool:
    """Whether the request's method may call this action."""
    return incoming.may_write or is_read_action(action)


def destructive_get(incoming: HttpRequest) -> dict[str, Any]:
    """The error for a request that would change data and is not a POST."""
    return security_error(incoming, GET_REASON, WritesInReadOnlyCall().message)


def security_error(incoming: HttpRequest, reason: str, message: str) -> dict[str, Any]:
    """The error for a request that may be forged by another site."""
    return {
        "IP": incoming.address,
        "level": "security",
        "referer": incoming.header("Referer") or None,
        "reason": reason,
        "is_error": 1,
        "error_message": message,
    }
