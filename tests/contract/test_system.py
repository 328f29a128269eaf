"""System: what runs here, and findings that name the way on."""

from civiapi.store.engine import Store
from tests.conftest import Ask

LINKED = {"accounts": {}, "lists": {"abc123": {"apiKey": "key-us1", "subscriptionGroup": "1", "interests": {}}}}


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
