"""The two sides of the demo: an emulated Mailchimp with an audience export, and a server with CiviCRM data.

The demo makes APIv3 calls over HTTP, as a script would. The data beside this file is made up.
"""

import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from civiapi.app import App, open_app
from civiapi.cli.demo import SAMPLE
from civiapi.cli.demo.mail_sink import MailSink, running_mail_sink
from civiapi.importer.import_folder import import_folder
from civiapi.server.lifecycle import serving
from civiapi.settings import (
    AlertSettings,
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    UserSettings,
)
from sync.emulator.data.exports import load
from sync.emulator.server.running import Emulator, running_emulator
from sync.emulator.world import World

EXPORT = Path(__file__).parent / "data" / "mailchimp"
GROUP = "Newsletter"
BY_POST = "9d1e5b70c2"
"""The marketing permission that the demo links with a group."""
POST_GROUP = "May be written to by post"
OFFICER = "officer@charity.example.org"


class CallFailed(Exception):
    """A call of the demo was answered with this error."""


@dataclass(slots=True)
class Site:
    """Both sides, running."""

    app: App
    settings: Settings
    emulator: Emulator
    http: httpx.AsyncClient
    mail: MailSink
    """Where alerts arrive."""

    async def call(self, entity: str, action: str, **params: Any) -> Any:
        """The answer to one APIv3 call over HTTP. Raises ``CallFailed``."""
        answer = await self.http.post(
            "/civicrm/ajax/rest",
            data={"entity": entity, "action": action, "json": json.dumps(params)},
            headers={"X-Civi-Auth": f"Bearer {self.settings.users[0].api_key}"},
            timeout=None,
        )
        body = answer.json()
        if body.get("is_error"):
            raise CallFailed(f"{entity}.{action}: {body['error_message']}")
        return body


@asynccontextmanager
async def running_site(folder: Path, *, port: int = 0) -> AsyncIterator[Site]:
    """Both sides with fresh data. The database in *folder* is recreated; *port* 0: any free one."""
    database = _fresh_database(folder)
    world = World()
    load(world, EXPORT)
    for audience in world.default_account.audiences.values():
        audience.marketing_permissions = [
            {"marketing_permission_id": "4c7f20a8e1", "text": "Email"},
            {"marketing_permission_id": BY_POST, "text": "Direct mail"},
        ]
    async with running_emulator(world) as emulator, running_mail_sink() as mail:
        settings = _settings(database, port or free_port(), emulator.base_url, mail.port)
        async with open_app(settings, for_callers=True) as app:
            await import_folder(app.store, SAMPLE)
            async with (
                serving(app),
                httpx.AsyncClient(base_url=settings.server.base_url, trust_env=False) as http,
            ):
                yield Site(app, settings, emulator, http, mail)


def _fresh_database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "demo.sqlite"
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    return database


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settings(database: Path, port: int, mailchimp: str, mail_port: int) -> Settings:
    return Settings(
        server=ServerSettings(port=port, base_url=f"http://127.0.0.1:{port}", site_key=secrets.token_hex(16)),
        database=DatabaseSettings(url=f"sqlite:///{database}"),
        mailchimp=MailchimpSettings(base_url=mailchimp, poll_seconds=0.2),
        scheduler=SchedulerSettings(enabled=True),
        alerts=AlertSettings(
            email_to=(OFFICER,),
            email_from="civiapi@charity.example.org",
            smtp_host="127.0.0.1",
            smtp_port=mail_port,
            smtp_security="none",
        ),
        log=LogSettings(level="error"),
        users=(UserSettings("admin", secrets.token_hex(16), frozenset({"*"})),),
    )
