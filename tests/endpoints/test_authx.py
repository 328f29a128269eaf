"""Who calls, by every flow and with every failure of contract/apiv3.md section 2."""

import asyncio
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import aiohttp
import jwt
import pytest
from sqlalchemy import update

from civiapi.api.call import Caller
from civiapi.auth.authenticator import Auth, Credentials
from civiapi.http.messages import SESSION_COOKIE
from civiapi.store.civicrm import users as rows
from civiapi.store.civicrm.settings import write_setting
from civiapi.store.engine import Store
from civiapi.store.schema.tables import contact
from entities import catalogue
from tests.support.http_server import (
    ADMIN,
    ADMIN_KEY,
    AJAX,
    KEYS,
    LIMITED,
    LIMITED_KEY,
    SITE_KEY,
    USERS,
    HttpServer,
    Mirror,
    Reply,
    serving,
)

PATH = "/civicrm/ajax/rest"
ID = "/civicrm/authx/id"
CALL = {"entity": "Contact", "action": "get", "json": "1"}
GUARD = "Login not permitted. Must satisfy guard (site_key, perm)."


def _refused(reply: Reply, message: str) -> bool:
    return (reply.status, reply.content_type, reply.text) == (401, "text/plain", f"HTTP 401 {message}")


@pytest.mark.parametrize(
    ("how", "flow"),
    [
        ({"headers": ADMIN}, "xheader"),
        ({"headers": {"Authorization": f"Bearer {ADMIN_KEY}", **AJAX}}, "header"),
        ({"data": {"_authx": f"Bearer {ADMIN_KEY}"}}, "param"),
        ({"data": KEYS}, "legacyrest"),
        ({"headers": {**ADMIN, "Authorization": "Bearer wrong"}, "data": {"_authx": "Bearer wrong"}}, "xheader"),
        ({"headers": {**AJAX, "Authorization": f"Bearer {ADMIN_KEY}"}, "data": {"_authx": "Bearer wrong"}}, "header"),
        ({"headers": {"Authorization": "Basic cHJveHk6cHc="}, "data": KEYS}, "legacyrest"),
        ({"headers": {"Authorization": "Basic cHJveHk6cHc="}, "data": {"_authx": f"Bearer {ADMIN_KEY}"}}, "param"),
    ],
    ids=[
        "X-Civi-Auth",
        "Authorization",
        "_authx",
        "key and api_key",
        "X-Civi-Auth comes first",
        "Authorization comes before _authx",
        "A proxy's Basic header beside the keys is not for us",
        "Nor beside _authx",
    ],
)
async def test_each_flow_lets_an_api_key_in(site: HttpServer, mirror: Mirror, how: dict[str, Any], flow: str) -> None:
    how = {**how, "data": {**CALL, **how.get("data", {})}}
    assert (await site.post(PATH, **how)).status == 200
    assert (mirror.last.caller.name, mirror.last.caller.flow, mirror.last.caller.cred) == ("admin", flow, "api_key")


async def test_a_caller_has_the_permissions_of_the_settings(site: HttpServer, mirror: Mirror) -> None:
    await site.post(PATH, data={**CALL, **KEYS, "api_key": LIMITED_KEY})
    assert mirror.last.caller.permissions == LIMITED


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Civi-Auth": "Bearer wrong"},
        {"X-Civi-Auth": "Bearer "},
        {"X-Civi-Auth": "Basic YWRhOnB3"},
        {"X-Civi-Auth": "nonsense"},
        {"X-Civi-Auth": "Bearer eyJ.eyJ.x"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic YWRhOnB3"},
    ],
)
async def test_a_wrong_credential_is_401(site: HttpServer, mirror: Mirror, headers: dict[str, str]) -> None:
    assert _refused(await site.post(PATH, data=CALL, headers={**headers, **AJAX}), "Invalid credential")
    assert mirror.calls == []


