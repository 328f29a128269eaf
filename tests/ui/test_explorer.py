"""Log-in and API explorer over HTTP: who gets in, what is refused, headers, escaping, how the form is worded."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth
from tests.support.ui_server import ADMIN_KEY, READER_KEY, SITE_KEY, Browser, a_browser, ui_server

JSON = {"Accept": "application/json"}
EVIL = """"><script>alert('x')</script>"""


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    async with ui_server(api) as base, a_browser(base) as opened:
        yield opened


# ---- log-in ----


async def test_a_user_of_the_settings_logs_in_by_name_and_key(browser: Browser) -> None:
    answer = await browser.log_in(next="/civicrm/api3/Email")
    assert (answer.status, answer.headers["Location"]) == (303, "/civicrm/api3/Email")
    cookie = next(c for c in answer.headers.getall("Set-Cookie") if c.startswith("civiapi_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=" in cookie
    assert (await browser.get("/civicrm/api3/Email")).status == 200


async def test_behind_a_trusted_proxy_with_https_the_session_stays_on_https(api: Api) -> None:
    async with ui_server(api, trusted_proxies=("127.0.0.1",)) as base, a_browser(base) as browser:
        form = await browser.get("/civicrm/login")
        cookie = {"Cookie": form.headers["Set-Cookie"].split(";")[0], "X-Forwarded-Proto": "https"}
        data = {"token": form.token, "user": "admin", "user_key": ADMIN_KEY}
        answer = await browser.post("/civicrm/login", data=data, headers=cookie)
        assert all("Secure" in one for one in answer.headers.getall("Set-Cookie"))


async def test_a_site_at_https_has_cookies_of_that_host_alone(api: Api) -> None:
    async with (
        ui_server(api, base_url="https://crm.example.org/path", hsts_seconds=60) as base,
        a_browser(base) as browser,
    ):
        form = await browser.get("/civicrm/login")
        cookie = form.headers["Set-Cookie"].split(";")[0]
        data = {"token": form.token, "user": "admin", "user_key": ADMIN_KEY}
        answer = await browser.post("/civicrm/login", data=data, headers={"Cookie": cookie})
        for one in (form.headers["Set-Cookie"], *answer.headers.getall("Set-Cookie")):
            assert one.startswith("__Host-")
            assert {"Secure", "Path=/", "HttpOnly"} <= set(one.split("; "))
            assert "Domain" not in one
        session = next(one for one in answer.headers.getall("Set-Cookie") if "session" in one).split(";")[0]
        assert (await browser.get("/civicrm/api3", headers={"Cookie": session})).status == 200
        bare = session.removeprefix("__Host-")  # as another host of the domain could plant it
        assert (await browser.get("/civicrm/api3", headers={"Cookie": bare})).status == 303
        for path in ("/civicrm/login", "/healthz", "/civicrm/nowhere", "/extern/rest.php", "/civicrm/api3"):
            assert (await browser.get(path)).headers["Strict-Transport-Security"] == "max-age=60"


@pytest.mark.parametrize(
    "server",
    [{"base_url": "https://crm.example.org"}, {"base_url": "http://crm.example.org", "hsts_seconds": 60}],
    ids=["unless asked for", "where people come without https"],
)
async def test_browsers_are_not_told_to_insist_on_https(api: Api, server: dict[str, Any]) -> None:
    async with ui_server(api, **server) as base, a_browser(base) as browser:
        assert "Strict-Transport-Security" not in (await browser.get("/civicrm/login")).headers


@pytest.mark.parametrize(
    ("user", "key"),
    [("admin", READER_KEY), ("reader", ADMIN_KEY), ("nobody", ADMIN_KEY), ("admin", ""), ("", "")],
    ids=["another's key", "another's name", "no such user", "no key", "nothing"],
)
async def test_a_name_and_a_key_that_do_not_go_together_open_nothing(browser: Browser, user: str, key: str) -> None:
    answer = await browser.log_in(user, key)
    assert answer.status == 403
    assert "Wrong user name or API key." in answer.text
    assert ADMIN_KEY not in answer.text
    assert (await browser.get("/civicrm/api3")).status == 303


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/civicrm/../\\x",
        "javascript:alert(1)",
        "/civicrm/a\nb",
    ],
)
async def test_a_log_in_leads_to_no_other_site(browser: Browser, elsewhere: str) -> None:
    assert (await browser.log_in(next=elsewhere)).headers["Location"] == "/civicrm/mailchimpsync"


