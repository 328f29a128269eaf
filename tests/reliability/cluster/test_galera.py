"""Four processes over three nodes of a Galera cluster, while nodes and processes are killed, frozen and cut off.

Every audience ends in step, nobody is anywhere twice, and no audience was worked on by two at a time. ``make
test-galera`` runs it: it needs Debian's mariadb-server and galera-4, and half a minute for the cluster alone.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from civiapi.store import leases
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import group
from sync.emulator.server.running import Emulator, running_emulator
from tests.journeys.test_processes import (
    BETWEEN_SYNCS_S,
    WATCH,
    Cluster,
    a_cluster,
    a_world,
    ask_for_a_sync,
    differences,
    fill,
    held_by,
    holders,
    overlaps,
    strangers,
)
from tests.support.galera import Galera, a_galera, why_no_galera

pytestmark = pytest.mark.galera

DATABASE, OTHER_DATABASE = "civiapi", "civiapi_units"
PATIENCE_S = 420.0
TAKE = """
SET SESSION wsrep_sync_wait = 3;  -- once this node has applied what the first one committed
UPDATE civiapi_claim SET fence = fence + 1 WHERE name = 'audience';
SELECT ROW_COUNT();
"""
CUT_OFF_S = 10.0
"""Longer than a lease lasts (3 s), and than the other nodes wait for one that is silent (5 s)."""


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    if why_no_galera():
        pytest.skip(why_no_galera())
    with a_galera() as cluster:
        cluster.nodes[0].sql(f"CREATE DATABASE {DATABASE}; CREATE DATABASE {OTHER_DATABASE}")
        yield cluster


async def test_a_unit_whose_lease_is_taken_on_another_node_before_it_commits_is_undone(galera: Galera) -> None:
    first, second, _ = galera.nodes
    store = await open_store(first.url(OTHER_DATABASE))
    try:
        await migrate(store)
        lease = await store.write(leases.acquire, "audience", "here", 60.0, leases.now_ms())
        assert lease is not None
        taken: list[str] = []

        def unit(conn: Connection) -> None:
            conn.execute(insert(group).values(name="late", title="late"))
            leases.check(conn, lease)
            if not taken:  # the other node does not know of our lock
                taken.append(second.sql(TAKE, OTHER_DATABASE))

        with pytest.raises(leases.LeaseLost):
            await store.write(unit)
        assert taken == ["1"], "the other node took the lease, once"
        assert all(
            node.sql("SELECT * FROM civicrm_group WHERE name = 'late'", OTHER_DATABASE) == ""
            for node in (first, second)
        )
    finally:
        await store.close()


async def test_of_two_nodes_that_take_a_lease_at_once_one_gets_it(galera: Galera) -> None:
    stores = [await open_store(node.url(OTHER_DATABASE)) for node in galera.nodes]
    try:
        await migrate(stores[0])
        for number in range(20):
            taken = await asyncio.gather(
                *(
                    store.write(leases.acquire, f"name{number}", f"{n}", 60.0, leases.now_ms())
                    for n, store in enumerate(stores)
                )
            )
            assert sum(one is not None for one in taken) == 1
    finally:
        for store in stores:
            await store.close()


async def test_every_audience_ends_in_step_whatever_happens_to_nodes_and_processes(
    tmp_path: Path, galera: Galera
) -> None:
    first, second, third = (node.url(DATABASE) for node in galera.nodes)
    async with running_emulator(a_world()) as emulator:
        store = await open_store(first)
        try:
            await migrate(store)
            groups = await store.write(fill, emulator)
            galera.nodes[0].sql(WATCH, DATABASE)
            processes = {"web1": first, "web2": second, "worker1": second, "worker2": third}
            with a_cluster(tmp_path, processes, emulator.root_url) as cluster:
                await _play(store, emulator, groups, cluster, galera)
            assert await store.read(overlaps) == []
            assert strangers(await store.read(held_by), emulator, late_s=CUT_OFF_S) == []
        finally:
            await store.close()


async def _play(store: Store, emulator: Emulator, groups: dict[str, int], cluster: Cluster, galera: Galera) -> None:
    asking = [asyncio.create_task(_keep_asking(port)) for port in cluster.web_ports.values()]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await _troubles(store, cluster, galera)
            while await store.read(differences, emulator, groups):  # noqa: ASYNC110  other processes do it
                await asyncio.sleep(0.5)
    except TimeoutError:
        left = await store.read(differences, emulator, groups)
        pytest.fail(f"{left}\n{cluster.logs()}")
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _keep_asking(port: int) -> None:
    """Ask for a sync of all audiences again and again, as a cron job would."""
    while True:
        await ask_for_a_sync(port)
        await asyncio.sleep(BETWEEN_SYNCS_S)


async def _troubles(store: Store, cluster: Cluster, galera: Galera) -> None:
    """Everything that may happen, one thing after another, while the processes work."""
    _, second, third = galera.nodes
    await _kill_a_holder(store, cluster)
    await asyncio.to_thread(galera.kill, second)  # a web process and a worker are without a database
    await asyncio.to_thread(galera.start, second)
    await asyncio.to_thread(galera.wait_until_whole)
    await _kill_a_holder(store, cluster)
    await asyncio.to_thread(third.isolate, on=True)  # its worker reaches it, and it reaches nobody
    await asyncio.sleep(CUT_OFF_S)
    await asyncio.to_thread(third.isolate, on=False)
    await asyncio.to_thread(galera.wait_until_whole)
    second.freeze()
    await asyncio.sleep(CUT_OFF_S)
    second.thaw()
    await asyncio.to_thread(galera.wait_until_whole)
    await asyncio.to_thread(galera.kill, third)
    await asyncio.to_thread(galera.start, third)
    await _kill_a_holder(store, cluster)


async def _kill_a_holder(store: Store, cluster: Cluster) -> None:
    """Kill a process that has an audience now, if one has within a few seconds."""
    for _ in range(50):
        for pid in await store.read(holders):
            if cluster.kill_whoever_has(pid):
                return
        await asyncio.sleep(0.1)
