"""Job: what is due is run as an API call, once, with a word before and after in the job log."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select

from civiapi.api.call import Call
from civiapi.api.context import Context
from civiapi.api.declaration.spec import Action, Entity, Registry, Request, Result
from civiapi.api.dispatch import Api
from civiapi.store import leases
from civiapi.store.engine import Store
from civiapi.store.schema.tables import domain, job
from entities import ENTITIES
from entities.actions.generic import GENERIC
from tests.conftest import Ask

STOCK = "Call Mailchimpsync.Fetchandreconcile API"


async def a_job(call: Ask, name: str = "count", **more: Any) -> int:
    given = {"name": name, "run_frequency": "Always", "api_entity": "Group", "api_action": "getcount", **more}
    made = await call("Job", "create", given)
    return int(made["id"])


@pytest.fixture
async def quiet(call: Ask) -> Ask:
    """An API whose stock job is switched off."""
    await call("Job", "create", {"id": 1, "is_active": 0})
    return call


async def log(call: Ask, **filters: Any) -> list[str]:
    found = await call("JobLog", "get", {**filters, "return": "description", "sequential": 1, "options": {"limit": 0}})
    return [row["description"] for row in found["values"]]


async def test_a_fresh_database_has_a_job_that_imports_campaigns_for_somebody_to_enable(call: Ask) -> None:
    row = await call("Job", "getsingle", {"api_action": "Importcampaigns"})
    assert (row["api_entity"], row["run_frequency"], row["is_active"]) == ("Mailchimpsync", "Daily", "0")


async def test_a_fresh_database_has_the_job_that_syncs_every_hour(call: Ask) -> None:
    row = await call("Job", "getsingle", {"id": 1})
    expected = {
        "name": STOCK,
        "description": STOCK,
        "run_frequency": "Hourly",
        "api_entity": "Mailchimpsync",
        "api_action": "Fetchandreconcile",
        "is_active": "1",
    }
    assert {key: row[key] for key in expected} == expected
    assert "parameters" not in row


async def test_what_is_due_is_run_and_written_down(quiet: Ask) -> None:
    job_id = await a_job(quiet)
    answer = await quiet("Job", "execute")
    assert answer == {"is_error": 0, "version": 3, "count": 1, "values": 1}
    assert await log(quiet) == [
        "Starting scheduled jobs execution",
        "Starting execution of count",
        "Finished execution of count with result: Success (0)",
        "Finishing scheduled jobs execution.",
    ]
    row = await quiet("JobLog", "get", {"job_id": job_id, "sequential": 1})
    assert [one["command"] for one in row["values"]] == ["Entity: Group Action: getcount"] * 2
    assert {"last_run", "last_run_end"} <= set(await quiet("Job", "getsingle", {"id": job_id}))


async def test_jobs_run_in_the_order_of_their_names_and_one_that_fails_stops_no_other(quiet: Ask) -> None:
    await a_job(quiet, "c")
    await a_job(quiet, "a")
    await a_job(quiet, "b", api_entity="Nothing")
    await quiet("Job", "execute")
    done = [words for words in await log(quiet) if words.startswith("Finished")]
    assert done == [
        "Finished execution of a with result: Success (0)",
        "Finished execution of b with result: Failure, Error message: API (Nothing, getcount) does not exist "
        "(join the API team and implement it!)",
        "Finished execution of c with result: Success (0)",
    ]


async def test_parameters_reach_the_call(quiet: Ask) -> None:
    await quiet("Group", "create", {"title": "A"})
    await quiet("Group", "create", {"title": "B"})
    await a_job(quiet, parameters="title=B\nnonsense\ntitle=C")
    await quiet("Job", "execute")
    assert "Finished execution of count with result: Success (1)" in await log(quiet)


async def test_what_is_not_due_is_left_alone(quiet: Ask) -> None:
    await a_job(quiet, "idle", is_active=0)
    await a_job(quiet, "later", scheduled_run_date="+1 day")
    await a_job(quiet, "just ran", run_frequency="Hourly", last_run="now")
    await quiet("Job", "execute")
    assert await log(quiet) == ["Starting scheduled jobs execution", "Finishing scheduled jobs execution."]


async def test_a_date_set_for_a_job_is_used_up(quiet: Ask) -> None:
    job_id = await a_job(quiet, run_frequency="Yearly", last_run="now", scheduled_run_date="-1 hour")
    await quiet("Job", "execute")
    assert "scheduled_run_date" not in await quiet("Job", "getsingle", {"id": job_id})
    await quiet("Job", "execute")
    assert (await log(quiet)).count("Starting execution of count") == 1


async def test_one_job_can_be_made_to_run_though_it_is_not_due(quiet: Ask) -> None:
    job_id = await a_job(quiet, is_active=0, last_run="now", run_frequency="Yearly")
    await a_job(quiet, "other")
    await quiet("Job", "execute", {"id": job_id})
    assert await log(quiet) == [
        "Starting execution of count",
        "Finished execution of count with result: Success (0)",
    ]
    assert (await quiet("Job", "execute", {"id": 99}))["error_message"] == "There is no job with id 99"


async def test_jobs_of_another_domain_are_not_ours(quiet: Ask, store: Store) -> None:
    await store.write(lambda conn: conn.execute(insert(domain).values(id=2, name="Other")))
    await a_job(quiet, domain_id=2)
    await quiet("Job", "execute")
    assert "Starting execution of count" not in await log(quiet)


async def test_a_job_still_running_is_not_started_again(quiet: Ask, store: Store) -> None:
    """Here another process holds it; that process may be on another machine."""
    job_id = await a_job(quiet)
    await store.write(leases.acquire, f"job:{job_id}", "elsewhere", 60, leases.now_ms())
    await quiet("Job", "execute", {"id": job_id})
    await quiet("Job", "execute")
    words = await log(quiet, job_id=job_id)
    assert words == ["count is still running and was not started again"] * 2


async def test_a_job_whose_process_was_killed_runs_again_once_its_claim_has_lapsed(quiet: Ask, store: Store) -> None:
    job_id = await a_job(quiet)
    await store.write(leases.acquire, f"job:{job_id}", "killed", 60, leases.now_ms() - 61_000)
    await quiet("Job", "execute")
    assert "Starting execution of count" in await log(quiet)


async def test_a_result_full_of_brackets_is_cut_to_what_the_log_holds_once_it_is_encoded(quiet: Ask) -> None:
    await quiet("Group", "create", {"title": "<" * 60})
    await a_job(quiet, api_action="get")
    await quiet("Job", "execute")
    row = await quiet("JobLog", "getsingle", {"description": {"LIKE": "Finished%"}})
    assert row["description"].endswith("< (...)")
    assert "<" * 60 in row["data"]


async def test_a_long_result_is_cut_and_kept_whole_beside(quiet: Ask) -> None:
    for number in range(20):
        await quiet("Group", "create", {"title": f"A group with a long title, number {number}"})
    await a_job(quiet, api_action="get")
    await quiet("Job", "execute")
    row = await quiet("JobLog", "getsingle", {"description": {"LIKE": "Finished%"}})
    assert row["description"].endswith(" (...)")
    assert len(row["description"]) == 246
    assert "number 19" in row["data"]


class Slow:
    """An entity whose one action waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go, self.runs = asyncio.Event(), asyncio.Event(), 0

    async def wait(self, request: Request, ctx: Context) -> Result:
        self.runs += 1
        self.begun.set()
        await self.go.wait()
        return Result(1)

    def api(self, store: Store) -> Api:
        return Api(
            store, Registry((*ENTITIES, Entity("Slow", actions=(Action("wait", run_async=self.wait),))), GENERIC)
        )


