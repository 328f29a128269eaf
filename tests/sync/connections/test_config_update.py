"""Saving a configuration."""

from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import insert, select

from civiapi.store.engine import Store
from civiapi.store.schema.tables import group, lease
from sync.connections.clients import Clients
from sync.connections.config import read_config
from sync.connections.config_update import update_config
from sync.emulator.server.running import Emulator
from sync.errors import SyncError
from sync.store.tables import batch, cache, member, permission, run, status, update
from tests.support.saved_account import saved


async def test_what_belonged_to_a_removed_list_is_deleted_and_the_rest_stays(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)

    def fill(conn: Any) -> None:
        for number, name in enumerate([list_id, "other"], 1):
            conn.execute(insert(cache).values(id=number, mailchimp_list_id=name))
            conn.execute(insert(batch).values(id=number, mailchimp_list_id=name))
            conn.execute(insert(update).values(id=number, mailchimpsync_cache_id=number, data="{}"))
            conn.execute(insert(status).values(list_id=name, data=b"a:0:{}"))
            if name != list_id:  # a new connection has one
                conn.execute(insert(run).values(list_id=name))
            conn.execute(insert(member).values(cache_id=number))
            conn.execute(insert(permission).values(list_id=name, permission_id="p1"))
            conn.execute(insert(lease).values(name=name, holder="h", fence=1, expires_ms=2**50))

    await store.write(fill)
    await store.write(update_config, (await store.read(read_config)).raw)
    left = {
        table.name: await store.read(lambda conn, column=column: conn.execute(select(column)).scalars().all())
        for table, column in [
            (cache, cache.c.mailchimp_list_id),
            (batch, batch.c.mailchimp_list_id),
            (update, update.c.id),
            (status, status.c.list_id),
            (run, run.c.list_id),
            (member, member.c.cache_id),
            (permission, permission.c.list_id),
        ]
    }
    assert left == {
        "civicrm_mailchimpsync_cache": [list_id],
        "civicrm_mailchimpsync_batch": [list_id],
        "civicrm_mailchimpsync_update": [1],
        "civicrm_mailchimpsync_status": [list_id],
        "civiapi_run": [list_id],
        "civiapi_member": [1],
        "civiapi_permission": [list_id],
    }
    claims = await store.read(lambda conn: {row.name: row.expires_ms for row in conn.execute(select(lease))})
    assert claims == {list_id: 2**50, "other": 0}, "a sync at work on the removed list has lost its claim"


async def test_a_group_that_is_not_there_is_refused_and_nothing_changes(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)
    raw = deepcopy(dict((await store.read(read_config)).raw))
    bad = raw | {"lists": {list_id: {"apiKey": emulator.key, "subscriptionGroup": 99}}}
    with pytest.raises(SyncError, match=r"linked with group 99, which does not exist"):
        await store.write(update_config, bad)
    assert (await store.read(read_config)).raw == raw


@pytest.mark.parametrize("part", ["interests", "permissions"])
async def test_a_smart_group_is_refused_as_that_of_an_interest_or_a_permission_with_the_reason(
    store: Store, clients: Clients, emulator: Emulator, part: str
) -> None:
    list_id = await saved(store, clients, emulator)
    smart = insert(group).values(id=7, name="s", title="Smart", saved_search_id=1)
    await store.write(lambda conn: conn.execute(smart) and None)
    raw = deepcopy(dict((await store.read(read_config)).raw))
    own = raw["lists"][list_id]
    raw["lists"] = {list_id: own | {part: {next(iter(emulator.audience().interests()), "i"): "7"}}}
    with pytest.raises(SyncError, match=r"a smart group"):
        await store.write(update_config, raw)


async def test_a_group_is_linked_with_an_interest_or_with_a_permission_and_not_with_both(
    store: Store, clients: Clients, emulator: Emulator
) -> None:
    list_id = await saved(store, clients, emulator)
    await store.write(lambda conn: conn.execute(insert(group).values(id=7, name="s", title="Email")) and None)
    raw = deepcopy(dict((await store.read(read_config)).raw))
    raw["lists"] = {list_id: raw["lists"][list_id] | {"permissions": {"p1": "7", "p2": "7"}}}
    with pytest.raises(SyncError, match=r"with marketing permission p1 and marketing permission p2, which would pull"):
        await store.write(update_config, raw)
    raw["lists"] = {list_id: raw["lists"][list_id] | {"permissions": {"p1": "7"}}}
    config = await store.write(update_config, raw)
    assert config.links[list_id].interests["permission:p1"] == 7
