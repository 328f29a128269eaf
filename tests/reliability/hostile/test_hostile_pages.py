"""Pages and webhooks in hostile hands: markup in every name, forms of other sites, sessions planted, events made up.

The site holds people, groups, audiences, jobs and members of the cache whose every name is markup that would run.
"""

import contextlib
import html
import json
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civiapi.http.messages import SESSION_COOKIE
from civiapi.ui.config import link as config_link
from civiapi.ui.config import pages as config
from civiapi.ui.explorer import pages as explorer
from civiapi.ui.jobs import pages as jobs
from civiapi.ui.people import person, search
from civiapi.ui.status import pages as status
from civiapi.ui.status import preview
from tests.reliability.hostile.server import HEADERS, HostileServer, hostile_server
from tests.support.databases import raw_sqlite
from tests.support.processes import ADMIN_KEY

MARKUP = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}${7*7}"
ADDRESS = '"<svg/onload=alert(1)>"@example.org'
LIST_ID = "a1b2c3d4e5"
SECRET = "the-secret-of-the-hooks"
MAILCHIMP_KEY = "0123456789abcdef0123456789abcdef-us1"
CONFIG = {
    "accounts": {
        MAILCHIMP_KEY: {
            "apiKey": MAILCHIMP_KEY,
            "accountName": MARKUP,
            "batchWebhookSecret": SECRET,
            "audiences": {LIST_ID: {"name": MARKUP, "interests": {"9143cf3bd1": MARKUP}}},
        }
    },
    "lists": {LIST_ID: {"apiKey": MAILCHIMP_KEY, "subscriptionGroup": "GROUP", "interests": {}}},
}
MODULES = (status, preview, config, config_link, jobs, search, person)
ROUTES = [(method, path) for module in MODULES for method, path, _ in module.ROUTES]
MORE = {explorer.PATH, "/civicrm/login", "/no/such/page"}
QUOTED = urllib.parse.quote(MARKUP)
QUERIES = [
    "",
    f"?list_id={LIST_ID}&account={MAILCHIMP_KEY}&email={urllib.parse.quote(ADDRESS)}&contact_id=1&search=svg&all=1",
    f"?list_id={QUOTED}&account={QUOTED}&email={QUOTED}&contact_id={QUOTED}&search={QUOTED}&{QUOTED}={QUOTED}",
]


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server(CIVIAPI_MAILCHIMP__BASE_URL="http://127.0.0.1:9/3.0") as started:
        first, last = "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"  # stored, they fill their columns
        who = {"contact_type": "Individual", "first_name": first, "last_name": last, "email": ADDRESS}
        ask(started, "Contact", "create", **who)
        group = ask(started, "Group", "create", title=MARKUP[:64])["id"]
        ask(started, "GroupContact", "create", contact_id=1, group_id=group)
        ask(started, "Job", "create", name=MARKUP, run_frequency="Daily", api_entity="System", api_action="flush")
        told = json.dumps(CONFIG).replace("GROUP", str(group))
        ask(started, "Setting", "create", mailchimpsync_config=told)
        with contextlib.closing(raw_sqlite(started.folder / "site.sqlite")) as link, link:
            names = "mailchimp_list_id, mailchimp_email, mailchimp_status, sync_status"
            sql = f"INSERT INTO civicrm_mailchimpsync_cache ({names}) VALUES (?, ?, 'subscribed', 'fail')"
            link.execute(sql, (LIST_ID, ADDRESS))
        yield started


def ask(server: HostileServer, entity: str, action: str, **params: Any) -> dict[str, Any]:
    call = {"entity": entity, "action": action, "json": json.dumps(params)}
    answer = server.http.post("/civicrm/ajax/rest", data=call, headers=HEADERS).json()
    assert not answer["is_error"], answer
    return dict(answer)


@contextlib.contextmanager
def a_visitor(server: HostileServer, *cookies: str) -> Iterator[httpx.Client]:
    """A browser in which somebody logs in, who had these sessions before."""
    with httpx.Client(base_url=server.http.base_url, timeout=server.http.timeout, trust_env=False) as visitor:
        for cookie in cookies:
            visitor.cookies.set(SESSION_COOKIE, cookie, domain="127.0.0.1", path="/")
        token = token_of(visitor.get("/civicrm/login").text)
        told = visitor.post("/civicrm/login", data={"token": token, "user": "admin", "user_key": ADMIN_KEY})
        assert told.status_code == 303
        assert not {"HttpOnly", "SameSite=Lax"} - set(told.headers["Set-Cookie"].split("; "))
        yield visitor


def token_of(page: str) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


# ---- markup ----


