"""/metrics: what it counts, who may read it, and that nothing secret or unbounded gets in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from civiapi.app import App, open_app
from civiapi.endpoints.metrics import AllowedNetworks
from civiapi.server.lifecycle import serving
from civiapi.settings import (
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    UserSettings,
)
from civiapi.store.civicrm.settings import write_setting
from sync.emulator.server.running import Emulator, running_emulator
from tests.support.databases import database_at
from tests.support.linked_site import link

SITE_KEY, USER_KEY = "site-key-of-metrics", "user-key-of-metrics"


@dataclass
class Served:
    """A server linked with an audience of an emulator, and a client of it."""

    app: App
    emulator: Emulator
    base: str
    session: aiohttp.ClientSession

    async def call(self, entity: str, action: str, **params: str) -> None:
        query = {"key": SITE_KEY, "api_key": USER_KEY, "entity": entity, "action": action, "json": "1", **params}
        async with self.session.post(f"{self.base}/extern/rest.php", data=query):
            pass

    async def metrics(self, **headers: str) -> tuple[int, str]:
        async with self.session.get(f"{self.base}/metrics", headers=headers) as answer:
            return answer.status, await answer.text()


def settings(folder: Path, port: int, mailchimp: str, **server: object) -> Settings:
    return Settings(
        server=ServerSettings(port=port, site_key=SITE_KEY, **server),  # type: ignore[arg-type]
        database=DatabaseSettings(url=database_at(folder / "site.sqlite")),
        mailchimp=MailchimpSettings(base_url=mailchimp, poll_seconds=0.05),
        scheduler=SchedulerSettings(enabled=False),
        log=LogSettings(level="error"),
        users=(UserSettings("person", USER_KEY, frozenset({"*"})),),
    )


@pytest.fixture
async def served(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Served]:
    async with running_emulator() as emulator:
        emulator.admin("import", "ada@example.org")
        chosen = settings(tmp_path, unused_tcp_port, emulator.root_url)
        async with open_app(chosen) as app, serving(app), aiohttp.ClientSession() as session:
            await app.store.write(link, emulator.key, emulator.audience().id)
            yield Served(app, emulator, f"http://127.0.0.1:{unused_tcp_port}", session)


async def test_a_configuration_that_cannot_be_read_leaves_the_metrics(served: Served) -> None:
    await served.app.store.write(write_setting, "mailchimpsync_config", "{not JSON")
    status, text = await served.metrics()
    assert status == 200
    assert "civiapi_database_up 1.0" in text
    assert "audience=" not in text


async def test_requests_stages_and_calls_to_mailchimp_are_counted(served: Served) -> None:
    await served.call("contact", "get")
    await served.call("Contact", "create")
    await served.call("Mailchimpsync", "fetchandreconcile")
    status, text = await served.metrics()
    assert status == 200
    for line in (
        'civiapi_requests_total{action="get",entity="Contact",outcome="ok"} 1.0',
        'civiapi_requests_total{action="create",entity="Contact",outcome="refused"} 1.0',
        'civiapi_stage_seconds_count{stage="readyToFetch"} 1.0',
        'civiapi_members_total{stage="readyToFetch"} 1.0',
        'civiapi_mailchimp_calls_total{method="GET",outcome="ok"}',
        f'civiapi_rows_todo{{audience="{served.emulator.audience().id}"}} 0.0',
        f'civiapi_health{{audience="{served.emulator.audience().id}",state="healthy"}} 1.0',
        f'civiapi_health{{audience="{served.emulator.audience().id}",state="failed"}} 0.0',
        "civiapi_updates_waiting 0.0",
        "civiapi_webhooks_waiting 0.0",
        "civiapi_webhook_lag_seconds 0.0",
        "civiapi_database_up 1.0",
    ):
        assert line in text, line
    assert 'civiapi_stage_members_per_second{stage="readyToFetch"}' in text


async def test_a_monitor_that_knows_no_prometheus_sees_when_a_connection_needs_somebody(served: Served) -> None:
    list_id = served.emulator.audience().id
    seen = []
    for _ in range(2):
        async with served.session.get(f"{served.base}/civicrm/mailchimpsync/health") as answer:
            seen.append((answer.status, (await answer.json())["audiences"]))
        await served.call("Mailchimpsync", "fetchandreconcile")
    assert seen == [(503, {list_id: "needs you"}), (200, {list_id: "healthy"})]


async def test_what_waits_is_shown_with_its_age(served: Served) -> None:
    list_id = served.emulator.audience().id

    def wait(conn) -> None:  # type: ignore[no-untyped-def]
        for statement in (
            f"INSERT INTO civicrm_mailchimpsync_batch (mailchimp_list_id, mailchimp_batch_id, status, submitted_at)"
            f" VALUES ('{list_id}', 'zzz', 'pending', '2026-01-01 00:00:00')",
            "INSERT INTO civiapi_webhook_event (kind, list_id, fingerprint, body, received_s, next_try_s)"
            " VALUES ('audience', 'other', 'f', '{}', 1000, 99999999999)",
            f"INSERT INTO civiapi_claim (name, holder, fence, expires_ms) VALUES ('{list_id}', 'h', 1, 9999999999999)",
            f"INSERT INTO civiapi_run_log (list_id, started_s) VALUES ('{list_id}', 1000)",
        ):
            conn.exec_driver_sql(statement)

    await served.app.store.write(wait)
    values = dict(line.rsplit(" ", 1) for line in (await served.metrics())[1].splitlines() if not line.startswith("#"))
    assert float(values[f'civiapi_batches_open{{audience="{list_id}"}}']) == 1
    assert float(values[f'civiapi_batch_age_seconds{{audience="{list_id}"}}']) > 1e6
    assert float(values["civiapi_webhooks_waiting"]) == 1
    assert float(values["civiapi_webhook_lag_seconds"]) > 1e6
    assert float(values[f'civiapi_run_age_seconds{{audience="{list_id}"}}']) > 1e6
    assert float(values[f'civiapi_claim_left_seconds{{audience="{list_id}"}}']) > 1e6


async def test_no_caller_makes_a_series_and_no_secret_gets_in(served: Served) -> None:
    for number in range(20):
        await served.call(f"Nonsense{number}", "getfields")
        await served.call("Contact", f"nonsense{number}")
    await served.call("Mailchimpsync", "fetchandreconcile")
    text = (await served.metrics())[1]
    assert "onsense" not in text
    assert 'civiapi_requests_total{action="other",entity="Contact",outcome="refused"} 20.0' in text
    for secret in (SITE_KEY, USER_KEY, served.emulator.key, "ada@"):
        assert secret not in text


async def test_what_a_proxy_we_do_not_know_hands_on_is_refused(served: Served) -> None:
    status, text = await served.metrics(**{"X-Forwarded-For": "127.0.0.1"})
    assert status == 403
    assert "metrics_from" in text


@pytest.mark.parametrize(
    ("remote", "forwarded", "allowed"),
    [
        pytest.param("10.1.2.3", [], True, id="An address in a network that may read."),
        pytest.param("192.0.2.1", [], False, id="An address that may not."),
        pytest.param("192.0.2.9", ["10.1.2.3"], True, id="Through a proxy that is trusted."),
        pytest.param("192.0.2.9", ["198.51.100.1"], False, id="A stranger through a proxy that is trusted."),
        pytest.param("10.1.2.3", ["10.1.2.4"], False, id="Through a proxy that is not."),
        pytest.param("192.0.2.9", ["10.1.2.3", "198.51.100.1"], False, id="A stranger who sent a line of their own."),
        pytest.param("192.0.2.9", ["10.1.2.3, junk"], False, id="An entry that is not an address."),
        pytest.param("", [], False, id="No address."),
    ],
)
def test_who_may_read(remote: str, forwarded: list[str], allowed: bool) -> None:
    assert AllowedNetworks(("10.0.0.0/8",), ("192.0.2.9",)).contain_caller(remote, forwarded) is allowed


async def test_a_worker_answers_health_and_metrics_and_no_calls(tmp_path: Path, unused_tcp_port: int) -> None:
    chosen = settings(tmp_path, unused_tcp_port, "http://127.0.0.1:9", role="worker")
    base = f"http://127.0.0.1:{unused_tcp_port}"
    async with open_app(chosen) as app, serving(app), aiohttp.ClientSession() as session:
        answers = {}
        for path in ("/healthz", "/metrics", "/civicrm/ajax/rest", "/civicrm/mailchimpsync/webhook"):
            async with session.get(base + path) as answer:
                answers[path] = answer.status
    assert list(answers.values()) == [200, 200, 404, 404]


async def test_a_worker_with_port_0_does_not_listen(tmp_path: Path) -> None:
    chosen = settings(tmp_path, 0, "http://127.0.0.1:9", role="worker")
    async with open_app(chosen) as app, serving(app):
        assert app.settings.server.port == 0
