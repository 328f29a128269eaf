"""Routes of the pages and static files; ``ui_pages`` is passed to ``make_web_app``."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp_jinja2
from aiohttp import web

from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth
from civiapi.endpoints.routes import MISSING_PAGE
from civiapi.http.messages import HttpPolicy
from civiapi.settings import ServerSettings, SyncSettings
from civiapi.ui.config import fields as config_fields
from civiapi.ui.config import link as config_link
from civiapi.ui.config import pages as config_pages
from civiapi.ui.core import login
from civiapi.ui.core.page import HEADERS, LOGIN, STATIC, Handler, MenuItem, Page, PageRequest, Site, page_handler
from civiapi.ui.core.templates import STATIC_FOLDER, add_globals, template_options
from civiapi.ui.explorer import pages as explorer_pages
from civiapi.ui.jobs import pages as jobs_pages
from civiapi.ui.people import contact_import, person, search
from civiapi.ui.status import campaigns, fragments, preview, run, stream, timeline
from civiapi.ui.status import pages as status_pages

HOME = status_pages.PATH
LOGOUT = "/civicrm/logout"
CONTENT_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
YEAR = 365 * 24 * 3600
MENU = (
    MenuItem("Status", status_pages.PATH, status_pages.PERMISSION),
    MenuItem("People", search.PATH, search.PERMISSION, also=(search.PERSON, contact_import.PATH), icon="people"),
    MenuItem("Connections", config_pages.PATH, config_pages.PERMISSION, icon="connections"),
    MenuItem("Jobs", jobs_pages.PATH, jobs_pages.PERMISSION, icon="jobs"),
    MenuItem("API explorer", explorer_pages.PATH, explorer_pages.PERMISSION, icon="explorer"),
)
PAGES = (
    status_pages,
    campaigns,
    preview,
    run,
    timeline,
    stream,
    config_pages,
    config_link,
    config_fields,
    jobs_pages,
    search,
    person,
    contact_import,
)
"""Modules with ``ROUTES`` (method, path, page) and the ``PERMISSION`` that all of them need."""


def ui_pages(
    auth: Auth, api: Api, server: ServerSettings, *, sync: SyncSettings | None = None, home: str = HOME
) -> Callable[[web.Application], None]:
    """What adds the pages to an application. Raises ``OSError`` if their files are not installed."""
    files = _read_static()
    version = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
    site = Site(api, auth, server, HttpPolicy.of(server), version, home, api.registry, MENU, sync or SyncSettings())
    explorer = explorer_pages.Explorer(api.registry)

    def add(app: web.Application) -> None:
        add_globals(aiohttp_jinja2.setup(app, **template_options()), api.store.clock)
        _add(app, site, "GET", LOGIN, login.show)
        _add(app, site, "POST", LOGIN, login.log_in)
        _add(app, site, "POST", LOGOUT, login.log_out)
        for method, path, show in explorer.routes():
            _add(app, site, method, path, show, explorer_pages.PERMISSION)
        fragments.set_up(app)
        stream.set_up(app)
        for module in PAGES:
            for method, path, show in module.ROUTES:
                _add(app, site, method, path, show, module.PERMISSION)
        too_large = contact_import.too_large(server.max_body)
        app.router.add_post(
            contact_import.PATH, page_handler(site, contact_import.upload, contact_import.PERMISSION, too_large)
        )
        app[MISSING_PAGE] = page_handler(site, show_missing, None)
        app.router.add_get(STATIC + "/{version}/{name}", _static(files, version))

    return add


async def show_missing(page: PageRequest) -> web.Response:
    """Where nothing is: without a trailing slash something may be."""
    path = page.incoming.path
    if path.endswith("/") and path.startswith("/civicrm/"):
        query = page.request.rel_url.raw_query_string
        return page.redirect(f"/{path.strip('/')}{f'?{query}' if query else ''}")
    return page.message("Page not found", "There is no page at this address. It may have been moved or mistyped.", 404)


def _add(app: web.Application, site: Site, method: str, path: str, show: Page, permission: str | None = None) -> None:
    add = app.router.add_get if method == "GET" else app.router.add_post  # add_get answers HEAD too
    add(path, page_handler(site, show, permission))


async def redirect_home(_request: web.Request) -> web.StreamResponse:
    """From ``GET /`` to the start page; for ``make_web_app``."""
    return web.Response(status=303, headers={**HEADERS, "Location": HOME})


def _read_static() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(STATIC_FOLDER.iterdir()) if file.suffix in CONTENT_TYPES}


def _static(files: Mapping[str, bytes], version: str) -> Handler:
    async def send(request: web.Request) -> web.StreamResponse:
        """A static file, cached by the browser for a year: its URL changes when any file does."""
        name = request.match_info["name"]
        body = files.get(name)
        if body is None:
            return web.Response(text="Not found\n", status=404, headers=HEADERS)
        caching = f"public, max-age={YEAR}, immutable" if request.match_info["version"] == version else "no-cache"
        content_type = CONTENT_TYPES[Path(name).suffix]
        more = {"Content-Type": content_type, "X-Content-Type-Options": "nosniff", "Cache-Control": caching}
        return web.Response(body=body, headers={**HEADERS, **more})

    return send
