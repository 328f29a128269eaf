"""Requests that nobody meant well, over real connections to a real server process.

What must hold: no answer is a server error, every answer comes, the server goes on, its memory stays in bounds, its log
keeps one line a line, and nothing the world sends makes it fetch anything. ``CIVIAPI_HOSTILE_REQUESTS`` sets how many
generated requests are sent to each way in.
"""

import contextlib
import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civiapi.http.forms import MAX_FIELDS
from tests.support.processes import ADMIN_KEY, SITE_KEY, free_port, serving, write_settings

REQUESTS = int(os.environ.get("CIVIAPI_HOSTILE_REQUESTS", "40"))
LIMIT_S = 30.0  # far more than the two seconds aimed at: how busy the machine is must not decide
MOST_MEMORY_KB = 200_000
HEADERS = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}", "X-Requested-With": "XMLHttpRequest"}
KEYS = {"key": SITE_KEY, "api_key": ADMIN_KEY}
CALL = {**KEYS, "entity": "Contact", "action": "get", "json": "1"}
PATHS = [
    "/civicrm/ajax/rest",
    "/extern/rest.php",
    "/jsonrpc",
    "/wp-json/civicrm/v3/rest",
    "/civicrm/api/json",
    "/civicrm/authx/login",
    "/civicrm/mailchimpsync/webhook",
    "/civicrm/mailchimpsync/batch-webhook",
    "/civicrm/login",
    "/civicrm/mailchimpsync/people",
    "/index.php",
]
DEPTH = 100_000


@dataclass(frozen=True)
class Server:
    """A server process, its address, and a client to it."""

    child: subprocess.Popen[str]
    port: int
    log: Path
    http: httpx.Client

    def is_well(self) -> bool:
        """Whether it still answers a call, and within its memory."""
        answer = self.http.post("/extern/rest.php", data=CALL)
        return self.child.poll() is None and answer.json()["is_error"] == 0 and self.peak_kb() < MOST_MEMORY_KB

    def peak_kb(self) -> int:
        """The most memory it has held."""
        text = Path(f"/proc/{self.child.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+)", text)
        assert found is not None
        return int(found[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = write_settings(folder, port=port, more="[log]\nlevel = debug\n")
        with serving(config, port) as child:
            assert child.stderr is not None
            log = folder / "log"
            tee = subprocess.Popen(["tee", str(log)], stdin=child.stderr, stdout=subprocess.DEVNULL)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S, trust_env=False) as http:
                yield Server(child, port, log, http)
        tee.wait(10)  # it ends with the server


# ---- generated ----

texts = st.text(max_size=20) | st.sampled_from(
    ["{", "[", "{}", "[]", "null", "1", '{"id":{"IN":[]}}', "a[b", "a[][]", "\x00"]
)
fields = st.dictionaries(
    st.sampled_from(["entity", "action", "json", "q", "prettyprint", "debug", "id", "options[limit]", "return[]"])
    | texts,
    st.sampled_from(["Contact", "get", "create", "api3", "call", "civicrm/contact/get"]) | texts,
    max_size=6,
)
KINDS = [
    "application/x-www-form-urlencoded",
    "application/json",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "text/xml",
    "application/json; charset=\x7f",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_request_is_answered_with_a_server_error(server: Server, path: str) -> None:
    @given(
        method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PROPFIND"]),
        query=fields,
        kind=st.sampled_from(KINDS),
        body=st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "replace")),
        signed=st.booleans(),
    )
    @settings(max_examples=REQUESTS)
    def hold(method: str, query: dict[str, str], kind: str, body: bytes, signed: bool) -> None:
        headers = {**({"Content-Type": kind} if kind else {}), **(HEADERS if signed else {})}
        with contextlib.suppress(httpx.LocalProtocolError, UnicodeEncodeError):  # a client cannot send this at all
            told = server.http.request(method, path, params=query, content=body, headers=headers)
            assert told.status_code < 500 or "api4" in path

    hold()
    assert server.is_well()


@pytest.mark.parametrize("path", ["/extern/rest.php", "/civicrm/ajax/rest"])
def test_xml_is_well_formed_whatever_is_in_it(server: Server, path: str) -> None:
    from xml.etree import ElementTree

    names = [
        "</x>",
        "<!ENTITY a 'b'>",
        "]]>",
        "\x0b\x08",
        "&amp;",
        "é🎉",
        "a\x01b",
        "\ud83d".encode("utf-8", "replace").decode(),
    ]
    for name in names:
        sent = {**KEYS, "entity": "Contact", "action": "create", "contact_type": "Individual", "first_name": name}
        told = server.http.post(path, data=sent)
        assert told.status_code == 200
        ElementTree.fromstring(told.content)


# ---- named ----


def deep(opening: str, closing: str) -> str:
    return opening * DEPTH + closing * DEPTH


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "maps"])
@pytest.mark.parametrize(
    "path", ["/extern/rest.php", "/civicrm/ajax/rest", "/civicrm/api/json", "/wp-json/civicrm/v3/rest"]
)
def test_json_a_hundred_thousand_deep_is_refused(server: Server, path: str, opening: str, closing: str) -> None:
    text = deep(opening, closing)
    assert server.http.post(path, data={**CALL, "json": text}).status_code < 500
    assert server.http.post(path, content=text, headers={"Content-Type": "application/json"}).status_code < 500
    config = {**KEYS, "entity": "Mailchimpsync", "action": "updateconfig", "json": "1", "config": text}
    assert server.http.post(path, data=config).status_code < 500
    assert server.is_well()


