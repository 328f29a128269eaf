"""The page that a monitor asks: 200 or 503 by the worst connection, for whom, and what it never shows."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp.test_utils import TestClient, TestServer

from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth
from civiapi.endpoints.health import PATH, health_page
from civiapi.endpoints.metrics import AllowedNetworks
from civiapi.endpoints.routes import make_web_app
from civiapi.http.messages import HttpPolicy
from civiapi.settings import ServerSettings
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from sync.errors import SyncError
from sync.reports.health import Health
from tests.support.ui_server import ADMIN_KEY, READER_KEY, SITE_KEY, USERS

ANYWHERE, NOWHERE = ("127.0.0.0/8",), ()
STATUS = {
    Health.HEALTHY: 200,
    Health.RUNNING: 200,
    Health.RETRIES: 200,
    Health.LATE: 503,
    Health.NEEDS_YOU: 503,
    Health.FAILED: 503,
}
Serve = Callable[..., AbstractAsyncContextManager[TestClient]]  # type: ignore[type-arg]


def signed(api_key: str) -> dict[str, str]:
    """Headers with an API key and the site key."""
    return {"X-Civi-Auth": f"Bearer {api_key}", "X-Civi-Key": SITE_KEY}


@pytest.fixture
def serve(store: Store, api: Api) -> Serve:
    """A server whose connections have these states, and a client of it."""

    @asynccontextmanager
    async def serving(
        *states: Health, networks: tuple[str, ...] = ANYWHERE, fault: Exception | None = None
    ) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
        async def get_health() -> dict[str, Health]:
            if fault:
                raise fault
            return {f"list{number}": state for number, state in enumerate(states)}

        settings = ServerSettings(site_key=SITE_KEY)
        auth = Auth(store, SITE_KEY, USERS)
        page = health_page(get_health, auth, HttpPolicy.of(settings), AllowedNetworks(networks, ()))
        async with TestClient(TestServer(make_web_app(api, auth, settings, monitoring={PATH: page}))) as client:
            yield client

    return serving


@pytest.mark.parametrize("state", Health)
async def test_each_state_has_its_status(serve: Serve, state: Health) -> None:
    async with serve(state) as client:
        for method in ("GET", "HEAD"):
            assert (await client.request(method, PATH)).status == STATUS[state]


async def test_the_worst_connection_decides_and_each_is_named_by_its_audience(serve: Serve) -> None:
    async with serve(Health.HEALTHY, Health.NEEDS_YOU, Health.LATE) as client:
        answer = await client.get(PATH)
        audiences = {"list0": "healthy", "list1": "needs you", "list2": "late"}
        assert (answer.status, await answer.json()) == (503, {"state": "needs you", "audiences": audiences})
        assert answer.headers["Cache-Control"] == "no-store"


async def test_without_a_connection_nothing_is_wrong(serve: Serve) -> None:
    async with serve() as client:
        answer = await client.get(PATH)
        assert (answer.status, await answer.json()) == (200, {"state": "healthy", "audiences": {}})


@pytest.mark.parametrize("fault", [StoreError("secret"), SyncError("secret")], ids=["database", "configuration"])
async def test_what_cannot_be_read_is_not_healthy(serve: Serve, fault: Exception) -> None:
    async with serve(fault=fault) as client:
        answer = await client.get(PATH)
        assert (answer.status, await answer.json()) == (503, {"state": "failed", "audiences": {}})


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        pytest.param({}, {}, 403, id="No credentials."),
        pytest.param(signed(ADMIN_KEY), {}, 200, id="The keys of an administrator."),
        pytest.param(signed(READER_KEY), {}, 403, id="The keys of somebody who may not."),
        pytest.param(signed("wrong"), {}, 403, id="A wrong key."),
        pytest.param({"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}, {}, 403, id="Without the site key."),
        pytest.param({}, {"key": SITE_KEY, "api_key": ADMIN_KEY}, 200, id="Both in the query, as for REST."),
        pytest.param({"X-Forwarded-For": "127.0.0.1"}, {}, 403, id="An address that the caller claims."),
        pytest.param({}, {"key": SITE_KEY, "api_key": "wrong"}, 403, id="A wrong key in the query: not 200 as REST."),
        pytest.param({}, {"key": "wrong", "api_key": ADMIN_KEY}, 403, id="A wrong site key in the query."),
    ],
)
async def test_from_other_networks_an_administrators_key_is_needed(
    serve: Serve, headers: dict[str, str], query: dict[str, str], status: int
) -> None:
    async with serve(Health.HEALTHY, networks=NOWHERE) as client:
        answer = await client.get(PATH, headers=headers, params=query)
        assert answer.status == status
        assert ("list0" in await answer.text()) is (status == 200)
