"""What people reported of the configuration of programs like ours: double links, what cannot be read, many webhooks."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import insert
from sqlalchemy import update as change

from civiapi.store.schema.tables import group, setting
from sync.connections.config import SETTING, read_config, write_config
from sync.connections.webhooks import HookUrls, add_audience_hook, check_hooks
from sync.emulator.model.records import Hook, Interest, InterestCategory
from sync.reports.checks import Severity, configuration
from sync.runs.engine import run_audience
from sync.runs.run import RunRequest
from tests.support.api_caller import ApiCaller
from tests.support.databases import KINDS, a_database
from tests.support.linked_site import GROUP, TREES_GROUP, Site, a_site, sync_settings

URLS = HookUrls("https://crm.example.org", "s" * 40)


@pytest.fixture(params=KINDS)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    with a_database(request.param, tmp_path) as url:
        async with a_site(url, settings=sync_settings(brake_percent=0)) as opened:
            yield opened


# ── One group, two audiences ────────────────────────────────────────────────────────────────────────────────────────


async def two_links(site: Site) -> tuple[dict[str, Any], str]:
    """The configuration with a second audience linked with the same group, not stored yet; and that audience's id."""
    second = site.emulator.world.add_audience()
    raw = (await site.store.read(read_config)).copy_raw()
    key = site.emulator.key
    raw["accounts"][key]["audiences"][second.id] = {"name": "Second"}
    raw["lists"][second.id] = {"apiKey": key, "subscriptionGroup": str(GROUP)}
    return raw, second.id


async def test_a_second_audience_of_one_group_is_refused_and_the_first_is_named(site: Site) -> None:
    raw, second = await two_links(site)
    answer = await ApiCaller(site).answer("updateconfig", config=orjson.dumps(raw).decode())
    assert answer["is_error"] == 1
    assert f"audience '{site.list_id}' already, so list '{second}'" in answer["error_message"]
    raw["lists"][second] = {**raw["lists"][second], "subscriptionGroup": "99", "interests": {"i1": str(GROUP)}}
    answer = await ApiCaller(site).answer("updateconfig", config=orjson.dumps(raw).decode())
    assert answer["is_error"] == 1
    raw["lists"][second] = {**raw["lists"][second], "subscriptionGroup": str(TREES_GROUP), "interests": {}}
    assert await ApiCaller(site)("updateconfig", config=orjson.dumps(raw).decode())


async def test_a_double_link_that_is_stored_already_may_be_saved_again_and_is_named_by_the_doctor(site: Site) -> None:
    raw, second = await two_links(site)
    await site.store.write(write_config, raw)
    assert await ApiCaller(site)("updateconfig", config=orjson.dumps(raw).decode())
    found = await site.store.read(lambda conn: list(configuration(conn, site.store.clock)))
    shared = [one for one in found if one.code.startswith("mailchimpsyncShared")]
    assert [(one.code, one.severity) for one in shared] == [
        (f"mailchimpsyncShared:{site.list_id}", Severity.WARNING),
        (f"mailchimpsyncShared:{second}", Severity.WARNING),
    ]


async def come_to_rest(site: Site, contact_id: int) -> list[tuple[str, str]]:
    """Sync both audiences three times, and three times more without any change; returns the contact's history."""
    config = await site.store.read(read_config)
    audiences = [link.audience(site.store.clock) for link in config.links.values()]

    async def sync_both() -> None:
        for audience in audiences:
            await run_audience(site.ctx, audience, RunRequest(since="ever"))
            assert await site.watcher.wait_until_idle([audience.list_id], 20)

    for _ in range(3):
        await sync_both()
    history, updates = await site.history(contact_id), len(await site.updates())
    for _ in range(3):
        await sync_both()
    assert await site.history(contact_id) == history
    assert len(await site.updates()) == updates
    return history


@pytest.mark.parametrize("later", [True, False, None])
async def test_a_person_who_differs_in_two_audiences_of_one_group_comes_to_rest(site: Site, later: bool | None) -> None:
    raw, second = await two_links(site)
    await site.store.write(write_config, raw)
    moments = {True: (0, 60), False: (60, 0), None: (0, 0)}[later]
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    for list_id, status, seconds in (
        (site.list_id, "subscribed", moments[0]),
        (second, "unsubscribed", moments[1]),
    ):
        site.emulator.set_clock(begin + timedelta(seconds=seconds))
        site.emulator.admin("import", "ada@example.org", list_id, status=status)
    site.emulator.set_clock(datetime.now(UTC), freeze=False)
    ada = await site.person("ada@example.org", status=None)
    assert len(await come_to_rest(site, ada)) <= 3


# ── One group, two interests ────────────────────────────────────────────────────────────────────────────────────────

OWN_GROUP, I1, I2 = 14, "9143cf3bd1", "9143cf3bd2"


async def two_interests(site: Site, *, in_one_audience: bool) -> tuple[dict[str, Any], str]:
    """The configuration with one group linked as interest I1 of the audience and as I2 of it or of a second one, not
    stored yet; and the id of the audience that has I2."""
    raw, second = await two_links(site)
    own = insert(group).values(id=OWN_GROUP, name="Own", title="Own")
    await site.store.write(lambda conn: conn.execute(own).rowcount)
    last = site.list_id if in_one_audience else second
    for list_id in {site.list_id, last}:
        interests = {one: Interest(one, "c", one) for one in (I1, I2)}
        site.emulator.audience(list_id).categories["c"] = InterestCategory("c", "Topics", interests=interests)
    raw["lists"][second] |= {"subscriptionGroup": str(OWN_GROUP), "interests": {}}
    raw["lists"][site.list_id]["interests"] = {I1: str(TREES_GROUP)}
    raw["lists"][last]["interests"] |= {I2: str(TREES_GROUP)}
    return raw, last


