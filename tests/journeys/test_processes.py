"""Several processes on one MariaDB, killed again and again: everything ends in step, nothing was worked on by two.

Twenty audiences in four accounts. Whoever holds an audience is killed while it works and started again; a trigger on
the claims writes down who held what and when, and the emulator who asked for what.
"""

import asyncio
import contextlib
import multiprocessing
import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, insert, select, text

from civiapi.store.civicrm.group_membership import set_status
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.tables import contact, email, group, group_contact
from sync.connections.config import write_config
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from sync.store.batches import OPEN
from sync.store.tables import batch, cache, update
from tests.support.databases import a_database, sql
from tests.support.processes import ADMIN_KEY, SITE_KEY, free_port, run_forked

# Processes forked from one that has imported the program: importing takes longer than what each has to do here.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.support.processes", "civiapi.server.lifecycle", "civiapi.cli.main"])

ACCOUNTS, AUDIENCES = 4, 20
PEOPLE = 5  # a side and audience
PATIENCE_S = 240.0
BETWEEN_SYNCS_S = 5.0
SLACK_S = 0.25  # between a clock read and the commit or the log line it is for

WATCH = """
CREATE TABLE claim_log (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64), holder VARCHAR(64), fence BIGINT,
    old_fence BIGINT, expires_ms BIGINT, old_expires_ms BIGINT, at_ms BIGINT);
CREATE TRIGGER watch_claims AFTER UPDATE ON civiapi_claim FOR EACH ROW INSERT INTO claim_log
    (name, holder, fence, old_fence, expires_ms, old_expires_ms, at_ms) VALUES (NEW.name, NEW.holder, NEW.fence,
    OLD.fence, NEW.expires_ms, OLD.expires_ms, ROUND(UNIX_TIMESTAMP(SYSDATE(3)) * 1000));
"""


@dataclass
class Cluster:
    """Processes that share a database, each named after its role, with the address it has the database at."""

    folder: Path
    databases: dict[str, str]
    mailchimp: str
    web_ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, BaseProcess] = field(default_factory=dict)
    killed: int = 0

    def start(self, name: str) -> None:
        role = name.rstrip("0123456789")
        config = self.folder / f"{name}.ini"
        config.write_text(
            f"[server]\nsite_key = {SITE_KEY}\n[database]\nurl = {self.databases[name]}\n"
            f"[mailchimp]\nbase_url = {self.mailchimp}\npoll_seconds = 1\nmax_connections = 8\n"
            "[sync]\nclaim_seconds = 3\nheartbeat_seconds = 1\n[scheduler]\ntick_seconds = 0.5\n"
            f"[log]\nlevel = warning\n[user:admin]\napi_key = {ADMIN_KEY}\npermissions = *\n",
            "utf-8",
        )
        port = self.web_ports.setdefault(name, free_port()) if role == "web" else 0
        words = ["serve", "--config", str(config), "--role", role, "--port", str(port)]
        self.processes[name] = FORKS.Process(target=run_forked, args=(words, self.folder / f"{name}.log"))
        self.processes[name].start()

    def kill_whoever_has(self, pid: int) -> bool:
        """SIGKILL the process with this id and start its like; False if it is none of ours any more."""
        for name, child in self.processes.items():
            if child.pid == pid and child.is_alive():
                child.kill()
                child.join()
                self.killed += 1
                self.start(name)
                return True
        return False

    def stop(self) -> None:
        for child in self.processes.values():
            child.kill()
            child.join()

    def logs(self) -> str:
        return "\n".join(path.read_text("utf-8")[-3000:] for path in self.folder.glob("*.log"))


@contextlib.contextmanager
def a_cluster(folder: Path, databases: dict[str, str], mailchimp: str) -> Iterator[Cluster]:
    cluster = Cluster(folder, databases, mailchimp)
    try:
        for name in databases:
            cluster.start(name)
        yield cluster
    finally:
        cluster.stop()


def a_world() -> World:
    """Audiences whose members CiviCRM does not know yet."""
    world = World()
    accounts = [world.default_account, *(world.add_account(f"Account {n}") for n in range(1, ACCOUNTS))]
    for number in range(AUDIENCES):
        world.add_audience(f"Audience {number}", account=accounts[number % ACCOUNTS])
    return world