def test_json_rpc_a_hundred_thousand_deep_is_a_parse_error(server: Server) -> None:
    told = server.http.post("/jsonrpc", content=deep("[", "]"), headers={**HEADERS, "Content-Type": "application/json"})
    assert told.json()["error"]["code"] == -32700
    assert server.is_well()


def test_a_form_of_as_many_fields_and_brackets_as_we_read_is_read_and_one_of_more_refused(server: Server) -> None:
    many = "&".join(f"f{n}=x" for n in range(MAX_FIELDS))
    nested = "a" + "[b]" * (MAX_FIELDS - 1) + "=x"
    lists = "a[]=1&" * (MAX_FIELDS // 2)
    for body, status in ((many, 200), (nested, 200), (lists, 200), ("&" * 1_000_000, 413), (lists + lists, 413)):
        told = server.http.post("/extern/rest.php", params=CALL, content=body, headers={"Content-Type": KINDS[0]})
        assert told.status_code == status
    assert server.is_well()


def test_a_sort_return_operator_or_chain_that_is_sql_reaches_no_table(server: Server) -> None:
    sql = "id; DROP TABLE civicrm_contact; --"
    for more in (
        {"options[sort]": sql},
        {"sort": f"(SELECT api_key FROM civicrm_contact LIMIT 1) {sql}"},
        {"return": sql},
        {f"id[{sql}]": "1"},
        {"id[IN][]": sql},
        {f"api.Contact.{sql}": "1"},
        {"options[limit]": sql},
        {"options[offset]": f"0 UNION {sql}"},
        {sql: "1"},
        {"entity": sql},
        {"action": sql},
    ):
        told = server.http.post("/extern/rest.php", data={**CALL, **more})
        assert told.status_code == 200
        assert "syntax" not in told.text.lower()
        assert "sqlite" not in told.text.lower()
    assert server.is_well()


def raw(server: Server) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


@pytest.mark.parametrize(
    "head",
    [
        b"POST /extern/rest.php HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
        b"POST /extern/rest.php HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /extern/rest.php HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST /extern/rest.php HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GET /healthz HTTP/9.9\r\n\r\n",
    ],
    ids=["absurd length", "negative length", "bad chunk", "two lengths", "long line", "many headers", "TLS", "version"],
)
def test_a_request_that_is_none_is_refused_or_waited_for(server: Server, head: bytes) -> None:
    with raw(server) as link, contextlib.suppress(ConnectionError):
        link.sendall(head)
        link.shutdown(socket.SHUT_WR)
        first = link.recv(64)
        assert first == b"" or b" 4" in first.split(b"\r\n")[0] or b" 5" not in first.split(b"\r\n")[0]
    assert server.is_well()


def test_clients_that_send_a_byte_and_wait_keep_nobody_else_waiting(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for half in (
            b"P",
            b"POST /jsonrpc HTTP/1.1\r\nHost: x\r\n",
            b"POST /jsonrpc HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
        ):
            for _ in range(100):
                stack.enter_context(raw(server)).sendall(half)
        assert server.is_well()
    assert server.is_well()


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_idle_connections_keep_nobody_else_waiting(server: Server, count: int) -> None:
    with contextlib.ExitStack() as stack:
        try:
            for _ in range(count):
                stack.enter_context(raw(server))
        except OSError as error:
            pytest.skip(f"this machine lets no process have so many connections: {error}")
        assert server.is_well()
    assert server.is_well()


def test_nothing_sent_begins_a_line_of_its_own_in_the_log_or_a_header_of_its_own(server: Server) -> None:
    forged = "x\r\nSet-Cookie: civiapi_session=mine\r\n\n2026-01-01T00:00:00Z [critical ] forged line\x1b[31m"
    server.http.post("/extern/rest.php", data={**CALL, "entity": forged, forged: forged, "debug": "1"})
    server.http.post("/extern/rest.php", data={**CALL, forged: forged})
    server.http.post("/jsonrpc", json={"jsonrpc": "2.0", "method": forged, "id": forged}, headers=HEADERS)
    told = server.http.get("/civicrm/authx/login", params={"_authx": f"Bearer {forged}", "_authxSes": "1"})
    assert "civiapi_session=mine" not in str(told.headers)
    assert server.is_well()
    lines = server.log.read_bytes().split(b"\n")
    assert not [line for line in lines if line.startswith((b"2026-01-01", b"Set-Cookie"))]
    assert not [line for line in lines if b"\x1b[31m" in line]


def test_no_key_is_in_the_log_or_in_any_answer_about_an_error(server: Server) -> None:
    wrong = {**CALL, "api_key": "a-wrong-api-key-of-somebody"}
    told = server.http.post("/extern/rest.php", data=wrong).text
    told += server.http.post("/extern/rest.php", data={**CALL, "key": "a-wrong-site-key-of-somebody"}).text
    told += server.http.post("/jsonrpc", content=b"{", headers={**HEADERS, "Content-Type": "application/json"}).text
    assert server.is_well()
    logged = server.log.read_text("utf-8", "replace")
    for secret in (SITE_KEY, ADMIN_KEY, "a-wrong-api-key-of-somebody", "a-wrong-site-key-of-somebody"):
        assert secret not in told
        assert secret not in logged


def test_a_webhook_s_address_is_never_fetched(server: Server) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.setblocking(False)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/latest/meta-data"
        for path in PATHS:
            sent = {"type": "batch_operation_completed", "data[response_body_url]": url, "url": url, "data[url]": url}
            server.http.post(path, data=sent, headers={"Host": f"127.0.0.1:{trap.getsockname()[1]}"})
        assert server.is_well()
        with pytest.raises(BlockingIOError):
            trap.accept()
