"""SIGTERM, whatever the server is doing: no new work, what runs stops, requests are answered, exit 0 in time."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from civiapi.store.engine import open_store
from sync.emulator.server.running import Emulator
from sync.store.runs import checkpoints
from tests.support.linked_site import GROUP, Site, a_site
from tests.support.processes import ADMIN_KEY, civiapi, free_port, process, wait_until_served, write_settings

pytestmark = pytest.mark.sqlite_only("looks into the database file beside the server")

LIMIT_S = 10.0
PATIENCE_S = 30.0
DEMOS, SEED = 12, 20260109
AUTH = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}


@dataclass
class Server:
    """`civiapi serve` on a database that is linked with an emulator."""

    site: Site
    config: Path
    url: str
    child: subprocess.Popen[str]
    http: httpx.AsyncClient

    @property
    def emulator(self) -> Emulator:
        return self.site.emulator

    async def call(self, entity: str, action: str, **params: Any) -> Any:
        """The answer to a call over HTTP."""
        form = {"entity": entity, "action": action, "json": json.dumps(params)}
        answer = await self.http.post("/civicrm/ajax/rest", data=form, headers=AUTH)
        return answer.json()

    async def stop(self) -> float:
        """SIGTERM, and the end: how long that took, in seconds."""
        began = time.monotonic()
        self.child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(self.child.wait, LIMIT_S)
        output = self.child.stderr.read() if self.child.stderr else ""
        assert self.child.returncode == 0, output
        assert "Traceback" not in output, output
        return time.monotonic() - began


@asynccontextmanager
async def a_server(folder: Path, **options: Any) -> AsyncIterator[Server]:
    """A server with a few people at both ends."""
    database = folder / "site.sqlite"
    async with a_site(f"sqlite:///{database}", sockets=True, **options) as site:
        site.joined(*(f"there{number}@example.org" for number in range(20)))
        for number in range(5):
            await site.person(f"here{number}@example.org")
        port = free_port()
        config = write_settings(folder, port=port, mailchimp=site.emulator.root_url)
        url = f"http://127.0.0.1:{port}"
        with process("serve", "--config", config, cwd=folder) as child:
            await asyncio.to_thread(wait_until_served, child, port)
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as http:
                yield Server(site, config, url, child, http)


async def until(condition: Any) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_a_running_sync_stops_after_its_present_bit_its_caller_is_answered_and_the_next_goes_on(
    tmp_path: Path,
) -> None:
    async with a_server(tmp_path, latency_ms=600) as server:
        run = asyncio.create_task(server.call("Mailchimpsync", "fetchandreconcile", since="ever", group_id=GROUP))
        await until(lambda: server.emulator.highest_concurrency)
        await server.stop()
        answer = await run
        assert answer["is_error"] == 0, answer
        store = await open_store(f"sqlite:///{tmp_path / 'site.sqlite'}")
        checkpoint = await store.read(checkpoints.load, server.site.list_id)
        await store.close()
        assert checkpoint.log[-1]["message"] == f"The server stops at {checkpoint.stage}; the next run continues there."
        assert checkpoint.parameters is not None
        server.emulator.configure(latency_ms=0)
        ended = await asyncio.to_thread(civiapi, "sync", "--config", server.config, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert server.site.at_mailchimp("here4@example.org") == "subscribed"


async def test_with_everything_waiting_for_a_mailchimp_that_hangs_it_still_ends_in_time(tmp_path: Path) -> None:
    """A run that somebody asked for, a webhook, batches under way, idle connections, a page that follows events."""
    async with a_server(tmp_path, auto_batches=False) as server:
        await server.call("Mailchimpsync", "fetchandreconcile", since="ever", group_id=GROUP)
        server.emulator.add_fault("hang")
        server.emulator.clear_requests()
        run = asyncio.create_task(server.call("Mailchimpsync", "fetchandreconcile", since="ever", group_id=GROUP))
        await until(lambda: sum(server.emulator.gateway.concurrency.values()) >= 2)  # the run, and the batch watcher
        async with contextlib.AsyncExitStack() as open_ones:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
                assert b"200" in await reader.readline()
                open_ones.callback(writer.close)
            events = await open_ones.enter_async_context(
                server.http.stream("GET", "/civicrm/mailchimpsync/events", headers=AUTH)
            )
            assert events.headers["Content-Type"].startswith("text/event-stream"), events.headers
            await server.stop()
            answer = await run
        assert answer["error_message"] == "The server is stopping; the next run continues where the last one stopped."


async def test_a_server_that_has_nothing_to_do_ends_at_once(tmp_path: Path) -> None:
    async with a_server(tmp_path) as server:
        assert await server.stop() < LIMIT_S / 2


@pytest.mark.soak
async def test_the_demo_ends_whenever_it_is_told_to(tmp_path: Path) -> None:
    """It once did not: everything it does is told to stop here, at moments of which no two are alike."""
    rng = random.Random(SEED)
    slowest = 0.0
    for number in range(DEMOS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with process("demo", "--folder", folder / "data", cwd=folder) as child:
            assert child.stdout is not None
            await asyncio.to_thread(child.stdout.readline)  # it is up, and about to sync
            await asyncio.sleep(rng.uniform(0.0, 8.0))
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            await asyncio.to_thread(child.communicate, None, LIMIT_S)
            slowest = max(slowest, time.monotonic() - began)
            assert child.returncode == 143, child.returncode
    print(f"\n{DEMOS} demos ended, the slowest in {slowest:.1f} s (seed {SEED})")


async def test_the_demo_ends_in_the_middle_of_its_first_sync(tmp_path: Path) -> None:
    with process("demo", "--folder", tmp_path / "data", cwd=tmp_path) as child:
        assert child.stdout is not None
        while "Linked group" not in await asyncio.to_thread(child.stdout.readline):
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        _, output = await asyncio.to_thread(child.communicate, None, LIMIT_S)
        assert child.returncode == 143, output
        assert "Traceback" not in output, output
