"""Existing CiviCRM clients against the whole server: the real ones unmodified, the rest as what they put on the wire.

(contract/apiv3.md section 11.) Blocking libraries run in a thread beside the server.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import civicrmapi
import pytest
from civicrmapi.errors import AccessDenied, ApiError
from civipy.base.config import SETTINGS
from civipy.exceptions import CiviAPIError
from civipy.interface.v3 import V3Interface
from jsonrpcclient import Ok, parse, request_json

from civiapi.api.dispatch import Api
from civiapi.store.engine import Store
from entities import catalogue
from tests.support.http_server import ADMIN, ADMIN_KEY, AJAX, KEYS, LIMITED_KEY, SITE_KEY, HttpServer, serving

REST = "/sites/all/modules/civicrm/extern/rest.php"
PATH = "/civicrm/ajax/rest"


@pytest.fixture
async def site(store: Store) -> AsyncIterator[HttpServer]:
    async with serving(store, Api(store, catalogue())) as running:
        yield running


async def _make_ada(site: HttpServer) -> str:
    params = {"contact_type": "Individual", "first_name": "Ada", "last_name": "Lovelace", "email": "Ada@Example.org"}
    reply = await site.post(PATH, data={**KEYS, "entity": "Contact", "action": "create", "json": json.dumps(params)})
    return str(reply.json["id"])


# ---- civicrmapi ----


def _civicrmapi(site: HttpServer, **how: Any) -> civicrmapi.http.HttpApiV3:
    return civicrmapi.http.HttpApiV3(site.base, how.pop("api_key", ADMIN_KEY), how.pop("site_key", SITE_KEY), **how)


async def test_civicrmapi_creates_reads_and_deletes(site: HttpServer) -> None:
    api = _civicrmapi(site)

    def talk() -> None:
        made = api.Contact.create({"contact_type": "Individual", "email": "ada@example.org"})
        contact_id = made[0]["id"]
        found = api.Contact.get({"id": contact_id, "return": ["email", "display_name"]})
        assert found[0]["email"] == "ada@example.org"
        assert api("Email", "get", {"contact_id": contact_id})[0]["is_primary"] == "1"
        api.Contact.delete({"id": contact_id, "skip_undelete": 1})
        assert api.Contact.get({"id": contact_id}) == []

    await asyncio.to_thread(talk)


async def test_civicrmapi_works_behind_a_proxy_with_a_password_of_its_own(site: HttpServer) -> None:
    api = _civicrmapi(site, htaccess={"user": "proxy", "pass": "secret"})
    assert isinstance(await asyncio.to_thread(api.Contact.get, {}), list)


async def test_civicrmapi_sends_a_whole_configuration_in_the_address(site: HttpServer) -> None:
    config = json.dumps({"accounts": {}, "lists": {}, "note": "x" * 20_000})
    api = _civicrmapi(site)
    await asyncio.to_thread(api, "Setting", "create", {"mailchimpsync_config": config})
    reply = await site.get(f"{REST}?{urlencode(KEYS)}&entity=Setting&action=getvalue&json=1&name=mailchimpsync_config")
    assert reply.json["result"] == config


async def test_civicrmapi_tells_a_refused_login_from_a_failed_call(site: HttpServer) -> None:
    with pytest.raises(AccessDenied):
        await asyncio.to_thread(_civicrmapi(site, api_key="wrong").Contact.get, {})
    with pytest.raises(ApiError):
        await asyncio.to_thread(_civicrmapi(site, site_key="wrong").Contact.get, {})
    with pytest.raises(ApiError, match="Mandatory key"):
        await asyncio.to_thread(_civicrmapi(site).Contact.create, {"contact_type": "Individual"})
    with pytest.raises(ApiError, match="insufficient permission"):
        await asyncio.to_thread(_civicrmapi(site, api_key=LIMITED_KEY).Contact.create, {"contact_type": "Individual"})


async def test_civicrmapi_for_version_4_is_refused_cleanly(site: HttpServer) -> None:
    api = civicrmapi.http.HttpApiV4(site.base, ADMIN_KEY)
    with pytest.raises(ApiError):
        await asyncio.to_thread(api.Contact.get, {})


# ---- civipy ----


@pytest.fixture
def civi(site: HttpServer) -> Iterator[V3Interface]:
    """civipy's version 3 interface; its settings are of the whole process and are put back."""
    before = {name: (value.not_set, value._value) for name, value in SETTINGS.values.items()}
    SETTINGS.init(rest_base=site.base + REST, user_key=ADMIN_KEY, site_key=SITE_KEY, api_version="3")
    yield V3Interface()
    for name, (not_set, value) in before.items():
        SETTINGS.values[name].not_set, SETTINGS.values[name]._value = not_set, value
    SETTINGS._api_type = None


