"""System: what runs here, and findings that name the way on."""

import inspect
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from civiapi.alerts import records as alerts
from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.settings import Settings, SyncSettings
from civiapi.store.engine import Store
from entities import catalogue
from entities.site import system_checks
from entities.site.system_checks import TITLES
from sync.connections.clients import Clients
from sync.reports import checks
from sync.service import SyncService
from sync.store.runs.checkpoints import Checkpoint, save
from tests.conftest import Ask

LINKED: dict[str, Any] = {
    "accounts": {},
    "lists": {"abc123": {"apiKey": "key-us1", "subscriptionGroup": "1", "interests": {}}},
}


async def found(call: Ask) -> dict[str, str]:
    answer = await call("System", "check")
    return {row["name"]: row["message"] for row in answer["values"].values()} if answer["values"] else {}


async def test_it_says_what_it_is(call: Ask) -> None:
    answer = await call("System", "get")
    assert (answer["count"], answer["id"]) == (1, 0)
    about = answer["values"][0]
    assert about["civi"]["version"] == about["version"] == "5.75.1"


async def test_there_is_nothing_to_flush(call: Ask) -> None:
    assert await call("System", "flush", {"triggers": 1}) == {"is_error": 0, "version": 3, "count": 1, "values": 1}


async def test_a_fresh_site_is_told_to_link_a_group(call: Ask) -> None:
    assert list(await found(call)) == ["mailchimpsyncConfig"]


async def test_a_linked_group_that_is_gone_and_an_audience_never_synced_are_found(call: Ask) -> None:
    await call("Setting", "create", {"mailchimpsync_config": LINKED})
    assert list(await found(call)) == ["mailchimpsyncGroup:abc123", "mailchimpsyncNever:abc123"]
    await call("Group", "create", {"title": "News"})
    assert list(await found(call)) == ["mailchimpsyncNever:abc123"]


async def test_a_rule_whose_source_is_gone_is_found(call: Ask) -> None:
    news = {**LINKED["lists"]["abc123"], "mergeFields": {"VIP": "tag:4711"}}
    await call("Setting", "create", {"mailchimpsync_config": {**LINKED, "lists": {"abc123": news}}})
    await call("Group", "create", {"title": "News"})
    assert "VIP (tag:4711)" in (await found(call))["mailchimpsyncFields:abc123"]


async def test_a_group_that_is_linked_with_two_audiences_is_found(call: Ask) -> None:
    lists = dict.fromkeys(("abc123", "def456"), LINKED["lists"]["abc123"])
    await call("Setting", "create", {"mailchimpsync_config": {**LINKED, "lists": lists}})
    await call("Group", "create", {"title": "News"})
    assert "mailchimpsyncShared:def456" in await found(call)


CODE = re.compile(r'"((?:mailchimpsync[A-Z]|job)\w*)[":]')
NO_ATTENTION = {"mailchimpsyncLast", "job", "jobDisabled", "jobNeverRun"}


def test_every_code_of_a_finding_that_may_need_attention_has_a_heading() -> None:
    codes = {code for module in (checks, system_checks) for code in CODE.findall(inspect.getsource(module))}
    assert codes - NO_ATTENTION == TITLES.keys() - {alerts.UNDELIVERED}


async def test_a_job_that_failed_is_found_until_it_succeeds(call: Ask, store: Store) -> None:
    await call("Job", "create", {"id": 1, "api_entity": "Nothing"})
    await call("Job", "execute", {"id": 1})
    assert "Nothing" in (await found(call))["jobFailed:1"]
    await call("Job", "create", {"id": 1, "api_entity": "Group", "api_action": "getcount"})
    await call("Job", "execute", {"id": 1})
    assert "jobFailed:1" not in await found(call)


async def test_a_job_that_should_have_run_yesterday_is_found(call: Ask) -> None:
    await call("Job", "create", {"id": 1, "last_run": "-3 days"})
    assert "[scheduler] enabled" in (await found(call))["jobLate:1"]


async def test_a_job_whose_last_run_is_in_the_future_is_found_until_it_is_started(call: Ask) -> None:
    await call("Job", "create", {"id": 1, "last_run": "+3 days", "api_entity": "Group", "api_action": "getcount"})
    assert "which is in the future" in (await found(call))["jobLate:1"]
    await call("Job", "execute", {"id": 1})
    assert "jobLate:1" not in await found(call)


async def test_a_late_sync_is_found_once_and_not_as_a_late_job_too(call: Ask, store: Store) -> None:
    await call("Setting", "create", {"mailchimpsync_config": LINKED})
    await call("Group", "create", {"title": "News"})
    await call("Job", "create", {"id": 1, "last_run": "-3 days"})
    last = store.clock.write(datetime.now(UTC) - timedelta(days=3))
    await store.write(lambda conn: save(conn, Checkpoint("abc123", last_sync_time=last)))
    assert "The schedule expected a sync by now" in (await found(call))["mailchimpsyncLate:abc123"]
    assert "jobLate:1" not in await found(call)
    await call("Job", "create", {"id": 1, "is_active": 0})
    assert await found(call) == {}


@pytest.mark.parametrize(("crashed_minutes", "is_found"), [(5, True), (20, False)])
async def test_a_sync_that_has_logged_nothing_for_the_minutes_of_the_settings_is_found(
    call: Ask, store: Store, crashed_minutes: int, is_found: bool
) -> None:
    await call("Setting", "create", {"mailchimpsync_config": LINKED})
    await call("Group", "create", {"title": "News"})

    def stop(conn: Connection) -> None:
        checkpoint = Checkpoint("abc123", stage="readyToReconcileQueue")
        checkpoint.add_log_line(store.clock.write(datetime.now(UTC) - timedelta(minutes=10)), "Fetched 10")
        save(conn, checkpoint)

    await store.write(stop)
    clients = Clients(base_url="http://127.0.0.1:9")
    sync = SyncService(store, clients, Settings(sync=SyncSettings(crashed_minutes=crashed_minutes)))
    answer = await Api(store, catalogue(), sync).respond(Call("System", "check", {}, Caller(None, frozenset({"*"}))))
    names = {row["name"] for row in answer["values"].values()}
    assert ("mailchimpsyncStopped:abc123" in names) is is_found
    await sync.close()
    await clients.close()