async def test_a_log_in_leads_back_to_a_person_by_their_address(browser: Browser) -> None:
    person = "/civicrm/mailchimpsync/person?email=ada@example.org"
    asked = await browser.get(person)
    assert asked.status == 303
    assert (await browser.log_in(next=person)).headers["Location"] == person


async def test_a_log_in_form_of_another_site_is_refused(browser: Browser) -> None:
    await browser.get("/civicrm/login")
    data = {"token": "0" * 64, "user": "admin", "user_key": ADMIN_KEY}
    assert (await browser.post("/civicrm/login", data=data)).status == 403
    assert (await browser.get("/civicrm/api3")).status == 303


async def test_a_form_sent_by_another_site_is_refused_even_with_the_right_token(browser: Browser) -> None:
    token = (await browser.get("/civicrm/login")).token
    data = {"token": token, "user": "admin", "user_key": ADMIN_KEY}
    for origin in ("cross-site", "same-site"):
        assert (await browser.post("/civicrm/login", data=data, headers={"Sec-Fetch-Site": origin})).status == 403


async def test_a_token_from_before_the_log_in_is_worth_nothing_after_it(browser: Browser) -> None:
    before = (await browser.get("/civicrm/login")).token
    await browser.log_in()
    assert (await browser.post("/civicrm/logout", data={"token": before})).status == 403
    assert (await browser.get("/civicrm/api3")).status == 200


async def test_logging_out_ends_the_session_of_this_browser(browser: Browser) -> None:
    await browser.log_in()
    token = (await browser.get("/civicrm/api3")).token
    assert (await browser.post("/civicrm/logout", data={"token": token})).headers["Location"] == "/civicrm/login"
    assert (await browser.get("/civicrm/api3")).status == 303


# ---- who gets in ----


async def test_without_a_session_a_page_leads_to_the_log_in_and_back(browser: Browser) -> None:
    answer = await browser.get("/civicrm/api3/Email/get?x=1")
    assert answer.status == 303
    assert answer.headers["Location"] == "/civicrm/login?next=%2Fcivicrm%2Fapi3%2FEmail%2Fget%3Fx%3D1"


async def test_a_script_without_a_session_is_told_so_as_json(browser: Browser) -> None:
    answer = await browser.get("/civicrm/api3/reference.json", headers=JSON)
    assert (answer.status, "Log in" in answer.json["error"]) == (401, True)


@pytest.mark.parametrize("path", ["", "/reference.json", "/Email", "/Email/get"])
async def test_without_the_permission_the_refusal_names_it(browser: Browser, path: str) -> None:
    await browser.log_in("reader", READER_KEY)
    answer = await browser.get(f"/civicrm/api3{path}")
    assert answer.status == 403
    assert "administer CiviCRM" in answer.text
    assert "getsingle" not in answer.text