async def _civipy(civi: V3Interface, action: str, entity: str, params: dict[str, Any]) -> Any:
    return await asyncio.to_thread(civi.execute, action, entity, params)


async def test_civipy_creates_by_multipart_and_reads_by_query(civi: V3Interface) -> None:
    made = await _civipy(
        civi, "create", "Contact", {"contact_type": "Individual", "first_name": "Ada", "is_opt_out": False}
    )
    contact_id = made["id"]
    found = await _civipy(civi, "get", "Contact", {"id": contact_id, "return": ["first_name", "id"]})
    assert found["values"][0]["first_name"] == "Ada"
    changed = await _civipy(civi, "update", "Contact", {"id": contact_id, "nick_name": "Countess"})
    assert changed["values"][0]["nick_name"] == "Countess"


async def test_civipy_sends_options_as_text(civi: V3Interface) -> None:
    for name in ("Ada", "Bea"):
        await _civipy(civi, "create", "Contact", {"contact_type": "Individual", "first_name": name})
    query = {"options": {"limit": 1, "sort": ["first_name DESC"]}, "contact_type": "Individual", "source": "none"}
    query.pop("source")
    found = await _civipy(civi, "get", "Contact", query)
    assert len(found["values"]) == 1


async def test_civipy_hears_of_errors(civi: V3Interface) -> None:
    with pytest.raises(CiviAPIError):
        await _civipy(civi, "getsingle", "Contact", {"id": 999_999})


# ---- jsonrpcclient ----


async def test_jsonrpcclient_calls_any_entity(site: HttpServer) -> None:
    contact_id = await _make_ada(site)

    async def rpc(method: str, params: Any) -> Any:
        headers = {**ADMIN, "Content-Type": "application/json"}
        reply = parse((await site.post("/civicrm/jsonrpc", data=request_json(method, params), headers=headers)).json)
        return reply.result if isinstance(reply, Ok) else reply

    assert await rpc("Contact.getcount", {"id": contact_id}) == 1
    assert (
        await rpc("api3", ["Email", "getvalue", {"contact_id": contact_id, "return": "email"}])
    ) == "ada@example.org"
    missing = await rpc("Contact.create", {"contact_type": "Individual"})
    assert (missing.code, missing.data["error_code"]) == (-32602, "mandatory_missing")
    assert (await rpc("Nothing.get", {})).code == -32601
    denied = await site.post(
        f"/jsonrpc?{urlencode({'key': SITE_KEY, 'api_key': LIMITED_KEY})}",
        data=request_json("Contact.create", {"contact_type": "Individual"}),
        headers={"Content-Type": "application/json"},
    )
    assert denied.json["error"]["code"] == -32001


# ---- the PHP client (civicrm_api3) ----


