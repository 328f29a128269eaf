"""A server on a free port for the tests of HTTP, and an API that records its calls."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from civiapi.api.call import Call, Responder
from civiapi.auth.authenticator import Auth
from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.routes import make_runner, make_web_app
from civiapi.http.messages import Endpoint
from civiapi.settings import ServerSettings, UserSettings
from civiapi.store.engine import Store

SITE_KEY = "site-key-of-tests"
ADMIN_KEY = "admin-key-of-tests"
LIMITED_KEY = "limited-key-of-tests"
LIMITED = frozenset({"access AJAX API", "access CiviCRM", "view my contact"})
USERS = (
    UserSettings("admin", ADMIN_KEY, frozenset({"*"})),
    UserSettings("limited", LIMITED_KEY, LIMITED),
    UserSettings("mute", "mute-key-of-tests", frozenset({"authenticate with api key", "view my contact"})),
)
ADMIN = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}
AJAX = {"X-Requested-With": "XMLHttpRequest"}
KEYS = {"key": SITE_KEY, "api_key": ADMIN_KEY}


class Mirror:
    """Answers a call with itself; ``say`` sets another answer, ``calls`` records them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.say: Any = None
        self.fails = False

    async def respond(self, call: Call) -> Any:
        self.calls.append(call)
        if self.fails:
            raise RuntimeError("a fault of ours with key=hidden in it")
        if self.say is not None:
            return self.say
        return {"is_error": 0, "entity": call.entity, "action": call.action, "values": dict(call.params)}

    @property
    def last(self) -> Call:
        return self.calls[-1]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read."""

    status: int
    content_type: str
    text: str
    headers: Mapping[str, str]
    json: Any = None


class HttpServer:
    """A running server and a client of it that keeps cookies."""

    def __init__(self, base: str, auth: Auth, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.auth = auth
        self._session = session

    async def send(self, method: str, path: str, **how: Any) -> Reply:
        """Send a request; redirects are shown, not followed."""
        async with self._session.request(method, self.base + path, allow_redirects=False, **how) as answer:
            text = await answer.text()
            body = await answer.json(content_type=None) if text[:1] in ("{", "[") or text.isdigit() else None
            kind = answer.headers.get("Content-Type", "").split(";")[0]
            return Reply(answer.status, kind, text, answer.headers, body)

    async def get(self, path: str, **how: Any) -> Reply:
        return await self.send("GET", path, **how)

    async def post(self, path: str, **how: Any) -> Reply:
        return await self.send("POST", path, **how)


@asynccontextmanager
async def serving(
    store: Store,
    api: Responder,
    *,
    site_key: str = SITE_KEY,
    users: tuple[UserSettings, ...] = USERS,
    more: Mapping[str, Endpoint] | None = None,
    trusted_proxies: tuple[str, ...] = (),
    max_body: int = 100_000,
    signing_secret: str = "",
    throttle: Throttle | None = None,
) -> AsyncIterator[HttpServer]:
    """The whole HTTP application over *api*."""
    auth = Auth(store, site_key, users, throttle, signing_secret=signing_secret)
    settings = ServerSettings(site_key=site_key, trusted_proxies=trusted_proxies, max_body=max_body)
    runner = make_runner(make_web_app(api, auth, settings, more=more), idle_seconds=settings.idle_seconds)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of 127.0.0.1 too
    try:
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            yield HttpServer(f"http://127.0.0.1:{runner.addresses[0][1]}", auth, session)
    finally:
        await runner.cleanup()
