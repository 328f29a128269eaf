"""CiviCRM's endpoint for WordPress: its errors, where it reads parameters, what it answers."""

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.http_server import KEYS, HttpServer, Mirror

pytestmark = pytest.mark.sqlite_only("the API answers with the call; test_authx finds its users on both databases")


WP = "/wp-json/civicrm/v3/rest"


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"entity": "A", "action": "b"}, 401, "civicrm_rest_api_error", "Param api_key is not valid."),
        ({"entity": "A", "action": "b", "api_key": "x"}, 401, "civicrm_rest_api_error", "Param key is not valid."),
        ({**KEYS, "key": "no", "entity": "A", "action": "b"}, 400, "rest_invalid_param", "Invalid parameter(s): key"),
        (
            {**KEYS, "api_key": "no", "entity": "A", "action": "b"},
            400,
            "rest_invalid_param",
            "Invalid parameter(s): api_key",
        ),
        ({**KEYS, "entity": "A", "action": "b", "json": "{x"}, 400, "rest_invalid_param", "Invalid parameter(s): json"),
        (KEYS, 400, "rest_missing_callback_param", "Missing parameter(s): entity, action"),
    ],
)
async def test_wordpress_words_its_errors_itself(
    site: HttpServer, fields: dict[str, str], status: int, code: str, message: str
) -> None:
    reply = await site.post(WP, data=fields)
    assert (reply.status, reply.json["code"], reply.json["message"]) == (status, code, message)
    assert reply.json["data"]["status"] == status


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"json": "1", "id": "5"}, {"json": "1", "id": "5"}),
        ({"id": "5"}, {"id": "5"}),
        ({"json": '{"id":6}', "id": "5"}, {"id": 6}),
    ],
    ids=["A numeric json stays a parameter", "Without json: the fields", "An object is all there is"],
)
async def test_wordpress_reads_parameters_from_one_place(
    site: HttpServer, mirror: Mirror, fields: dict[str, str], params: dict[str, Any]
) -> None:
    await site.post(WP, data={**KEYS, "entity": "Contact", "action": "get", **fields})
    assert mirror.last.params == {**params, "version": 3, "check_permissions": True}


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (12, "12"),
        (0, "[]"),
        ("", "[]"),
        ({"is_error": 0, "values": {"5": {"id": "5"}}}, '{"is_error":0,"values":[{"id":"5"}]}'),
    ],
)
async def test_wordpress_sends_bare_scalars_and_lists(site: HttpServer, mirror: Mirror, value: Any, sent: str) -> None:
    mirror.say = value
    reply = await site.get(f"{WP}?{urlencode(KEYS)}&entity=A&action=getcount&json=1")
    assert reply.text == sent