def fill(conn: Connection, emulator: Emulator) -> dict[str, int]:
    """Link every audience with a group of people whom Mailchimp does not know; group by audience."""
    accounts: dict[str, Any] = {}
    lists: dict[str, Any] = {}
    groups: dict[str, int] = {}
    for account in emulator.world.accounts.values():
        key = account.users[0].keys[0]
        accounts[key] = {"apiKey": key, "audiences": {}, "batchWebhookSecret": "s" * 40}
        for list_id in account.audiences:
            accounts[key]["audiences"][list_id] = {"name": list_id}
            made = conn.execute(insert(group).values(name=list_id, title=list_id))
            groups[list_id] = int(made.lastrowid)
            lists[list_id] = {"apiKey": key, "subscriptionGroup": str(groups[list_id]), "interests": {}}
            for number in range(PEOPLE):
                emulator.admin("import", f"there{number}.{list_id}@example.org", list_id)
                person = conn.execute(insert(contact).values(contact_type="Individual", display_name="A"))
                address = {"contact_id": int(person.lastrowid), "email": f"here{number}.{list_id}@example.org"}
                conn.execute(insert(email).values(is_primary=1, location_type_id=1, **address))
                set_status(
                    conn, groups[list_id], [int(person.lastrowid)], "Added", method="Admin", at="2026-01-01 00:00:00"
                )
    write_config(conn, {"accounts": accounts, "lists": lists})
    return groups


def differences(conn: Connection, emulator: Emulator, groups: dict[str, int]) -> list[str]:
    """What keeps both ends from being in step."""
    found = []
    in_groups = select(group_contact.c.group_id, email.c.email).join(
        email, email.c.contact_id == group_contact.c.contact_id
    )
    added: dict[int, list[str]] = defaultdict(list)
    for group_id, address in conn.execute(in_groups.where(group_contact.c.status == "Added")):
        added[group_id].append(address)
    for list_id, group_id in groups.items():
        there = sorted(one.email for one in emulator.audience(list_id).members if one.status == "subscribed")
        if there != sorted(added[group_id]) or len(there) != 2 * PEOPLE:
            found.append(f"{list_id}: {len(there)} at Mailchimp, {len(added[group_id])} in the group")
    for what, wanted in (
        ("rows not ok", select(cache.c.id).where(cache.c.sync_status != "ok")),
        ("updates open", select(update.c.id).where(update.c.completed == 0)),
        ("batches open", select(batch.c.id).where(batch.c.response_processed.in_(OPEN))),
        ("turns open", text("SELECT list_id FROM civiapi_turn WHERE state <> 'done'")),
    ):
        count = len(conn.execute(wanted).all())
        found += [f"{count} {what}"] if count else []
    return found


def holders(conn: Connection) -> list[int]:
    """The process ids that hold an audience now."""
    rows = conn.execute(
        text(
            "SELECT holder FROM civiapi_claim WHERE expires_ms > UNIX_TIMESTAMP(SYSDATE(3)) * 1000 "
            "AND name NOT LIKE 'job:%' AND name NOT IN ('scheduler', 'clean-up') ORDER BY name"
        )
    ).scalars()
    return [int(one.removeprefix("brief:").split(":")[1]) for one in rows]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with running_emulator(a_world()) as running:
        yield running


async def ask_for_a_sync(port: int) -> None:
    """What a cron job does: call the web process; it may be killed meanwhile."""
    query = {"key": SITE_KEY, "api_key": ADMIN_KEY, "entity": "Mailchimpsync", "action": "fetchandreconcile", "json": 1}
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
        with contextlib.suppress(httpx.TransportError):
            await client.post(f"http://127.0.0.1:{port}/extern/rest.php", data=query)


