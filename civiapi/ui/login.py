"""Log-in and log-out for people: a user of the settings, by name and API key, gets a session cookie.

The session is the one that ``/civicrm/authx/login`` opens; every page and the AJAX path take it.
"""

import re
from dataclasses import replace

from aiohttp import web

from civiapi.auth import Refused
from civiapi.ui.visit import LOGIN, Visit

WRONG = "This user name and this key do not go together."
# Only pages of our own: an address that begins with two slashes, or has a backslash in it, leads elsewhere.
OWN_PAGE = re.compile(r"/civicrm/[\w./?&=%+~,:@*-]*", re.ASCII)


async def show(visit: Visit) -> web.Response:
    """The form."""
    return _form(visit)


async def log_in(visit: Visit) -> web.Response:
    """Open a session and go where the visitor was going; wrong credentials show the form again."""
    try:
        caller = await visit.site.auth.by_name_and_key(
            visit.field("user"), visit.field("user_key").strip(), visit.incoming.address
        )
    except Refused:
        return _form(visit, WRONG, 403)
    return visit.go(_next(visit), visit.site.auth.open_session(caller))


async def log_out(visit: Visit) -> web.Response:
    """End the session of this browser."""
    return visit.go(LOGIN, "")


def _form(visit: Visit, wrong: str = "", status: int = 200) -> web.Response:
    anonymous = replace(visit, caller=None)
    return anonymous.show("login.html", status, wrong=wrong, user=visit.field("user"), next=_next(visit))


def _next(visit: Visit) -> str:
    wanted = visit.field("next")
    return wanted if OWN_PAGE.fullmatch(wanted) else visit.site.home
