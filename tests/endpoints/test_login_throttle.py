"""Every way to show a credential over HTTP, and in each the same limit on those who guess."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from civiapi.auth.authenticator import Auth
from civiapi.auth.login_throttle import FREE, MAX_WAITING_EACH, Throttle
from civiapi.endpoints.mailchimp_webhooks import webhook_endpoints
from civiapi.endpoints.pipe import PipeSession
from civiapi.endpoints.routes import api_endpoints
from civiapi.store.engine import Store
from sync.connections.config import write_config
from tests.endpoints.test_mailchimp_webhooks import AUDIENCE, BATCH, CONFIG, Inbox
from tests.support.http_server import ADMIN_KEY, AJAX, LIMITED_KEY, SITE_KEY, HttpServer, Mirror, Reply, serving

CALL = {"entity": "Contact", "action": "get", "json": "1"}
REST, RPC, WP, ID = "/extern/rest.php", "/civicrm/jsonrpc", "/wp-json/civicrm/v3/rest", "/civicrm/authx/id"
PAGES = ("/civicrm/ajax/rest", "/civicrm/api/json", ID)
SECRET = "the-secret-of-the-account"
Way = Callable[[HttpServer, str], Awaitable[Reply]]
"""Sends a request that shows what is given as a key, a token or a secret."""


def _form(path: str, **fields: str) -> Way:
    async def send(site: HttpServer, shown: str) -> Reply:
        filled = {name: value.replace("?", shown) for name, value in fields.items()}
        return await site.post(path, data={**CALL, **filled}, headers=AJAX)

    return send


def _header(path: str, name: str, value: str = "Bearer ?", **fields: str) -> Way:
    async def send(site: HttpServer, shown: str) -> Reply:
        return await site.post(path, data={**CALL, **fields}, headers={**AJAX, name: value.replace("?", shown)})

    return send


def _query(path: str, **fields: str) -> Way:
    async def send(site: HttpServer, shown: str) -> Reply:
        filled = {name: value.replace("?", shown) for name, value in fields.items()}
        return await site.get(f"{path}?{urlencode({**CALL, **filled})}", headers=AJAX)

    return send


def _rpc(headers: dict[str, str], query: str, **params: str) -> Way:
    async def send(site: HttpServer, shown: str) -> Reply:
        method = "login" if params else "echo"
        filled = {name: value.replace("?", shown) for name, value in params.items()}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": filled})
        shown_in = {name: value.replace("?", shown) for name, value in headers.items()}
        path = f"{RPC}?{query.replace('SHOWN', shown)}"
        return await site.post(path, data=body, headers={"Content-Type": "application/json", **shown_in})

    return send


async def _webhook(site: HttpServer, shown: str, path: str = AUDIENCE) -> Reply:
    return await site.post(f"{path}?secret={shown}", data={"type": "campaign"})


async def _batch_webhook(site: HttpServer, shown: str) -> Reply:
    return await _webhook(site, shown, BATCH)


GUARDED = {"X-Civi-Auth": f"Bearer {LIMITED_KEY}"}  # it needs the site key besides


WAYS: dict[str, Way] = {
    "the site key of REST": _form(REST, key="?", api_key=ADMIN_KEY),
    "the API key of REST": _form(REST, key=SITE_KEY, api_key="?"),
    "the API key of REST in the address": _query(REST, key=SITE_KEY, api_key="?"),
    "a header of REST": _header(REST, "X-Civi-Auth"),
    "the site key of WordPress": _form(WP, key="?", api_key=ADMIN_KEY),
    "the API key of WordPress": _form(WP, key=SITE_KEY, api_key="?"),
    "a header of WordPress": _header(WP, "X-Civi-Auth"),
    "the site key of JSON-RPC": _rpc({}, f"key=SHOWN&api_key={ADMIN_KEY}"),
    "the API key of JSON-RPC": _rpc({}, f"key={SITE_KEY}&api_key=SHOWN"),
    "a header of JSON-RPC": _rpc({"X-Civi-Auth": "Bearer ?"}, ""),
    "the method login of JSON-RPC": _rpc({}, f"key={SITE_KEY}&api_key={ADMIN_KEY}", cred="Bearer ?"),
    "_authx of a log-in": _form("/civicrm/authx/login", _authx="Bearer ?"),
    "the secret of a webhook": _webhook,
    "the secret of a batch webhook": _batch_webhook,
    **{f"X-Civi-Auth at {path}": _header(path, "X-Civi-Auth") for path in PAGES},
    **{f"Authorization at {path}": _header(path, "Authorization") for path in PAGES},
    **{f"a password at {path}": _header(path, "X-Civi-Auth", "Basic ?") for path in PAGES},
    **{f"_authx at {path}": _form(path, _authx="Bearer ?") for path in PAGES},
    **{f"_authx in the address of {path}": _query(path, _authx="Bearer ?") for path in PAGES},
    **{f"_authx for a session at {path}": _form(path, _authx="Bearer ?", _authxSes="1") for path in PAGES},
    **{f"a token at {path}": _header(path, "X-Civi-Auth", "Bearer eyJ.?.x") for path in PAGES},
    **{f"key at {path}": _form(path, key="?", api_key=ADMIN_KEY) for path in PAGES},
    **{f"api_key at {path}": _form(path, key=SITE_KEY, api_key="?") for path in PAGES},
    **{f"X-Civi-Key at {path}": _header(path, "X-Civi-Key", "?", _authx=f"Bearer {LIMITED_KEY}") for path in PAGES},
    **{f"_authxSiteKey at {path}": _form(path, _authx=f"Bearer {LIMITED_KEY}", _authxSiteKey="?") for path in PAGES},
}
ANSWERED_AT_ONCE = {"civicrm/authx/logout"}  # it takes no credential but a session


class Waits:
    """What the throttle sleeps, without time; ``hold`` lets nobody through."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.open = asyncio.Event()
        self.open.set()

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await self.open.wait()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def site(store: Store, waits: Waits) -> AsyncIterator[HttpServer]:
    await store.write(write_config, CONFIG)
    throttle = Throttle(waits.sleep, lambda: 0.0)
    more = webhook_endpoints(store, Inbox(), throttle)
    async with serving(store, Mirror(), more=more, throttle=throttle, trusted_proxies=("127.0.0.1",)) as running:
        yield running


