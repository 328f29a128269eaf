"""One visit to a page: who came, whether they may, and the answer with the headers every page carries.

A page is a function from a ``Visit`` to a response; ``page`` makes the aiohttp handler around it. It finds out who came
(session or credentials, as everywhere), sends people without a session to the log-in, refuses those without the
permission, checks the token of every posted form, and catches what should not have happened. No page does any of that.
What a page shows it asks the API for, as the visitor (``Visit.ask``): no page knows more than a script could get.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp_jinja2
import structlog
from aiohttp import web

from civiapi.adapters import forms
from civiapi.adapters.authx import NOBODY, identify
from civiapi.adapters.dress import encode
from civiapi.adapters.http import Answer, BadBody, Incoming, Proxies, read, to_response
from civiapi.adapters.rest import Responder
from civiapi.auth import Auth, Refused
from civiapi.call import Call, Caller
from civiapi.settings import ServerSettings

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
STALE = "This form is out of date, perhaps because you logged in or out in another tab. Go back, reload, try again."


class CallFailed(Exception):
    """The API answered a page's call with an error, in these words."""

    def __init__(self, message: str, entity: str, action: str) -> None:
        super().__init__(message)
        self.message = message
        self.call = f"{entity}.{action}"


@dataclass(frozen=True, slots=True)
class MenuItem:
    """An entry of the navigation, shown to those who hold the permission. Pages below its path belong to it."""

    title: str
    path: str
    permission: str = "administer CiviCRM"
    also: tuple[str, ...] = ()  # other paths that belong to it