async def play(folder: Path, emulator: Emulator, url: str, kills: int) -> None:
    """Let the cluster sync everything while whoever works is killed *kills* times; then look at what was left."""
    store = await open_store(url)
    try:
        groups = await store.write(fill, emulator)
        sql(WATCH, database=url.rpartition("/")[2])
        names = ("web", "worker1", "worker2", "worker3")
        with a_cluster(folder, dict.fromkeys(names, url), emulator.root_url) as cluster:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await kill_until_in_step(store, emulator, groups, cluster, kills)
            except TimeoutError:
                left = await store.read(differences, emulator, groups)
                pytest.fail(f"after {cluster.killed} kills: {left}\n{cluster.logs()}")
        assert await store.read(overlaps) == []
        assert strangers(await store.read(held_by), emulator) == []
    finally:
        await store.close()


async def kill_until_in_step(
    store: Store, emulator: Emulator, groups: dict[str, int], cluster: Cluster, kills: int
) -> None:
    loop = asyncio.get_running_loop()
    asked, again = asyncio.create_task(ask_for_a_sync(cluster.web_ports["web"])), loop.time() + 1.0
    try:
        while cluster.killed < kills or await store.read(differences, emulator, groups):
            working = await store.read(holders) if cluster.killed < kills else []
            if working and cluster.kill_whoever_has(working[cluster.killed % len(working)]):
                await asyncio.sleep(1.0)  # "every few seconds", and let the others take over
            if asked.done() and loop.time() > again:
                again = loop.time() + BETWEEN_SYNCS_S
                asked = asyncio.create_task(ask_for_a_sync(cluster.web_ports["web"]))
            await asyncio.sleep(0.1)
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


def overlaps(conn: Connection) -> list[str]:
    """Claims that were taken while somebody else's still lived."""
    rows = conn.execute(text("SELECT * FROM claim_log WHERE fence > old_fence ORDER BY at_ms, id")).all()
    assert rows
    early = int(SLACK_S * 1000)
    return [f"{row.name} by {row.holder} at {row.at_ms}" for row in rows if row.old_expires_ms > row.at_ms + early]


def held_by(conn: Connection) -> dict[str, list[tuple[int, float, float]]]:
    """By audience: which process held it from when to when (a killed one until it lapsed or was succeeded)."""
    held: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for row in conn.execute(text("SELECT * FROM claim_log ORDER BY at_ms, id")):
        if ":" not in row.holder:
            continue
        pid = int(row.holder.removeprefix("brief:").split(":")[1])
        if row.fence > row.old_fence:
            held[row.name].append((pid, row.at_ms / 1000, row.expires_ms / 1000))
        elif held[row.name]:
            until = row.at_ms if row.expires_ms == 0 else row.expires_ms  # given back, or renewed
            held[row.name][-1] = (*held[row.name][-1][:2], until / 1000)
    return held


def strangers(
    held: dict[str, list[tuple[int, float, float]]], emulator: Emulator, *, late_s: float = SLACK_S
) -> list[str]:
    """Requests about an audience's members from a process that did not hold the audience then, or *late_s* before.

    A process whose database stands still may have asked for one more page by the time it learns that its lease expired;
    what it got is not stored, as each commit asks for the lease.
    """
    found, seen = [], 0
    for one in emulator.requests:
        about = re.match(r"/3\.0/lists/(\w+)/members", one.path)
        asker = re.search(r"process/(\d+)", one.agent)
        if about is None or asker is None:
            continue
        seen += 1
        began = one.at - one.ms / 1000
        spans = [(start, end) for pid, start, end in held[about[1]] if pid == int(asker[1])]
        if not any(start - SLACK_S <= began <= end + late_s for start, end in spans):
            found.append(f"{one.method} {one.path} by {asker[1]} at {began}: {spans}")
    assert seen >= AUDIENCES
    return found


async def test_a_process_killed_while_it_works_is_replaced_by_the_others(tmp_path: Path, emulator: Emulator) -> None:
    with a_database("mariadb", tmp_path) as url:
        await play(tmp_path, emulator, url, kills=3)


@pytest.mark.soak
async def test_a_process_killed_every_few_seconds_for_long(tmp_path: Path, emulator: Emulator) -> None:
    with a_database("mariadb", tmp_path) as url:
        await play(tmp_path, emulator, url, kills=int(os.environ.get("CIVIAPI_SOAK_KILLS", "25")))