async def test_credentials_in_a_header_do_without_a_session(browser: Browser, api: Api) -> None:
    token = await _token_for(browser, api)
    answer = await browser.get("/civicrm/api3/reference.json", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 200
    assert "Email" in {entity["name"] for entity in answer.json["entities"]}


async def _token_for(browser: Browser, api: Api) -> str:
    """A JWT of the contact that the admin stands for."""
    from civiapi.store.schema.tables import user

    await browser.log_in()
    contact_id = await api.store.read(lambda conn: conn.execute(user.select()).mappings().one()["contact_id"])
    return await Auth(api.store, SITE_KEY, ()).issue_token(contact_id, 60.0)


async def test_wrong_credentials_are_refused_in_words(browser: Browser) -> None:
    answer = await browser.get("/civicrm/api3", headers={"X-Civi-Auth": "Bearer wrong"})
    assert (answer.status, "Invalid credential" in answer.text) == (401, True)


# ---- headers and escaping ----


@pytest.mark.parametrize(
    "path", ["/civicrm/login", "/civicrm/api3", "/civicrm/api3/Email/get", "/civicrm/api3/None", "/civicrm/ui/v/none"]
)
async def test_every_page_forbids_scripts_that_are_not_its_own(browser: Browser, path: str) -> None:
    await browser.log_in()
    answer = await browser.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    "path", ["/civicrm/login", "/civicrm/api3", "/civicrm/api3/Email", "/civicrm/api3/Email/create"]
)
async def test_pages_carry_no_script_or_style_of_their_own_and_fetch_nothing_from_elsewhere(
    browser: Browser, path: str
) -> None:
    await browser.log_in()
    text = (await browser.get(path)).text
    scripts = [part.split(">", 1)[0] for part in text.split("<script")[1:]]
    assert all("src=" in one or "application/json" in one for one in scripts)
    assert " style=" not in text
    assert " onclick=" not in text
    assert 'src="http' not in text
    assert 'href="http' not in text


@pytest.mark.parametrize(
    "path",
    [
        f"/civicrm/api3?entity={EVIL}",
        f"/civicrm/api3?entity=Email&action={EVIL}",
        "/civicrm/api3/%22%3E%3Cscript%3Ealert('x')",
        "/civicrm/api3/Email/%22%3E%3Cscript%3Ealert('x')",
        f"/civicrm/login?next={EVIL}&user={EVIL}",
    ],
)
async def test_what_an_address_says_is_shown_as_text(browser: Browser, path: str) -> None:
    await browser.log_in()
    answer = await browser.get(path)
    assert "<script>alert" not in answer.text
    assert "alert('x')\">" not in answer.text


async def test_what_was_filled_in_is_shown_as_text(browser: Browser) -> None:
    await browser.log_in()
    token = (await browser.get("/civicrm/api3/Email/get")).token
    data = {"token": token, "p[email]": EVIL, "more": f'{{"x": "</textarea><script>alert(1)</script>{EVIL[2:]}"}}'}
    answer = await browser.post("/civicrm/api3/Email/get", data=data)
    assert answer.status == 200
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text


async def test_a_false_host_is_not_repeated(browser: Browser) -> None:
    await browser.log_in()
    answer = await browser.get("/civicrm/api3/Email/get", headers={"Host": "evil'\"<script>"})
    assert "evil" not in answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/civicrm/api3/%00/%ff", id="names that are no text"),
        pytest.param("GET", "/civicrm/api3/Email/get?p=1&p[email]=2&p[]=3", id="parameters that are no parameters"),
        pytest.param("GET", "/civicrm/api3?entity[]=Email&action[x]=get", id="names that are lists"),
        pytest.param("GET", "/civicrm/login?next[]=/&user[a]=b", id="a way on that is a list"),
        pytest.param("HEAD", "/civicrm/api3", id="only the head"),
        pytest.param("GET", "/civicrm/ui/v/..%2fpages.py", id="a file that is not for the public"),
    ],
)
async def test_odd_requests_are_answered_calmly(browser: Browser, method: str, path: str) -> None:
    await browser.log_in()
    answer = await browser.send(method, path)
    assert answer.status in (200, 404)
    assert "Traceback" not in answer.text
    assert "import hashlib" not in answer.text