async def test_bytes_that_are_no_text_are_a_wrong_credential(site: HttpServer) -> None:
    reply = await site.post(PATH, data=CALL, headers={"X-Civi-Auth": b"Bearer \xff\xfe".decode("latin-1")})
    assert _refused(reply, "Invalid credential")


async def test_no_credential_at_all_is_401(site: HttpServer) -> None:
    assert _refused(await site.post(PATH, data=CALL, headers=AJAX), "Authentication required")


# ---- guards ----


@pytest.mark.parametrize(
    ("headers", "fields"),
    [({}, {}), ({"X-Civi-Key": "wrong"}, {}), ({}, {"_authxSiteKey": "wrong"})],
    ids=["without a site key", "with a wrong one in the header", "with a wrong one in a field"],
)
async def test_a_key_alone_needs_the_permission(
    site: HttpServer, headers: dict[str, str], fields: dict[str, str]
) -> None:
    shown = {"X-Civi-Auth": f"Bearer {LIMITED_KEY}", **headers}
    assert _refused(await site.post(PATH, data={**CALL, **fields}, headers=shown), GUARD)


@pytest.mark.parametrize(
    ("headers", "fields"), [({"X-Civi-Key": SITE_KEY}, {}), ({}, {"_authxSiteKey": SITE_KEY})], ids=["header", "field"]
)
async def test_or_the_site_key(
    site: HttpServer, mirror: Mirror, headers: dict[str, str], fields: dict[str, str]
) -> None:
    shown = {"X-Civi-Auth": f"Bearer {LIMITED_KEY}", **headers}
    await site.post(PATH, data={**CALL, **fields}, headers=shown)
    assert mirror.last.caller.name == "limited"
    assert "_authxSiteKey" not in mirror.last.params


@pytest.mark.parametrize(
    ("name", "value", "headers", "message"),
    [
        ("authx_guards", [], {"X-Civi-Auth": f"Bearer {LIMITED_KEY}"}, None),
        ("authx_guards", ["perm"], {"X-Civi-Auth": f"Bearer {LIMITED_KEY}", "X-Civi-Key": SITE_KEY}, "guard (perm)."),
        ("authx_xheader_cred", ["jwt"], {"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}, '"api_key" with flow "xheader"'),
        ("authx_header_cred", [], {"Authorization": f"Bearer {ADMIN_KEY}", **AJAX}, "Authentication required"),
        ("authx_param_cred", ["jwt"], {"X-Civi-Auth": f"Bearer {ADMIN_KEY}"}, None),
    ],
    ids=[
        "no guard: a key alone will do",
        "only the permission guards: the site key will not do",
        "a flow that takes tokens alone",
        "a flow that takes nothing is not looked at",
        "other flows are left alone",
    ],
)
async def test_the_site_s_settings_say_who_may_come_in_how(
    store: Store, mirror: Mirror, name: str, value: list[str], headers: dict[str, str], message: str | None
) -> None:
    await store.write(write_setting, name, value)
    async with serving(store, mirror) as site:
        reply = await site.post(PATH, data=CALL, headers=headers)
    assert (reply.status == 200) == (message is None)
    assert message is None or message in reply.text


async def test_someone_with_neither_ajax_permission_gets_a_page_that_says_so(site: HttpServer, mirror: Mirror) -> None:
    reply = await site.post(PATH, data=CALL, headers={"X-Civi-Auth": "Bearer mute-key-of-tests"})
    assert (reply.status, reply.content_type) == (403, "text/html")
    assert mirror.calls == []


# ---- key and api_key on the AJAX path ----


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({**KEYS, "api_key": "wrong"}, "text/javascript", "FATAL: Invalid credential"),
        ({**KEYS, "key": "wrong"}, "text/javascript", f"FATAL: {GUARD}"),
        ({"api_key": ADMIN_KEY}, "text/javascript", f"FATAL: {GUARD}"),
        ({"key": SITE_KEY}, "application/json", "FATAL: mandatory param 'api_key' (user key) missing"),
    ],
)
async def test_who_comes_with_keys_is_refused_with_200(
    site: HttpServer, fields: dict[str, str], kind: str, message: str
) -> None:
    reply = await site.post(PATH, data={**CALL, **fields})
    assert (reply.status, reply.content_type) == (200, kind)
    assert reply.text == f'{{"error_message":"{message}","is_error":1}}'


