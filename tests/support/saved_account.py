"""A configuration as the Config screen saves it."""

from sqlalchemy import insert

from civiapi.store.engine import Store
from civiapi.store.schema.tables import group
from sync.connections.account_info import fetch_account_info
from sync.connections.clients import Clients
from sync.connections.config_update import update_config
from sync.emulator.server.running import Emulator


async def saved(store: Store, clients: Clients, emulator: Emulator, base_url: str = "https://crm.example.org") -> str:
    """A configuration as the Config screen saves it: one account, its audience linked with group 1. The list id."""
    found = await fetch_account_info(store, clients, base_url, emulator.key)
    list_id = emulator.audience().id
    await store.write(lambda conn: conn.execute(insert(group).values(name="n", title="News")) and None)
    link = {"apiKey": emulator.key, "subscriptionGroup": 1, "interests": {}}
    config = {"accounts": {emulator.key: found | {"apiKey": emulator.key}}, "lists": {list_id: link}}
    await store.write(update_config, config)
    return list_id
