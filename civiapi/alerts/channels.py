"""Where messages go: a mail server, or a webhook."""

import hashlib
import hmac
import time
from email.message import EmailMessage
from email.utils import formatdate
from typing import Protocol

import aiosmtplib
import httpx
import orjson

from civiapi.alerts.messages import Message, webhook_body
from civiapi.settings import AlertSettings

TIMEOUT_S = 20.0


class NotDelivered(Exception):
    """The channel did not accept a message; the text says why, without secrets."""


class Channel(Protocol):
    """A way to deliver messages."""

    name: str

    async def send(self, message: Message, message_id: str) -> None:
        """Deliver a message once. *message_id* is the same at each attempt. Raises ``NotDelivered``."""


class MailChannel:
    """Sends e-mail through the mail server of the settings."""

    name = "email"

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings

    async def send(self, message: Message, message_id: str) -> None:
        settings = self._settings
        mail = EmailMessage()
        mail["From"] = settings.email_from
        mail["To"] = ", ".join(settings.email_to)
        mail["Subject"] = message.subject
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{message_id}@civiapi>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        where = f"the mail server {settings.smtp_host}:{settings.smtp_port}"
        try:
            await aiosmtplib.send(
                mail,
                hostname=settings.smtp_host,
                port=settings.smtp_port,
                use_tls=settings.smtp_security == "tls",
                start_tls=settings.smtp_security == "starttls",
                username=settings.smtp_user or None,
                password=settings.smtp_password or None,
                timeout=TIMEOUT_S,
            )
        except aiosmtplib.SMTPException as error:
            raise NotDelivered(f"{where} refused the message: {error}") from error
        except OSError as error:
            raise NotDelivered(f"{where} cannot be reached: {error.strerror or type(error).__name__}") from error


class WebhookChannel:
    """Posts JSON to the address of the settings, signed if there is a secret.

    The signature is the HMAC-SHA256 of the timestamp, a full stop and the body, in hex.
    """

    name = "webhook"

    def __init__(self, settings: AlertSettings) -> None:
        self._settings = settings

    async def send(self, message: Message, message_id: str) -> None:
        settings = self._settings
        body = orjson.dumps(webhook_body(message, settings.webhook_style, message_id))
        headers = {"Content-Type": "application/json", "X-Civiapi-Delivery": message_id}
        if settings.webhook_secret:
            stamp = str(int(time.time()))
            signed = hmac.new(settings.webhook_secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
            headers |= {"X-Civiapi-Timestamp": stamp, "X-Civiapi-Signature": f"sha256={signed.hexdigest()}"}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
                answer = await client.post(settings.webhook_url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # its text may have the address, which may be a secret
            raise NotDelivered(f"the webhook cannot be reached ({type(error).__name__})") from error
        if not answer.is_success:
            raise NotDelivered(f"the webhook answered with status {answer.status_code}")


def channels_of(settings: AlertSettings) -> list[Channel]:
    """The channels that the settings configure."""
    found: list[Channel] = []
    if settings.email_to:
        found.append(MailChannel(settings))
    if settings.webhook_url:
        found.append(WebhookChannel(settings))
    return found
