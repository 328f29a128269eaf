"""The page at ``/metrics``, for the addresses in ``[server] metrics_from``."""

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from civiapi.http.proxies import FORWARDED_FOR, Proxies
from civiapi.metrics import GetHealth, Metrics
from civiapi.store.engine import Store

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AllowedNetworks:
    """Access by address: callers in one of *networks*, also behind trusted proxies."""

    def __init__(self, networks: tuple[str, ...], trusted_proxies: tuple[str, ...]) -> None:
        self._networks = Proxies(networks)
        self._proxies = Proxies(trusted_proxies)

    def contain_caller(self, remote: str, forwarded_for: Sequence[str]) -> bool:
        """Whether the request has access; never through a proxy that is not trusted, or by an unreadable route."""
        if forwarded_for and not self._proxies.trusts(remote):
            return False
        route = self._proxies.route(remote, forwarded_for)
        return route.is_whole and self._networks.trusts(route.address)

    def contain_sender(self, request: web.Request) -> bool:
        """Whether this request has access."""
        return self.contain_caller(request.remote or "", request.headers.getall(FORWARDED_FOR, ()))


def metrics_page(metrics: Metrics, store: Store, get_health: GetHealth, allowed: AllowedNetworks) -> Page:
    """The page at ``/metrics``: 403 for callers without access."""

    async def show(request: web.Request) -> web.StreamResponse:
        if not allowed.contain_sender(request):
            return web.Response(status=403, text="Access is set in [server] metrics_from.\n")
        body = await metrics.page(store, get_health)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    return show