async def _right(site: HttpServer) -> list[Reply]:
    """A right credential of each kind that can be guessed."""
    return [
        await WAYS["the API key of REST"](site, ADMIN_KEY),
        await WAYS[f"X-Civi-Auth at {ID}"](site, "mute-key-of-tests"),
        await _webhook(site, SECRET),
    ]


class From(HttpServer):
    """The same server, called from another address."""

    def __init__(self, site: HttpServer, address: str) -> None:
        super().__init__(site.base, site.auth, site._session)
        self._address = address

    async def send(self, method: str, path: str, **how: Any) -> Reply:
        headers = {**how.pop("headers", {}), "X-Forwarded-For": self._address}
        return await super().send(method, path, headers=headers, **how)


def _each_way_from_an_address_of_its_own(site: HttpServer) -> list[tuple[str, Way, HttpServer]]:
    return [(name, way, From(site, f"198.51.100.{number}")) for number, (name, way) in enumerate(WAYS.items())]


async def test_a_few_wrong_guesses_make_all_further_ones_wait_the_right_ones_too(
    site: HttpServer, waits: Waits
) -> None:
    for name, way, place in _each_way_from_an_address_of_its_own(site):
        waits.seconds.clear()
        for number in range(FREE):
            assert (await way(place, f"wrong{number}")).status in (200, 400, 401), name
        assert waits.seconds == [], name
        await way(place, "wrong again")
        shown = len(waits.seconds)
        assert shown in (1, 2), name  # two where the request shows a right one besides
        rest, header, hook = await _right(place)
        assert len(waits.seconds) == shown + 3, name
        assert (rest.json["is_error"], header.json["flow"], hook.status) == (0, "xheader", 204), name


