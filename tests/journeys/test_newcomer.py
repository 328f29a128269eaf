"""A newcomer's first hour, over REST only: serve, link, first sync, settled, webhook; then both ends are looked at."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.emulator.data.exports import load
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World
from tests.support.processes import ADMIN_KEY, ROOT, SITE_KEY, free_port, serving, write_settings

PATIENCE_S = 30.0
LEAVER = "ada.lovelace@members.example.org"
EXPORT = ROOT / "civiapi" / "cli" / "demo" / "data" / "mailchimp"


class Rest:
    """APIv3 as curl scripts speak it."""

    def __init__(self, base_url: str) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=PATIENCE_S)

    async def __call__(self, entity: str, action: str, **params: Any) -> Any:
        answer = await self._http.post(
            "/sites/all/modules/civicrm/extern/rest.php",
            data={
                "key": SITE_KEY,
                "api_key": ADMIN_KEY,
                "entity": entity,
                "action": action,
                "json": json.dumps(params),
            },
        )
        body = answer.json()
        assert not body.get("is_error"), body
        return body

    async def until(self, wanted: Any, entity: str, action: str, of: Any, **params: Any) -> None:
        """Ask until *of* the answer is what is wanted."""
        async with asyncio.timeout(PATIENCE_S):
            while of(await self(entity, action, **params)) != wanted:  # noqa: ASYNC110  another process tells
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self._http.aclose()


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    world = World()
    load(world, EXPORT)
    async with running_emulator(world) as running:
        yield running


async def test_from_serve_to_a_webhook_over_rest_alone(tmp_path: Path, emulator: Emulator) -> None:
    port = free_port()
    config = write_settings(tmp_path, port=port, mailchimp=emulator.base_url)
    server = serving(config, port)
    await asyncio.to_thread(server.__enter__)
    rest = Rest(f"http://127.0.0.1:{port}")
    try:
        await _story(rest, emulator)
    finally:
        await rest.close()
        await asyncio.to_thread(server.__exit__, None, None, None)


async def _story(rest: Rest, emulator: Emulator) -> None:
    # A group with one person whom Mailchimp has never heard of.
    group_id = (await rest("Group", "create", title="News", group_type="Mailing List"))["id"]
    nell = (await rest("Contact", "create", contact_type="Individual", first_name="Nell", email="nell@example.net"))[
        "id"
    ]
    await rest("GroupContact", "create", contact_id=nell, group_id=group_id)

    # Linked with the audience, and Mailchimp told where we are.
    account = (await rest("Mailchimpsync", "fetchaccountinfo", api_key=emulator.key))["values"]
    list_id = next(iter(account["audiences"]))
    link = {"apiKey": emulator.key, "subscriptionGroup": str(group_id), "interests": {}}
    wanted = {"accounts": {emulator.key: {**account, "apiKey": emulator.key}}, "lists": {list_id: link}}
    await rest("Mailchimpsync", "updateconfig", config=json.dumps(wanted))
    await rest("Mailchimpsync", "updatewebhook", process="add_webhook", api_key=emulator.key, list_id=list_id)
    await rest("Mailchimpsync", "updatewebhook", process="add_batch_webhook", api_key=emulator.key)

    # The first sync, and what it sent done.
    answer = await rest("Mailchimpsync", "fetchandreconcile", group_id=group_id, since="ever", max_time=0)
    assert answer["values"]
    await rest.until(0, "Mailchimpsync", "getstatus", lambda a: _owed(a, list_id))

    # Both ends agree.
    member = emulator.member("nell@example.net")
    assert member is not None
    assert member.status == "subscribed"
    in_audience = {m.email.lower() for m in emulator.audience(list_id).members if m.status in ("subscribed", "pending")}
    assert await _in_group(rest, group_id) == in_audience

    # Ada, a member for years, unsubscribes in her mail program: CiviCRM hears of it by the webhook. (Nell would not do:
    # she joined in CiviCRM a moment ago, and within one second the last word is CiviCRM's.)
    ada = (await rest("Contact", "getsingle", email=LEAVER))["id"]
    emulator.person("unsubscribe", LEAVER)
    standing = {"contact_id": ada, "group_id": group_id, "sequential": 1, "options": {"sort": "id DESC", "limit": 1}}
    await rest.until("Removed", "SubscriptionHistory", "get", lambda a: a["values"][0]["status"], **standing)
    assert LEAVER not in await _in_group(rest, group_id)


def _owed(answer: Any, list_id: str) -> int:
    stats = answer["values"][list_id]["stats"]
    return int(stats["mailchimp_updates_pending"]) + int(stats["todo"])


async def _in_group(rest: Rest, group_id: str) -> set[str]:
    found = await rest("Contact", "get", group=group_id, options={"limit": 0}, **{"return": "email"})
    return {row["email"].lower() for row in found["values"].values()}
