"""REST over HTTP: what a request means, how it is answered, what goes wrong (contract/apiv3.md section 1)."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from urllib.parse import quote, urlencode

import aiohttp
import httpx
import pytest
from structlog.testing import capture_logs

from civiapi.store.engine import Store
from tests.support.http_server import ADMIN, AJAX, KEYS, SITE_KEY, HttpServer, Mirror, serving

REST = "/sites/all/modules/civicrm/extern/rest.php"
GET_ERROR = "SECURITY: All requests that modify the database must be http POST, not GET."
UNDECODABLE = {"error_message": "Unable to decode supplied JSON.", "is_error": 1}

pytestmark = pytest.mark.sqlite_only("the API answers with the call; test_authx finds its users on both databases")


def _url(path: str = REST, **fields: str) -> str:
    return f"{path}?{urlencode({**KEYS, 'entity': 'Contact', 'action': 'get', 'json': '1', **fields})}"


@pytest.mark.parametrize(
    "path",
    [
        "/extern/rest.php",
        REST,
        "/wp-content/plugins/civicrm/civicrm/extern/rest.php",
        "/administrator/components/com_civicrm/civicrm/extern/rest.php",
        "/a/civicrm/ajax/rest",
        "/civicrm/ajax/rest",
        "/civicrm/ajax/rest/",
    ],
)
async def test_an_endpoint_is_known_by_the_end_of_its_path(site: HttpServer, mirror: Mirror, path: str) -> None:
    assert (await site.post(_url(path))).status == 200
    assert (mirror.last.entity, mirror.last.action) == ("Contact", "get")


@pytest.mark.parametrize("path", ["/", "/index.php", "/drupal/index.php", "/wp-admin/admin.php"])
async def test_the_ajax_endpoint_stands_behind_every_front_door(site: HttpServer, mirror: Mirror, path: str) -> None:
    fields = {"page": "CiviCRM", "q": "civicrm/ajax/rest", "entity": "Contact", "action": "get", "json": "{}"}
    assert (await site.get(f"{path}?{urlencode(fields)}", headers=ADMIN)).json["is_error"] == 0
    assert mirror.last.entity == "Contact"


async def test_query_and_form_are_one_and_the_form_wins(site: HttpServer, mirror: Mirror) -> None:
    await site.post(_url(id="5", debug="1"), data={"id": "6", "return[]": "id"})
    params = mirror.last.params
    assert (params["id"], params["debug"], params["return"]) == ("6", "1", ["id"])


async def test_a_multipart_form_is_read_like_the_other(site: HttpServer, mirror: Mirror) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in {**KEYS, "entity": "Contact", "action": "get", "json": "1", "options[limit]": "5"}.items():
        form.add_field(name, value)
    form.add_field("upload", b"bytes", filename="a.bin")
    await site.post(REST, data=form)
    assert mirror.last.params == {"options": {"limit": "5"}, "version": 3, "check_permissions": True}


async def test_a_json_body_holds_the_same_names(site: HttpServer, mirror: Mirror) -> None:
    body = {**KEYS, "entity": "Contact", "action": "get", "json": {"id": 5, "action": "inside"}, "sequential": 1}
    assert (await site.post(REST, json=body)).content_type == "application/json"
    expected = {"id": 5, "action": "inside", "sequential": 1, "version": 3, "check_permissions": True}
    assert mirror.last.params == expected


async def test_a_body_of_another_type_is_not_looked_at(site: HttpServer, mirror: Mirror) -> None:
    await site.post(_url(), data=b"entity=Other", headers={"Content-Type": "text/plain"})
    assert mirror.last.entity == "Contact"


async def test_cookies_are_never_parameters(site: HttpServer, mirror: Mirror) -> None:
    await site.post(_url(), cookies={"first_name": "Eve"})
    assert "first_name" not in mirror.last.params


@pytest.mark.parametrize(
    ("fields", "entity", "action"),
    [
        ({"q": "civicrm/contact/get"}, "contact", "get"),
        ({"q": "foo", "fnName": "civicrm/email/create"}, "email", "create"),
        ({"q": "civicrm/email/get", "entity": "Group", "action": "get"}, "Group", "get"),
    ],
    ids=["q names the target", "fnName overrides q", "An entity overrides both"],
)
async def test_the_old_spelling_of_a_target(
    site: HttpServer, mirror: Mirror, fields: dict[str, str], entity: str, action: str
) -> None:
    await site.post(REST, data={**KEYS, "json": "1", **fields})
    assert (mirror.last.entity, mirror.last.action) == (entity, action)


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (REST, {"q": "foo"}, "ERROR: Malformed REST path"),
        (REST, {"q": "foo/contact/get"}, "ERROR: Malformed REST path"),
        (REST, {"q": "civicrm/login"}, "ERROR: Malformed REST path"),
        (REST, {}, 'missing mandatory params "entity=" or "action="'),
        (REST, {"entity": "Contact"}, 'missing mandatory params "entity=" or "action="'),
        ("/civicrm/ajax/rest", {}, 'missing mandatory params "entity=" or "action="'),
        ("/civicrm/ajax/rest", {"q": "foo/bar/baz"}, "Unknown function invocation."),
    ],
)
async def test_a_request_without_a_target_is_told_so(
    site: HttpServer, path: str, fields: dict[str, str], message: str
) -> None:
    reply = await site.post(path, data={**KEYS, "json": "1", **fields})
    assert (reply.status, reply.json) == (200, {"error_message": message, "is_error": 1})


@pytest.mark.parametrize("text", ["{bad json", '{"id":}', "{"])
@pytest.mark.parametrize("path", [REST, "/civicrm/ajax/rest"])
async def test_a_broken_json_object_is_told_so(site: HttpServer, mirror: Mirror, path: str, text: str) -> None:
    assert (
        await site.post(path, data={**KEYS, "entity": "Contact", "action": "get", "json": text})
    ).json == UNDECODABLE
    assert mirror.calls == []


async def test_a_json_body_that_is_broken_is_told_so(site: HttpServer) -> None:
    reply = await site.post(f"{REST}?json=1", data=b'{"entity":', headers={"Content-Type": "application/json"})
    assert reply.json == UNDECODABLE


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        ("get", True),
        ("GetSingle", True),
        ("getstatus", True),
        ("check", True),
        ("create", False),
        ("fetchaccountinfo", False),
    ],
)
@pytest.mark.parametrize("path", [REST, "/civicrm/ajax/rest"])
async def test_a_get_may_only_read(site: HttpServer, mirror: Mirror, path: str, action: str, allowed: bool) -> None:
    reply = await site.get(_url(path, action=action), headers={"Referer": "https://elsewhere.example"})
    assert reply.status == 200
    assert bool(mirror.calls) is allowed
    if not allowed:
        assert reply.json == {
            "IP": "127.0.0.1",
            "level": "security",
            "referer": "https://elsewhere.example",
            "reason": "Destructive HTTP GET",
            "is_error": 1,
            "error_message": GET_ERROR,
        }


async def test_a_post_may_write_with_everything_in_the_address(site: HttpServer, mirror: Mirror) -> None:
    await site.post(_url(action="create"))
    assert (mirror.last.action, mirror.last.read_only) == ("create", False)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_any_other_method_may_only_read(site: HttpServer, mirror: Mirror, method: str) -> None:
    reply = await site.send(method, _url(action="create"))
    assert reply.json["reason"] == "Destructive HTTP GET"
    assert mirror.calls == []
    await site.send(method, _url(action="get"))
    assert (mirror.last.action, mirror.last.read_only) == ("get", True)


async def test_ping_needs_no_credentials(site: HttpServer) -> None:
    assert (await site.get(f"{REST}?q=civicrm/ping&json=1")).json == {"is_error": 0, "message": "PONG: "}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Failed to authenticate key"),
        ({"key": "wrong-site-key", "api_key": KEYS["api_key"]}, "Failed to authenticate key"),
        ({"key": SITE_KEY}, "FATAL: mandatory param 'api_key' (user key) missing"),
        ({"key": SITE_KEY, "api_key": ""}, "FATAL: mandatory param 'api_key' (user key) missing"),
        ({"key": SITE_KEY, "api_key": "wrong"}, "ERROR: No CMS user associated with given api-key"),
        ({"key": SITE_KEY[:-1], "api_key": KEYS["api_key"]}, "Failed to authenticate key"),
        ({"key": SITE_KEY, "api_key": "\x00é%' OR 1"}, "ERROR: No CMS user associated with given api-key"),
    ],
)
async def test_who_does_not_show_both_keys_is_refused_with_200(
    site: HttpServer, mirror: Mirror, fields: dict[str, str], message: str
) -> None:
    reply = await site.post(REST, data={"entity": "Contact", "action": "get", "json": "1", **fields})
    assert (reply.status, reply.json) == (200, {"error_message": message, "is_error": 1})
    assert mirror.calls == []


async def test_a_header_may_stand_for_the_keys_on_rest_too(site: HttpServer, mirror: Mirror) -> None:
    await site.post(f"{REST}?entity=Contact&action=get&json=1", headers=ADMIN)
    assert mirror.last.caller.flow == "xheader"


async def test_errors_are_xml_where_no_json_was_asked_for(site: HttpServer) -> None:
    reply = await site.post(REST)
    assert (reply.status, reply.content_type) == (200, "text/xml")
    assert "<error_message>Failed to authenticate key</error_message>" in reply.text


async def test_scalars_are_wrapped_and_xml_follows(site: HttpServer, mirror: Mirror) -> None:
    mirror.say = 12
    assert (await site.post(_url(action="getcount"))).json == {"is_error": 0, "result": 12}
    xml = await site.post(REST, data={**KEYS, "entity": "Contact", "action": "getcount"})
    assert "<Result><is_error>0</is_error><result>12</result></Result>" in xml.text


async def test_pretty_json_is_json(site: HttpServer) -> None:
    reply = await site.post(_url(prettyprint="1"))
    assert reply.content_type == "application/json"
    assert '\n    "is_error": 0' in reply.text


async def test_a_long_address_is_read(site: HttpServer, mirror: Mirror) -> None:
    text = "x" * 30_000
    await site.post(_url(config=text))
    assert mirror.last.params["config"] == text


@pytest.mark.parametrize("path", [REST, "/civicrm/ajax/rest", "/wp-json/civicrm/v3/rest", "/jsonrpc"])
async def test_a_body_that_is_too_large_is_refused_in_the_sender_s_form(
    site: HttpServer, mirror: Mirror, path: str
) -> None:
    kind = "application/json" if path == "/jsonrpc" else "application/x-www-form-urlencoded"
    reply = await site.post(f"{path}?{urlencode(KEYS)}&json=1", data=b"a" * 200_000, headers={"Content-Type": kind})
    assert reply.status == 413
    assert reply.content_type == "application/json"
    assert "too large" in reply.text
    assert mirror.calls == []


@pytest.mark.parametrize("path", [REST, "/jsonrpc", "/civicrm/nowhere", "/healthz"])
@pytest.mark.parametrize(
    ("body", "headers"),
    [(b"a" * 3_000_000, {}), (b"no gzip at all", {"Content-Encoding": "gzip"})],
    ids=["too large", "not what it says"],
)
async def test_who_is_answered_before_the_body_was_read_gets_that_answer_and_the_next(
    site: HttpServer, path: str, body: bytes, headers: dict[str, str]
) -> None:
    """A client that keeps its connections sends the next request on one that the server may have closed."""
    kind = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    async with httpx.AsyncClient(base_url=site.base) as client:
        for _ in range(4):
            refused = await client.post(path, content=body, headers=kind)
            assert 400 <= refused.status_code < 500
            assert (await client.get("/healthz")).status_code == 200


async def test_a_body_that_grows_too_large_on_the_way_is_refused(site: HttpServer) -> None:
    async def much() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"a" * 10_000

    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (await site.post(_url(), data=much(), headers=kind)).status == 413


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"--x\r\nContent", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"nothing", {"Content-Type": "multipart/form-data"}),
        (b"--x\r\n\r\nabc\r\n--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
    ],
    ids=["cut short", "no boundary", "a field without a name"],
)
async def test_a_body_that_cannot_be_read_is_an_error_and_the_server_goes_on(
    site: HttpServer, body: bytes, headers: dict[str, str]
) -> None:
    assert (await site.post(_url(), data=body, headers=headers)).status == 400
    assert (await site.get("/healthz")).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "nothing known"])
@pytest.mark.parametrize(
    "path", ["/extern/rest.php", "/civicrm/ajax/rest", "/wp-json/civicrm/v3/rest", "/jsonrpc", "/civicrm/authx/login"]
)
async def test_a_compressed_body_is_refused_unread_in_the_form_of_its_endpoint(
    site: HttpServer, path: str, encoding: str
) -> None:
    sent = {"Content-Type": "application/json", "Content-Encoding": encoding}
    reply = await site.post(path, data=b"whatever it is", headers=sent)
    assert (reply.status, "Content-Encoding" in reply.text) == (415, True)
    assert (await site.get("/healthz")).status == 200


async def test_a_fault_of_ours_is_an_unknown_error_and_the_server_goes_on(
    site: HttpServer, mirror: Mirror, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.fails = True
    reply = await site.post(_url())
    assert reply.json == {"error_message": "Unknown error.", "is_error": 1}
    assert (await site.get("/healthz")).text == "ok\n"


ODD = (
    "",
    "0",
    "null",
    "{",
    "{}",
    "[]",
    "[[]]",
    '{"a":[1,{"b":null}]}',
    "x" * 3000,
    "\x00",
    "é😀",
    "civicrm/a/b",
    "1e999",
)
ODD_NAMES = (
    "entity",
    "action",
    "json",
    "json[]",
    "key[]",
    "api_key[x]",
    "q",
    "q[]",
    "fnName",
    "prettyprint",
    "version",
)
ODD_NAMES += ("_authx", "_authx[]", "_authxSes", "a[b][]", "a[b", "[", "]", "a.b", " ", "return[]", "options[limit]")
PATHS = (
    REST,
    "/civicrm/ajax/rest",
    "/civicrm/api/json",
    "/wp-json/civicrm/v3/rest",
    "/civicrm/authx/login",
    "/jsonrpc",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("as_json", [False, True], ids=["form", "JSON"])
async def test_no_odd_request_is_a_fault_of_ours(site: HttpServer, path: str, as_json: bool) -> None:
    dice = random.Random(path)
    for _ in range(60):
        fields = {name: dice.choice(ODD) for name in dice.sample(ODD_NAMES, dice.randint(0, 5))}
        keys = KEYS if dice.random() < 0.7 else {}
        query = urlencode({name: dice.choice(ODD) for name in dice.sample(ODD_NAMES, dice.randint(0, 2))} | keys)
        how = {"json": fields} if as_json else {"data": fields}
        reply = await site.post(f"{path}?{query}", **how)
        assert reply.status < 500, (query, fields, reply.text)


async def test_no_answer_names_the_software_or_may_be_sniffed(site: HttpServer) -> None:
    reply = await site.post(_url())
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Server"] == "civiapi"


async def test_a_path_that_is_nothing_is_not_found(site: HttpServer) -> None:
    assert (await site.get("/nowhere")).status == 404


@pytest.mark.parametrize("path", ["/civicrm/ajax/api4/Contact/get", "/civicrm/ajax/api4", "/x/civicrm/ajax/api4/A/b"])
async def test_version_4_is_refused_cleanly(site: HttpServer, path: str) -> None:
    reply = await site.post(path, data={"params": "{}"}, headers=ADMIN)
    assert (reply.status, reply.content_type, reply.json["error_code"]) == (501, "application/json", 501)


# ---- several calls in one request ----


def _several(calls: str) -> dict[str, str]:
    return {**KEYS, "entity": "api3", "action": "call", "json": calls}


async def test_several_calls_are_answered_under_their_own_keys(site: HttpServer, mirror: Mirror) -> None:
    reply = await site.post(
        "/civicrm/ajax/rest", data=_several('{"a":["Email","get",{"id":1}],"b":["Phone","get"]}'), headers=AJAX
    )
    assert {key: answer["entity"] for key, answer in reply.json.items()} == {"a": "Email", "b": "Phone"}
    assert [call.entity for call in mirror.calls] == ["Email", "Phone"]
    assert mirror.calls[0].params == {"id": 1, "version": 3, "check_permissions": True}


async def test_a_list_of_calls_gives_a_list_even_of_scalars(site: HttpServer, mirror: Mirror) -> None:
    mirror.say = 3
    reply = await site.post("/civicrm/ajax/rest", data=_several('[["A","getcount"],["B","getcount",[]]]'))
    assert reply.json == [3, 3]


async def test_a_broken_call_among_several_stops_no_other(site: HttpServer) -> None:
    reply = await site.post("/civicrm/ajax/rest", data=_several('[3,["A"],["B","get","x"],["C","get"]]'))
    assert [answer["is_error"] for answer in reply.json] == [1, 1, 1, 0]


async def test_each_of_several_calls_by_get_may_only_read(site: HttpServer, mirror: Mirror) -> None:
    fields = _several('[["A","get"],["B","create"]]')
    reply = await site.get(f"/civicrm/ajax/rest?{urlencode(fields)}")
    assert (reply.json[0]["is_error"], reply.json[1]["error_message"]) == (0, GET_ERROR)
    assert len(mirror.calls) == 1


@pytest.mark.parametrize("calls", ["[]", "{}", "[bad", "{bad", "1"])
async def test_no_calls_at_all_is_an_error(site: HttpServer, calls: str) -> None:
    assert (await site.post("/civicrm/ajax/rest", data=_several(calls))).json == UNDECODABLE


# ---- /civicrm/api/json ----


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"json": "1", "entity": "A", "action": "get"}, 'invalid json format: ?{"param_with_double_quote":"value"}'),
        ({"json": "{bad", "entity": "A", "action": "get"}, 'invalid json format: ?{"param_with_double_quote":"value"}'),
        ({"json": "{}", "action": "get"}, "missing entity param"),
    ],
)
async def test_the_older_ajax_path_wants_an_object(site: HttpServer, fields: dict[str, str], message: str) -> None:
    reply = await site.post("/civicrm/api/json", data={**KEYS, **fields})
    assert reply.json == {"error_message": message, "is_error": 1}


async def test_the_older_ajax_path_is_always_sequential(site: HttpServer, mirror: Mirror) -> None:
    await site.post("/civicrm/api/json", data={**KEYS, "json": '{"entity":"Contact","action":"get","id":3}'})
    assert (mirror.last.entity, mirror.last.params["sequential"], mirror.last.params["id"]) == ("Contact", 1, 3)


# ---- whose address it is ----


async def test_a_trusted_proxy_is_believed_about_the_address(store: Store, mirror: Mirror) -> None:
    async with serving(store, mirror, trusted_proxies=("127.0.0.0/8", "10.0.0.0/8")) as site:
        hops = {"X-Forwarded-For": "1.2.3.4, 203.0.113.9, 10.1.1.1"}
        assert (await site.get(_url(action="create"), headers=hops)).json["IP"] == "203.0.113.9"


async def test_anyone_else_is_not(site: HttpServer) -> None:
    hops = {"X-Forwarded-For": quote("203.0.113.9")}
    assert (await site.get(_url(action="create"), headers=hops)).json["IP"] == "127.0.0.1"


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP", "CF-Connecting-IP"])
async def test_no_other_header_says_whose_address_it_is(store: Store, mirror: Mirror, name: str) -> None:
    async with serving(store, mirror, trusted_proxies=("127.0.0.0/8",)) as site:
        told = {name: "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"}
        assert (await site.get(_url(action="create"), headers=told)).json["IP"] == "127.0.0.1"


async def test_of_two_lines_the_proxy_s_own_counts(store: Store, mirror: Mirror) -> None:
    async with serving(store, mirror, trusted_proxies=("127.0.0.0/8",)) as site:
        lines = [("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9")]
        assert (await site.get(_url(action="create"), headers=lines)).json["IP"] == "203.0.113.9"


async def test_who_hangs_up_in_the_middle_of_a_request_is_no_fault_of_ours(site: HttpServer, mirror: Mirror) -> None:
    """A reset, as of a process that was killed, breaks off the reading of the body."""
    with capture_logs() as logs:
        host, _, port = site.base.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {REST} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\nkey=".encode())
        await writer.drain()
        assert (await site.get("/healthz")).status == 200  # by now the request is being read
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        assert (await site.get("/healthz")).status == 200
        assert (await site.get("/healthz")).status == 200
    assert [one for one in logs if one["log_level"] == "error"] == []
    assert mirror.calls == []