@dataclass(frozen=True, slots=True)
class Site:
    """What every page needs of the server. ``home`` is where a log-in leads that was on its way nowhere."""

    api: Responder
    auth: Auth
    server: ServerSettings
    proxies: Proxies
    version: str  # of all static files; part of their addresses, so that new ones are fetched at once
    home: str
    menu: tuple[MenuItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Visit:
    """A request to a page, read, and who made it. ``secret`` binds the forms shown to this browser."""

    site: Site
    request: web.Request
    incoming: Incoming
    caller: Caller | None
    secret: str
    secret_is_new: bool = False

    @property
    def token(self) -> str:
        """What a form posted from this browser must carry."""
        return hmac.new(self.secret.encode("utf-8", "replace"), b"civiapi form", hashlib.sha256).hexdigest()

    @property
    def wants_json(self) -> bool:
        """Whether a script asks rather than a person."""
        accepts = self.incoming.header("Accept")
        return "application/json" in accepts or "text/event-stream" in accepts

    @property
    def menu(self) -> list[MenuItem]:
        """The navigation, as far as the visitor may go."""
        return [item for item in self.site.menu if self.caller is not None and self.caller.may(item.permission)]

    def item(self, title: str) -> MenuItem | None:
        """The entry of the navigation with this title, if the visitor may go there."""
        return next((one for one in self.menu if one.title == title), None)

    @property
    def place(self) -> MenuItem | None:
        """The entry of the navigation that this page belongs to: the one whose path says most of where we are."""
        here = self.incoming.path
        places = [(path, one) for one in self.site.menu for path in (one.path, *one.also)]
        above = [(len(path), one) for path, one in places if here == path or here.startswith(f"{path}/")]
        return max(above, key=lambda one: one[0], default=(0, None))[1]

    def field(self, name: str) -> str:
        """A field of the query or form as text, ``""`` without it."""
        return forms.scalar(self.incoming.fields, name)

    def file(self, name: str) -> str:
        """The address of a static file. Scripts import each other relative to it, so they are of one version too."""
        return f"{STATIC}/{self.site.version}/{name}"

    async def ask(self, entity: str, action: str, params: Mapping[str, Any] | None = None) -> Any:
        """The API's answer to a call of the visitor's, permissions checked. Raises ``CallFailed``."""
        assert self.caller is not None  # noqa: S101  only pages for somebody ask
        answer = await self.site.api.respond(Call(entity, action, forms.forced(dict(params or {})), self.caller))
        if isinstance(answer, dict) and answer.get("is_error"):
            raise CallFailed(str(answer.get("error_message") or "The call failed."), entity, action)
        return answer

    def show(self, template: str, status: int = 200, **context: Any) -> web.Response:
        """The page made from a template. Templates see ``visit`` besides *context*."""
        text = aiohttp_jinja2.render_string(template, self.request, {"visit": self, **context})
        return self._send(Answer(text.encode("utf-8", "replace"), HTML, status, HEADERS))

    def data(self, value: Any, status: int = 200) -> web.Response:
        """A JSON answer for the page's own script."""
        return self._send(Answer(encode(value), status=status, headers=HEADERS))

    def go(self, where: str, cookie: str | None = None) -> web.Response:
        """On to another page of this site; *cookie* opens a session, ``""`` ends it."""
        return self._send(Answer(b"", "text/plain", 303, {**HEADERS, "Location": where}, cookie))

    def say(self, title: str, text: str, status: int) -> web.Response:
        """A page, or JSON for a script, that only says something."""
        if self.wants_json:
            return self.data({"error": text}, status)
        return self.show("message.html", status, title=title, text=text)

    def _send(self, answer: Answer) -> web.Response:
        response = to_response(answer, self.incoming.https)
        if self.secret_is_new:
            response.set_cookie(
                FORM_COOKIE, self.secret, httponly=True, samesite="Strict", secure=self.incoming.https, path="/"
            )
        return response


Page = Callable[[Visit], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page(site: Site, show: Page, permission: str | None) -> Handler:
    """The handler of a page for those who hold *permission*; ``None``: for anyone."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            server = site.server
            incoming = await read(
                request,
                raw_body=False,
                max_body=server.max_body,
                body_seconds=server.body_seconds,
                proxies=site.proxies,
            )
            return await _visit(site, request, incoming, show, permission)
        except BadBody as bad:
            return _plain(bad.message, bad.status if bad.status >= 400 else 400)
        except ConnectionError:
            raise  # the visitor left while the answer was on its way; aiohttp lets go of the connection
        except Exception:
            log.exception("a page could not be shown", method=request.method, path=request.rel_url.path)
            return _plain("Something went wrong here; the server's log says what.", 500)

    return handle


async def _visit(
    site: Site, request: web.Request, incoming: Incoming, show: Page, permission: str | None
) -> web.StreamResponse:
    secret = incoming.session or request.cookies.get(FORM_COOKIE, "")
    visit = Visit(site, request, incoming, None, secret or secrets.token_hex(32), not secret)
    if permission is not None:
        try:
            identity = await identify(site.auth, incoming)
        except Refused as refusal:
            return _nobody(visit) if refusal.message == NOBODY else visit.say("Not let in", refusal.message, 401)
        if identity.redirect is not None:
            return to_response(identity.redirect, incoming.https)
        visit = Visit(site, request, incoming, identity.caller, visit.secret, visit.secret_is_new)
        if not identity.caller.may(permission):
            text = (
                f"This page needs the permission “{permission}”, which {identity.caller.name} does not have. "
                "Log in as somebody who has it, or add it to this user in the settings file."
            )
            return visit.say("No access", text, 403)
    if not incoming.is_get and not _is_own_form(visit):
        return visit.say("Not sent from here", STALE, 403)
    try:
        return await show(visit)
    except CallFailed as failed:
        return visit.say("That did not work", f"{failed.call}: {failed.message}", 422)


def _nobody(visit: Visit) -> web.Response:
    if visit.wants_json or not visit.incoming.is_get:
        return visit.say("Logged out", "Your session is over. Log in again and repeat this.", 401)
    return visit.go(f"{LOGIN}?{urlencode({'next': str(visit.request.rel_url)})}")


def _is_own_form(visit: Visit) -> bool:
    """Whether the form came from a page that we showed to this very browser."""
    from_here = visit.incoming.header("Sec-Fetch-Site") in ("", "same-origin", "none")
    return from_here and hmac.compare_digest(visit.field(TOKEN_FIELD).encode("utf-8", "replace"), visit.token.encode())


def _plain(text: str, status: int) -> web.Response:
    return to_response(Answer(f"{text}\n".encode(), "text/plain; charset=utf-8", status, HEADERS), False)
