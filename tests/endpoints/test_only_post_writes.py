"""Only a POST changes data: every route of the whole server, with every other method, and every way to word a call."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import httpx
import pytest
import pytest_asyncio
from aiohttp import web
from sqlalchemy import Connection, select

from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from civiapi.api.resolution import is_read_action
from civiapi.auth.authenticator import Auth
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.endpoints.routes import api_endpoints, make_runner, make_web_app
from civiapi.settings import ServerSettings, Settings
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import METADATA
from civiapi.ui.routes import ui_pages
from entities import catalogue
from sync.connections.clients import Clients
from sync.connections.config import write_config
from sync.service import SyncService
from tests.support.databases import database_at
from tests.support.http_server import ADMIN_KEY, AJAX, SITE_KEY, USERS

METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "PROPFIND")
KEYS = {"key": SITE_KEY, "api_key": ADMIN_KEY}
HEADERS = {**AJAX, "X-HTTP-Method-Override": "POST", "X-HTTP-Method": "POST"}
NAMES = {"contact_type": "Individual", "first_name": "Ada"}
ADDRESS = {"contact_id": 1, "email": "ada@example.org"}
SECRET = "the-secret-of-the-account"
CONFIG = {
    "accounts": {"k-us1": {"batchWebhookSecret": SECRET, "audiences": {"abc123": {"name": "A"}}}},
    "lists": {"abc123": {"apiKey": "k-us1", "subscriptionGroup": "1"}},
}
CREATE = ["Contact", "create", NAMES]
READ = {"sequential": 1}


def _call(entity: str, action: str, params: dict[str, Any]) -> dict[str, str]:
    return {**KEYS, "entity": entity, "action": action, "json": json.dumps(params)}


WORDINGS: dict[str, dict[str, str]] = {
    "a create": _call("Contact", "create", NAMES),
    "a create in other letters": _call("Contact", "CREATE", NAMES),
    "a create with its parameters as fields": {**KEYS, "entity": "Contact", "action": "create", "json": "1", **NAMES},
    "a create named by q": {**KEYS, "q": "civicrm/contact/create", "json": json.dumps(NAMES)},
    "a create chained to a get": _call("Contact", "get", {**READ, "api.Email.create": ADDRESS}),
    "several chained creates": _call("Contact", "get", {**READ, "api.Email.create": [ADDRESS, ADDRESS]}),
    "a create chained to a chained get": _call(
        "Contact", "get", {**READ, "api.Contact.getsingle": {"id": 1, "api_Email_create": ADDRESS}}
    ),
    "a chained create as a field": {
        **KEYS, "entity": "Contact", "action": "get", "json": "1",
        "api.Email.create[email]": "ada@example.org", "api.Email.create[contact_id]": "1",
    },
    "several calls": {**KEYS, "entity": "api3", "action": "call", "json": json.dumps([CREATE, CREATE])},
    "several calls of which the first reads": {
        **KEYS, "entity": "api3", "action": "call",
        "json": json.dumps({"a": ["Contact", "get", {}], "b": ["Contact", "get", {"api.Email.create": ADDRESS}]}),
    },
    "a setting": _call("Setting", "create", {"mailchimpsync_config": "{}"}),
    "a deletion": _call("Contact", "delete", {"id": 1, "skip_undelete": 1}),
    "a member's event": {
        "secret": SECRET, "type": "unsubscribe", "data[list_id]": "abc123", "data[email]": "a@example.org"
    },
    "a batch's event": {"secret": SECRET, "type": "batch_operation_completed", "data[id]": "123456789a"},
}  # fmt: skip


WORKING_STATE = {"civiapi_claim", "civiapi_plan", "civiapi_plan_person"}
"""Leases, and previews that are kept for a while: what the server works with, nobody's data."""


def _no_mailchimp(_request: httpx.Request) -> httpx.Response:
    problem = {"type": "x", "title": "Resource Not Found", "status": 404, "detail": "", "instance": ""}
    return httpx.Response(404, json=problem)


class Server:
    """A server with everything that it offers, and a client logged in to it."""

    def __init__(
        self, store: Store, base: str, endpoints: list[str], pages: list[str], client: aiohttp.ClientSession
    ) -> None:
        self.store = store
        self.base = base
        self.endpoints = endpoints
        self.paths = [*endpoints, *pages]
        self.client = client

    async def send(self, method: str, path: str, **how: Any) -> tuple[int, str]:
        headers = {**HEADERS, **how.pop("headers", {})}
        async with self.client.request(
            method, self.base + path, headers=headers, allow_redirects=False, **how
        ) as answer:
            return answer.status, await answer.text("utf-8", "replace")

    async def contents(self) -> dict[str, list[Any]]:
        return await self.store.read(_contents)


def _contents(conn: Connection) -> dict[str, list[Any]]:
    tables = {name: table for name, table in METADATA.tables.items() if name not in WORKING_STATE}
    return {name: sorted(map(repr, conn.execute(select(table)))) for name, table in tables.items()}