@pytest.mark.parametrize("query", QUERIES, ids=["plain", "what is there", "markup"])
@pytest.mark.parametrize(
    "path", sorted({path for method, path in ROUTES if method == "GET" and ".csv" not in path} | MORE)
)
def test_no_name_or_address_is_markup_on_any_page(server: HostileServer, path: str, query: str) -> None:
    for list_id in (LIST_ID, urllib.parse.quote(MARKUP, safe="")):
        told = server.http.get(path.replace("{list_id}", list_id) + query, headers=HEADERS)
        assert told.status_code < 500
        if not told.headers["Content-Type"].startswith("text/html"):
            assert told.headers["X-Content-Type-Options"] == "nosniff"
            continue
        assert not re.search(r"<script>|<img src=x|<svg/|onerror=alert\(1\)>|onload=alert\(1\)>", told.text)
        assert "49${" not in told.text  # nothing of it was taken for a template
        assert "script-src 'self'" in told.headers["Content-Security-Policy"]


def test_the_names_are_on_the_pages(server: HostileServer) -> None:
    # Otherwise the test above would be about nothing.
    shown = server.http.get("/civicrm/mailchimpsync", headers=HEADERS).text
    assert html.escape("<script>alert(1)</script>") in shown
    assert (
        "&lt;svg/onload"
        in server.http.get(f"/civicrm/mailchimpsync/people?list_id={LIST_ID}&all=1", headers=HEADERS).text
    )


# ---- forms of other sites, planted sessions ----


@pytest.mark.parametrize("path", sorted({path for method, path in ROUTES if method == "POST"} | {"/civicrm/logout"}))
def test_no_page_takes_a_form_that_it_did_not_show_to_this_browser(server: HostileServer, path: str) -> None:
    with a_visitor(server) as visitor, a_visitor(server) as other:
        before = server.rows()
        path = path.replace("{list_id}", LIST_ID)
        theirs = token_of(other.get("/civicrm/mailchimpsync").text)
        mine = token_of(visitor.get("/civicrm/mailchimpsync").text)
        for form, more in (
            ({}, {}),
            ({"token": ""}, {}),
            ({"token": theirs}, {}),
            ({"token": mine}, {"Sec-Fetch-Site": "cross-site"}),
        ):
            assert visitor.post(path, data={**form, "do": "remove", "all": "1"}, headers=more).status_code == 403
        assert visitor.get("/civicrm/mailchimpsync").status_code == 200
        assert server.rows() == before


def test_a_session_planted_before_the_log_in_is_worth_nothing_after_it(server: HostileServer) -> None:
    planted = "planted-by-somebody"
    with a_visitor(server, planted) as visitor:
        assert planted not in [cookie.value for cookie in visitor.cookies.jar]
        assert visitor.get("/civicrm/mailchimpsync").status_code == 200
    answer = server.http.get("/civicrm/mailchimpsync", headers={"Cookie": f"{SESSION_COOKIE}={planted}"})
    assert answer.status_code == 303


# ---- webhooks of somebody who knows the secret ----

HOOKS = ["/civicrm/mailchimpsync/webhook", "/civicrm/mailchimpsync/batch-webhook"]
texts = st.text(max_size=30) | st.sampled_from(
    [LIST_ID, "subscribe", "upemail", "batch_operation_completed", "abcdef0123", ADDRESS, MARKUP, "\x00", "9" * 400]
)
events = st.dictionaries(
    st.sampled_from(["type", "fired_at", "data", "data[list_id]", "data[email]", "data[id]", "data[merges][FNAME]"])
    | st.sampled_from(["data[new_email]", "data[old_email]", "data[merges][GROUPINGS][0][groups]", "secret", "data[]"])
    | texts,
    texts,
    max_size=8,
)


@pytest.mark.parametrize("path", HOOKS)
def test_no_event_that_was_made_up_is_a_server_error_or_changes_anybody(server: HostileServer, path: str) -> None:
    kept = {"civiapi_webhook_event", "sqlite_sequence"}
    before = {name: count for name, count in server.rows().items() if name not in kept}

    @given(event=events, wrap=st.sampled_from(["form", "json", "multipart"]))
    @settings(max_examples=25)
    def hold(event: dict[str, str], wrap: str) -> None:
        where = f"{path}?secret={SECRET}"
        clean = {name.replace("\ud800", ""): value for name, value in event.items()}
        with contextlib.suppress(UnicodeEncodeError):
            if wrap == "form":
                told = server.http.post(where, data=clean)
            elif wrap == "json":
                told = server.http.post(where, json=clean)
            else:
                told = server.http.post(where, files={name: (None, value) for name, value in clean.items()} or None)
            assert told.status_code < 500
            assert SECRET not in told.text

    hold()
    assert {name: count for name, count in server.rows().items() if name not in kept} == before
    assert server.is_well()
