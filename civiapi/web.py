"""The HTTP application: every way in at its path, one catch-all around each, health, limits.

Routing goes by how a path ends, because CiviCRM lives at a different prefix in every CMS, and by ``q`` at the CMS's own
front doors (``/index.php?q=civicrm/ajax/rest``). Pages of other modules are ordinary aiohttp routes and come first.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from aiohttp import web

from civiapi.adapters import forms
from civiapi.adapters.ajax import Ajax, ApiJson
from civiapi.adapters.authx import AuthxId, AuthxLogin, AuthxLogout
from civiapi.adapters.dress import UNKNOWN, encode
from civiapi.adapters.http import Answer, BadBody, Proxies, Way, read, to_response
from civiapi.adapters.jsonrpc import JsonRpc
from civiapi.adapters.rest import Responder, Rest
from civiapi.adapters.wordpress import WordPress
from civiapi.auth import Auth
from civiapi.settings import ServerSettings

log = structlog.get_logger(__name__)

MAX_LINE = 131_072  # real clients put whole parameter sets, a configuration even, into the address of a POST
FRONT_DOORS = re.compile(r"(?:^|/)(?:index\.php|wp-admin/admin\.php)?$")
VERSION_4 = re.compile(r"(?:^|/)civicrm/ajax/api4(?:/|$)")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Ways:
    """Path endings and what answers there; looked up by the whole path or by its ending."""

    by_ending: Mapping[str, Way]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, by_ending: Mapping[str, Way]) -> "Ways":
        endings = "|".join(re.escape(ending) for ending in by_ending)
        return cls(by_ending, re.compile(rf"(?:^|/)({endings})/?$"))

    def find(self, path: str) -> Way | None:
        """The way in at this path."""
        match = self.pattern.search(path)
        return None if match is None else self.by_ending[match[1]]


class Front:
    """Takes every request that no page has claimed to its way in."""

    def __init__(self, ways: Ways, settings: ServerSettings, home: Handler | None) -> None:
        self._ways = ways
        self._settings = settings
        self._proxies = Proxies(settings.trusted_proxies)
        self._home = home

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The answer to any request. The one place where a fault of ours is caught for all the ways in."""
        path = request.rel_url.path
        way = self._ways.find(path)
        if way is None:
            way = self._behind_front_door(request, path)
            if way is None:
                return await self._other(request, path)
        try:
            incoming = await read(
                request,
                raw_body=way.raw_body,
                max_body=self._settings.max_body,
                body_seconds=self._settings.body_seconds,
                proxies=self._proxies,
            )
            return to_response(await way.answer(incoming), incoming.https)
        except BadBody as bad:
            return to_response(way.failure(_query(request), bad.message, bad.status), request.secure)
        except Exception:
            log.exception("a request could not be answered", method=request.method, path=path)
            return to_response(way.failure(_query(request), UNKNOWN, 500), request.secure)

    def _behind_front_door(self, request: web.Request, path: str) -> Way | None:
        if "q=" in request.rel_url.raw_query_string and FRONT_DOORS.search(path):
            return self._ways.find(forms.scalar(_query(request), "q"))
        return None

    async def _other(self, request: web.Request, path: str) -> web.StreamResponse:
        if VERSION_4.search(path):
            message = "API version 4 is not offered here; version 3 is, at /civicrm/ajax/rest."
            return to_response(Answer(encode({"error_code": 501, "error_message": message}), status=501), False)
        if path == "/" and self._home is not None:
            return await self._home(request)
        return to_response(Answer(b"Not found\n", "text/plain; charset=utf-8", 404), False)


def _query(request: web.Request) -> forms.Fields:
    return forms.parse(request.rel_url.raw_query_string)


def make_web_app(
    api: Responder,
    auth: Auth,
    settings: ServerSettings,
    *,
    more: Mapping[str, Way] | None = None,
    pages: Callable[[web.Application], None] | None = None,
    home: Handler | None = None,
    metrics: Handler | None = None,
) -> web.Application:
    """The application. It serves as soon as it runs: open the store and start the rest before.

    *more* are further ways in by path ending (webhooks); *pages* adds ordinary routes, which come before the ways in;
    *home* answers ``GET /``, *metrics* ``GET /metrics``. Raises ``ValueError`` for a trusted proxy that is no address.
    """
    app = web.Application(client_max_size=settings.max_body)
    if pages is not None:
        pages(app)
    _add_health(app, metrics)
    ways: dict[str, Way] = {
        "extern/rest.php": Rest(api, auth),
        "civicrm/ajax/rest": Ajax(api, auth),
        "civicrm/api/json": ApiJson(api, auth),
        "wp-json/civicrm/v3/rest": WordPress(api, auth),
        "civicrm/authx/id": AuthxId(auth),
        "civicrm/authx/login": AuthxLogin(auth),
        "civicrm/authx/logout": AuthxLogout(),
        "jsonrpc": JsonRpc(api, auth),
        **(more or {}),
    }
    front = Front(Ways.of(ways), settings, home)
    app.router.add_route("*", "/{path:.*}", front.handle)
    return app


def make_worker_app(metrics: Handler) -> web.Application:
    """What a process that answers no calls has to say: that it lives, and its numbers."""
    app = web.Application()
    _add_health(app, metrics)
    return app


def make_runner(app: web.Application, *, idle_seconds: float) -> web.AppRunner:
    """A runner for the application: no access log, addresses as long as CiviCRM's clients make them.

    A connection on which no request begins for *idle_seconds* is closed; one whose head comes byte by byte counts as
    such.
    """
    return web.AppRunner(
        app,
        access_log=None,
        max_line_size=MAX_LINE,
        keepalive_timeout=idle_seconds,
        shutdown_timeout=3.0,  # for what is being answered, and once more for what does not heed that
        handle_signals=False,
    )


def _add_health(app: web.Application, metrics: Handler | None) -> None:
    app.router.add_get("/healthz", _healthz)
    if metrics is not None:
        app.router.add_get("/metrics", metrics)


async def _healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})
