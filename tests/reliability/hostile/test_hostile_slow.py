"""Clients that are slow on purpose are let go: with their head, their body, and with taking their answer.

The server of these tests waits a fraction of a second for them. No test waits for a time to pass: each waits for what
the server does, however late the machine lets it.
"""

import contextlib
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aiohttp import web

from civiapi.server.slow_clients import MIN_PROGRESS as STEP
from civiapi.server.slow_clients import SlowClients
from tests.reliability.hostile.server import PATIENCE_S, HostileServer, hostile_server
from tests.support.processes import ADMIN_KEY

IMPATIENT = dict.fromkeys(("IDLE", "BODY", "ANSWER"), "0.4")
HEAD = (
    b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Civi-Auth: Bearer " + ADMIN_KEY.encode()
)
LARGE = 3_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server(**{f"CIVIAPI_SERVER__{name}_SECONDS": value for name, value in IMPATIENT.items()}) as started:
        yield started


@contextlib.contextmanager
def raw(server: HostileServer) -> Iterator[socket.socket]:
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.settimeout(PATIENCE_S)
        link.connect(("127.0.0.1", server.port))
        yield link


def sends_until(link: socket.socket, what: int, letter: bytes) -> bool:
    """Whether this happens to the connection while a letter is sent every now and then."""
    poll = select.poll()
    poll.register(link, what)
    for _ in range(int(PATIENCE_S * 20)):
        if poll.poll(50):
            return True
        link.sendall(letter)
    return False


def is_disconnected(link: socket.socket) -> bool:
    """Whether the server closes the connection. Reads nothing that it may have sent before."""
    poll = select.poll()
    poll.register(link, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(PATIENCE_S * 1000))


@pytest.mark.parametrize(
    "begun", [b"", b"P", b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\n"], ids=["none", "a letter", "half"]
)
def test_a_head_that_does_not_come_is_not_waited_for(server: HostileServer, begun: bytes) -> None:
    with raw(server) as link:
        link.sendall(begun)
        assert is_disconnected(link)
    assert server.is_well()


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(server: HostileServer) -> None:
    with raw(server) as link:
        link.sendall(b"POST /jsonrpc HTTP/1.1\r\nX-Slow: ")
        assert sends_until(link, select.POLLRDHUP, b"x")
    assert server.is_well()


def test_a_connection_kept_open_is_closed_when_nothing_more_comes(server: HostileServer) -> None:
    with raw(server) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert link.recv(12) == b"HTTP/1.1 200"
        assert is_disconnected(link)


@pytest.mark.parametrize("path", [b"/jsonrpc", b"/extern/rest.php", b"/civicrm/login", b"/civicrm/api/json"])
@pytest.mark.parametrize(
    "length", [b"Content-Length: 9\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{"], ids=["length", "chunks"]
)
def test_a_body_that_does_not_come_is_408(server: HostileServer, path: bytes, length: bytes) -> None:
    with raw(server) as link:
        link.sendall(HEAD.replace(b"/jsonrpc", path) + b"\r\n" + length)
        assert link.recv(12) == b"HTTP/1.1 408"
    assert server.is_well()


def test_a_body_that_comes_byte_by_byte_is_408(server: HostileServer) -> None:
    with raw(server) as link:
        link.sendall(HEAD + b"\r\nContent-Length: 4000000\r\n\r\n[")
        assert sends_until(link, select.POLLIN, b" ")
        assert link.recv(12) == b"HTTP/1.1 408"


def test_a_client_that_never_takes_its_answer_is_let_go_and_nobody_else(server: HostileServer) -> None:
    request = b'{"jsonrpc":"2.0","id":1,"method":"echo","params":["' + b"x" * LARGE + b'"]}'
    whole = HEAD + b"\r\nContent-Length: %d\r\n\r\n" % len(request) + request
    with raw(server) as stuck, raw(server) as taking:
        stuck.sendall(whole)
        taking.sendall(whole)
        taken = 0
        while taken < LARGE and (piece := taking.recv(1_000_000)):
            taken += len(piece)
        assert taken >= LARGE
        assert is_disconnected(stuck)
    assert server.is_well()


# ---- the same by a clock of ours ----


@dataclass(eq=False)
class Connection:
    """A connection as the watch sees it."""

    waiting: int
    aborted: bool = False
    transport: "Connection" = field(init=False)

    def __post_init__(self) -> None:
        self.transport = self

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, _name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Server:
    connections: list[Connection]


@pytest.mark.parametrize(
    ("sizes", "disconnected"),
    [
        pytest.param([9 * STEP] * 11, True, id="Nothing taken for ten seconds: disconnected."),
        pytest.param([9 * STEP] * 10, False, id="Nothing taken for less than that: waited for."),
        pytest.param([9 * STEP - n for n in range(11)], True, id="A byte a second: disconnected."),
        pytest.param([20 * STEP - n * STEP // 4 for n in range(60)], False, id="64 kB in four seconds: waited for."),
        pytest.param([100] * 5 + [0] + [100] * 9, False, id="Everything taken in between: starts again."),
        pytest.param([STEP, STEP - 5000] * 30, False, id="A stream that flows grows again: waited for."),
        pytest.param([0] * 50, False, id="Nothing waits: idle is no matter of this."),
    ],
)
def test_who_is_let_go(sizes: list[int], disconnected: bool) -> None:
    connection = Connection(0)
    watch = SlowClients(cast("web.Server", cast(Any, Server([connection]))), seconds=10.0)
    for second, size in enumerate(sizes):
        connection.waiting = size
        watch.check(float(second))
    assert connection.aborted is disconnected
