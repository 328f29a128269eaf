"""The page at ``/metrics``, and who may read it: ``[server] metrics_from``."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from civiapi.adapters.http import Proxies
from civiapi.metrics import Metrics
from civiapi.store.engine import Store

Page = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Readers:
    """Who may read: those whose address is in one of *networks*, seen through *proxies* that are trusted."""

    def __init__(self, networks: tuple[str, ...], trusted_proxies: tuple[str, ...]) -> None:
        self._networks = Proxies(networks)
        self._proxies = Proxies(trusted_proxies)

    def allow(self, remote: str, forwarded_for: str | None) -> bool:
        """Whether this request may read. One that a proxy handed on which we do not know may not."""
        if forwarded_for is not None and not self._proxies.trusts(remote):
            return False
        return self._networks.trusts(self._proxies.caller(remote, forwarded_for or ""))


def metrics_page(metrics: Metrics, store: Store, readers: Readers) -> Page:
    """The page at ``/metrics``: 403 for whoever may not read it."""

    async def show(request: web.Request) -> web.StreamResponse:
        if not readers.allow(request.remote or "", request.headers.get("X-Forwarded-For")):
            return web.Response(status=403, text="Who may read this is set in [server] metrics_from.\n")
        body = await metrics.page(store)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    return show
