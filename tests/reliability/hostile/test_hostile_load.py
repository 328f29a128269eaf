"""Attacks that once stopped the server or filled its memory, against a real one: it goes on, and stays small.

How long /healthz took meanwhile is printed; how busy the machine is must not decide a test. What ran where is told by
counters in ``tests/api/test_short_calls.py`` and ``tests/http``.
"""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.reliability.hostile.server import PATIENCE_S, HostileServer, hostile_server
from tests.reliability.hostile.users import SETTINGS, headers
from tests.support import databases
from tests.support.databases import database_at, raw_sqlite, sql

MAX_ABOVE_IDLE_KB = 250_000
CONTACTS = 20_000
AJAX, REST = "/civicrm/ajax/rest", "/extern/rest.php"
STRANGER = {"X-Forwarded-For": "203.0.113.7"}  # whose wrong guesses are not those of the other users' address
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server(SETTINGS, CIVIAPI_SERVER__TRUSTED_PROXIES="127.0.0.1") as started:
        add_people(started)
        assert started.is_well()
        yield started


def add_people(server: HostileServer) -> None:
    """Fill the table of contacts, past the server."""
    columns = "INSERT INTO civicrm_contact (contact_type, first_name, display_name, sort_name) VALUES "
    people = [f"('Individual', 'P{n}', 'Person {n} of many', 'Person {n}')" for n in range(CONTACTS)]
    parts = [columns + ", ".join(people[at : at + 1000]) for at in range(0, CONTACTS, 1000)]
    if databases.chosen() == "mariadb":
        name = database_at(server.folder / "site.sqlite").rpartition("/")[2]
        for part in parts:
            sql(part, database=name)
        return
    with closing(raw_sqlite(server.folder / "site.sqlite")) as link, link:
        for part in parts:
            link.execute(part)


@contextmanager
def healthz_watched(server: HostileServer) -> Iterator[list[float]]:
    """Ask for /healthz all the time; how long each answer took, in seconds."""
    took: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S, trust_env=False) as http:
            while not took or not over.is_set():
                began = time.monotonic()
                assert http.get("/healthz").status_code == 200
                took.append(time.monotonic() - began)
                over.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        over.set()
        asking.join()