@pytest.fixture
async def server(store: Store) -> AsyncIterator[Server]:
    async with a_server(store) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unchanged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One for all tests of requests that change nothing."""
    store = await open_store(database_at(tmp_path_factory.mktemp("server") / "site.sqlite"))
    await migrate(store)
    async with a_server(store) as running:
        before = await running.contents()
        yield running
        assert await running.contents() == before
    await store.close()


@asynccontextmanager
async def a_server(store: Store) -> AsyncIterator[Server]:
    clients = Clients(base_url="http://127.0.0.1:9", max_connections=1, transport=httpx.MockTransport(_no_mailchimp))
    sync = SyncService(store, clients, Settings(server=ServerSettings(base_url="http://crm.example.org")))
    api = Api(store, catalogue(), sync)
    settings = ServerSettings(site_key=SITE_KEY)
    auth = Auth(store, SITE_KEY, USERS)
    more = webhook_endpoints(store, sync, auth.throttle)
    app = make_web_app(api, auth, settings, more=more, pages=ui_pages(auth, api, settings))
    endings = [f"/{one}" for one in (*api_endpoints(api, auth), *more)]
    routes = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    runner = make_runner(app, idle_seconds=settings.idle_seconds)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await store.write(write_config, CONFIG)
    for entity, params in (("Contact", NAMES), ("Group", {"title": "News", "group_type": ["Mailing List"]})):
        assert not (await api.respond(Call(entity, "create", {"version": 3, **params})))["is_error"]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
        admin = await auth.by_name_and_key("admin", ADMIN_KEY, "")
        client.cookie_jar.update_cookies({"civiapi_session": await auth.open_session(admin)})
        yield Server(store, base, endings, sorted(routes - {"/{path}"}), client)
    await runner.cleanup()
    await clients.close()


def _filled(path: str) -> str:
    """A route's path with something that is there for each of its names."""
    values = {"entity": "Contact", "action": "create", "version": "x", "name": "ui.css", "list_id": "abc123"}
    return re.sub(r"{(\w+)}", lambda match: values.get(match[1], "1"), path)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("method", METHODS)
async def test_no_other_method_changes_anything_on_any_route(unchanged: Server, method: str) -> None:
    before = await unchanged.contents()
    for route in unchanged.paths:
        if route.endswith("/events") and method == "GET":
            continue  # a stream that goes on
        path = _filled(route)
        wordings = WORDINGS if route in unchanged.endpoints else dict(list(WORDINGS.items())[:1])
        for name, fields in wordings.items():
            status, text = await unchanged.send(method, f"{path}?{urlencode(fields)}")
            assert status < 500 or status == 501, (method, path, name, text)
            if method != "GET":  # the client refuses to send it a body
                query = urlencode({**KEYS, **({"secret": SECRET} if "secret" in fields else {})})
                await unchanged.send(method, f"{path}?{query}", data=fields)
                await unchanged.send(method, f"{path}?{query}", json=fields)
    assert await unchanged.contents() == before


@pytest.mark.parametrize(
    ("path", "name"),
    [
        *(("/extern/rest.php", name) for name in WORDINGS if "event" not in name and "several calls" not in name),
        *(("/civicrm/ajax/rest", name) for name in WORDINGS if "event" not in name),
        ("/wp-json/civicrm/v3/rest", "a create"),
        ("/wp-json/civicrm/v3/rest", "a create chained to a get"),
        ("/civicrm/api/json", "a create"),
        ("/civicrm/api/json", "a create chained to a get"),
        ("/civicrm/mailchimpsync/webhook", "a member's event"),
    ],
)  # fmt: skip
async def test_the_same_by_post_does(server: Server, path: str, name: str) -> None:
    before = await server.contents()
    query = {"secret": SECRET} if "event" in name else KEYS
    _status, text = await server.send("POST", f"{path}?{urlencode(query)}", data=WORDINGS[name])
    assert await server.contents() != before, text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["/extern/rest.php", "/civicrm/ajax/rest", "/wp-json/civicrm/v3/rest"])
@pytest.mark.parametrize("name", ["a create", "a create chained to a get"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_the_refusal_says_why(unchanged: Server, path: str, name: str, method: str) -> None:
    status, text = await unchanged.send(method, f"{path}?{urlencode(WORDINGS[name])}")
    answer = json.loads(text)
    assert (status, answer["is_error"]) == (200, 1)
    assert answer["error_message"].startswith("SECURITY: All requests that modify the database must be http POST")


def test_an_action_whose_name_says_that_it_reads_writes_nothing() -> None:
    registry = catalogue()
    for entity in registry.entities():
        for name, action in registry.actions(entity).items():
            if is_read_action(name):
                own = registry.actions(entity)
                parts = [action, *(own[part] for part in action.delegates_to or () if part in own)]
                assert not any(part.writes for part in parts), f"{entity.name}.{name}"