async def test_a_fault_of_ours_says_nothing_of_itself(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault with /a/path in it")

    await browser.log_in()
    monkeypatch.setattr("civiapi.ui.explorer.pages.samples", fail)
    answer = await browser.get("/civicrm/api3/Email/get")
    assert (answer.status, answer.text) == (500, "Internal error. The server log has the details.\n")
    assert "Content-Security-Policy" in answer.headers


async def test_cookies_that_we_never_gave_are_no_reason_to_stumble(browser: Browser) -> None:
    answer = await browser.get("/civicrm/login", headers={"Cookie": "civiapi_form=\udcff\xe9; civiapi_session=\xff"})
    assert answer.status == 200


# ---- reference and form ----


async def test_the_picker_leads_to_the_page_of_an_action(browser: Browser) -> None:
    await browser.log_in()
    answer = await browser.get("/civicrm/api3?entity=email&action=getSingle")
    assert answer.headers["Location"] == "/civicrm/api3/Email/getsingle"
    page = await browser.get("/civicrm/api3/email/Get")
    assert "<h1>Email.get</h1>" in page.text
    assert "access CiviCRM" in page.text


async def test_every_action_of_every_entity_has_a_page(browser: Browser, api: Api) -> None:
    await browser.log_in()
    for entity in api.registry.entities():
        assert (await browser.get(f"/civicrm/api3/{entity.name}")).status == 200
        for action in api.registry.actions(entity):
            answer = await browser.get(f"/civicrm/api3/{entity.name}/{action}")
            assert (answer.status, f"<h1>{entity.name}.{action}</h1>" in answer.text) == (200, True)


async def test_the_script_is_told_the_parameters_and_how_they_are_sent(browser: Browser) -> None:
    await browser.log_in()
    token = (await browser.get("/civicrm/api3/Email/get")).token
    data = {
        "token": token,
        "p[email]": '{"LIKE": "a%"}',
        "p[on_hold]": "0",
        "p[unknown]": "x",
        "more": '{"options": {"limit": 2}}',
    }
    answer = await browser.post("/civicrm/api3/Email/get", data=data, headers=JSON)
    assert answer.json["params"] == {"email": {"LIKE": "a%"}, "on_hold": "0", "options": {"limit": 2}}
    assert set(answer.json["samples"]) == {"rest", "jsonrpc", "curl", "python", "php"}
    assert all(ADMIN_KEY not in text for text in answer.json["samples"].values())


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("[1]", id="a list"),
        pytest.param("{", id="half an object"),
        pytest.param('"x"', id="a text"),
        pytest.param('{"a": ' * 10_000, id="half an object, very deep"),
        pytest.param('{"a": ' * 800 + "1" + "}" * 800, id="deeper than any call"),
        pytest.param('{"a": NaN}', id="no number"),
        pytest.param('{"a": 1e999}', id="an infinite number"),
        pytest.param('{"a": 123456789012345678901234567890}', id="a number that no column holds"),
    ],
)
async def test_what_is_no_json_object_is_refused_in_words(browser: Browser, more: str) -> None:
    await browser.log_in()
    token = (await browser.get("/civicrm/api3/Email/get")).token
    answer = await browser.post("/civicrm/api3/Email/get", data={"token": token, "more": more}, headers=JSON)
    assert (answer.status, "JSON object" in answer.json["error"]) == (422, True)


async def test_the_call_that_the_page_makes_is_answered_to_its_session(browser: Browser) -> None:
    await browser.log_in()
    data = {"entity": "Email", "action": "getcount", "json": "{}"}
    answer = await browser.post("/civicrm/ajax/rest", data=data, headers={"X-Requested-With": "XMLHttpRequest"})
    assert answer.json == {"is_error": 0, "result": 0}


async def test_a_sample_names_the_address_of_the_settings(api: Api) -> None:
    async with ui_server(api, base_url="https://crm.example.org/") as base, a_browser(base) as browser:
        credentials = {"X-Civi-Auth": f"Bearer {ADMIN_KEY}", "X-Civi-Key": SITE_KEY}  # a session there needs https
        page = await browser.get("/civicrm/api3/Email/get", headers=credentials)
        assert "curl https://crm.example.org/civicrm/ajax/rest" in page.text