# ---- tokens ----


async def _admin_id(site: HttpServer) -> int:
    return int((await site.get(ID, headers=ADMIN)).json["contact_id"])


async def test_a_token_needs_no_guard_and_has_its_contact_s_permissions(site: HttpServer, mirror: Mirror) -> None:
    limited = (await site.get(ID, headers={"X-Civi-Auth": f"Bearer {LIMITED_KEY}", "X-Civi-Key": SITE_KEY})).json
    token = await site.auth.issue_token(limited["contact_id"], 60)
    await site.post(PATH, data=CALL, headers={"X-Civi-Auth": f"Bearer {token}"})
    caller = mirror.last.caller
    assert (caller.name, caller.permissions, caller.cred) == ("limited", LIMITED, "jwt")


@pytest.mark.parametrize(
    ("seconds", "contact_id", "message"),
    [(-60, 1, "Expired token"), (60, 999_999, "Contact ID 999999 is invalid"), (60, 9_999_999_999, None)],
)
async def test_a_token_that_does_not_hold(
    site: HttpServer, seconds: float, contact_id: int, message: str | None
) -> None:
    token = await site.auth.issue_token(contact_id, seconds)
    reply = await site.post(PATH, data=CALL, headers={"X-Civi-Auth": f"Bearer {token}"})
    assert _refused(reply, message or f"Contact ID {contact_id} is invalid")


# ---- sessions ----


async def _log_in(site: HttpServer) -> Reply:
    token = await site.auth.issue_token(await _admin_id(site), 60)
    return await site.post("/civicrm/authx/login", data={"_authx": f"Bearer {token}"})


async def test_who_is_asked_tells_how_the_caller_came_in(site: HttpServer) -> None:
    nobody = {"contact_id": None, "user_id": None, "flow": None, "cred": None}
    assert (await site.get(ID)).json == nobody
    admin = (await site.get(ID, headers=ADMIN)).json
    assert (admin["flow"], admin["cred"]) == ("xheader", "api_key")
    assert isinstance(admin["contact_id"], int)
    assert isinstance(admin["user_id"], str)


async def test_a_login_opens_a_session_and_a_logout_ends_it(site: HttpServer, mirror: Mirror) -> None:
    reply = await _log_in(site)
    assert reply.json["flow"] == "login"
    cookie = reply.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    await site.post(PATH, data=CALL, headers=AJAX)
    assert mirror.last.caller.name == "admin"
    assert (await site.post("/civicrm/authx/logout")).text == "[]"
    assert _refused(await site.post(PATH, data=CALL, headers=AJAX), "Authentication required")


SIGNING = {"signing_secret": "a signing secret of thirty-two characters"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
async def test_only_a_post_logs_in_or_out(site: HttpServer, method: str) -> None:
    await _log_in(site)
    token = await site.auth.issue_token(await _admin_id(site), 60)
    for path in ("login", "logout"):
        reply = await site.send(method, f"/civicrm/authx/{path}?_authx=Bearer+{token}", headers=AJAX)
        assert (reply.status, reply.headers["Allow"], "Set-Cookie" in reply.headers) == (405, "POST", False)
    assert (await site.get(ID)).json["flow"] == "session"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Referer": "https://evil.example/page"},
        {"Origin": "http://[broken"},
    ],
)
async def test_another_site_logs_nobody_out(site: HttpServer, headers: dict[str, str]) -> None:
    await _log_in(site)
    assert (await site.post("/civicrm/authx/logout", headers=headers)).status == 403
    assert (await site.get(ID)).json["flow"] == "session"


@pytest.mark.parametrize("headers", [{}, AJAX, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "{base}"}])
async def test_our_own_pages_and_programs_do(site: HttpServer, headers: dict[str, str]) -> None:
    await _log_in(site)
    own = {name: value.format(base=site.base) for name, value in headers.items()}
    assert (await site.post("/civicrm/authx/logout", headers=own)).text == "[]"


