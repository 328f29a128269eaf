"""MailchimpsyncWebhookEvent: what webhooks told, listed and tried again; and that Mailchimp has its answer at once."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import time_machine
from sqlalchemy import func, insert, select, text, update

from civiapi.api.call import SYSTEM, Call, Caller
from civiapi.api.dispatch import Api
from civiapi.auth.login_throttle import Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.settings import Settings
from civiapi.store.engine import open_store
from civiapi.store.schema.migrations import MIGRATIONS, migrate, schema
from entities import catalogue
from sync.connections.clients import Clients
from sync.emulator.model.state import DEFAULT_KEY
from sync.service import SyncService
from sync.store.tables import webhook_event
from tests.support.databases import KINDS, a_database
from tests.support.http_server import HttpServer as Server
from tests.support.http_server import serving
from tests.support.linked_site import Site, a_site, link, sync_settings
from tests.support.processes import free_port, process

EVENT = "MailchimpsyncWebhookEvent"
ADA, BOB = "ada@example.org", "bob@example.org"
SECRET = "s" * 40
HOOK = f"/civicrm/mailchimpsync/webhook?secret={SECRET}"
WITHOUT_WAITING_MS = 100
Note = Callable[[str, object], None]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with a_site(f"sqlite:///{tmp_path / 'site.sqlite'}") as opened:
        yield opened


@pytest.fixture
def service(site: Site) -> SyncService:
    return SyncService(site.store, site.clients, sync_settings(poll_seconds=0.02))


@pytest.fixture
def call(site: Site, service: SyncService) -> Any:
    api = Api(site.store, catalogue(), service)

    async def ask(action: str, params: dict[str, Any] | None = None, caller: Caller = SYSTEM) -> Any:
        return await api.respond(Call(EVENT, action, params or {}, caller))

    return ask


@pytest.fixture
async def server(site: Site, service: SyncService) -> AsyncIterator[Server]:
    api = Api(site.store, catalogue(), service)
    async with serving(site.store, api, more=webhook_endpoints(site.store, service, Throttle())) as running:
        yield running


def posted(site: Site, kind: str = "subscribe", address: str = ADA, at: str = "2026-01-09 10:00:00") -> dict[str, str]:
    """An event as Mailchimp posts it."""
    return posted_to(site.list_id, kind, address, at)


def posted_to(list_id: str, kind: str = "subscribe", address: str = ADA, at: str = "2026-01-09 10:00:00") -> Any:
    return {
        "type": kind,
        "fired_at": at,
        "data[list_id]": list_id,
        "data[id]": "3c9f0a77be",
        "data[email]": address,
    }


def told(site: Site, kind: str = "subscribe", address: str = ADA, at: str = "2026-01-09 10:00:00") -> dict[str, Any]:
    """The same, read."""
    return {"type": kind, "fired_at": at, "data": {"list_id": site.list_id, "id": "3c9f0a77be", "email": address}}


class TestListing:
    async def test_an_event_is_shown_with_all_that_is_known_of_it(self, site: Site, call: Any) -> None:
        with time_machine.travel("2026-01-09T10:00:03Z", tick=False):
            await site.inbox.receive_audience_webhook(told(site))
        [event] = (await call("get", {"sequential": 1}))["values"]
        assert event == {
            "id": "1",
            "kind": "audience",
            "list_id": site.list_id,
            "type": "subscribe",
            "address": ADA,
            "received": "2026-01-09 10:00:03",
            "state": "new",
            "tries": "0",
            "next_try": "2026-01-09 10:00:03",
        }

    async def test_neither_the_posted_body_nor_the_secret_is_shown(self, site: Site, server: Server, call: Any) -> None:
        assert (await server.post(HOOK, data={**posted(site), "secret": SECRET})).status == 200
        assert SECRET not in orjson.dumps(await call("get")).decode()
        assert "body" not in (await call("getfields", {"api_action": "get"}))["values"]
        assert "body" not in (await call("getsingle", {"return": "id,body,fingerprint"}))

    async def test_a_changed_address_is_shown_as_the_new_one(self, site: Site, call: Any) -> None:
        data = {"list_id": site.list_id, "old_email": ADA, "new_email": BOB}
        await site.inbox.receive_audience_webhook({"type": "upemail", "fired_at": "x", "data": data})
        assert (await call("getsingle"))["address"] == BOB

    async def test_times_are_the_site_s_own(self, tmp_path: Path) -> None:
        store = await open_store(f"sqlite:///{tmp_path / 'far.sqlite'}", "Asia/Kolkata")
        await migrate(store)
        row = {"kind": "audience", "fingerprint": "f", "body": "{}", "received_s": 1767952803}
        await store.write(lambda conn: conn.execute(insert(webhook_event).values(row)) and None)
        answer = await Api(store, catalogue()).respond(Call(EVENT, "getsingle", {"received": "2026-01-09 15:30:03"}))
        assert answer["received"] == "2026-01-09 15:30:03"
        await store.close()

    @pytest.mark.parametrize(
        ("params", "found"),
        [
            ({"address": "BOB@example.org"}, ["2"]),
            ({"address": {"LIKE": "%@example.org"}, "options": {"sort": "id DESC"}}, ["2", "1"]),
            ({"type": {"IN": ["cleaned", "profile"]}}, ["2"]),
            ({"state": "failed"}, ["1"]),
            ({"received": {">": "2026-01-09 10:00:00"}}, ["2"]),
            ({"received": {"BETWEEN": ["2026-01-09 09:59:59", "2026-01-09 10:00:01"]}}, ["1"]),
            ({"received": {"IN": ["2026-01-09 10:00:00"]}}, ["1"]),
            ({"received": {"IS NOT NULL": 1}, "options": {"sort": "received DESC"}}, ["2", "1"]),
            ({"error": {"IS NULL": 1}}, ["2"]),
            ({"tries": {">=": 1}}, ["1"]),
            ({"options": {"limit": 1, "offset": 1}}, ["2"]),
        ],
    )
    async def test_filters_sort_and_limits_are_those_of_other_entities(
        self, site: Site, call: Any, params: dict[str, Any], found: list[str]
    ) -> None:
        with time_machine.travel("2026-01-09T10:00:00Z", tick=False):
            await site.inbox.receive_audience_webhook(told(site))
        with time_machine.travel("2026-01-09T11:00:00Z", tick=False):
            await site.inbox.receive_audience_webhook(told(site, "cleaned", BOB))
        broken = update(webhook_event).where(webhook_event.c.id == 1).values(status="failed", tries=3, error="Why not")
        await site.store.write(lambda conn: conn.execute(broken) and None)
        answer = await call("get", {**params, "sequential": 1})
        assert [one["id"] for one in answer["values"]] == found
        if "options" not in params:
            assert await call("getcount", params) == len(found)

    async def test_a_bad_filter_is_told_so(self, call: Any) -> None:
        assert "not a valid date" in (await call("get", {"received": "soonish"}))["error_message"]
        assert "invalid string" in (await call("get", {"options": {"sort": "(SELECT 1)"}}))["error_message"]

    @pytest.mark.parametrize("action", ["get", "getcount", "getsingle", "retry"])
    async def test_only_administrators_may_look_or_retry(self, call: Any, action: str) -> None:
        someone = Caller("someone", frozenset({"access CiviCRM", "access AJAX API"}))
        answer = await call(action, {"id": 1, "check_permissions": 1}, someone)
        assert "administer CiviCRM" in answer["error_message"]

    async def test_nobody_writes_events_by_the_api(self, call: Any) -> None:
        for action in ("create", "delete"):
            assert (await call(action, {"id": 1}))["error_code"] == "not-found"


class TestRetry:
    async def test_a_failed_event_is_worked_on_when_somebody_says_so(
        self, site: Site, service: SyncService, call: Any
    ) -> None:
        site.emulator.person("sign_up", ADA)
        await service.receive_audience_webhook(told(site))
        broken = update(webhook_event).values(status="failed", tries=10, error="Mailchimp was away", next_try_s=0)
        await site.store.write(lambda conn: conn.execute(broken) and None)
        answer = await call("retry", {"id": 1, "sequential": 1})
        [event] = answer["values"]
        assert (event["state"], event["tries"], "error" in event) == ("new", "0", False)
        await service.wait_until_idle(seconds=20)
        assert (await call("getsingle", {"id": 1}))["state"] == "done"
        assert (await site.row(ADA)).sync_status == "ok"

    async def test_one_that_is_not_there_is_named(self, call: Any) -> None:
        answer = await call("retry", {"id": 7})
        assert (answer["error_code"], answer["error_message"]) == ("not-found", f"No {EVENT} with id 7")
        assert (await call("retry"))["error_code"] == "mandatory_missing"

    async def test_a_settled_event_names_no_next_try(self, site: Site, service: SyncService, call: Any) -> None:
        await service.receive_audience_webhook(told(site))
        await service.wait_until_idle(seconds=20)
        assert "next_try" not in await call("getsingle")


class TestAnswering:
    """Mailchimp gives up after ten seconds; we promise a tenth of one, whatever else is going on."""

    async def test_an_event_is_stored_before_mailchimp_has_its_answer(self, site: Site, server: Server) -> None:
        assert (await server.post(HOOK, data=posted(site))).status == 200
        assert [(one.status, one.type, one.address) for one in await site.events()] == [("new", "subscribe", ADA)]
        assert site.emulator.requests == []  # nothing was asked of anybody for it

    async def test_an_event_that_cannot_be_stored_is_not_answered_as_if_it_were(
        self, site: Site, server: Server
    ) -> None:
        await site.store.write(lambda conn: conn.execute(text("DROP TABLE civiapi_webhook_event")) and None)
        assert (await server.post(HOOK, data=posted(site))).status == 500

    async def test_mailchimp_has_its_answer_while_a_sync_waits_for_mailchimp(
        self, site: Site, service: SyncService, server: Server, record_property: Note
    ) -> None:
        """The run is held in the middle of a request: whoever waited for it would not answer at all."""
        site.joined(*(f"p{n}@example.org" for n in range(5)))
        held_back = site.emulator.add_fault("hang", path="/members")
        run = asyncio.create_task(service.fetch_and_reconcile(since="ever"))
        await until(lambda: held_back.struck > 0)
        took = []
        for n in range(20):
            begun = time.perf_counter()
            answer = await server.post(HOOK, data=posted(site, address=f"p{n}@example.org"))
            took.append(1000 * (time.perf_counter() - begun))
            assert answer.status == 200
        assert not run.done()
        assert [one.status for one in await site.events()] == ["new"] * 20
        run.cancel()
        await asyncio.wait([run])
        tell(record_property, "while a sync waited for Mailchimp", took)

    async def test_mailchimp_has_its_answer_while_a_sync_writes(self, tmp_path: Path, record_property: Note) -> None:
        """Events come one after another as long as a first sync of 2,000 people lasts; the emulator has a process."""
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        with process("mailchimp-emulator", "--port", str(port), "--members", "2000", cwd=tmp_path) as emulator:
            await until_answered(base, emulator)
            async with AsyncExitStack() as stack:
                store = await open_store(f"sqlite:///{tmp_path / 'busy.sqlite'}")
                stack.push_async_callback(store.close)
                await migrate(store)
                clients = Clients(base_url=base)
                stack.push_async_callback(clients.close)
                [audience] = [one async for one in clients.client_for(DEFAULT_KEY).iter_audiences()]
                await store.write(link, DEFAULT_KEY, audience["id"])
                service = SyncService(store, clients, Settings())
                ways = webhook_endpoints(store, service, Throttle())
                server = await stack.enter_async_context(serving(store, Api(store, catalogue()), more=ways))
                run = asyncio.create_task(service.fetch_and_reconcile(since="ever"))
                took: list[float] = []
                while not run.done() or not took:
                    fields = posted_to(audience["id"], address=f"p{len(took)}@example.org")
                    begun = time.perf_counter()
                    answer = await server.post(HOOK, data=fields)
                    took.append(1000 * (time.perf_counter() - begun))
                    assert answer.status == 200
                await run
                kept = await store.read(lambda conn: conn.execute(select(func.count(webhook_event.c.id))).scalar())
        assert kept == len(took)
        tell(record_property, "while a sync of 2,000 people wrote", took)

    async def test_events_told_during_a_sync_are_worked_on_after_it(
        self, site: Site, service: SyncService, server: Server
    ) -> None:
        held_back = site.emulator.add_fault("hang", path="/members", count=1)
        run = asyncio.create_task(service.fetch_and_reconcile(since="ever"))
        await until(lambda: held_back.struck > 0)
        site.emulator.person("sign_up", ADA)
        await server.post(HOOK, data=posted(site))
        await service.wait_until_idle([], seconds=20)  # looks, finds the audience held, and puts it off
        [waits] = await site.events()
        assert (waits.status, waits.tries, waits.next_try_s > waits.received_s) == ("new", 0, True)
        run.cancel()
        await asyncio.wait([run])
        with time_machine.travel(waits.next_try_s + 1, tick=True):
            await service.wait_until_idle(seconds=20)
        assert [one.status for one in await site.events()] == ["done"]
        assert (await site.row(ADA)).sync_status == "ok"

    async def test_an_event_repeated_by_http_is_worked_on_once(
        self, site: Site, service: SyncService, server: Server
    ) -> None:
        site.emulator.person("sign_up", ADA)
        for _ in range(3):
            assert (await server.post(HOOK, data=posted(site))).status == 200
        await service.wait_until_idle(seconds=20)
        looked = len(site.emulator.requests)
        for _ in range(3):
            assert (await server.post(HOOK, data=posted(site))).status == 200
        await service.wait_until_idle(seconds=20)
        assert [one.status for one in await site.events()] == ["done"]
        assert len(site.emulator.requests) == looked


@pytest.mark.parametrize("kind", KINDS)
async def test_events_kept_by_an_earlier_version_get_their_address(kind: str, tmp_path: Path) -> None:
    with a_database(kind, tmp_path) as url:
        store = await open_store(url)
        await migrate(store)
        step = next(n for n, one in enumerate(MIGRATIONS) if one.what == "addresses of webhook events")
        bodies = ({"data": {"email": ADA}}, {"data": {"new_email": BOB}}, {"data": {"id": "a"}}, {})
        rows = [
            {"kind": "audience", "fingerprint": str(n), "body": orjson.dumps(one).decode(), "received_s": n}
            for n, one in enumerate(bodies)
        ]

        def grow_old(conn: Any) -> None:
            conn.execute(text("ALTER TABLE civiapi_webhook_event DROP COLUMN address"))
            conn.execute(text("UPDATE civiapi_schema SET version = :v").bindparams(v=step))
            for row in rows:
                columns = ", ".join(row)
                conn.execute(
                    text(f"INSERT INTO civiapi_webhook_event ({columns}) VALUES (:{', :'.join(row)})").bindparams(**row)
                )

        await store.write(grow_old)
        assert "addresses of webhook events" in await migrate(store)
        found = await store.read(
            lambda conn: list(conn.execute(select(webhook_event.c.address).order_by(webhook_event.c.id)).scalars())
        )
        assert found == [ADA, BOB, None, None]
        assert await store.read(lambda conn: conn.execute(select(schema.c.version)).scalar()) == len(MIGRATIONS)
        await store.close()


def tell(record_property: Note, when: str, took: list[float]) -> None:
    """Print and note how long answers took; a slow machine makes no test fail."""
    middle, most = sorted(took)[len(took) // 2], max(took)
    shown = f"{len(took)} events answered {when}: {middle:.0f} ms in the middle, {most:.0f} ms at most"
    print(f"\n{shown} (promised: {WITHOUT_WAITING_MS} ms)")
    record_property("measured", shown)


async def until_answered(base: str, server: subprocess.Popen[str]) -> None:
    """Return once somebody answers at *base*; fail when *server* ends before."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as client:
        while True:
            assert server.poll() is None
            try:
                await client.get(base)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def until(true: Any) -> None:
    """Return once something has become true that tells nobody when it does."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_field_that_the_database_calls_otherwise_is_filtered_by_any_value(call: Any) -> None:
    for value in (False, "new", {"!=": "done"}, {"IN": ["new"]}, {"LIKE": "n%"}, None):
        answer = await call("get", {"state": value})
        assert (answer["is_error"], answer["count"]) == (0, 0), value