def _php(entity: str, action: str, params: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The address and the form that class.api.php sends: the method's name as it was written, version, sequential."""
    return f"{REST}?entity={entity}&action={action}", {
        "key": SITE_KEY,
        "api_key": ADMIN_KEY,
        "json": json.dumps({"version": 3, "sequential": 1, **params}),
    }


async def test_the_php_client(site: HttpServer) -> None:
    contact_id = await _make_ada(site)
    path, form = _php("Contact", "Get", {"id": int(contact_id)})
    reply = await site.post(path, data=form)
    assert reply.json["values"][0]["display_name"] == "Ada Lovelace"
    path, form = _php("Contact", "GetCount", {})
    assert (await site.post(path, data=form)).json["result"] >= 1
    path, form = _php("Contact", "getsingle", {"id": 999_999})
    assert (await site.post(path, data=form)).json["is_error"] == 1


async def test_the_php_client_without_curl_sends_all_by_get(site: HttpServer) -> None:
    path, form = _php("Contact", "Get", {})
    assert (await site.get(f"{path}&{urlencode(form)}")).json["is_error"] == 0


# ---- the Ruby gem ----


async def test_the_ruby_gem(site: HttpServer) -> None:
    contact_id = await _make_ada(site)
    keys = f"&{urlencode({'api_key': ADMIN_KEY, 'key': SITE_KEY})}"
    path = f"/civicrm/extern/rest.php?{keys}"
    inside = quote(json.dumps({"id": {"in": f"{contact_id},60047"}, "api.email.get": {}}))
    found = (await site.get(f"{path}&entity=Contact&action=get&rowCount=100&json={inside}&sequential=1")).json
    assert [row["id"] for row in found["values"]] == [contact_id]
    assert found["values"][0]["api.email.get"]["values"][0]["email"] == "ada@example.org"
    form = {"entity": "Contact", "action": "create", "json": "{}", "id": contact_id, "nick_name": "Countess"}
    assert (await site.post(path, data=form)).json["values"][contact_id]["nick_name"] == "Countess"


# ---- CRM.api3 in a browser ----


@pytest.fixture
async def browser(site: HttpServer) -> Callable[..., Any]:
    """CRM.api3 of a page whose user has logged in."""
    contact_id = int((await site.get("/civicrm/authx/id", headers=ADMIN)).json["contact_id"])
    token = await site.auth.issue_token(contact_id, 60)
    await site.post("/civicrm/authx/login", data={"_authx": f"Bearer {token}"})

    async def api3(entity: Any, action: str = "call", params: Any = None) -> Any:
        if not isinstance(entity, str):
            entity, params = "api3", entity
        fields = {"entity": entity, "action": action.lower(), "json": json.dumps(params or {})}
        if action.lower().startswith("get"):
            return (await site.get(f"{PATH}?{urlencode(fields)}", headers=AJAX)).json
        return (await site.post(PATH, data=fields, headers=AJAX)).json

    return api3


async def test_crm_api3_finds_values_by_their_id(browser: Callable[..., Any]) -> None:
    made = await browser("Group", "create", {"title": "Newsletter", "group_type": "Mailing List"})
    groups = await browser("Group", "get", {"options": {"limit": 0}})
    assert groups["values"][str(made["id"])]["title"] == "Newsletter"
    assert (await browser("Group", "getCount"))["result"] == 1


async def test_crm_api3_asks_several_things_at_once(browser: Callable[..., Any]) -> None:
    answers = await browser({"groups": ["Group", "get", {}], "people": ["Contact", "getcount", {}], "x": ["No", "get"]})
    assert answers["groups"]["is_error"] == 0
    assert isinstance(answers["people"], int)
    assert answers["x"]["error_code"] == "not-found"


# ---- the TypeScript client ----


@pytest.mark.parametrize("credential", [f"Bearer {ADMIN_KEY}", "token"])
async def test_the_typescript_client(site: HttpServer, credential: str) -> None:
    contact_id = await _make_ada(site)
    if credential == "token":
        admin = (await site.get("/civicrm/authx/id", headers=ADMIN)).json["contact_id"]
        credential = f"Bearer {await site.auth.issue_token(admin, 60)}"
    inside = json.dumps({"id": contact_id, "options": {"limit": 5}, "return": "display_name"})
    headers = {"X-Civi-Auth": credential, "Content-Type": "application/x-www-form-urlencoded"}
    query = urlencode({"entity": "Contact", "action": "get", "json": inside})
    reply = await site.post(f"{PATH}?{query}", headers=headers)
    assert reply.status == 200
    assert reply.json["values"][contact_id]["display_name"] == "Ada Lovelace"


async def test_the_typescript_client_reads_a_refusal_as_text(site: HttpServer) -> None:
    reply = await site.post(f"{PATH}?entity=Contact&action=get&json=1", headers={"X-Civi-Auth": "Basic YTpi"})
    assert (reply.status, reply.text) == (401, "HTTP 401 Invalid credential")


# ---- curl ----


async def test_curl_without_json_gets_xml(site: HttpServer) -> None:
    await _make_ada(site)
    query = urlencode({**KEYS, "entity": "Contact", "action": "get", "return": "display_name", "last_name": "Lovelace"})
    reply = await site.get(f"/extern/rest.php?{query}")
    assert reply.content_type == "text/xml"
    assert "<display_name>Ada Lovelace</display_name>" in reply.text


async def test_curl_writes_with_brackets_dots_and_the_query(site: HttpServer) -> None:
    contact_id = await _make_ada(site)
    query = urlencode({**KEYS, "entity": "Contact", "action": "get", "json": "1", "sequential": "1"})
    form = f"id%5BIN%5D%5B%5D={contact_id}&option.limit=1&return=id&api.Email.getcount=1"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    row = (await site.post(f"/extern/rest.php?{query}", data=form, headers=kind)).json["values"][0]
    assert row["api.Email.getcount"] == 1
    joined = urlencode({**KEYS, "entity": "Email", "action": "get", "json": "1", "contact_id.first_name": "Ada"})
    assert (await site.get(f"/extern/rest.php?{joined}")).json["count"] == 1
