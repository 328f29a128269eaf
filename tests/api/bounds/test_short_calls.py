"""What may run on the event loop's own thread, told by counters of where units ran, not by time."""

import asyncio
import threading
from typing import Any

import pytest

from civiapi.api.bounds.limits import LONG_AT_ONCE, CallGate, TooManyCalls
from civiapi.api.bounds.short_calls import is_short, is_short_write
from civiapi.api.call import Call, Caller
from civiapi.api.declaration.fields import TEXT
from civiapi.api.dispatch import Api
from civiapi.api.resolution import resolve
from civiapi.store.base import LOOP, READER, WRITER
from civiapi.store.deadline import call_deadline
from civiapi.store.engine import Store
from entities import catalogue

REGISTRY = catalogue()
ADA = Caller(2, frozenset({"view all contacts"}), "ada")
BOB = Caller(3, frozenset({"view all contacts"}), "bob")

SHORT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "one contact": ("Contact", "get", {"id": 2, "return": "display_name,first_name,last_name"}),
    "the first contacts": ("Contact", "get", {}),
    "by an address": ("Contact", "getsingle", {"email": "ada@example.org"}),
    "a page": ("Email", "get", {"contact_id": 2, "options": {"limit": 10, "sort": "id desc"}}),
    "some ids": ("Contact", "get", {"id": {"IN": [1, 2, 3]}}),
    "one with its addresses": ("Contact", "get", {"id": 2, "api.Email.get": {"return": "email"}}),
    "a count": ("Contact", "getcount", {"is_deleted": 0}),
    "a setting": ("Setting", "getvalue", {"name": "mailchimpsync_config"}),
}
LONG: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a pattern": ("Contact", "get", {"id": 2, "first_name": {"LIKE": "A%"}}),
    "a pattern in other letters": ("Email", "get", {"email": {"not like": "a"}}),
    "a percent, which is a pattern": ("Contact", "get", {"first_name": "A%"}),
    "a percent in a list": ("Contact", "get", {"first_name": {"IN": ["A%"]}}),
    "a name, which is found anywhere": ("Contact", "get", {"display_name": "Ada"}),
    "a long text": ("Email", "get", {"id": 1, "signature_text": "x"}),
    "sorted by a long text": ("Email", "get", {"options": {"sort": "signature_text"}}),
    "a long value": ("Contact", "get", {"first_name": "x" * 300}),
    "a join": ("Email", "get", {"contact_id.display_name": "Ada"}),
    "all rows": ("Contact", "get", {"options": {"limit": 0}}),
    "many rows": ("Contact", "get", {"option.limit": 5000}),
    "options in JSON": ("Contact", "get", {"options": '{"limit": 0}'}),
    "many ids": ("Contact", "get", {"id": {"IN": list(range(90_000))}}),
    "many ids in one text": ("Contact", "get", {"id": {"IN": "1," * 5000}}),
    "many parameters": ("Contact", "get", {f"x{n}": n for n in range(100)}),
    "a long name": ("Contact", "get", {"x" * 100_000: 1}),
    "many names": ("Contact", "get", {"return": [f"x{n}" for n in range(900)]}),
    "lists in each other": ("Contact", "get", {"id": {"=": [[[[1]]]]}}),
    "chains of several rows": ("Contact", "get", {"api.Email.get": {}}),
    "chains in each other": ("Contact", "get", {"id": 2, "api.Email.get": {"api.Contact.get": {}}}),
    "many chains": ("Contact", "get", {"id": 2, "api.Email.get": [{}] * 9}),
    "a chained pattern": ("Contact", "get", {"id": 2, "api.Email.get": {"email": {"LIKE": "a"}}}),
    "an autocomplete": ("Contact", "getlist", {"input": "a"}),
    "fields": ("Contact", "getfields", {}),
    "a check of values": ("Contact", "validate", {"action": "create"}),
}


@pytest.mark.parametrize("sent", SHORT.values(), ids=SHORT.keys())
async def test_a_read_that_is_short_whoever_calls_runs_on_the_loop(api: Api, sent: tuple[str, str, Any]) -> None:
    api.store.units.clear()
    await api.respond(Call(*sent))
    assert api.store.units == {LOOP: 1}


@pytest.mark.parametrize("sent", LONG.values(), ids=LONG.keys())
async def test_a_read_whose_cost_its_caller_chooses_runs_in_a_thread(api: Api, sent: tuple[str, str, Any]) -> None:
    api.store.units.clear()
    await api.respond(Call(*sent))
    assert api.store.units[READER] <= 1
    assert api.store.units[LOOP] == api.store.units[WRITER] == 0


NEW = {"contact_type": "Individual", "first_name": "Ada", "email": "ada@example.org"}
LONG_WRITES: dict[str, dict[str, Any]] = {
    "several addresses": {**NEW, "email": [{"email": "ada@example.org"}, {"email": "a@example.org"}]},
    "a map": {**NEW, "custom_1": {"a": 1}},
    "a long value": {**NEW, "last_name": "x" * 300},
    "a chained call": {**NEW, "api.Email.create": {"email": "a@example.org"}},
    "many parameters": NEW | {f"x{n}": n for n in range(100)},
    "options": {**NEW, "options": {"match": "first_name"}},
}


