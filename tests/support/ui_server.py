"""A server with the pages over a real API, and its users, for the tests of the pages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth
from civiapi.endpoints.routes import make_runner, make_web_app
from civiapi.settings import ServerSettings, UserSettings
from civiapi.ui.routes import redirect_home, ui_pages

SITE_KEY = "site-key-of-the-screens"
ADMIN_KEY = "admin-key-of-the-screens"
READER_KEY = "reader-key-of-the-screens"
ADMIN_PERMISSIONS = frozenset(
    {
        "administer CiviCRM",
        "access CiviCRM",
        "access AJAX API",
        "view all contacts",
        "edit all contacts",
        "add contacts",
    }
)
USERS = (
    UserSettings("admin", ADMIN_KEY, ADMIN_PERMISSIONS),
    UserSettings("reader", READER_KEY, frozenset({"access CiviCRM", "access AJAX API"})),
)


@asynccontextmanager
async def ui_server(api: Api, **server: Any) -> AsyncIterator[str]:
    """The address of a running server with the pages."""
    settings = ServerSettings(site_key=SITE_KEY, **server)
    auth = Auth(api.store, settings.site_key, USERS)
    app = make_web_app(api, auth, settings, pages=ui_pages(auth, api, settings), home=redirect_home)
    runner = make_runner(app, idle_seconds=settings.idle_seconds)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class PageResponse:
    """A response as a browser gets it."""

    status: int
    text: str
    headers: Any
    json: Any = None

    @property
    def token(self) -> str:
        """The token of the page's forms."""
        return self.text.split('name="token" value="', 1)[1].split('"', 1)[0]


class Browser:
    """Keeps cookies as a browser does; redirects are shown, not followed."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self.base = base
        self.session = session

    async def send(self, method: str, path: str, **how: Any) -> PageResponse:
        async with self.session.request(method, self.base + path, allow_redirects=False, **how) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return PageResponse(answer.status, text, answer.headers, await answer.json() if is_json else None)

    async def get(self, path: str, **how: Any) -> PageResponse:
        return await self.send("GET", path, **how)

    async def post(self, path: str, **how: Any) -> PageResponse:
        return await self.send("POST", path, **how)

    async def log_in(self, user: str = "admin", key: str = ADMIN_KEY, next: str = "") -> PageResponse:
        """Fill in the log-in form and send it."""
        token = (await self.get("/civicrm/login")).token
        return await self.post("/civicrm/login", data={"token": token, "user": user, "user_key": key, "next": next})


@asynccontextmanager
async def a_browser(base: str) -> AsyncIterator[Browser]:
    """A browser without cookies."""
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of 127.0.0.1 too
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(base, session)