def attack(server: HostileServer, act: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """Run an attack; afterwards the server is well, was never large, and answered /healthz all the time."""
    idle = server.rss_kb()
    server.forget_peak()

    async def run() -> Any:
        limits = httpx.Limits(max_connections=None)
        address = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits, trust_env=False) as http:
            return await act(http)

    with healthz_watched(server) as took:
        result = asyncio.run(run())
    memory = [size // 1000 for size in (idle, server.peak_kb(), server.rss_kb())]
    print(f"healthz {len(took)} times, the slowest {max(took) * 1000:.0f} ms; MB idle, at most and now: {memory}")
    assert server.peak_kb() - idle < MAX_ABOVE_IDLE_KB
    assert server.is_well()
    return result


def call(entity: str, action: str, params: dict[str, Any]) -> dict[str, str]:
    return {"entity": entity, "action": action, "json": json.dumps(params)}


async def together(*requests: Awaitable[httpx.Response]) -> list[int]:
    """The status of each; 0 where the connection was closed before the whole body was sent."""
    answers = await asyncio.gather(*requests, return_exceptions=True)
    return [one.status_code if isinstance(one, httpx.Response) else 0 for one in answers]


def test_a_hundred_and_twenty_strangers_with_large_bodies_are_not_held(server: HostileServer) -> None:
    body = b"key=wrong&api_key=wrong&entity=Contact&action=get&json=1&first_name=" + b"x" * 3_300_000
    statuses = attack(
        server,
        lambda http: together(*(http.post(REST, content=body, headers={**FORM, **STRANGER}) for _ in range(120))),
    )
    assert set(statuses) <= {0, 200, 429, 503}


def own_texts(server: HostileServer, count: int = 20, size: int = 60_000) -> int:
    """Give `selfedit` addresses with long signatures; the id of its contact."""
    mine = {"headers": headers("selfedit")}
    me = server.http.post(AJAX, data=call("Contact", "getvalue", {"id": "user_contact_id", "return": "id"}), **mine)  # type: ignore[arg-type]
    contact_id = int(me.json()["result"])
    calls = [
        [
            "Email",
            "create",
            {"contact_id": contact_id, "email": f"me{n}@example.org", "signature_text": "a" * size},
        ]
        for n in range(count)
    ]
    for one in calls:
        told = server.http.post(AJAX, data=call(*one), **mine).json()  # type: ignore[arg-type]
        assert told["is_error"] == 0, told
    return contact_id


def test_chained_gets_of_one_s_own_long_text_are_stopped_by_their_bytes(server: HostileServer) -> None:
    contact_id = own_texts(server)
    chains = {f"api.Email.get.{n}": {"options": {"metadata": ["fields"]}} for n in range(400)}
    sent = call("Contact", "get", {"id": contact_id, **chains})
    [answer] = attack(server, lambda http: asyncio.gather(http.post(AJAX, data=sent, headers=headers("selfedit"))))
    assert answer.json()["error_code"] == "too_much"


def test_calls_of_one_request_that_answer_much_are_stopped_too(server: HostileServer) -> None:
    all_of_them = ["Contact", "get", {"options": {"limit": 0}}]
    sent = {"entity": "api3", "action": "call", "json": json.dumps([all_of_them] * 50)}
    [answer] = attack(server, lambda http: asyncio.gather(http.post(AJAX, data=sent, headers=headers("viewer"))))
    assert answer.json()[-1]["error_code"] == "too_much"


def test_a_hundred_and_fifty_calls_with_long_lists_leave_nothing(server: HostileServer) -> None:
    async def act(http: httpx.AsyncClient) -> None:
        for number in range(150):
            wanted = {"id": {"IN": list(range(1, 9_000 + number))}, "options": {"limit": 1}}
            told = await http.post(AJAX, data=call("Contact", "get", wanted), headers=headers("viewer"))
            assert told.json()["is_error"] == 0

    attack(server, act)


def test_names_and_values_of_any_spelling_are_not_kept(server: HostileServer) -> None:
    kind = {**headers("viewer"), **FORM}

    async def act(http: httpx.AsyncClient) -> None:
        for number in range(300):
            name = f"n{number}" + "x" * 400_000
            for wanted, put_in in (
                ({"return": "NAME"}, name),
                ({"NAME": 1}, name),
                ({"first_name": {"LIKE": "NAME"}, "sort": f"id{' ' * (number % 90)}"}, name[:3000]),
            ):  # put in afterwards: to quote it letter by letter would take much longer than the attack
                form = urlencode(call("Contact", "get", wanted)).replace("NAME", put_in)
                await http.post(AJAX, content=form.encode(), headers=kind)

    attack(server, act)


def test_a_pattern_over_one_s_own_long_text_stops_nobody(server: HostileServer) -> None:
    contact_id = own_texts(server, 5)
    wanted = {"contact_id": contact_id, "signature_text": {"LIKE": "%a" * 24 + "b"}}
    sent = call("Email", "get", wanted)
    statuses = attack(
        server, lambda http: together(*(http.post(AJAX, data=sent, headers=headers("selfedit")) for _ in range(4)))
    )
    assert statuses == [200] * 4


def test_three_long_calls_of_one_reader_leave_another_s_answered(server: HostileServer) -> None:
    wanted = {"display_name": "of many", "return": "display_name", "options": {"limit": 0, "sort": "display_name desc"}}
    heavy = call("Contact", "get", wanted)
    light = call("Contact", "get", {"first_name": {"LIKE": "P1%"}})

    async def act(http: httpx.AsyncClient) -> int:
        running = [asyncio.ensure_future(http.post(AJAX, data=heavy, headers=headers("viewer"))) for _ in range(6)]
        answered = (await http.post(AJAX, data=light, headers=headers("editor"))).json()["is_error"]
        assert {one.status_code for one in await asyncio.gather(*running)} == {200}
        return int(answered)

    assert attack(server, act) == 0


def test_compressed_bodies_of_strangers_are_not_unpacked(server: HostileServer) -> None:
    bomb = gzip.compress(b"first_name=" + b"x" * 400_000_000)
    kind = {**FORM, **STRANGER, "Content-Encoding": "gzip"}
    before = server.cpu_s()
    statuses = attack(server, lambda http: together(*(http.post(REST, content=bomb, headers=kind) for _ in range(10))))
    assert set(statuses) <= {0, 415}
    assert server.cpu_s() - before < 2.0


@pytest.mark.parametrize("form", ["xml", "pretty", "json"])
def test_an_answer_of_twenty_thousand_contacts_is_rendered_beside_the_loop(server: HostileServer, form: str) -> None:
    sent = {"entity": "Contact", "action": "get", "option.limit": "0"}
    sent |= {"xml": {}, "pretty": {"json": "1", "prettyprint": "1"}, "json": {"json": "1"}}[form]
    [answer] = attack(server, lambda http: asyncio.gather(http.post(REST, data=sent, headers=headers("viewer"))))
    assert answer.text.count("Person ") > CONTACTS


def test_a_check_of_ninety_thousand_values_is_done_beside_the_loop(server: HostileServer) -> None:
    fields = {f"x{n}": str(n) for n in range(40_000)}
    body = urlencode({**fields, "entity": "Contact", "action": "validate", "json": "1"}).encode()
    values = {"contact_type": "Individual", "preferred_communication_method": list(range(89_000))}
    many = call("Contact", "create", values)
    statuses = attack(
        server,
        lambda http: together(
            http.post(REST, content=body, headers={**headers("editor"), **FORM}),
            http.post(AJAX, data=many, headers=headers("editor")),
        ),
    )
    assert statuses == [200, 200]
