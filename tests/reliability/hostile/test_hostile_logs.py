"""Requests that are not valid HTTP are logged as one short line each, without a traceback or anything that was sent."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.reliability.hostile.server import PATIENCE_S, HostileServer, hostile_server

SECRET = b"a-secret-that-was-sent"
HEAD = (
    b"POST /extern/rest.php?api_key=" + SECRET + b" HTTP/1.1\r\nHost: x\r\nCookie: civiapi_session=" + SECRET + b"\r\n"
)

MALFORMED = {
    "a header without a colon": HEAD + b"No colon " + SECRET + b"\r\n\r\n",
    "a space in a header's name": HEAD + b"X " + SECRET + b": y\r\n\r\n",
    "a null in a header": HEAD + b"X-A: a\x00" + SECRET + b"\r\n\r\n",
    "a null in a cookie": HEAD + b"Cookie: \x00" + SECRET + b"\r\n\r\n",
    "a folded header": HEAD + b"X-A: a\r\n " + SECRET + b"\r\n\r\n",
    "a bare line end": HEAD.replace(b"\r\n", b"\n") + b"\rX: " + SECRET + b"\n\n",
    "a length that is none": HEAD + b"Content-Length: " + SECRET + b"\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length and chunks": HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an encoding that is none": HEAD + b"Transfer-Encoding: " + SECRET + b"\r\n\r\n",
    "a chunk that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n",
    "a chunk without an end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef" + SECRET + b"\r\n",
    "a method that is none": b"G\x01T / HTTP/1.1\r\nCookie: " + SECRET + b"\r\n\r\n",
    "a version that is none": b"GET / HTTP/" + SECRET + b"\r\nCookie: " + SECRET + b"\r\n\r\n",
    "no version": b"GET /" + SECRET + b"\r\n\r\n",
    "an address that is none": b"GET http://[" + SECRET + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a line without an end": b"GET /" + SECRET * 20_000 + b" HTTP/1.1\r\n\r\n",
    "a header without an end": HEAD + b"X-A: " + SECRET * 20_000 + b"\r\n\r\n",
    "too many headers": HEAD + b"".join(b"X-%d: %s\r\n" % (n, SECRET) for n in range(5000)) + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET * 10,
    "a body that is cut off": HEAD + b"Content-Length: 100\r\nContent-Type: application/json\r\n\r\n{" + SECRET,
    "an upgrade": HEAD + b"Connection: upgrade\r\nUpgrade: " + SECRET + b"\r\n\r\n",
    "a cookie of signs": HEAD + b"Cookie: ;;==,\xff\xfe" + SECRET + b"\r\n\r\n",
    "a host of signs": b"GET / HTTP/1.1\r\nHost: \xff[" + SECRET + b"\r\n\r\n",
}


@pytest.fixture(scope="module", params=["info", "debug"])
def server(request: pytest.FixtureRequest) -> Iterator[HostileServer]:
    with hostile_server(f"[log]\nlevel = {request.param}\n") as started:
        yield started


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_one_short_line_and_says_nothing_of_what_was_sent(
    server: HostileServer, sent: bytes
) -> None:
    send(server, sent)
    assert server.is_well()
    logged = server.folder.joinpath("log").read_bytes()
    assert SECRET not in logged
    assert b"Traceback" not in logged
    assert b"Cookie" not in logged
    assert all(len(line) < 300 for line in logged.splitlines())


def send(server: HostileServer, sent: bytes) -> None:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as link:
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        while link.recv(65_536):
            pass


def refusals(server: HostileServer) -> int:
    logged = server.folder.joinpath("log").read_text("utf-8", "replace")
    return sum("a malformed request was refused (" in line for line in logged.splitlines())


def test_there_is_one_line_for_each_at_most(server: HostileServer) -> None:
    before = refusals(server)
    for sent in MALFORMED.values():
        send(server, sent)
    assert server.is_well()
    assert 0 < refusals(server) - before <= len(MALFORMED)
