"""What a real CiviCRM answered, replayed against a fresh server over HTTP (``../shared/golden``, where it is there).

A later request rests on earlier ones, so the whole is one test for each section over one replay.
"""

import asyncio
import collections
import importlib.util
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from civiapi.api.dispatch import Api
from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.settings import ServerSettings, Settings
from civiapi.store.engine import Store
from entities import catalogue
from sync.connections.clients import Clients
from sync.service import SyncService
from tests.support.http_server import ADMIN_KEY, LIMITED_KEY, SITE_KEY, HttpServer, serving

GOLDEN = Path(os.environ.get("CIVIAPI_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
BAR = 1.0

pytestmark = pytest.mark.skipif(not (GOLDEN / "replay.py").is_file(), reason=f"no recorded answers at {GOLDEN}")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
async def site(store: Store, utc: None) -> AsyncIterator[HttpServer]:
    """The whole server, Mailchimp never asked."""
    clients = Clients(base_url="http://127.0.0.1:9", max_connections=1)
    sync = SyncService(store, clients, Settings(server=ServerSettings(base_url="https://crm.example.org")))
    async with serving(
        store, Api(store, catalogue(), sync), more=webhook_endpoints(store, sync, Throttle())
    ) as running:
        yield running
    await clients.close()


def _replayer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_replay", GOLDEN / "replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _replay(base: str) -> tuple[collections.Counter[str], collections.Counter[str], list[str]]:
    golden = _replayer()
    book = golden.Book(site_key=SITE_KEY, admin=ADMIN_KEY, limited=LIMITED_KEY)
    expected = {line["n"]: line for line in golden.lines(GOLDEN / "expected.jsonl")}
    requests = golden.lines(GOLDEN / "requests.jsonl")
    held: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    fallen: list[str] = []
    for request, _answer, found in golden.replay(
        requests, expected, lambda each: golden.send(base, golden.REST, each, book), book
    ):
        if found is None:
            continue
        total[request["section"]] += 1
        held[request["section"]] += not found
        if found:
            fallen.append(f"#{request['n']} {request['section']}/{request['name']}: {golden.short(list(found[0]))}")
    return held, total, fallen


async def test_every_recorded_answer_holds(site: HttpServer) -> None:
    held, total, fallen = await asyncio.to_thread(_replay, site.base)
    shares = {section: f"{held[section]}/{total[section]}" for section in total}
    assert held.total() >= BAR * total.total(), "\n".join([str(shares), *fallen])
