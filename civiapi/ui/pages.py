"""The pages as routes: which page is where, for whom, and the files they load. ``ui_pages`` is for ``make_web_app``."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp_jinja2
from aiohttp import web
from jinja2 import FileSystemLoader, StrictUndefined

from civiapi.adapters.http import Proxies
from civiapi.auth import Auth
from civiapi.dispatch import Api
from civiapi.settings import ServerSettings
from civiapi.ui import config, config_link, events, explorer, jobs, login, parts, people, person, preview, status
from civiapi.ui.visit import HEADERS, LOGIN, STATIC, Handler, MenuItem, Page, Site, page

HERE = Path(__file__).parent
HOME = status.PATH
LOGOUT = "/civicrm/logout"
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
YEAR = 365 * 24 * 3600
MENU = (
    MenuItem("Status", status.PATH, status.PERMISSION),
    MenuItem("People", people.PATH, people.PERMISSION, also=(people.PERSON,)),
    MenuItem("Config", config.PATH, config.PERMISSION),
    MenuItem("Jobs", jobs.PATH, jobs.PERMISSION),
    MenuItem("API explorer", explorer.PATH, explorer.PERMISSION),
)


def template_options() -> dict[str, Any]:
    """How templates are found and rendered, with or without a server. A name that is not given is a mistake."""
    return {
        "loader": FileSystemLoader(HERE / "templates"),
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }


def ui_pages(auth: Auth, api: Api, server: ServerSettings, *, home: str = HOME) -> Callable[[web.Application], None]:
    """What adds the pages to an application. Raises ``OSError`` if their files are not installed."""
    files = _read_static()
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
    site = Site(api, auth, server, Proxies(server.trusted_proxies), version, home, MENU)
    shown = explorer.Explorer(api.registry)

    def add(app: web.Application) -> None:
        aiohttp_jinja2.setup(app, **template_options())
        _add(app, site, "GET", LOGIN, login.show)
        _add(app, site, "POST", LOGIN, login.log_in)
        _add(app, site, "POST", LOGOUT, login.log_out)
        for method, path, show in (
            ("GET", "", shown.index),
            ("GET", "/reference.json", shown.data),
            ("GET", "/{entity}", shown.entity),
            ("GET", "/{entity}/{action}", shown.action),
            ("POST", "/{entity}/{action}", shown.action),
        ):
            _add(app, site, method, explorer.PATH + path, show, explorer.PERMISSION)
        parts.set_up(app)
        events.set_up(app)
        for module in (status, preview, events, config, config_link, jobs, people, person):
            for method, path, show in module.ROUTES:
                _add(app, site, method, path, show, module.PERMISSION)
        app.router.add_get(STATIC + "/{version}/{name}", _static(files, version))

    return add


def _add(app: web.Application, site: Site, method: str, path: str, show: Page, permission: str | None = None) -> None:
    add = app.router.add_get if method == "GET" else app.router.add_post  # add_get answers HEAD too
    add(path, page(site, show, permission))


async def lead_home(_request: web.Request) -> web.StreamResponse:
    """From ``GET /`` to the start page; for ``make_web_app``."""
    return web.Response(status=303, headers={**HEADERS, "Location": HOME})


def _read_static() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((HERE / "static").iterdir()) if file.suffix in KINDS}


def _static(files: Mapping[str, bytes], version: str) -> Handler:
    async def send(request: web.Request) -> web.StreamResponse:
        """A file, kept by the browser for good: its address changes when any file does."""
        name = request.match_info["name"]
        body = files.get(name)
        if body is None:
            return web.Response(text="Not found\n", status=404, headers=HEADERS)
        kept = f"public, max-age={YEAR}, immutable" if request.match_info["version"] == version else "no-cache"
        kind = KINDS[Path(name).suffix]
        more = {"Content-Type": kind, "X-Content-Type-Options": "nosniff", "Cache-Control": kept}
        return web.Response(body=body, headers={**HEADERS, **more})

    return send
