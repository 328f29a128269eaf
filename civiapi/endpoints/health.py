"""The page at ``/civicrm/mailchimpsync/health``, for monitors: 200 while all is well or mends itself, 503 otherwise.

It names audiences by their id and their state, nothing else: no reasons, no people. Access: the addresses in ``[server]
metrics_from``, and any credentials that may call ``getstatus``. Wrong ones are never answered 200, so that a monitor
with an old key does not report health.
"""

import structlog
from aiohttp import web

from civiapi.auth.authenticator import Auth, AuthenticationFailed
from civiapi.endpoints.metrics import AllowedNetworks, Page
from civiapi.http.messages import HttpPolicy, HttpResponse, credentials_of, received, refuse, to_response
from civiapi.http.rendering import encode
from civiapi.metrics import GetHealth
from civiapi.store.errors import StoreError
from sync.errors import SyncError
from sync.reports.health import UNHEALTHY, Health, worst

PATH = "/civicrm/mailchimpsync/health"
PERMISSION = "administer CiviCRM"
TEXT = "text/plain; charset=utf-8"
DENIED = HttpResponse(b"Access is set in [server] metrics_from; or send the keys of an administrator.\n", TEXT, 403)

log = structlog.get_logger(__name__)


def health_page(get_health: GetHealth, auth: Auth, policy: HttpPolicy, allowed: AllowedNetworks) -> Page:
    """The page at ``PATH``: 403 (429 after too many wrong keys) for callers without access."""

    async def show(request: web.Request) -> web.StreamResponse:
        if not allowed.contain_sender(request):
            denied = await _check_key(request, auth, policy)
            if denied is not None:
                return to_response(denied, policy)
        return to_response(await _answer(get_health), policy)

    return show


async def _check_key(request: web.Request, auth: Auth, policy: HttpPolicy) -> HttpResponse | None:
    """Why the credentials in the request give no access; None if they do."""
    async with received(request, policy) as incoming:
        try:
            caller = await auth.by_authx(credentials_of(incoming))
        except AuthenticationFailed as refusal:
            return refuse(DENIED, refusal)
    return None if caller is not None and caller.may(PERMISSION) else DENIED


async def _answer(get_health: GetHealth) -> HttpResponse:
    try:
        audiences = await get_health()
    except (StoreError, SyncError) as error:
        log.warning("the health of the connections cannot be read", error=str(error))
        return _response(Health.FAILED, {})
    return _response(worst(audiences.values()), dict(audiences))


def _response(state: Health, audiences: dict[str, Health]) -> HttpResponse:
    body = encode({"state": state, "audiences": audiences})
    return HttpResponse(body, status=503 if state in UNHEALTHY else 200)