async def test_two_callers_at_once_run_a_job_once(quiet: Ask, store: Store) -> None:
    await a_job(quiet, "slow", api_entity="Slow", api_action="wait")
    slow = Slow()
    api = slow.api(store)
    first = asyncio.create_task(api.respond(Call("Job", "execute", {})))
    await slow.begun.wait()
    await api.respond(Call("Job", "execute", {}))
    slow.go.set()
    await first
    assert slow.runs == 1


async def test_a_job_that_is_stopped_with_the_server_says_so_and_can_run_again(quiet: Ask, store: Store) -> None:
    await a_job(quiet, "slow", api_entity="Slow", api_action="wait")
    slow = Slow()
    running = asyncio.create_task(slow.api(store).respond(Call("Job", "execute", {})))
    await slow.begun.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await log(quiet))[-1] == "Error while executing slow: the server was stopped"
    slow.go.set()
    await slow.api(store).respond(Call("Job", "execute", {}))
    assert slow.runs == 2


async def test_a_copy_never_ran(quiet: Ask, store: Store) -> None:
    job_id = await a_job(quiet, parameters="a=1")
    await quiet("Job", "execute")
    answer = await quiet("Job", "clone", {"id": job_id})
    copy = answer["values"][str(answer["id"])]
    assert (copy["name"], copy["parameters"], copy["api_action"]) == ("count - Copy", "a=1", "getcount")
    assert "last_run" not in copy
    assert (await quiet("Job", "clone", {"id": 99}))["error_message"] == "There is no job with id 99"