@pytest.mark.parametrize("in_one_audience", [False, True], ids=["two audiences", "one audience"])
async def test_a_second_interest_of_one_group_is_refused_and_an_existing_one_is_named(
    site: Site, in_one_audience: bool
) -> None:
    ask, (raw, _) = ApiCaller(site), await two_interests(site, in_one_audience=in_one_audience)
    text = orjson.dumps(raw).decode()
    answer = await ask.answer("updateconfig", config=text)
    assert (answer["is_error"], f"roup {TREES_GROUP} is linked with" in answer["error_message"]) == (1, True)
    await site.store.write(write_config, raw)
    assert await ask("updateconfig", config=text)
    found = await site.store.read(lambda conn: list(configuration(conn, site.store.clock)))
    shared = [one for one in found if one.code.startswith("mailchimpsyncShared")]
    assert len(shared) == (1 if in_one_audience else 2)
    assert all(f"interest {I1}" in one.sentence and f"interest {I2}" in one.sentence for one in shared)


@pytest.mark.parametrize("later", [True, False, None])
@pytest.mark.parametrize("in_one_audience", [False, True], ids=["two audiences", "one audience"])
async def test_a_person_whose_two_interests_of_one_group_differ_comes_to_rest(
    site: Site, in_one_audience: bool, later: bool | None
) -> None:
    raw, last = await two_interests(site, in_one_audience=in_one_audience)
    await site.store.write(write_config, raw)
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    seconds = {True: (0, 60), False: (60, 0), None: (0, 0)}[later]
    for list_id in dict.fromkeys((site.list_id, last)):
        site.emulator.set_clock(begin - timedelta(hours=1))
        site.emulator.admin("import", "ada@example.org", list_id)
    changes = sorted([(seconds[0], site.list_id, {I1: True}), (seconds[1], last, {I2: False})], key=lambda one: one[0])
    ada = await site.person("ada@example.org", at=begin - timedelta(hours=2))
    await site.set_group(ada, "Added", group_id=OWN_GROUP, at=begin - timedelta(hours=2))
    for moment, list_id, interests in changes:
        site.emulator.set_clock(begin + timedelta(seconds=moment))
        site.emulator.admin("edit", "ada@example.org", list_id, interests=interests)
    site.emulator.set_clock(datetime.now(UTC), freeze=False)
    await come_to_rest(site, ada)
    if in_one_audience:
        return  # at rest, though not in agreement: the history that a sync wrote itself is not read again
    held = [
        member.interests >= {interest}
        for list_id, interest in ((site.list_id, I1), (last, I2))
        if (member := site.emulator.audience(list_id).members.find_address("ada@example.org")) is not None
    ]
    assert held == [await site.standing(ada, TREES_GROUP) == "Added"] * 2


# ── A configuration that cannot be read ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stored", ['s:99:"broken', 's:4:"nope";', "i:7;", 's:6:"[1, 2]";'])
async def test_a_configuration_that_cannot_be_read_is_an_error_to_everyone_who_needs_it(
    site: Site, stored: str
) -> None:
    ask = ApiCaller(site)
    good = (await site.store.read(read_config)).raw
    spoil = change(setting).where(setting.c.name == SETTING).values(value=stored)
    await site.store.write(lambda conn: conn.execute(spoil).rowcount)
    for action in ("getstatus", "fetchandreconcile", "submitbatches"):
        answer = await ask.answer(action)
        assert answer["is_error"] == 1, action
        assert "nothing is synced" in answer["error_message"]
    [finding] = await site.store.read(lambda conn: list(configuration(conn, site.store.clock)))
    assert finding.severity is Severity.ERROR
    [job] = await ask("get", "Job", api_action="fetchandreconcile", sequential=1)
    await ask.answer("execute", "Job", id=job["id"])
    log = await ask("get", "JobLog", sequential=1, options={"sort": "id desc", "limit": 5})
    assert any("nothing is synced" in one["description"] + str(one.get("data")) for one in log)
    assert site.emulator.requests == [] or all("/members" not in one.path for one in site.emulator.requests)
    assert await ask("updateconfig", config=orjson.dumps(dict(good)).decode())  # mends it
    assert await ask("getstatus")


# ── Webhooks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_our_webhook_behind_ten_others_is_found_and_not_added_twice(site: Site) -> None:
    hooks = site.emulator.audience().hooks
    for number in range(12):
        hooks[f"{number:010x}"] = Hook(f"{number:010x}", f"https://other.example.org/{number}", site.list_id)
    hooks["f" * 10] = Hook("f" * 10, URLS.audience, site.list_id)
    await add_audience_hook(site.client, site.list_id, URLS)
    assert len(await site.client.list_webhooks(site.list_id)) == 13
    account = (await site.store.read(read_config)).account(site.emulator.key)
    health = await check_hooks(site.client, [site.list_id], account, URLS)
    assert [one.found for one in health if one.list_id] == [True]
