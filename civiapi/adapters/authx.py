"""authx over HTTP: who sent a request, refusals in authx's form, and ``/civicrm/authx/id|login|logout``.

A session is a signed cookie that says for whom and until when; nothing is stored. Each login makes a new one, so a
cookie planted before a login is worth nothing after it. Logging out takes the cookie from the browser.
"""

from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from civiapi.adapters import forms
from civiapi.adapters.dress import encode
from civiapi.adapters.http import JSON, Answer, Incoming, shown
from civiapi.auth import NO_API_KEY, Auth, Refused
from civiapi.call import Caller

NOBODY = "Authentication required"
AUTHX_FIELDS = ("_authx", "_authxSes", "_authxSiteKey")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sent a request, and what the answer must carry for it."""

    caller: Caller
    cookie: str | None = None  # opens a session
    redirect: Answer | None = None  # what to answer instead: the same page without the credentials

    def dressed(self, answer: Answer) -> Answer:
        """The answer with the session it opens."""
        return answer if self.cookie is None else replace(answer, cookie=self.cookie)


async def identify(auth: Auth, incoming: Incoming) -> Identity:
    """Who sent the request. Raises ``Refused``, also for a request that shows nobody."""
    opens = incoming.fields.get("_authxSes") not in (None, "", "0", 0, False)
    caller = await auth.by_authx(shown(incoming), "auto" if opens else "param")
    if caller is None:
        raise Refused(NOBODY)
    if caller.flow != "auto":
        return Identity(caller)
    cookie = auth.open_session(caller)
    return Identity(caller, cookie, _redirect(incoming, cookie) if incoming.is_get else None)


def refused(refusal: Refused) -> Answer:
    """A refusal as authx words it: HTTP 401, but HTTP 200 for those who came with ``key`` and ``api_key``."""
    if refusal.flow == "legacyrest":
        message = f"FATAL: {refusal.message}"
        body = encode({"error_message": message, "is_error": 1})
        return Answer(body, JSON if message == NO_API_KEY else "text/javascript")
    text = f"HTTP 401 {refusal.message}"
    return Answer(text.encode(), "text/plain; charset=utf-8", 401, {"WWW-Authenticate": "Bearer"})


def _redirect(incoming: Incoming, cookie: str) -> Answer:
    """To the same page without ``_authx…``, so that credentials stay in no address bar."""
    rest = [(name, value) for name, value in _pairs("", incoming.query) if name not in AUTHX_FIELDS]
    # One leading slash: a path such as //elsewhere would leave this site.
    where = "/" + quote(incoming.path.lstrip("/\\")) + (f"?{urlencode(rest)}" if rest else "")
    return Answer(b"", "text/plain", 302, {"Location": where}, cookie)


def _pairs(prefix: str, value: object) -> list[tuple[str, str]]:
    """Nested fields as the bracketed names they came by."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [pair for key, inner in items for pair in _pairs(f"{prefix}[{key}]" if prefix else str(key), inner)]
    return [(prefix, str(value))]


class AuthxId:
    """``/civicrm/authx/id``: who the server takes the caller for."""

    raw_body = False

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        try:
            identity = await identify(self._auth, incoming)
        except Refused as refusal:
            if refusal.message == NOBODY:
                return Answer(encode({"contact_id": None, "user_id": None, "flow": None, "cred": None}))
            return refused(refusal)
        if identity.redirect is not None:
            return identity.redirect
        return identity.dressed(Answer(encode(await _who(self._auth, identity.caller))))

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return _failure(message, status)


class AuthxLogin:
    """``POST /civicrm/authx/login``: opens a session for the ``_authx`` that is posted."""

    raw_body = False

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        if incoming.is_get:
            return Answer(b"HTTP 405 POST the credentials", "text/plain; charset=utf-8", 405, {"Allow": "POST"})
        try:
            caller = await self._identify(incoming)
        except Refused as refusal:
            return refused(refusal)
        return Answer(encode(await _who(self._auth, caller)), cookie=self._auth.open_session(caller))

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return _failure(message, status)

    async def _identify(self, incoming: Incoming) -> Caller:
        """The caller by ``_authx`` alone: a session is for whoever is posted, not for whoever else is shown."""
        seen = shown(incoming)
        only = replace(seen, x_civi_auth="", authorization="", key="", api_key="")
        caller = await self._auth.by_authx(only, "login") if seen.authx else None
        if caller is None:
            raise Refused("Cannot login. Failed to determine contact ID.")
        return caller


class AuthxLogout:
    """``/civicrm/authx/logout``: ends the session of this browser."""

    raw_body = False

    async def answer(self, incoming: Incoming) -> Answer:
        return Answer(b"[]", cookie="")

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        return _failure(message, status)


async def _who(auth: Auth, caller: Caller) -> dict[str, object]:
    number = await auth.user_id(caller)
    return {
        "contact_id": caller.contact_id,
        "user_id": None if number is None else str(number),
        "flow": caller.flow,
        "cred": caller.cred,
    }


def _failure(message: str, status: int) -> Answer:
    return Answer(f"HTTP {status} {message}".encode(), "text/plain; charset=utf-8", status)
