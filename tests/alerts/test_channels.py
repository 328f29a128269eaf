"""Channels: what a mail server and a webhook receive, and what is said when they do not."""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.message import Message as Mail
from email.policy import default
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller

from civiapi.alerts.channels import NotDelivered, channels_of
from civiapi.alerts.messages import Message
from civiapi.alerts.watch import send_test
from civiapi.settings import AlertSettings, ServerSettings, Settings
from tests.support.processes import free_port

MESSAGE = Message("opened", "Warning: Zoë’s sync stopped", "The key was revoked.\n\nWhat to do: …", "stopped:a1")
MAILED = AlertSettings(
    email_to=("officer@example.org", "it@example.org"),
    email_from="civiapi@example.org",
    smtp_host="127.0.0.1",
    smtp_security="none",
)


class Sink:
    """A mail server that keeps what it gets."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


@pytest.fixture
def sink() -> Iterator[tuple[Sink, int]]:
    found, port = Sink(), free_port()
    controller = Controller(found, hostname="127.0.0.1", port=port)
    controller.start()
    yield found, port
    controller.stop()


async def test_a_mail_has_all_that_a_mail_needs(sink: tuple[Sink, int]) -> None:
    found, port = sink
    [channel] = channels_of(replace(MAILED, smtp_port=port))
    await channel.send(MESSAGE, "alert-7")
    [mail] = found.mails
    assert mail["Subject"] == MESSAGE.subject
    assert mail["From"] == "civiapi@example.org"
    assert mail["To"] == "officer@example.org, it@example.org"
    assert mail["Message-ID"] == "<alert-7@civiapi>"
    assert mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert text.splitlines() == MESSAGE.text.splitlines()


async def test_a_mail_server_without_encryption_is_not_used_where_it_is_asked_for(sink: tuple[Sink, int]) -> None:
    found, port = sink
    settings = replace(MAILED, smtp_port=port, smtp_security="starttls", smtp_user="u", smtp_password="hunter2")
    [channel] = channels_of(settings)
    with pytest.raises(NotDelivered) as refused:
        await channel.send(MESSAGE, "alert-7")
    assert "hunter2" not in str(refused.value)
    assert found.mails == []


async def test_a_mail_server_that_cannot_be_reached_is_named() -> None:
    port = free_port()
    [channel] = channels_of(replace(MAILED, smtp_port=port))
    with pytest.raises(NotDelivered, match=rf"the mail server 127\.0\.0\.1:{port}"):
        await channel.send(MESSAGE, "alert-7")


class Hook:
    """A webhook that keeps what it gets and answers with *status*."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def hook(aiohttp_server: Any) -> tuple[Hook, str]:
    found = Hook()
    app = web.Application()
    app.router.add_post("/T0/secret-path", found.answer)
    return found, str((await aiohttp_server(app)).make_url("/T0/secret-path"))


@pytest.mark.parametrize("style", ["json", "slack", "teams"])
async def test_a_webhook_gets_json_that_it_can_verify(hook: tuple[Hook, str], style: str) -> None:
    found, url = hook
    [channel] = channels_of(AlertSettings(webhook_url=url, webhook_secret="shared", webhook_style=style))
    await channel.send(MESSAGE, "alert-7")
    [(headers, body)] = found.got
    signed = hmac.new(b"shared", headers["X-Civiapi-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Civiapi-Signature"] == f"sha256={signed}"
    assert headers["X-Civiapi-Delivery"] == "alert-7"
    assert "sync stopped" in str(orjson.loads(body))


async def test_a_webhook_that_fails_is_not_named_in_full(hook: tuple[Hook, str]) -> None:
    found, url = hook
    found.status = 500
    for address in (url, f"http://127.0.0.1:{free_port()}/T0/secret-path"):
        [channel] = channels_of(AlertSettings(webhook_url=address))
        with pytest.raises(NotDelivered) as refused:
            await channel.send(MESSAGE, "alert-7")
        assert "secret-path" not in str(refused.value)


async def test_a_test_tries_every_channel(hook: tuple[Hook, str]) -> None:
    _, url = hook
    alerts = replace(MAILED, smtp_port=free_port(), webhook_url=url)
    email, webhook = await send_test(Settings(alerts=alerts, server=ServerSettings(base_url="https://crm.example.org")))
    assert email[0] == "email"
    assert "cannot be reached" in email[1] or "refused" in email[1]
    assert webhook == ("webhook", "")
