"""A disk that is full in the middle of a sync: an error that says so, nothing lost, and on it goes with room again."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.reliability.crash.processes import Forker
from tests.support.linked_site import GROUP, Site, a_site
from tests.support.processes import ADMIN_KEY, free_port

PATIENCE_S = 30.0
MEMBERS = 400
LEFT = 96 * 1024
"""Bytes left free as the sync begins: room for some of its pages."""


@contextmanager
def a_small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 MB; skips, saying why, where none may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> Path:
    """A file that leaves little room beside it."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * (free - LEFT))
    return ballast


@dataclass
class Server:
    """`civiapi serve`, in a process of its own."""

    pid: int
    http: httpx.AsyncClient

    async def call(self, entity: str, action: str, **params: Any) -> Any:
        form = {"entity": entity, "action": action, "json": json.dumps(params)}
        headers = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}
        return (await self.http.post("/civicrm/ajax/rest", data=form, headers=headers)).json()

    async def webhook(self, list_id: str, address: str) -> int:
        """The status of the answer to a webhook."""
        form = {"type": "unsubscribe", "data[email]": address, "data[list_id]": list_id}
        return (await self.http.post(f"/civicrm/mailchimpsync/webhook?secret={'s' * 40}", data=form)).status_code


@asynccontextmanager
async def a_server(forker: Forker, site: Site, database: Path, folder: Path) -> AsyncIterator[Server]:
    """A server on this database; stopped by SIGTERM, which must end it well."""
    port = free_port()
    forker.start(
        {
            "database": f"sqlite:///{database}",
            "mailchimp": site.emulator.root_url,
            "port": port,
            "stderr": str(folder / "stderr"),
            "steps": [],
        }
    )
    pid = (await forker.wait("pid")).find("pid")
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as http:
            async with asyncio.timeout(PATIENCE_S):
                while not await answers(http):  # noqa: ASYNC110  nobody tells
                    await asyncio.sleep(0.05)
            yield Server(pid, http)
    finally:
        os.kill(pid, signal.SIGTERM)
        ended = await forker.wait()
    assert ended.ended == 0


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_full_disk_stops_a_sync_with_an_error_and_the_next_one_goes_on(forker: Forker, tmp_path: Path) -> None:
    with a_small_disk(tmp_path) as disk:
        database = disk / "site.sqlite"
        async with a_site(f"sqlite:///{database}", sockets=True) as site:
            site.joined(*(f"there{number}@example.org" for number in range(MEMBERS)))
            here = await site.person("here@example.org")
            async with a_server(forker, site, database, tmp_path) as server:
                ballast = fill(disk)
                said = await server.call("Mailchimpsync", "fetchandreconcile", since="ever", group_id=GROUP)
                assert said["is_error"] == 1, said
                assert "the disk is full" in said["error_message"]

                assert (await server.call("Contact", "getcount", id=here))["result"] == 1
                made = await server.call("Contact", "create", contact_type="Individual", first_name="A" * 60)
                assert not made["is_error"] or "the disk is full" in made["error_message"]
                while await server.webhook(site.list_id, f"{'x' * 200}@example.org") == 200:
                    pass  # as long as it is kept it may be answered so
                assert await server.webhook(site.list_id, "there0@example.org") == 500

                ballast.unlink()
                said = await server.call("Mailchimpsync", "fetchandreconcile", since="ever", group_id=GROUP)
                assert said["is_error"] == 0, said
                await site.settle()
                said = await server.call("Mailchimpsync", "fetchandreconcile", group_id=GROUP)
                assert said["is_error"] == 0, said
                await site.settle()
            rows = await site.rows()
            assert len(rows) == MEMBERS + 1
            assert {row.sync_status for row in rows} == {"ok"}
            assert site.at_mailchimp("here@example.org") == "subscribed"
            names = [one.display_name for one in await site.contacts()]
            assert sorted(one for one in names if "there" in one) == sorted(
                f"there{number}@example.org" for number in range(MEMBERS)
            )