async def test_one_record_is_written_on_the_loop_on_sqlite_and_in_a_thread_on_mariadb(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("civiapi.store.databases.sqlite.INLINE_SECONDS", 60.0)  # the first reads option lists
    api.store.units.clear()
    made = await api.respond(Call("Contact", "create", NEW))
    assert api.store.units == {WRITER if api.store.is_shared else LOOP: 1}
    assert (await api.respond(Call("Contact", "getvalue", {"id": made["id"], "return": "email"}))) == NEW["email"]


@pytest.mark.parametrize("params", LONG_WRITES.values(), ids=LONG_WRITES.keys())
async def test_a_write_whose_cost_its_caller_chooses_runs_in_a_thread(api: Api, params: dict[str, Any]) -> None:
    api.store.units.clear()
    await api.respond(Call("Contact", "create", params))
    assert api.store.units == {WRITER: 1}


def test_a_write_is_short_only_where_it_is_declared_and_waits_for_nothing() -> None:
    short = set()
    for entity in REGISTRY.entities():
        for name in REGISTRY.actions(entity):
            call = resolve(REGISTRY, Call(entity.name, name, {}), 100)
            if is_short_write(call):
                short.add((entity.name, name))
                assert call.writes, (entity.name, name)
                assert not call.remote, (entity.name, name)
    assert short == {("Contact", "create")}


def test_no_action_that_writes_or_waits_is_short() -> None:
    for entity in REGISTRY.entities():
        for name in REGISTRY.actions(entity):
            call = resolve(REGISTRY, Call(entity.name, name, {}), 100)
            assert not (is_short(call) and (call.writes or call.remote)), (entity.name, name)


def test_every_long_text_of_every_entity_is_filtered_and_sorted_by_in_a_thread() -> None:
    """Walks the declarations: no field that may hold a long text makes a read on the loop."""
    for entity in REGISTRY.entities():
        for field in entity.fields if entity.action("get") else ():
            if field.type != TEXT:
                continue
            for params in ({field.name: "x"}, {"options": {"sort": field.name}}, {"sort": f"id, {field.name} desc"}):
                assert not is_short(resolve(REGISTRY, Call(entity.name, "get", params), 100)), (entity.name, params)


# ---- turns ----


@pytest.fixture
def limited(store: Store) -> Api:
    return Api(store, catalogue(), call_seconds=60)


async def test_three_long_reads_of_one_caller_leave_readers_to_another(
    limited: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    long = Call("Contact", "get", {"first_name": "A%"}, ADA)
    read = limited.store.read

    async def stuck_for_ada(fn: Any, call: Any) -> Any:
        if call.call.caller is ADA:
            return await read(lambda _conn: stuck.wait(30) and {})
        return await read(fn, call)

    monkeypatch.setattr(limited.store, "read", stuck_for_ada)
    calls = [asyncio.ensure_future(limited.respond(long)) for _ in range(3)]
    await asyncio.sleep(0)
    answer = await limited.respond(Call("Contact", "get", {"first_name": "A%"}, BOB))
    assert answer["is_error"] == 0
    assert (await limited.respond(Call("Contact", "get", {"id": 1}, ADA)))["is_error"] == 0  # one's short reads too
    assert not any(call.done() for call in calls)
    stuck.set()
    await asyncio.gather(*calls)


async def test_a_call_that_waits_too_long_for_its_turn_is_refused_in_words() -> None:
    gate = CallGate(LONG_AT_ONCE, wait_seconds=0.05)
    with call_deadline(60):
        async with gate.turn(ADA), gate.turn(ADA), gate.turn(BOB):
            with pytest.raises(TooManyCalls, match="2 of one user run at the same time"):
                async with gate.turn(ADA):
                    raise AssertionError("it was let in")
            async with gate.turn(BOB):
                pass
        async with gate.turn(ADA), gate.turn(ADA):
            pass


async def test_more_waiting_calls_than_are_kept_are_refused_at_once() -> None:
    gate = CallGate(1, wait_seconds=60, max_waiting=1)

    async def one() -> str:
        with call_deadline(60):
            async with gate.turn(ADA):
                await asyncio.sleep(0.01)
                return "done"

    results = await asyncio.gather(one(), one(), one(), return_exceptions=True)
    assert [type(one).__name__ for one in results] == ["str", "str", "TooManyCalls"]


async def test_a_turn_passed_on_to_a_client_that_leaves_is_passed_on_again() -> None:
    gate = CallGate(1, wait_seconds=60)
    inside, may_go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        with call_deadline(60):
            async with gate.turn(ADA):
                inside.set()
                await may_go.wait()

    first = asyncio.ensure_future(hold())
    await inside.wait()
    leaving, staying = asyncio.ensure_future(hold()), asyncio.ensure_future(hold())
    await asyncio.sleep(0)
    may_go.set()
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(first, leaving, staying, return_exceptions=True)
    assert staying.exception() is None
    with call_deadline(60):
        async with gate.turn(ADA):
            pass


async def test_a_call_past_its_deadline_is_answered_in_words_and_the_next_one_works(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(store, catalogue(), call_seconds=0.2)
    run = api._run_in_unit
    stuck = threading.Event()
    monkeypatch.setattr(api, "_run_in_unit", lambda conn, call: stuck.wait(30) or run(conn, call))
    answer = await api.respond(Call("Contact", "get", {"first_name": "A%"}, ADA))
    monkeypatch.undo()
    stuck.set()
    assert (answer["is_error"], answer["error_code"]) == (1, "timeout")
    assert answer["error_message"] == (
        "The call took longer than 0.2 seconds and was stopped; nothing was changed. "
        "Ask for less at a time; the limit is [server] call_seconds."
    )
    assert (await api.respond(Call("Contact", "get", {"first_name": "A%"}, ADA)))["is_error"] == 0
