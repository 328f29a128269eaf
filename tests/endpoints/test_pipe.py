"""CiviCRM's line-oriented pipe protocol (contract/apiv3.md 10.1), spoken over a pair of streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from civiapi.auth.authenticator import Auth
from civiapi.endpoints.pipe import run_pipe
from civiapi.store.engine import Store
from tests.support.http_server import ADMIN_KEY, LIMITED_KEY, SITE_KEY, USERS, Mirror


class Talk:
    """The other end of the pipe."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def hear(self) -> Any:
        return json.loads(await self._reader.readline())

    async def say(self, line: Any) -> str:
        """Send one line; the line that comes back."""
        text = line if isinstance(line, str) else json.dumps(line)
        self._writer.write(text.encode() + b"\n")
        return (await self._reader.readline()).decode()

    async def ask(self, method: str, params: Any = None) -> Any:
        """Send a request with id 1; the reply."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method}
        return json.loads(await self.say(request if params is None else {**request, "params": params}))


@asynccontextmanager
async def talking(store: Store, mirror: Mirror, flags: str) -> AsyncIterator[Talk]:
    """A pipe that greets with *flags*, over a real connection; it ends when the other end closes."""
    auth = Auth(store, SITE_KEY, USERS)
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await run_pipe(mirror, auth, reader, writer, flags)
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=100_000)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    yield Talk(reader, writer)
    writer.close()
    await asyncio.wait_for(done.wait(), 5)
    server.close()


@pytest.fixture
def mirror() -> Mirror:
    return Mirror()


@pytest.fixture
async def trusted(store: Store, mirror: Mirror) -> AsyncIterator[Talk]:
    async with talking(store, mirror, "vtl") as talk:
        await talk.hear()
        yield talk


@pytest.fixture
async def untrusted(store: Store, mirror: Mirror) -> AsyncIterator[Talk]:
    async with talking(store, mirror, "vul") as talk:
        await talk.hear()
        yield talk


@pytest.mark.parametrize(
    ("flags", "greeting"),
    [
        ("vtl", {"v": "5.75.1", "t": "trusted", "l": ["login"]}),
        ("uj", {"u": "untrusted", "j": ["jsonrpc-2.0"]}),
        ("vx", {"v": "5.75.1", "x": None}),
    ],
)
async def test_the_server_greets_with_what_was_asked(
    store: Store, mirror: Mirror, flags: str, greeting: dict[str, Any]
) -> None:
    async with talking(store, mirror, flags) as talk:
        assert await talk.hear() == {"Civi::pipe": greeting}


async def test_api3_answers_bare(trusted: Talk, mirror: Mirror) -> None:
    mirror.say = 12
    assert await trusted.ask("api3", ["Contact", "getcount", {"id": 3}]) == {"jsonrpc": "2.0", "result": 12, "id": 1}
    assert mirror.last.params == {"id": 3, "version": 3, "check_permissions": True}


async def test_a_request_without_an_id_is_answered_without_one(trusted: Talk) -> None:
    assert json.loads(await trusted.say({"jsonrpc": "2.0", "method": "echo", "params": [1]})) == {
        "jsonrpc": "2.0",
        "result": [1],
    }


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("{bad", -32700, "Parse error"),
        ("{}", -32600, "Invalid Request"),
        ("3", -32600, "Invalid Request"),
        ("[]", -32600, "Invalid Request"),
        ('{"jsonrpc":"2.0","method":"nothing"}', -32601, "Method not found"),
        ('{"jsonrpc":"2.0","method":"Api3"}', -32601, "Method not found"),
        ('{"jsonrpc":"2.0","method":"api4","params":[]}', -32601, "Method not found"),
        ('{"jsonrpc":"2.0","method":"echo","params":"x"}', -32602, "Invalid params"),
        ('{"jsonrpc":"2.0","method":"api3","params":["Contact"]}', -32602, "Invalid params"),
    ],
)
async def test_errors_carry_no_id_they_were_not_given_and_no_data(
    trusted: Talk, line: str, code: int, message: str
) -> None:
    reply = json.loads(await trusted.say(line))
    assert reply == {"jsonrpc": "2.0", "error": {"code": code, "message": message, "data": None}}


async def test_an_array_of_requests_is_answered_as_one(trusted: Talk) -> None:
    one = {"jsonrpc": "2.0", "method": "echo", "params": [1], "id": "a"}
    replies = json.loads(await trusted.say([one, 3]))
    assert [reply.get("result") for reply in replies] == [[1], None]


async def test_a_dot_in_a_method_is_an_underscore(trusted: Talk) -> None:
    assert (await trusted.ask("no.such"))["error"]["message"] == "Method not found"


async def test_an_api_error_is_an_exception_or_if_wished_an_array(trusted: Talk, mirror: Mirror) -> None:
    mirror.say = {"is_error": 1, "error_message": "No", "error_code": "unauthorized"}
    error = (await trusted.ask("api3", ["Contact", "get"]))["error"]
    assert error == {"code": -32099, "message": "No", "data": None}
    assert (await trusted.ask("options", {"apiError": "array"}))["result"] == {"apiError": "array"}
    assert (await trusted.ask("api3", ["Contact", "get"]))["result"] == mirror.say


async def test_options_are_shown_and_a_wrong_one_changes_nothing(trusted: Talk) -> None:
    first = (await trusted.ask("options", {}))["result"]
    assert first == {
        "apiError": "exception",
        "apiCheckPermissions": True,
        "bufferSize": 524_288,
        "responsePrefix": None,
    }
    for wrong in ({"apiError": "x"}, {"nothing": 1}, {"bufferSize": 0}, {"apiError": "array", "bufferSize": "big"}):
        assert (await trusted.ask("options", wrong))["error"]["code"] == -32602
    assert (await trusted.ask("options"))["result"] == first


async def test_a_prefix_stands_before_every_reply(trusted: Talk) -> None:
    line = await trusted.say('{"jsonrpc":"2.0","method":"options","params":{"responsePrefix":"CIVI "},"id":1}')
    assert line.startswith('CIVI {"jsonrpc"')


async def test_a_line_longer_than_agreed_is_a_parse_error(trusted: Talk) -> None:
    await trusted.ask("options", {"bufferSize": 100})
    assert (await trusted.ask("echo", ["x" * 200]))["error"]["code"] == -32700
    assert (await trusted.ask("echo", ["x"]))["result"] == ["x"]


async def test_a_line_longer_than_the_reader_takes_is_a_parse_error_and_not_the_end(trusted: Talk) -> None:
    assert json.loads(await trusted.say('"' + "x" * 150_000))["error"]["code"] == -32700
    assert (await trusted.ask("echo", ["x"]))["result"] == ["x"]


@pytest.mark.parametrize("checked", [False, 0, "0"])
async def test_a_trusted_session_may_leave_permissions_out(trusted: Talk, mirror: Mirror, checked: Any) -> None:
    await trusted.ask("api3", ["Contact", "get", {}])
    assert not mirror.last.caller.may("access CiviCRM")
    await trusted.ask("api3", ["Contact", "get", {"check_permissions": checked}])
    assert mirror.last.caller.may("access CiviCRM")
    await trusted.ask("options", {"apiCheckPermissions": False})
    await trusted.ask("api3", ["Contact", "get", {}])
    assert mirror.last.caller.may("access CiviCRM")


async def test_an_untrusted_one_never(untrusted: Talk, mirror: Mirror) -> None:
    await untrusted.ask("options", {"apiCheckPermissions": False})
    await untrusted.ask("api3", ["Contact", "get", {"check_permissions": 0}])
    assert not mirror.last.caller.may("access CiviCRM")
    assert mirror.last.params["check_permissions"] is True


async def test_a_login_lasts_for_the_session(trusted: Talk, mirror: Mirror) -> None:
    ids = (await trusted.ask("login", {"user": "limited"}))["result"]
    assert (await trusted.ask("login", {"contactId": ids["contactId"]}))["result"] == ids
    assert (await trusted.ask("login", {"userId": ids["userId"]}))["result"] == ids
    await trusted.ask("api3", ["Contact", "get"])
    assert (mirror.last.caller.name, mirror.last.caller.contact_id) == ("limited", ids["contactId"])


async def test_anyone_may_log_in_by_a_credential(untrusted: Talk, mirror: Mirror) -> None:
    await untrusted.ask("login", {"cred": f"Bearer {ADMIN_KEY}"})
    await untrusted.ask("api3", ["Contact", "get"])
    assert mirror.last.caller.name == "admin"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"contactId": 1}, "Session is not trusted."),
        ({"user": "admin"}, "Session is not trusted."),
        ({}, "Cannot authenticate. Must specify principal/credentials."),
        ({"cred": "Bearer wrong"}, "Invalid credential"),
        ({"cred": f"Bearer {LIMITED_KEY}"}, "Login not permitted. Must satisfy guard (site_key, perm)."),
    ],
)
async def test_a_login_that_is_refused(untrusted: Talk, params: dict[str, Any], message: str) -> None:
    assert (await untrusted.ask("login", params))["error"] == {"code": -32099, "message": message, "data": None}


@pytest.mark.parametrize("params", [{"user": "nobody"}, {"userId": 999}, {"userId": 10**15}, {"contactId": 999}])
async def test_nobody_logs_in_as_someone_who_is_not_there(trusted: Talk, params: dict[str, Any]) -> None:
    assert (await trusted.ask("login", params))["error"]["code"] == -32099


async def test_a_fault_of_ours_is_an_unknown_error_and_the_session_goes_on(trusted: Talk, mirror: Mirror) -> None:
    mirror.fails = True
    assert (await trusted.ask("api3", ["Contact", "get"]))["error"]["message"] == "Unknown error."
    mirror.fails = False
    assert "result" in await trusted.ask("api3", ["Contact", "get"])
