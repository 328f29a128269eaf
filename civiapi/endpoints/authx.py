"""authx over HTTP: the caller of a request, errors in authx's format, and ``/civicrm/authx/id|login|logout``.

A session is a signed cookie with a contact and an expiry, bound to the contact's API keys and epoch. Each login makes a
new cookie, which prevents session fixation. Logout increments the epoch, which ends every session of the contact.
"""

from dataclasses import replace
from urllib.parse import quote, urlencode

from civiapi.api.call import Caller
from civiapi.auth.authenticator import NO_API_KEY, Auth, AuthenticationFailed
from civiapi.http import forms
from civiapi.http.messages import JSON, HttpRequest, HttpResponse, credentials_of, is_from_elsewhere, refuse
from civiapi.http.rendering import encode
from civiapi.runtime.values import call_value

NOT_AUTHENTICATED = "Authentication required"
MAX_BODY = 65_536  # bytes; credentials are small
AUTHX_FIELDS = ("_authx", "_authxSes", "_authxSiteKey")


@call_value
class Identity:
    """The caller of a request, and what the response must contain."""

    caller: Caller
    cookie: str | None = None  # opens a session
    redirect: HttpResponse | None = None  # the response: to the same page without the credentials

    def add_cookie(self, answer: HttpResponse) -> HttpResponse:
        """The response with the cookie of the session that was opened."""
        return answer if self.cookie is None else replace(answer, cookie=self.cookie)


async def identify(auth: Auth, incoming: HttpRequest) -> Identity:
    """The caller of the request. Raises ``AuthenticationFailed``, also without credentials."""
    opens = incoming.fields.get("_authxSes") not in (None, "", "0", 0, False)
    caller = await auth.by_authx(credentials_of(incoming), "auto" if opens else "param")
    if caller is None:
        raise AuthenticationFailed(NOT_AUTHENTICATED)
    if caller.flow != "auto":
        return Identity(caller)
    cookie = await auth.open_session(caller)
    return Identity(caller, cookie, _redirect(incoming, cookie) if incoming.is_get else None)


def refused(refusal: AuthenticationFailed) -> HttpResponse:
    """An error in authx's format: HTTP 401, but HTTP 200 for ``key`` and ``api_key``."""
    if refusal.flow == "legacyrest":
        message = f"FATAL: {refusal.message}"
        body = encode({"error_message": message, "is_error": 1})
        return refuse(HttpResponse(body, JSON if message == NO_API_KEY else "text/javascript"), refusal)
    if refusal.retry_after:
        return refuse(_failure(refusal.message, 429), refusal)
    text = f"HTTP 401 {refusal.message}"
    return HttpResponse(text.encode(), "text/plain; charset=utf-8", 401, {"WWW-Authenticate": "Bearer"})


def _redirect(incoming: HttpRequest, cookie: str) -> HttpResponse:
    """To the same page without ``_authx…``, so that no credential stays in the address bar."""
    rest = [(name, value) for name, value in _pairs("", incoming.query) if name not in AUTHX_FIELDS]
    # One leading slash: //host would lead to another site.
    where = "/" + quote(incoming.path.lstrip("/\\")) + (f"?{urlencode(rest)}" if rest else "")
    return HttpResponse(b"", "text/plain", 302, {"Location": where}, cookie)


def _pairs(prefix: str, value: object) -> list[tuple[str, str]]:
    """Nested fields with their bracketed names."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [pair for key, inner in items for pair in _pairs(f"{prefix}[{key}]" if prefix else str(key), inner)]
    return [(prefix, str(value))]


class _AuthxEndpoint:
    """What the endpoints of authx share."""

    max_body: int | None = MAX_BODY
    raw_body = False

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        return _failure(message, status)


class AuthxId(_AuthxEndpoint):
    """``/civicrm/authx/id``: the caller as the server sees it."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        try:
            identity = await identify(self._auth, incoming)
        except AuthenticationFailed as refusal:
            if refusal.message == NOT_AUTHENTICATED:
                return HttpResponse(encode({"contact_id": None, "user_id": None, "flow": None, "cred": None}))
            return refused(refusal)
        if identity.redirect is not None:
            return identity.redirect
        return identity.add_cookie(HttpResponse(encode(await _caller_data(self._auth, identity.caller))))


class AuthxLogin(_AuthxEndpoint):
    """``POST /civicrm/authx/login``: opens a session with the posted ``_authx``."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        if incoming.method != "POST":
            return _only_post("POST the credentials")
        try:
            caller = await self._identify(incoming)
            cookie = await self._auth.open_session(caller)
        except AuthenticationFailed as refusal:
            return refused(refusal)
        return HttpResponse(encode(await _caller_data(self._auth, caller)), cookie=cookie)

    async def _identify(self, incoming: HttpRequest) -> Caller:
        """The caller by ``_authx`` alone: other credentials in the request are ignored."""
        seen = credentials_of(incoming)
        only = replace(seen, x_civi_auth="", authorization="", key="", api_key="")
        caller = await self._auth.by_authx(only, "login") if seen.authx else None
        if caller is None:
            raise AuthenticationFailed("Cannot login. Failed to determine contact ID.")
        return caller


class AuthxLogout(_AuthxEndpoint):
    """``POST /civicrm/authx/logout``: ends every session of the contact whose session the browser shows."""

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        if incoming.method != "POST":
            return _only_post("POST to log out")
        if is_from_elsewhere(incoming):
            return _failure("Log out from a page of this site", 403)
        await self._auth.end_sessions(incoming.session)
        return HttpResponse(b"[]", cookie="")


async def _caller_data(auth: Auth, caller: Caller) -> dict[str, object]:
    number = await auth.user_id(caller)
    return {
        "contact_id": caller.contact_id,
        "user_id": None if number is None else str(number),
        "flow": caller.flow,
        "cred": caller.cred,
    }


def _only_post(message: str) -> HttpResponse:
    return replace(_failure(message, 405), headers={"Allow": "POST"})


def _failure(message: str, status: int) -> HttpResponse:
    return HttpResponse(f"HTTP {status} {message}".encode(), "text/plain; charset=utf-8", status)
