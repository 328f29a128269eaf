"""Log-in and log-out: a user of the settings file logs in with user name and API key and gets a session cookie.

It is the session of ``/civicrm/authx/login``; every page and the AJAX endpoint accept it.
"""

import re
from dataclasses import replace

from aiohttp import web

from civiapi.auth.authenticator import AuthenticationFailed
from civiapi.ui.core.page import LOGIN, PageRequest, later

WRONG = "Wrong user name or API key."
# Only our own pages: a URL that begins with two slashes, or contains a backslash, leads to another site.
OWN_PAGE = re.compile(r"/civicrm/[\w./?&=%+~,:@*-]*", re.ASCII)


async def show(page: PageRequest, wrong: str = "", status: int = 200) -> web.Response:
    """The form; *wrong*: why a log-in failed."""
    anonymous = replace(page, caller=None)
    return anonymous.render("core/login.html", status, wrong=wrong, user=page.field("user"), next=_next(page))


async def log_in(page: PageRequest) -> web.Response:
    """Open a session and redirect to the page asked for before; wrong credentials show the form again."""
    try:
        caller = await page.site.auth.by_name_and_key(
            page.field("user"), page.field("user_key").strip(), page.incoming.address
        )
    except AuthenticationFailed as refusal:
        if refusal.retry_after:
            return later(await show(page, refusal.message, 429), refusal)
        return await show(page, WRONG, 403)
    return page.redirect(_next(page), await page.site.auth.open_session(caller))


async def log_out(page: PageRequest) -> web.Response:
    """End every session of the user, in this browser and elsewhere."""
    await page.site.auth.end_sessions(page.incoming.session)
    return page.redirect(LOGIN, "")


def _next(page: PageRequest) -> str:
    wanted = page.field("next")
    return wanted if OWN_PAGE.fullmatch(wanted) else page.site.home