async def _session_of(site: HttpServer) -> dict[str, str]:
    cookie = (await _log_in(site)).headers["Set-Cookie"].split(";")[0]
    return {"Cookie": cookie}


async def _flow(site: HttpServer, headers: dict[str, str]) -> str | None:
    """How the one who shows these headers, and no cookie besides, is let in."""
    async with aiohttp.ClientSession() as other, other.get(site.base + ID, headers=headers) as answer:
        flow: str | None = (await answer.json())["flow"]
        return flow


async def test_a_logout_ends_the_sessions_of_that_contact_everywhere_and_no_other_s(
    store: Store, mirror: Mirror
) -> None:
    async with serving(store, mirror) as one, serving(store, mirror) as two:
        first, second = await _session_of(one), await _session_of(two)
        token = await one.auth.issue_token((await one.get(ID, headers=first)).json["contact_id"], 60)
        limited = Caller(await store.write(rows.contact_of_user, "limited", store.clock.now()), LIMITED)
        other = {"Cookie": f"{SESSION_COOKIE}={await one.auth.open_session(limited)}"}
        assert [await _flow(two, each) for each in (first, second, other)] == ["session"] * 3
        await one.post("/civicrm/authx/logout", headers=first)
        assert [await _flow(two, each) for each in (first, second, other)] == [None, None, "session"]
        assert await _flow(two, {"X-Civi-Auth": f"Bearer {token}"}) == "xheader", "a token is no session"
        assert await _flow(one, await _session_of(two)) == "session", "logging in again opens another"


async def test_another_key_of_the_user_or_of_the_contact_ends_a_session(store: Store, mirror: Mirror) -> None:
    async with serving(store, mirror) as site:
        session, contact_id = await _session_of(site), await _admin_id(site)
        assert await _flow(site, session) == "session"
        changed = tuple(replace(user, api_key=f"new {user.api_key}") for user in USERS)
        async with serving(store, mirror, users=changed) as later:
            assert await _flow(later, session) is None
        async with serving(store, mirror, users=USERS[1:]) as later:
            assert await _flow(later, session) is None
        await store.write(
            lambda conn: conn.execute(update(contact).where(contact.c.id == contact_id).values(api_key="x")) and None
        )
        assert await _flow(site, session) is None


async def test_another_signing_secret_ends_sessions_and_tokens(store: Store, mirror: Mirror) -> None:
    async with serving(store, mirror) as site:
        session = await _session_of(site)
        token = {"X-Civi-Auth": f"Bearer {await site.auth.issue_token(await _admin_id(site), 60)}"}
    async with serving(store, mirror, **SIGNING) as other:
        assert await _flow(other, session) is None
        assert (await other.get(ID, headers=token)).text == "HTTP 401 Invalid credential"
    async with serving(store, mirror) as same:
        assert (await _flow(same, session), await _flow(same, token)) == ("session", "xheader")
        await same.auth.rotate_signing_key()
        assert await _flow(same, session) is None
        assert (await same.get(ID, headers=token)).status == 401


async def test_processes_that_start_together_sign_with_the_same_key(store: Store) -> None:
    many = [Auth(store, SITE_KEY, USERS) for _ in range(5)]
    caller = await many[0].by_key(Credentials(key=SITE_KEY, api_key=ADMIN_KEY))
    assert caller.contact_id is not None
    tokens = await asyncio.gather(*(auth.issue_token(caller.contact_id, 60) for auth in many))
    for auth in many:
        for token in tokens:
            assert await auth.by_authx(Credentials(x_civi_auth=f"Bearer {token}")) is not None


