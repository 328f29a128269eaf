"""The emulator over real HTTP: what only a network has. Every wait here is for an event, none is for luck."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import logging
import tarfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson
import pytest
from aiohttp import web

from sync.emulator.model.clock import Clock
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from sync.mailchimp.wire import subscriber_hash

NOON = datetime(2026, 1, 9, 12, tzinfo=UTC)
ADA = "ada@example.org"
LIST = "a1b2c3d4e5"
MEMBERS = f"/lists/{LIST}/members"
ME = f"{MEMBERS}/{subscriber_hash(ADA)}"


def frozen_world() -> World:
    world = World(seed=7, clock=Clock.frozen_at(NOON))
    world.add_audience(list_id=LIST)
    return world


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator(frozen_world()) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=emulator.base_url, auth=("any", emulator.key), timeout=20) as one:
        yield one


def joining(email: str = ADA) -> dict[str, Any]:
    return {"email_address": email, "status_if_new": "subscribed"}


async def finished(client: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    """Ask until the batch is finished; bounded, each question lets the emulator work."""
    for _ in range(1000):
        body: dict[str, Any] = (await client.get(f"/batches/{batch_id}")).json()
        if body["status"] == "finished":
            return body
    raise AssertionError(f"Batch {batch_id} did not finish")


async def until(holds: Callable[[], bool]) -> None:
    """Let everybody else work until *holds*; bounded."""
    for _ in range(100_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("It never came true")


def basic(user: str, key: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@pytest.mark.parametrize("scheme", ["basic", "Bearer", "OAuth"])
async def test_three_ways_to_say_who_one_is(emulator: Emulator, scheme: str) -> None:
    header = basic("whoever", emulator.key) if scheme == "basic" else f"{scheme} {emulator.key}"
    async with httpx.AsyncClient(headers={"Authorization": header}) as client:
        answer = await client.get(emulator.base_url + "/ping")
    assert answer.json() == {"health_status": "Everything's Chimpy!"}


@pytest.mark.parametrize(
    ("header", "title"),
    [(None, "API Key Missing"), ("Bearer nonsense-us1", "API Key Invalid"), ("Basic !!!", "API Key Missing")],
)
async def test_bad_keys_get_a_401_document(emulator: Emulator, header: str | None, title: str) -> None:
    async with httpx.AsyncClient(headers={"Authorization": header} if header else {}) as client:
        answer = await client.get(emulator.base_url + "/ping")
    assert (answer.status_code, answer.json()["title"]) == (401, title)


async def test_accounts_do_not_see_each_other(emulator: Emulator) -> None:
    other = emulator.world.add_account("Other", key="f" * 32 + "-us2")
    other.users[0].tokens.append("token")
    async with httpx.AsyncClient(headers={"Authorization": "OAuth token"}) as client:
        assert (await client.get(emulator.base_url + "/lists")).json()["total_items"] == 0
        assert (await client.get(f"{emulator.base_url}/lists/{LIST}")).status_code == 404
        metadata = (await client.get(emulator.root_url + "/oauth2/metadata")).json()
        assert (metadata["dc"], metadata["api_endpoint"]) == ("us2", emulator.root_url)
        bad = await client.get(emulator.root_url + "/oauth2/metadata", headers={"Authorization": "OAuth none"})
        assert (bad.status_code, "api_endpoint" in bad.json()) == (200, False)


async def test_headers_of_good_and_bad_answers(client: httpx.AsyncClient) -> None:
    good, bad = await client.put(ME, json=joining()), await client.get("/nowhere")
    assert good.headers["Content-Type"] == "application/json; charset=utf-8"
    assert bad.headers["Content-Type"] == "application/problem+json; charset=utf-8"
    assert bad.json()["instance"] == bad.headers["X-Request-Id"] != good.headers["X-Request-Id"]
    for answer in (good, bad):
        assert 'rel="describedBy"' in answer.headers["Link"]
        assert answer.headers["Server"] == "openresty"
        assert answer.headers["Date"] == "Fri, 09 Jan 2026 12:00:00 GMT"
        assert "Retry-After" not in answer.headers
    gone = await client.delete(ME)
    assert (gone.status_code, gone.content) == (204, b"")
    assert gone.headers["Content-Type"] == "application/json; charset=utf-8"
    twice = await client.delete(ME)
    assert (twice.status_code, twice.headers["Allow"]) == (405, "GET, PUT")


async def test_answers_are_gzipped_when_asked(client: httpx.AsyncClient) -> None:
    await client.put(ME, json=joining())
    packed = await client.get(ME, headers={"Accept-Encoding": "gzip"})
    plain = await client.get(ME, headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()


async def test_a_method_may_be_overridden_on_post_only(client: httpx.AsyncClient) -> None:
    override = {"X-HTTP-Method-Override": "PUT"}
    assert (await client.post(ME, json=joining(), headers=override)).status_code == 200
    refused = await client.get(ME, headers=override)
    assert (refused.status_code, refused.json()["title"]) == (422, "Invalid Method Override")


async def test_what_is_outside_the_api_is_not_found(emulator: Emulator, client: httpx.AsyncClient) -> None:
    assert (await client.get(emulator.root_url + "/2.0/ping")).status_code == 404
    assert (await client.get(emulator.root_url + "/_emulator/clock")).json()["title"] == "Resource Not Found"


async def test_a_body_that_is_not_json(client: httpx.AsyncClient) -> None:
    answer = await client.put(ME, content=b"{nonsense")
    assert (answer.status_code, answer.json()["title"]) == (400, "JSON Parse Error")


async def test_a_plus_in_a_time_is_read_as_a_space(client: httpx.AsyncClient) -> None:
    raw = await client.get(f"{MEMBERS}?since_last_changed=2026-01-09T10:00:00+00:00")
    assert (raw.status_code, raw.json()["errors"][0]["field"]) == (400, "since_last_changed")
    encoded = await client.get(MEMBERS, params={"since_last_changed": "2026-01-09T10:00:00+00:00"})
    assert encoded.status_code == 200


async def test_the_eleventh_connection_gets_429(emulator: Emulator, client: httpx.AsyncClient) -> None:
    emulator.configure(time_limit_s=20)
    emulator.add_fault("hang", path="^/ping")
    hanging = [asyncio.create_task(client.get("/ping")) for _ in range(10)]
    await until(lambda: emulator.highest_concurrency == 10)
    refused = await client.get("/lists")
    assert (refused.status_code, refused.json()["title"]) == (429, "Too Many Requests")
    assert emulator.highest_concurrency == 11
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_a_request_over_its_time_gets_a_page_that_is_not_json(
    emulator: Emulator, client: httpx.AsyncClient
) -> None:
    emulator.configure(time_limit_s=0.01)
    answer = await client.get(MEMBERS, params={"since_last_changed": "1970-01-01T00:00:00+00:00"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (504, "text/html; charset=UTF-8")


PAGES = [
    ("429_json", 429, "application/problem+json; charset=utf-8"),
    ("429_bare", 429, "text/plain; charset=UTF-8"),
    ("403_html", 403, "text/html; charset=UTF-8"),
    ("403_user_disabled", 403, "application/problem+json; charset=utf-8"),
    ("500", 500, "application/problem+json; charset=utf-8"),
    ("502_html", 502, "text/html; charset=UTF-8"),
    ("503_block", 503, "text/plain; charset=UTF-8"),
    ("200_html", 200, "text/html; charset=UTF-8"),
]


@pytest.mark.parametrize(("action", "status", "kind"), PAGES)
async def test_faults_that_answer_instead(
    emulator: Emulator, client: httpx.AsyncClient, action: str, status: int, kind: str
) -> None:
    rule = emulator.add_fault(action, method="PUT", email=ADA, count=1)
    answer = await client.put(ME, json=joining())
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, kind)
    assert emulator.member(ADA) is None
    assert (await client.put(ME, json=joining())).status_code == 200
    assert rule.struck == 1
    assert [entry.fault for entry in emulator.requests] == [action, ""]


@pytest.mark.parametrize(("action", "took_effect"), [("reset_before", False), ("reset_after", True)])
async def test_the_line_may_break_before_or_after_the_write(
    emulator: Emulator, client: httpx.AsyncClient, action: str, took_effect: bool, caplog: pytest.LogCaptureFixture
) -> None:
    emulator.add_fault(action, count=1)
    with caplog.at_level(logging.WARNING), pytest.raises(httpx.TransportError):
        await client.put(ME, json=joining())
    assert (emulator.member(ADA) is not None) is took_effect
    assert (await client.put(ME, json=joining())).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_body_may_come_cut_or_slowly(emulator: Emulator, client: httpx.AsyncClient) -> None:
    emulator.configure(slow_body_s=0.01)
    emulator.add_fault("truncated_json", count=1)
    emulator.add_fault("slow_body", count=1)
    cut, slow = await client.get("/"), await client.get("/")
    with pytest.raises(ValueError):
        cut.json()
    assert slow.json()["account_name"] == "Demo"


async def test_latency_is_an_option_with_routes(emulator: Emulator, client: httpx.AsyncClient) -> None:
    emulator.configure(latency_ms=60_000.0, latency_routes={"GET /lists": 0.0, "GET /ping": 1.0}, time_limit_s=0.05)
    assert [(await client.get(path)).status_code for path in ("/lists", "/ping", "/")] == [200, 200, 504]


async def test_deep_and_large_pages_can_be_slow(emulator: Emulator, client: httpx.AsyncClient) -> None:
    await client.put(ME, json=joining())
    emulator.configure(page_ms_per_1000=1e9, time_limit_s=0.05)
    assert (await client.get(MEMBERS)).status_code == 504
    assert (await client.get(MEMBERS, params={"offset": "5"})).status_code == 200


async def test_the_log_holds_no_key(emulator: Emulator, client: httpx.AsyncClient) -> None:
    await client.get("/ping", params={"x": "1"})
    (entry,) = emulator.requests
    assert (entry.method, entry.path, entry.query, entry.status) == ("GET", "/3.0/ping", {"x": "1"}, 200)
    assert entry.key_hash == hashlib.sha256(emulator.key.encode()).hexdigest()[:12]
    assert (entry.concurrency, entry.account) == (1, emulator.world.default_account.id)
    emulator.clear_requests()
    assert emulator.requests == []


async def test_a_batch_runs_by_itself_and_its_archive_can_be_read(client: httpx.AsyncClient) -> None:
    operations = [
        {
            "method": "PUT",
            "path": f"{MEMBERS}/{subscriber_hash(e)}",
            "operation_id": e,
            "body": orjson.dumps(joining(e)).decode(),
        }
        for e in (f"p{n}@example.org" for n in range(900))
    ]
    submitted = (await client.post("/batches", json={"operations": operations})).json()
    done = await finished(client, submitted["id"])
    assert (done["total_operations"], done["errored_operations"]) == (900, 0)
    async with httpx.AsyncClient() as storage:
        refused = await storage.get(done["response_body_url"], headers={"Authorization": "Basic x"})
        archive = await storage.get(done["response_body_url"])
    assert (refused.status_code, archive.status_code) == (400, 200)
    assert archive.content.startswith(b"\x1f\x8b")
    with tarfile.open(fileobj=io.BytesIO(archive.content), mode="r:gz") as tar:
        entries = tar.getmembers()
        files = [tar.extractfile(one) for one in entries[1:]]
        arrays = [content for file in files if file is not None and (content := file.read())]
    assert entries[0].isdir()
    assert len(arrays) > 1
    rows = [row for array in arrays for row in orjson.loads(array)]
    assert {row["operation_id"] for row in rows} == {operation["operation_id"] for operation in operations}
    assert orjson.loads(rows[0]["response"])["status"] == "subscribed"


async def test_a_results_link_expires_and_is_renewed(emulator: Emulator, client: httpx.AsyncClient) -> None:
    operations = [{"method": "GET", "path": "/lists"}]
    batch = (await client.post("/batches", json={"operations": operations})).json()
    old = (await finished(client, batch["id"]))["response_body_url"]
    emulator.advance(601)
    fresh = (await client.get(f"/batches/{batch['id']}")).json()["response_body_url"]
    async with httpx.AsyncClient() as storage:
        assert (await storage.get(old)).status_code == 403
        assert (await storage.get(fresh)).status_code == 200


async def test_batches_can_be_held_until_told(client: httpx.AsyncClient, emulator: Emulator) -> None:
    emulator.configure(auto_batches=False)
    batch = (await client.post("/batches", json={"operations": [{"method": "GET", "path": "/ping"}]})).json()
    assert (await client.get(f"/batches/{batch['id']}")).json()["status"] == "pending"
    emulator.run_batches()
    assert (await client.get(f"/batches/{batch['id']}")).json()["status"] == "finished"


class Receiver:
    """A web server that hears webhooks; `answer` is what it says."""

    def __init__(self) -> None:
        self.url = ""
        self.answer = 200
        self.checked = 0
        self.heard: list[tuple[dict[str, list[str]], bytes, str]] = []
        self.arrived = asyncio.Condition()

    async def get(self, request: web.Request) -> web.Response:
        self.checked += 1
        return web.Response(status=self.answer)

    async def post(self, request: web.Request) -> web.Response:
        raw = await request.read()
        async with self.arrived:
            self.heard.append((parse_qs(raw.decode()), raw, request.headers.get("X-Mailchimp-Signature", "")))
            assert request.content_type == "application/x-www-form-urlencoded"
            self.arrived.notify_all()
        return web.Response(status=self.answer)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(lambda: len(self.heard) >= count)

    @property
    def kinds(self) -> list[str]:
        return [fields["type"][0] for fields, _, _ in self.heard]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    app = web.Application()
    app.router.add_get("/hook", one.get)
    app.router.add_post("/hook", one.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield one
    await runner.cleanup()


async def test_a_hook_is_checked_with_get_and_then_hears(
    emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    made = await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})
    assert (made.status_code, receiver.checked) == (200, 1)
    emulator.person("sign_up", ADA)
    await receiver.wait_for(1)
    fields, raw, _ = receiver.heard[0]
    assert fields["data[email]"] == [ADA]
    assert b"data%5Bemail%5D=ada%40example.org" in raw


@pytest.mark.parametrize("url", ["answers 500", "http://127.0.0.1:9/closed"])
async def test_a_hook_whose_url_does_not_answer_is_refused(
    client: httpx.AsyncClient, receiver: Receiver, url: str
) -> None:
    receiver.answer = 500
    made = await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url if url.startswith("a") else url})
    assert (made.status_code, made.json()["errors"][0]["field"]) == (400, "url")
    batch_hook = await client.post("/batch-webhooks", json={"url": receiver.url})
    assert batch_hook.status_code == 400


async def test_a_failed_delivery_is_tried_again_when_its_time_comes(
    emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})
    receiver.answer = 503
    emulator.person("sign_up", ADA)
    await receiver.wait_for(1)
    receiver.answer = 200
    await until(lambda: [one.attempts for one in emulator.world.deliveries] == [1])
    emulator.advance(60)
    await receiver.wait_for(2)
    assert receiver.kinds == ["subscribe", "subscribe"]


async def test_a_hook_that_fails_to_the_end_is_disabled(
    emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    emulator.configure(webhook_retry_gaps=[60, 60], auto_webhooks=False)
    await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})
    receiver.answer = 500
    emulator.person("sign_up", ADA)
    assert [await emulator.deliver_webhooks() for _ in range(4)] == [1, 1, 1, 0]
    assert (await client.get(f"/lists/{LIST}/webhooks")).json()["webhooks"] == []


async def test_a_receiver_that_does_not_answer_in_time_counts_as_failed(
    emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})
    emulator.configure(webhook_timeout_s=0.01, auto_webhooks=False)
    emulator.person("sign_up", ADA)
    async with receiver.arrived:  # the receiver cannot get past its lock, so it cannot answer
        await emulator.deliver_webhooks()
    (delivery,) = emulator.world.deliveries
    assert (delivery.last_status, delivery.state) == (0, "queued")


async def test_deliveries_can_be_signed(emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver) -> None:
    emulator.configure(webhook_signing=True)
    made = (await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})).json()
    assert "signing_secret" not in (await client.get(f"/lists/{LIST}/webhooks/{made['id']}")).json()
    emulator.person("sign_up", ADA)
    await receiver.wait_for(1)
    _, raw, signature = receiver.heard[0]
    stamp = int(NOON.timestamp())
    digest = hmac.new(made["signing_secret"].encode(), f"{stamp}.".encode() + raw, hashlib.sha256).hexdigest()
    assert signature == f"t={stamp},v1={digest}"


async def test_duplicates_are_really_sent(emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver) -> None:
    emulator.configure(webhook_duplicates=True)
    await client.post(f"/lists/{LIST}/webhooks", json={"url": receiver.url})
    emulator.person("sign_up", ADA)
    await receiver.wait_for(2)
    assert receiver.heard[0][1] == receiver.heard[1][1]


async def test_a_batch_webhook_hears_of_the_end(
    emulator: Emulator, client: httpx.AsyncClient, receiver: Receiver
) -> None:
    assert (await client.post("/batch-webhooks", json={"url": receiver.url})).status_code == 200
    batch = (await client.post("/batches", json={"operations": [{"method": "GET", "path": "/ping"}]})).json()
    await emulator.run_until_idle()
    await receiver.wait_for(1)
    assert receiver.heard[0][0]["data[id]"] == [batch["id"]]


async def test_without_a_world_there_is_one_audience_and_options_may_be_given() -> None:
    async with running_emulator(max_connections=3) as emulator:
        assert emulator.world.default_account.options.max_connections == 3
        assert len(emulator.audience().members) == 0
    with pytest.raises(ValueError, match="no option"):
        async with running_emulator(nonsense=1):
            pass


async def test_two_emulators_run_side_by_side_and_leave_nothing_running() -> None:
    before = asyncio.all_tasks()
    async with running_emulator() as one, running_emulator() as two:
        assert one.base_url != two.base_url
    assert asyncio.all_tasks() == before