async def test_a_frequency_that_is_none_is_refused(quiet: Ask, store: Store) -> None:
    params = {"name": "x", "run_frequency": "Sometimes", "api_entity": "Group", "api_action": "get"}
    refused = await quiet("Job", "create", params)
    assert refused["error_message"] == "'Sometimes' is not a valid option for field run_frequency"
    rows = await store.read(lambda conn: conn.execute(select(job.c.id)).all())
    assert len(rows) == 2  # those of a fresh database


# ---- getschedule ----


async def test_the_schedule_says_when_each_job_will_be_due(quiet: Ask) -> None:
    last = {"last_run": "2037-01-31 10:00:00"}
    for name, given, expected in (
        ("daily", {"run_frequency": "Daily", **last}, "2037-02-01 10:00:00"),
        ("hourly", {"run_frequency": "Hourly", **last}, "2037-01-31 11:00:00"),
        ("monthly", {"run_frequency": "Monthly", **last}, "2037-02-28 10:00:00"),
        ("set", {"run_frequency": "Daily", "scheduled_run_date": "2037-05-01 09:00:00"}, "2037-05-01 09:00:00"),
        ("idle", {"run_frequency": "Daily", "is_active": 0}, ""),
    ):
        job_id = await a_job(quiet, name, **given)
        answer = await quiet("Job", "getschedule", {"id": job_id, "sequential": 1})
        row = {"id": job_id, "next_run": expected, "is_due": False, "is_running": False}
        assert answer["values"] == [row], name


async def test_the_schedule_says_what_is_due_and_what_is_at_work(quiet: Ask, store: Store) -> None:
    job_id = await a_job(quiet)
    await store.write(leases.acquire, f"job:{job_id}", "somebody", 60, leases.now_ms())
    answer = await quiet("Job", "getschedule")
    assert set(answer["values"]) == {1, 2, job_id}
    row = answer["values"][job_id]
    assert (row["is_due"], row["is_running"]) == (True, True)
    assert row["next_run"]


SECRET = "zzsecretkeyzz"
TELLING: dict[str, dict[str, str]] = {
    "a value": {"api_entity": "Contact", "api_action": "getvalue", "parameters": "id=1\nreturn=api_key"},
    "rows": {"api_entity": "Contact", "api_action": "get", "parameters": "return=api_key,hash"},
    "a label": {"api_entity": "Contact", "api_action": "getlist", "parameters": "label_field=api_key"},
    "a join": {"api_entity": "Email", "api_action": "get", "parameters": "return=contact_id.api_key"},
    "a value set": {
        "api_entity": "Contact",
        "api_action": "setvalue",
        "parameters": f"id=1\nfield=api_key\nvalue={SECRET}",
    },
    "a new record": {
        "api_entity": "Contact",
        "api_action": "create",
        "parameters": f"contact_type=Individual\nfirst_name=Ada\napi_key={SECRET}",
    },
    "the configuration": {"api_entity": "Setting", "api_action": "get", "parameters": "return=mailchimpsync_config"},
    "an error": {"api_entity": f"api_key={SECRET}", "api_action": "get"},
}


@pytest.mark.parametrize("told", TELLING.values(), ids=TELLING)
async def test_no_secret_reaches_the_job_log(quiet: Ask, told: dict[str, str]) -> None:
    config = {"accounts": {"0" * 32 + "-us1": {"apiKey": SECRET, "batchWebhookSecret": SECRET}}}
    await quiet("Setting", "create", {"mailchimpsync_config": config})
    await quiet("Contact", "create", {"contact_type": "Individual", "first_name": "Ada", "api_key": SECRET})
    await quiet("Email", "create", {"contact_id": 1, "email": "a@example.org"})
    await a_job(quiet, **told)
    await quiet("Job", "execute")
    log = await quiet("JobLog", "get", {"options": {"limit": 0}, "return": "description,data"})
    assert log["count"] > 2
    assert SECRET not in str(log)
    assert "0" * 32 not in str(log)


async def test_a_job_can_set_a_key_though_it_cannot_read_one(quiet: Ask) -> None:
    await quiet("Contact", "create", {"contact_type": "Individual", "first_name": "Ada"})
    await a_job(quiet, **TELLING["a value set"])
    await quiet("Job", "execute")
    assert await quiet("Contact", "getvalue", {"id": 1, "return": "api_key"}) == SECRET
