"""No date makes a fault: every date parameter of every action takes it or refuses it in words, on both databases."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stamina
from sqlalchemy import Connection, insert

from civiapi.api.call import SYSTEM, Call
from civiapi.api.declaration.fields import DATES, Field
from civiapi.api.declaration.spec import Action, Entity
from civiapi.api.dispatch import Api
from civiapi.store.civicrm.jobs import all_jobs, next_run
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import job
from entities import catalogue
from sync.service import SyncService
from tests.support.databases import KINDS, a_database
from tests.support.emulators import in_process_emulator
from tests.support.linked_site import link, sync_settings

EXTREME = [
    "0000-00-00", "0000-00-00 00:00:00", "0001-01-01", "0001-01-01 00:00:00", "0999-12-31", "1000-01-01", "1582-10-10",
    "1899-12-31", "1901-12-13", "1969-12-31 23:59:59", "1970-01-01", "2026-03-29 02:30:00", "2026-10-25 02:30:00",
    "2038-01-19 03:14:08", "2106-02-08", "9999-12-31", "9999-12-31 23:59:59", "10000-01-01", "-0001-01-01",
    "99999999", "@-99999999999", "@99999999999", "@253402300799", "@0", "-9999 years", "-2024 years", "+7973 years",
    "+99999999 days", "-1000000000 seconds", "+999999999 weeks", "last day of -2000 years",
    "first monday of january 0001",
    "9999-W52-7", "9999-12-31 24:00", "0001-01-01 00:00:00 +14:00", "9999-12-31 23:59:59 -12:00", "2026-02-30",
    "yesterday noon", "tomorrow", "", " ", "null", "now now", "٢٠٢٦-٠١-٠١", "2026-01-01\x00", "1e400", "inf", "nan",
]  # fmt: skip
ODD: list[Any] = [0, 1, -1, 10**12, 10**30, -(10**30), 1.5, float("inf"), True, [], ["2026-01-01"], {}, {"x": "y"}]
OPERATORS = ["=", "!=", "<", "<=", ">", ">=", "LIKE", "IN", "BETWEEN"]
TIMES = {"since", "max_time", "birth_date_low", "birth_date_high"}

REGISTRY = catalogue()
LEFT_OUT = {"execute"}  # Job.execute has no parameter for a date; what jobs do with stored dates is asked below


def dates_of(entity: Entity, action: Action) -> list[Field]:
    declared = entity.fields if action.params is None else action.params
    found = {one.name: one for one in declared if one.type in DATES or one.name in TIMES}
    if action.generic or action.name in ("get", "getcount", "getsingle", "getlist", "validate", "update", "setvalue"):
        found |= {one.name: one for one in entity.fields if one.type in DATES}
    describes = action.generic and action.delegates_to is None and action.name != "validate"
    return list(found.values())[: 1 if describes else None]  # it reads no field: one says that it ignores them


CASES = {
    f"{entity.name}.{action.name}": (entity, action)
    for entity in REGISTRY.entities()
    for action in REGISTRY.actions(entity).values()
    if action.name not in LEFT_OUT and dates_of(entity, action)
}


@pytest.fixture(params=KINDS)
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Api]:
    with a_database(request.param, tmp_path) as url, stamina.set_testing(True, attempts=2):
        store: Store = await open_store(url, "Europe/Berlin")
        await migrate(store)
        async with in_process_emulator() as emulator:
            clients = emulator.clients()
            await store.write(link, emulator.key, emulator.audience().id)
            yield Api(store, REGISTRY, SyncService(store, clients, sync_settings(base_url="https://crm.example.org")))
            await clients.close()
        await store.close()


USUAL: dict[str, Any] = {
    "contact_type": "Individual", "first_name": "Ada", "title": "T", "name": "n", "email": "ada@example.org",
    "run_frequency": "Daily", "api_entity": "System", "api_action": "get", "data": "{}", "mailchimp_list_id": "a1",
    "field": "", "value": "", "uf_name": "u", "uf_id": 1,
}  # fmt: skip


def forms(action: Action, name: str, value: Any) -> list[dict[str, Any]]:
    """The ways to send a date to this action."""
    if action.name == "setvalue":
        return [{"id": 1, "field": name, "value": value}]
    plain = [{name: value}]
    if action.name.startswith("get"):
        plain += [{name: {op: [value, value] if op in ("IN", "BETWEEN") else value}} for op in OPERATORS]
    return plain


@pytest.mark.parametrize("case", sorted(CASES))
async def test_every_date_is_taken_or_refused_in_words(api: Api, case: str) -> None:
    entity, action = CASES[case]
    faults, number = [], 0
    for one in dates_of(entity, action):
        for value in [*EXTREME, *ODD]:
            for params in forms(action, one.name, value):
                unlike = {"contact_id": 1, "title": f"T{number}", "name": f"n{number}"}
                number += 1
                told = await api.respond(Call(entity.name, action.name, USUAL | unlike | params, SYSTEM))
                error = told.get("error_message", "") if isinstance(told, dict) else ""
                if error == "Unknown error." or error.startswith(("DB Error", "database error")):
                    faults.append((params, error))
    assert faults == []


@pytest.mark.parametrize(
    ("value", "stored"),
    [("2026-03-29 02:30:00", "2026-03-29 03:30:00"), ("0999-12-31", "0999-12-31 00:00:00")],
)
async def test_a_date_is_stored_alike_on_both_databases(api: Api, value: str, stored: str) -> None:
    """The hour that summer time leaves out is the one after it, as in PHP; early years keep their four digits."""
    made = await api.respond(Call("Contact", "create", USUAL, SYSTEM))
    email = {"contact_id": made["id"], "email": "b@example.org", "reset_date": value}
    told = await api.respond(Call("Email", "create", email, SYSTEM))
    read = await api.respond(Call("Email", "getvalue", {"id": told["id"], "return": "reset_date"}, SYSTEM))
    assert read == stored


@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31", "-2020 years", "+7970 years", "@0"])
async def test_a_sync_since_any_date_ends_well(api: Api, since: str) -> None:
    told = await api.respond(Call("Mailchimpsync", "fetchandreconcile", {"since": since}, SYSTEM))
    assert (told["is_error"], told.get("count")) == (0, 1)


@pytest.mark.parametrize("frequency", ["Always", "Hourly", "Daily", "Quarter", "Yearly"])
async def test_a_job_that_ran_in_the_last_year_of_all_breaks_nothing(api: Api, frequency: str) -> None:
    """Such a row comes from another program; ours refuses the date."""
    store = api.store

    def make(conn: Connection) -> None:
        row = {"domain_id": 1, "name": "far", "api_entity": "System", "api_action": "get", "parameters": ""}
        last = "9999-12-31 23:59:59" if conn.dialect.name == "sqlite" else "2038-01-19 00:00:00"
        conn.execute(insert(job).values(**row, run_frequency=frequency, last_run=last))

    await store.write(make)
    for action in ("execute", "get"):
        assert (await api.respond(Call("Job", action, {}, SYSTEM)))["is_error"] == 0
    for one in await store.read(all_jobs, store.clock):
        next_run(one, datetime.now(UTC), store.clock)


async def test_a_timestamp_out_of_its_range_is_refused_with_the_range(api: Api) -> None:
    told = await api.respond(Call("Job", "create", USUAL | {"last_run": "9999-12-31"}, SYSTEM))
    assert "it is stored from 1970 to January 2038" in told["error_message"]
