"""One request to a page: authentication, permission, form token, and the answer with the headers of every page.

A page is a function from a ``PageRequest`` to a response; ``page_handler`` makes the aiohttp handler around it, which
authenticates by session or credentials, redirects to the log-in, refuses requests without the permission or with a
wrong form token, and catches unexpected errors. Pages read and write only through API calls made as the user
(``PageRequest.call_api``), so a page shows no more than a script could read.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp_jinja2
import structlog
from aiohttp import web

from civiapi.api.call import Call, Caller, Responder
from civiapi.api.declaration.spec import Registry
from civiapi.auth.authenticator import Auth, AuthenticationFailed
from civiapi.endpoints.authx import NOT_AUTHENTICATED, identify
from civiapi.http import forms
from civiapi.http.messages import BadBody, HttpPolicy, HttpRequest, HttpResponse, received, to_response
from civiapi.http.rendering import encode
from civiapi.settings import ServerSettings, SyncSettings

log = structlog.get_logger(__name__)

LOGIN = "/civicrm/login"
STATIC = "/civicrm/ui"
FORM_COOKIE = "civiapi_form"
TOKEN_FIELD = "token"  # noqa: S105  a field's name
HTML = "text/html; charset=utf-8"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
TOO_LARGE = 413
MAX_DIGITS = 9
STALE = "This form has expired, perhaps because you logged in or out in another tab. Go back, reload and try again."


class CallFailed(Exception):
    """The API answered a call of a page with this error."""

    def __init__(self, message: str, entity: str, action: str, answer: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.answer = answer or {}
        self.call = f"{entity}.{action}"


@dataclass(frozen=True, slots=True)
class MenuItem:
    """An entry of the navigation, shown to users with the permission. Pages below its path belong to it."""

    title: str
    path: str
    permission: str = "administer CiviCRM"
    also: tuple[str, ...] = ()  # other paths that belong to it
    icon: str = "status"


@dataclass(frozen=True, slots=True)
class Site:
    """What every page needs of the server. ``home`` is the page after a log-in without another target."""

    api: Responder
    auth: Auth
    server: ServerSettings
    policy: HttpPolicy
    version: str  # hash of the static files; part of their URLs, so that browsers load changed ones
    home: str
    registry: Registry
    menu: tuple[MenuItem, ...] = ()
    sync: SyncSettings = field(default_factory=SyncSettings)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A parsed request and its user. ``secret`` binds forms to the browser they were shown to."""

    site: Site
    request: web.Request
    incoming: HttpRequest
    caller: Caller | None
    secret: str
    secret_is_new: bool = False

    @property
    def token(self) -> str:
        """The token that a form posted from this browser must carry."""
        return hmac.new(self.secret.encode("utf-8", "replace"), b"civiapi form", hashlib.sha256).hexdigest()

    @property
    def wants_json(self) -> bool:
        """Whether a script made the request rather than navigation."""
        accepts = self.incoming.header("Accept")
        return "application/json" in accepts or "text/event-stream" in accepts

    @property
    def menu(self) -> list[MenuItem]:
        """The entries of the navigation that the user has permission for."""
        return [item for item in self.site.menu if self.caller is not None and self.caller.may(item.permission)]

    def menu_item(self, title: str) -> MenuItem | None:
        """The entry with this title, if the user has permission for it."""
        return next((one for one in self.menu if one.title == title), None)

    @property
    def current_item(self) -> MenuItem | None:
        """The entry that this page belongs to: the one with the longest matching path."""
        here = self.incoming.path
        places = [(path, one) for one in self.site.menu for path in (one.path, *one.also)]
        above = [(len(path), one) for path, one in places if here == path or here.startswith(f"{path}/")]
        return max(above, key=lambda one: one[0], default=(0, None))[1]

    def field(self, name: str) -> str:
        """A field of the query or form as text, ``""`` without it."""
        return forms.scalar(self.incoming.fields, name)

    def number(self, name: str) -> int | None:
        """A field that holds a number from 0 on, such as a place in a list; None where it holds anything else."""
        text = self.field(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None

    @property
    def offset(self) -> int:
        """How many rows of a list the reader has passed over: the field ``offset``, 0 where it is no number."""
        return self.number("offset") or 0

    def static_url(self, name: str) -> str:
        """The URL of a static file. Scripts import each other by relative URL, so they have one version too."""
        return f"{STATIC}/{self.site.version}/{name}"

    async def call_api(self, entity: str, action: str, params: Mapping[str, Any] | None = None) -> Any:
        """The answer of an API call made as the user, permissions checked. Raises ``CallFailed``."""
        assert self.caller is not None  # noqa: S101  pages without a user make no calls
        answer = await self.site.api.respond(Call(entity, action, forms.forced(dict(params or {})), self.caller))
        if isinstance(answer, dict) and answer.get("is_error"):
            raise CallFailed(str(answer.get("error_message") or "The call failed."), entity, action, answer)
        return answer

    def render(self, template: str, status: int = 200, **context: Any) -> web.Response:
        """The page made from a template, which sees ``page`` besides *context*."""
        text = aiohttp_jinja2.render_string(template, self.request, {"page": self, **context})
        return self._send(HttpResponse(text.encode("utf-8", "replace"), HTML, status, HEADERS))

    async def api_values(self, entity: str, action: str, params: Mapping[str, Any] | None = None) -> Any:
        """The ``values`` of an API call made as the user. Raises ``CallFailed``."""
        return (await self.call_api(entity, action, params))["values"]

    async def rows(self, entity: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of a ``get`` made as the user, in order; a declared field that the API left out is None.

        The API omits empty columns. Raises ``CallFailed``.
        """
        found = self.site.registry.find_entity(entity)
        absent = dict.fromkeys((field.name for field in found.fields) if found else ())
        values = await self.api_values(entity, "get", {**(params or {}), "sequential": 1})
        return [absent | row for row in values]

    def json(self, value: Any, status: int = 200) -> web.Response:
        """A JSON answer for the page's own script."""
        return self._send(HttpResponse(encode(value), status=status, headers=HEADERS))

    def redirect(self, where: str, cookie: str | None = None) -> web.Response:
        """A redirect to another page of this site; *cookie* opens a session, ``""`` ends it."""
        return self._send(HttpResponse(b"", "text/plain", 303, {**HEADERS, "Location": where}, cookie))

    def message(self, title: str, text: str, status: int) -> web.Response:
        """A page with a message only; JSON for a script."""
        if self.wants_json:
            return self.json({"error": text}, status)
        return self.render("core/message.html", status, title=title, text=text)

    def _send(self, answer: HttpResponse) -> web.Response:
        policy = self.site.policy
        response = to_response(answer, policy, https=self.incoming.https)
        if self.secret_is_new:
            policy.set_cookie(response, FORM_COOKIE, self.secret, https=self.incoming.https, samesite="Strict")
        return response


def query_link(fields: Mapping[str, Any]) -> Callable[..., str]:
    """For templates: a function that gives the query string of *fields*, and of others in their place.

    Fields without a value are left out; ``""`` where none has one.
    """

    def link(**other: Any) -> str:
        given = {name: value for name, value in {**fields, **other}.items() if value}
        return f"?{urlencode(given)}" if given else ""

    return link


Page = Callable[[PageRequest], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page_handler(site: Site, show: Page, permission: str | None, too_large: str = "") -> Handler:
    """The handler of a page for those who hold *permission*; ``None``: for anyone.

    *too_large*: the message for a body above the limit of the settings, where the page has its own.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            async with received(request, site.policy) as incoming:
                return await _answer(site, request, incoming, show, permission)
        except BadBody as bad:
            return _refuse_body(site, request, bad, too_large)
        except ConnectionError:
            raise  # the client disconnected; aiohttp closes the connection
        except Exception:
            log.exception("page failed", method=request.method, path=request.rel_url.path)
            return _plain(site, "Internal error. The server log has the details.", 500)

    return handle


async def _answer(
    site: Site, request: web.Request, incoming: HttpRequest, show: Page, permission: str | None
) -> web.StreamResponse:
    secret = incoming.session or site.policy.cookie(request, FORM_COOKIE)
    page = PageRequest(site, request, incoming, None, secret or secrets.token_hex(32), not secret)
    if permission is not None:
        try:
            identity = await identify(site.auth, incoming)
        except AuthenticationFailed as refusal:
            if refusal.message == NOT_AUTHENTICATED:
                return _not_logged_in(page)
            return later(page.message("Log-in refused", refusal.message, 429 if refusal.retry_after else 401), refusal)
        if identity.redirect is not None:
            return to_response(identity.redirect, site.policy, https=incoming.https)
        page = PageRequest(site, request, incoming, identity.caller, page.secret, page.secret_is_new)
        if not identity.caller.may(permission):
            text = (
                f"This page needs the permission “{permission}”, which {identity.caller.name} does not have. "
                "Log in as a user who has it, or add it to this user in the settings file."
            )
            return page.message("No access", text, 403)
    if not incoming.is_get and not _is_own_form(page):
        return page.message("Form expired", STALE, 403)
    try:
        return await show(page)
    except CallFailed as failed:
        return page.message("The call failed", f"{failed.call}: {failed.message}", 422)


def later(response: web.Response, refusal: AuthenticationFailed) -> web.Response:
    """The response to a failed authentication; it says when to try again, where it was not attempted."""
    if refusal.retry_after:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def _not_logged_in(page: PageRequest) -> web.Response:
    if page.wants_json or not page.incoming.is_get:
        return page.message("Logged out", "Your session has ended. Log in again, then repeat this.", 401)
    return page.redirect(f"{LOGIN}?{urlencode({'next': str(page.request.rel_url)})}")


def _is_own_form(page: PageRequest) -> bool:
    """Whether the form came from a page that was shown to this browser."""
    from_here = page.incoming.header("Sec-Fetch-Site") in ("", "same-origin", "none")
    return from_here and hmac.compare_digest(page.field(TOKEN_FIELD).encode("utf-8", "replace"), page.token.encode())


def _refuse_body(site: Site, request: web.Request, bad: BadBody, too_large: str) -> web.Response:
    """The answer to a body that was not read, so that nobody is known to be logged in."""
    incoming = HttpRequest(request.method, request.rel_url.path, {}, headers=request.headers)
    text = too_large if too_large and bad.status == TOO_LARGE else bad.message
    status = bad.status if bad.status >= 400 else 400
    return PageRequest(site, request, incoming, None, "").message("The form was not accepted", text, status)


def _plain(site: Site, text: str, status: int) -> web.Response:
    return to_response(HttpResponse(f"{text}\n".encode(), "text/plain; charset=utf-8", status, HEADERS), site.policy)
