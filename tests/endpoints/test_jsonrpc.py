"""JSON-RPC 2.0 over HTTP (contract/apiv3.md 10.2), ending with the specification's own printed examples."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from jsonrpcclient import Error, Ok, notification_json, parse, request_json
from jsonrpcserver import Result, Success

from civiapi.api.call import Caller
from civiapi.auth.authenticator import Auth, Credentials
from civiapi.endpoints.jsonrpc import MAX_BATCH, Method, Methods, Session, answer_text
from civiapi.store.engine import Store
from tests.support.http_server import ADMIN, ADMIN_KEY, KEYS, SITE_KEY, USERS, HttpServer, Mirror, Reply

JSON = {"Content-Type": "application/json"}

pytestmark = pytest.mark.sqlite_only("the API answers with the call; test_authx finds its users on both databases")


async def _rpc(site: HttpServer, body: Any, path: str = "/jsonrpc") -> Reply:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    return await site.post(path, data=text, headers={**ADMIN, **JSON})


def _request(method: str, params: Any = None, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, **({} if params is None else {"params": params}), **more}


@pytest.mark.parametrize(
    ("method", "params", "entity", "action", "given"),
    [
        ("api3", ["Email", "get"], "Email", "get", {}),
        ("api3", ["Email", "get", {"contact_id": 3}], "Email", "get", {"contact_id": 3}),
        ("api3", ["Email", "get", []], "Email", "get", {}),
        ("api3", {"entity": "Email", "action": "get", "params": {"id": 1}}, "Email", "get", {"id": 1}),
        ("api3", {"entity": "Email", "action": "get"}, "Email", "get", {}),
        ("Contact.getcount", {"contact_type": "Individual"}, "Contact", "getcount", {"contact_type": "Individual"}),
        ("Contact.getcount", None, "Contact", "getcount", {}),
        ("Contact.getcount", [], "Contact", "getcount", {}),
        ("Contact.getcount", [{"id": 1}], "Contact", "getcount", {"id": 1}),
        ("group_contact.get", {"session": 1, "self": 2}, "group_contact", "get", {"session": 1, "self": 2}),
    ],
)
async def test_both_forms_of_a_call_reach_the_api(
    site: HttpServer, mirror: Mirror, method: str, params: Any, entity: str, action: str, given: dict[str, Any]
) -> None:
    reply = await _rpc(site, _request(method, params))
    assert reply.status == 200
    assert (mirror.last.entity, mirror.last.action) == (entity, action)
    assert mirror.last.params == {**given, "version": 3, "check_permissions": True}


async def test_version_and_permissions_cannot_be_chosen(site: HttpServer, mirror: Mirror) -> None:
    await _rpc(site, _request("Contact.get", {"version": 4, "check_permissions": 0}))
    assert mirror.last.params == {"version": 3, "check_permissions": True}


async def test_results_are_not_wrapped(site: HttpServer, mirror: Mirror) -> None:
    mirror.say = 12
    assert (await _rpc(site, _request("Contact.getcount"), "/civicrm/jsonrpc")).json == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": 12,
    }


@pytest.mark.parametrize("identity", [7, "abc", None, 1.5, "", 0])
async def test_an_id_comes_back_as_it_was(site: HttpServer, identity: Any) -> None:
    assert (await _rpc(site, _request("echo", [1], id=identity))).json["id"] == identity


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"error_code": "not-found"}, -32601),
        ({"error_code": "mandatory_missing", "fields": ["x"]}, -32602),
        ({"error_code": 2000}, -32602),
        ({"error_code": 2001, "error_field": "x"}, -32602),
        ({"error_code": 2002}, -32602),
        ({"error_code": 2100}, -32602),
        ({"error_code": 0, "error_field": "hold_date"}, -32602),
        ({"error_code": "unauthorized"}, -32001),
        ({"error_code": 0}, -32099),
        ({"count": 0}, -32099),
        ({"error_code": "chained_api_failed"}, -32099),
    ],
)
async def test_an_api_error_keeps_all_of_itself_as_data(
    site: HttpServer, mirror: Mirror, error: dict[str, Any], code: int
) -> None:
    mirror.say = {**error, "is_error": 1, "error_message": "That went wrong"}
    reply = await _rpc(site, _request("Contact.get"))
    assert reply.status == 200
    assert reply.json["error"] == {"code": code, "message": "That went wrong", "data": mirror.say}


async def test_a_fault_of_ours_says_nothing_of_its_inside(site: HttpServer, mirror: Mirror) -> None:
    mirror.fails = True
    assert (await _rpc(site, _request("Contact.get"))).json["error"] == {"code": -32603, "message": "Internal error"}
    mirror.fails, mirror.say = False, {"is_error": 1, "error_message": "Unknown error."}
    assert (await _rpc(site, _request("Contact.get"))).json["error"] == {"code": -32603, "message": "Internal error"}


@pytest.mark.parametrize("method", ["nothing", "rpc.get", "a.b.c", ".get", "Contact.", "api4", ""])
async def test_what_is_no_method_is_not_found(site: HttpServer, mirror: Mirror, method: str) -> None:
    assert (await _rpc(site, _request(method))).json["error"] == {"code": -32601, "message": "Method not found"}
    assert mirror.calls == []


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("api3", []),
        ("api3", ["Contact"]),
        ("api3", ["Contact", 3]),
        ("api3", ["Contact", "get", {}, {}]),
        ("api3", {"entity": "Contact"}),
        ("Contact.get", [{}, {}]),
        ("Contact.get", ["x"]),
        ("api3", ["Contact", "get", "x"]),
        ("login", []),
        ("login", {"contactId": 1}),
    ],
)
async def test_parameters_of_another_shape_are_invalid(
    site: HttpServer, mirror: Mirror, method: str, params: Any
) -> None:
    assert (await _rpc(site, _request(method, params))).json["error"]["code"] == -32602
    assert mirror.calls == []


@pytest.mark.parametrize(
    "request_",
    [
        {"jsonrpc": "1.0", "method": "echo", "id": 1},
        {"method": "echo", "id": 1},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "method": "echo", "params": "bar", "id": 1},
        {"jsonrpc": "2.0", "method": "echo", "params": None, "id": 1},
        {"jsonrpc": "2.0", "method": "echo", "id": {}},
        {"jsonrpc": "2.0", "method": "echo", "id": True},
        "echo",
        3,
        None,
    ],
)
async def test_what_is_no_request_is_invalid(site: HttpServer, request_: Any) -> None:
    expected = {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": None}
    assert (await _rpc(site, json.dumps(request_))).json == expected


async def test_a_batch_runs_in_order_and_answers_in_order(site: HttpServer, mirror: Mirror) -> None:
    batch = [_request("A.get", id=1), _request("B.get", id="two"), _request("nothing", id=3), _request("C.get", id=4)]
    reply = await _rpc(site, batch)
    assert [each["id"] for each in reply.json] == [1, "two", 3, 4]
    assert [call.entity for call in mirror.calls] == ["A", "B", "C"]


async def test_notifications_are_carried_out_and_not_answered(site: HttpServer, mirror: Mirror) -> None:
    note = {"jsonrpc": "2.0", "method": "Contact.create", "params": {}}
    for body in (note, [note, note]):
        reply = await _rpc(site, body)
        assert (reply.status, reply.text) == (204, "")
    assert len(mirror.calls) == 3


async def test_a_batch_has_a_limit(site: HttpServer, mirror: Mirror) -> None:
    reply = await _rpc(site, [_request("A.get")] * (MAX_BATCH + 1))
    assert (reply.json["error"]["code"], reply.json["id"]) == (-32600, None)
    assert mirror.calls == []


async def test_echo_options_and_login(site: HttpServer) -> None:
    assert (await _rpc(site, _request("echo", {"a": 1}))).json["result"] == {"a": 1}
    assert (await _rpc(site, _request("options", {}))).json["result"] == {"apiError": "exception"}
    login = (await _rpc(site, _request("login", {"cred": f"Bearer {ADMIN_KEY}"}))).json["result"]
    assert isinstance(login["contactId"], int)
    assert isinstance(login["userId"], int)
    refused = (await _rpc(site, _request("login", {"cred": "Bearer wrong"}))).json["error"]
    assert (refused["code"], refused["message"]) == (-32000, "Invalid credential")


# ---- HTTP around it ----


@pytest.mark.parametrize("kind", ["application/json", "application/json-rpc", "application/jsonrequest; charset=utf-8"])
async def test_json_has_three_content_types(site: HttpServer, kind: str) -> None:
    body = json.dumps(_request("echo", [1]))
    assert (await site.post("/jsonrpc", data=body, headers={**ADMIN, "Content-Type": kind})).json["result"] == [1]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_what_another_site_s_page_could_send_is_refused(site: HttpServer, mirror: Mirror, kind: str) -> None:
    body = json.dumps(_request("Contact.get"))
    reply = await site.post("/jsonrpc", data=body, headers={**ADMIN, "Content-Type": kind})
    assert (reply.status, reply.content_type) == (415, "application/json")
    assert mirror.calls == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_is_spoken(site: HttpServer, method: str) -> None:
    reply = await site.send(method, "/jsonrpc", headers=ADMIN)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("query", "headers", "message"),
    [
        ({}, {}, "Authentication required"),
        ({}, {"X-Civi-Auth": "Bearer wrong"}, "Invalid credential"),
        ({"key": SITE_KEY, "api_key": "wrong"}, {}, "ERROR: No CMS user associated with given api-key"),
        ({"key": "wrong", "api_key": ADMIN_KEY}, {}, "Failed to authenticate key"),
    ],
)
async def test_who_is_not_known_gets_401(
    site: HttpServer, mirror: Mirror, query: dict[str, str], headers: dict[str, str], message: str
) -> None:
    body = json.dumps(_request("Contact.get"))
    reply = await site.post(f"/jsonrpc?{urlencode(query)}", data=body, headers={**headers, **JSON})
    assert reply.status == 401
    assert reply.json == {"jsonrpc": "2.0", "error": {"code": -32000, "message": message}, "id": None}
    assert mirror.calls == []


@pytest.mark.parametrize("query", [KEYS, {"_authx": f"Bearer {ADMIN_KEY}"}], ids=["key and api_key", "_authx"])
async def test_credentials_may_stand_in_the_query(site: HttpServer, mirror: Mirror, query: dict[str, str]) -> None:
    await site.post(f"/jsonrpc?{urlencode(query)}", data=json.dumps(_request("Contact.get")), headers=JSON)
    assert mirror.last.caller.name == "admin"


async def test_the_jsonrpcclient_library_works_unchanged(site: HttpServer, mirror: Mirror) -> None:
    reply = parse((await _rpc(site, request_json("Contact.get", {"id": 3}))).json)
    assert isinstance(reply, Ok)
    assert reply.result["values"]["id"] == 3
    mirror.say = {"is_error": 1, "error_message": "No", "error_code": "unauthorized"}
    reply = parse((await _rpc(site, request_json("Contact.get"))).json)
    assert isinstance(reply, Error)
    assert (reply.code, reply.message, reply.data) == (-32001, "No", mirror.say)
    assert (await _rpc(site, notification_json("Contact.get"))).status == 204


# ---- the specification's examples, section 7, with the methods they assume ----


async def _subtract(_session: Session, params: list[Any] | dict[str, Any]) -> Result:
    if isinstance(params, dict):
        params = [params["minuend"], params["subtrahend"]]
    return Success(params[0] - params[1])


async def _sum(_session: Session, params: list[Any] | dict[str, Any]) -> Result:
    return Success(sum(params))


async def _get_data(_session: Session, _params: list[Any] | dict[str, Any]) -> Result:
    return Success(["hello", 5])


async def _nothing(_session: Session, _params: list[Any] | dict[str, Any]) -> Result:
    return Success()


EXAMPLES = Methods(
    subtract=Method(_subtract),
    sum=Method(_sum),
    get_data=Method(_get_data),
    update=Method(_nothing),
    notify_hello=Method(_nothing),
    notify_sum=Method(_nothing),
)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
            '{"jsonrpc": "2.0", "result": 19, "id": 1}',
            id="Positional parameters",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
            '{"jsonrpc": "2.0", "result": -19, "id": 2}',
            id="Positional parameters, the other way round",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
            '{"jsonrpc": "2.0", "result": 19, "id": 3}',
            id="Named parameters",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
            '{"jsonrpc": "2.0", "result": 19, "id": 4}',
            id="Named parameters in another order",
        ),
        pytest.param('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None, id="A notification"),
        pytest.param('{"jsonrpc": "2.0", "method": "foobar"}', None, id="A notification nobody knows"),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
            '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}',
            id="A method that is not there",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
            '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
            id="Invalid JSON",
        ),
        pytest.param(
            '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
            '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}',
            id="An invalid request object",
        ),
        pytest.param(
            '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]',
            '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}',
            id="A batch of invalid JSON",
        ),
        pytest.param(
            "[]",
            '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}',
            id="An empty array",
        ),
        pytest.param(
            "[1]",
            '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]',
            id="An invalid batch that is not empty",
        ),
        pytest.param(
            "[1,2,3]",
            "["
            + ",".join(['{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'] * 3)
            + "]",
            id="An invalid batch",
        ),
        pytest.param(
            """[
            {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
            {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get.x", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
            ]""",
            """[
            {"jsonrpc": "2.0", "result": 7, "id": "1"},
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
            {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
            ]""",
            id="A batch (foo.get is a method here, foo.get.x is none)",
        ),
        pytest.param(
            """[
            {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
            {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
            ]""",
            None,
            id="A batch of notifications",
        ),
    ],
)
async def test_the_specification_s_printed_examples(store: Store, sent: str, received: str | None) -> None:
    session = Session(Mirror(), Auth(store, SITE_KEY, USERS), Caller(1, frozenset({"*"})), Credentials())
    reply = await answer_text(session, sent.encode(), EXAMPLES)
    assert reply == (None if received is None else json.loads(received))