async def test_more_than_a_few_at_once_are_turned_away_with_429(site: HttpServer, waits: Waits) -> None:
    for name, way, place in _each_way_from_an_address_of_its_own(site):
        waits.open.set()
        for number in range(FREE):
            await way(place, f"wrong{number}")
        waits.open.clear()
        waiting = [asyncio.create_task(_webhook(place, "wrong")) for _ in range(MAX_WAITING_EACH)]
        async with asyncio.timeout(10):
            while site.auth.throttle._waiting < MAX_WAITING_EACH:  # noqa: ASYNC110  the server is not ours to signal
                await asyncio.sleep(0.002)
        assert (await way(place, "wrong")).status == 429, name
        right = await WAYS["the API key of REST"](place, ADMIN_KEY)
        waits.open.set()
        await asyncio.gather(*waiting)
        assert (right.status, int(right.headers["Retry-After"]) > 0) == (429, True), name
        assert (right.json["is_error"], "try again" in right.json["error_message"]) == (1, True), name


async def test_a_429_has_the_form_of_its_endpoint(site: HttpServer, waits: Waits) -> None:
    for _ in range(FREE):
        await _webhook(site, "wrong")
    large = "x" * 20_000  # what is held meanwhile is too much to wait
    sent = {**CALL, "note": large}
    rest = await site.post(REST, data={**sent, "key": SITE_KEY, "api_key": ADMIN_KEY})
    legacy = await site.post(PAGES[0], data={**sent, "key": SITE_KEY, "api_key": ADMIN_KEY})
    header = await site.post(PAGES[0], data=sent, headers={"X-Civi-Auth": f"Bearer {ADMIN_KEY}"})
    press = await site.post(WP, data={**sent, "key": SITE_KEY, "api_key": ADMIN_KEY})
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "echo", "params": [large]})
    rpc = await site.post(
        f"{RPC}?key={SITE_KEY}&api_key={ADMIN_KEY}", data=body, headers={"Content-Type": "application/json"}
    )
    hook = await site.post(f"{AUDIENCE}?secret={SECRET}", data={"type": "campaign", "x": large})
    replies = (rest, legacy, header, press, rpc, hook)
    assert [reply.status for reply in replies] == [429] * 6
    assert all(int(reply.headers["Retry-After"]) > 0 for reply in replies)
    assert rest.json["is_error"] == 1
    assert legacy.json["error_message"].startswith("FATAL: Too many")
    assert header.text.startswith("HTTP 429 Too many")
    assert (press.json["code"], press.json["data"]["status"]) == ("civicrm_rest_api_error", 429)
    assert rpc.json["error"]["message"].startswith("Too many")
    assert hook.text.startswith("Too many")
    assert waits.seconds == []


async def test_tokens_and_sessions_need_no_turn(site: HttpServer, waits: Waits) -> None:
    contact_id = (await WAYS[f"X-Civi-Auth at {ID}"](site, ADMIN_KEY)).json["contact_id"]
    token = await site.auth.issue_token(contact_id, 60)
    await site.post("/civicrm/authx/login", data={"_authx": f"Bearer {token}"})
    for _ in range(FREE):
        await _webhook(site, "wrong")
    assert (await site.get(ID)).json["flow"] == "session"
    for path in PAGES:
        assert (await WAYS[f"X-Civi-Auth at {path}"](site, token)).status == 200
    assert waits.seconds == []


async def test_a_token_that_is_over_is_no_guess(site: HttpServer, waits: Waits) -> None:
    token = await site.auth.issue_token(1, -60)
    for _ in range(FREE + 3):
        assert (await WAYS[f"X-Civi-Auth at {ID}"](site, token)).text == "HTTP 401 Expired token"
    assert waits.seconds == []


async def test_the_pipe_has_the_same_limit(store: Store, waits: Waits) -> None:
    auth = Auth(store, SITE_KEY, (), Throttle(waits.sleep, lambda: 0.0))
    session = PipeSession(Mirror(), auth, trusted=False)
    for _ in range(FREE + 2):
        line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "login", "params": {"cred": "Bearer wrong"}})
        assert b"Invalid credential" in await session.answer(line.encode())
    assert len(waits.seconds) == 2


async def test_no_endpoint_is_left_out(site: HttpServer) -> None:
    """Each endpoint is one that the ways above go through, or takes no credential that can be guessed."""
    walked = {REST, RPC, WP, "/civicrm/authx/login", *PAGES}
    for ending in api_endpoints(Mirror(), site.auth):
        assert ending in ANSWERED_AT_ONCE or any(path.endswith(ending) for path in walked)
