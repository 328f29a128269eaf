"""The HTTP application: the endpoints at their paths, with one error handler around all; health and limits.

Routes match the end of a path, because each CMS has CiviCRM at a different prefix, and ``q`` at the CMS's own entry
pages (``/index.php?q=civicrm/ajax/rest``). Pages of other modules are ordinary aiohttp routes and come first.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from aiohttp import web

from civiapi.api.call import Responder
from civiapi.auth.authenticator import Auth
from civiapi.endpoints.ajax import Ajax, ApiJson
from civiapi.endpoints.authx import AuthxId, AuthxLogin, AuthxLogout
from civiapi.endpoints.jsonrpc import JsonRpc
from civiapi.endpoints.rest import Rest
from civiapi.endpoints.wordpress import WordPress
from civiapi.http import forms
from civiapi.http.body_budget import BodyBudget
from civiapi.http.messages import BODIES, BadBody, Endpoint, HttpPolicy, HttpResponse, received, to_response
from civiapi.http.rendering import UNKNOWN, encode
from civiapi.settings import ServerSettings

log = structlog.get_logger(__name__)

MAX_LINE = 131_072  # clients put whole parameter sets, even a configuration, into the URL of a POST
CMS_ENTRY_PAGES = re.compile(r"(?:^|/)(?:index\.php|wp-admin/admin\.php)?$")
VERSION_4 = re.compile(r"(?:^|/)civicrm/ajax/api4(?:/|$)")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class MissingPage(Protocol):
    """What answers a browser at a path where nothing is."""

    def __call__(self, request: web.Request, /) -> Awaitable[web.StreamResponse]: ...


MISSING_PAGE: web.AppKey[MissingPage] = web.AppKey("missing_page")


@dataclass(frozen=True, slots=True)
class EndpointTable:
    """Endpoints by path ending."""

    by_ending: Mapping[str, Endpoint]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, by_ending: Mapping[str, Endpoint]) -> "EndpointTable":
        """The table of endpoints by path ending; they answer at any prefix."""
        endings = "|".join(re.escape(ending) for ending in by_ending)
        return cls(by_ending, re.compile(rf"(?:^|/)({endings})/?$"))

    def find(self, path: str) -> Endpoint | None:
        """The endpoint at this path."""
        match = self.pattern.search(path)
        return None if match is None else self.by_ending[match[1]]


class Router:
    """Passes each request that no page answers to its endpoint."""

    def __init__(self, endpoints: EndpointTable, policy: HttpPolicy, home: Handler | None) -> None:
        self._endpoints = endpoints
        self._policy = policy
        self._home = home

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The response to a request at any path."""
        path = request.rel_url.path
        endpoint = self._endpoints.find(path) or self._at_entry_page(request, path)
        if endpoint is None:
            return await self._other(request, path)
        return await self.answer(endpoint, request)

    async def answer(self, endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
        """The response of an endpoint; catches the faults of all."""
        try:
            reading = received(request, self._policy, raw_body=endpoint.raw_body, max_body=endpoint.max_body)
            async with reading as incoming:
                answer = await endpoint.answer(incoming)
            return to_response(answer, self._policy, https=incoming.https)
        except BadBody as bad:
            response = to_response(endpoint.failure(_query(request), bad.message, bad.status), self._policy)
            if bad.status == 503:
                response.headers["Retry-After"] = "5"
            return response
        except Exception:
            log.exception("a request could not be answered", method=request.method, path=request.rel_url.path)
            return to_response(endpoint.failure(_query(request), UNKNOWN, 500), self._policy)

    def _at_entry_page(self, request: web.Request, path: str) -> Endpoint | None:
        if "q=" in request.rel_url.raw_query_string and CMS_ENTRY_PAGES.search(path):
            return self._endpoints.find(forms.scalar(_query(request), "q"))
        return None

    async def _other(self, request: web.Request, path: str) -> web.StreamResponse:
        if VERSION_4.search(path):
            message = "API version 4 is not offered here; version 3 is, at /civicrm/ajax/rest."
            body = encode({"error_code": 501, "error_message": message})
            return to_response(HttpResponse(body, status=501), self._policy)
        if path == "/" and self._home is not None:
            return await self._home(request)
        missing = request.app.get(MISSING_PAGE)
        if missing is not None and request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return await missing(request)
        return to_response(HttpResponse(b"Not found\n", "text/plain; charset=utf-8", 404), self._policy)


def _query(request: web.Request) -> forms.Fields:
    return forms.parse(request.rel_url.raw_query_string)


def make_web_app(
    api: Responder,
    auth: Auth,
    settings: ServerSettings,
    *,
    more: Mapping[str, Endpoint] | None = None,
    pages: Callable[[web.Application], None] | None = None,
    home: Handler | None = None,
    monitoring: Mapping[str, Handler] | None = None,
) -> web.Application:
    """The application. Open the store and start all services before it runs.

    *more*: further endpoints by path ending (webhooks); *pages* adds ordinary routes, which come first; *home* answers
    ``GET /``, *monitoring* ``GET`` at these paths. Raises ``ValueError`` for a trusted proxy that is not an address.
    """
    app = web.Application(client_max_size=settings.max_body)
    app[BODIES] = BodyBudget(settings.max_body)
    app.on_response_prepare.append(_close_after_unread_body)
    _insist_on_https(app, settings)
    if pages is not None:
        pages(app)
    _add_health(app, monitoring or {})
    endpoints = EndpointTable.of({**api_endpoints(api, auth), **(more or {})})
    router = Router(endpoints, HttpPolicy.of(settings), home)
    for ending, endpoint in endpoints.by_ending.items():  # found at once, where no CMS is in front
        app.router.add_route("*", f"/{ending}", partial(router.answer, endpoint))
    app.router.add_route("*", "/{path:.*}", router.handle)
    return app


def api_endpoints(api: Responder, auth: Auth) -> dict[str, Endpoint]:
    """CiviCRM's endpoints by path ending."""
    return {
        "extern/rest.php": Rest(api, auth),
        "civicrm/ajax/rest": Ajax(api, auth),
        "civicrm/api/json": ApiJson(api, auth),
        "wp-json/civicrm/v3/rest": WordPress(api, auth),
        "civicrm/authx/id": AuthxId(auth),
        "civicrm/authx/login": AuthxLogin(auth),
        "civicrm/authx/logout": AuthxLogout(auth),
        "jsonrpc": JsonRpc(api, auth),
    }


def make_worker_app(monitoring: Mapping[str, Handler]) -> web.Application:
    """The application of a process that answers no calls: ``/healthz`` and *monitoring*, pages by path."""
    app = web.Application()
    _add_health(app, monitoring)
    return app


def make_runner(app: web.Application, *, idle_seconds: float) -> web.AppRunner:
    """A runner for the application: no access log, and URLs as long as CiviCRM's clients need.

    A connection without a complete request head for *idle_seconds* is closed.
    """
    return web.AppRunner(
        app,
        access_log=None,
        max_line_size=MAX_LINE,
        auto_decompress=False,  # a few bytes of anybody would be unpacked to any number, even of a refused request
        keepalive_timeout=idle_seconds,
        shutdown_timeout=3.0,  # for requests in progress; as long again for those that ignore cancellation
        handle_signals=False,
    )


async def _close_after_unread_body(request: web.Request, response: web.StreamResponse) -> None:
    """Announce that the connection ends, where the request was answered before its body was read.

    aiohttp then reads on for a while, without keeping anything, so that the client gets the answer; but it closes the
    connection, and a client that does not know would send its next request there.
    """
    if not request.content.is_eof():
        response.headers["Connection"] = "close"
        response.force_close()


def _insist_on_https(app: web.Application, settings: ServerSettings) -> None:
    """Add HSTS to every response, if the settings say so."""
    if not (settings.hsts_seconds and settings.base_url.lower().startswith("https:")):
        return

    async def add_header(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Strict-Transport-Security"] = f"max-age={settings.hsts_seconds}"

    app.on_response_prepare.append(add_header)


def _add_health(app: web.Application, monitoring: Mapping[str, Handler]) -> None:
    app.router.add_get("/healthz", _healthz)
    for path, page in monitoring.items():
        app.router.add_get(path, page)


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})