async def test_who_knows_every_key_that_callers_send_forges_nothing(site: HttpServer, mirror: Mirror) -> None:
    """The signing key cannot be had from the site key or from API keys, as they are or by any digest of them."""
    contact_id = await _admin_id(site)
    claims = {"sub": f"cid:{contact_id}", "scope": "authx", "exp": 4_000_000_000}
    old = hmac.new(SITE_KEY.encode(), b"civiapi tokens, version 1", hashlib.sha256).digest()
    empty = hmac.new(b"", b"civiapi tokens, version 2\0", hashlib.sha256).digest()
    known = [SITE_KEY.encode(), ADMIN_KEY.encode(), hashlib.sha256(SITE_KEY.encode()).digest(), old, empty]
    for key in known:
        for scope, header, value in (
            ("authx", "X-Civi-Auth", "Bearer {}"),
            ("civiapi-session", "Cookie", SESSION_COOKIE + "={}"),
        ):
            forged = jwt.encode({**claims, "scope": scope}, key, "HS256")
            reply = await site.post(PATH, data=CALL, headers={**AJAX, header: value.format(forged)})
            assert reply.status == 401
    assert mirror.calls == []


async def test_no_call_reads_what_signs(store: Store) -> None:
    tables = {entity.table.name for entity in catalogue().entities() if entity.table is not None}
    assert not tables & {"civiapi_signing", "civiapi_session_epoch"}


async def test_every_login_makes_a_new_cookie(site: HttpServer) -> None:
    first, second = await _log_in(site), await _log_in(site)
    assert first.headers["Set-Cookie"] != second.headers["Set-Cookie"]


async def test_a_planted_cookie_is_no_session(site: HttpServer) -> None:
    assert (await site.get(ID, cookies={"civiapi_session": "eyJ.planted.x"})).json["contact_id"] is None


async def test_a_session_needs_the_header_that_another_site_cannot_send(site: HttpServer, mirror: Mirror) -> None:
    await _log_in(site)
    reply = await site.post(PATH, data=CALL)
    assert (reply.status, reply.json["reason"]) == (200, "CSRF suspected")
    assert mirror.calls == []
    assert (await site.send("OPTIONS", PATH, data=CALL)).json["is_error"] == 0


async def test_so_does_the_authorization_header(site: HttpServer) -> None:
    reply = await site.post(PATH, data=CALL, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert reply.json["error_message"].startswith("SECURITY ALERT: Ajax requests can only be issued by javascript")


async def test_someone_else_s_credential_beside_a_session_is_refused(site: HttpServer) -> None:
    await _log_in(site)
    reply = await site.post(PATH, data=CALL, headers={"X-Civi-Auth": f"Bearer {LIMITED_KEY}", "X-Civi-Key": SITE_KEY})
    assert _refused(reply, "Cannot login. A mismatched session is already active.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"_authx": f"Bearer {ADMIN_KEY}"},
            'Authentication type "api_key" with flow "login" is not allowed for this principal.',
        ),
        ({"_authx": "Bearer wrong"}, "Invalid credential"),
        ({}, "Cannot login. Failed to determine contact ID."),
    ],
)
async def test_a_login_that_is_refused_opens_nothing(site: HttpServer, fields: dict[str, str], message: str) -> None:
    reply = await site.post("/civicrm/authx/login", data=fields)
    assert _refused(reply, message)
    assert "Set-Cookie" not in reply.headers


async def test_auto_opens_a_session_and_takes_the_credential_out_of_the_address(
    site: HttpServer, mirror: Mirror
) -> None:
    token = await site.auth.issue_token(await _admin_id(site), 60)
    reply = await site.get(f"{ID}?x[y]=1&_authx=Bearer+{token}&_authxSes=1")
    assert (reply.status, reply.headers["Location"]) == (302, f"{ID}?x%5By%5D=1")
    assert (await site.get(ID)).json["flow"] == "session"


async def test_the_redirect_never_leaves_this_site(site: HttpServer) -> None:
    token = await site.auth.issue_token(await _admin_id(site), 60)
    reply = await site.get(f"//elsewhere.example{ID}?_authx=Bearer+{token}&_authxSes=1")
    assert reply.headers["Location"].startswith("/elsewhere.example/")
