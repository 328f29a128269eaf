"""The demo's two ends: an emulated Mailchimp loaded with an export, and a server of ours with CiviCRM's data.

What the demo does it does as a script would: APIv3 calls over HTTP. The data beside this file is ours, made up.
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
from civiapi.importer import import_folder
from civiapi.serving import serving
from civiapi.settings import (
    DatabaseSettings,
    LogSettings,
    MailchimpSettings,
    SchedulerSettings,
    ServerSettings,
    Settings,
    UserSettings,
)
from sync.mailchimp.emulator.exports import load
from sync.mailchimp.emulator.running import Emulator, running_emulator
from sync.mailchimp.emulator.world import World

DATA = Path(__file__).parent / "data"
GROUP = "Newsletter"


class CallFailed(Exception):
    """A call of the demo was answered with an error, in CiviCRM's words."""


@dataclass(slots=True)
class Site:
    """Both ends, running; ``calls`` speaks APIv3 to ours."""

    app: App
    settings: Settings
    emulator: Emulator
    http: httpx.AsyncClient

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
    """Both ends with fresh data, until left. *folder* takes the database, made anew; *port* 0: any free one."""
    database = _fresh_database(folder)
    world = World()
    load(world, DATA / "mailchimp")
    async with running_emulator(world) as emulator:
        settings = _settings(database, port or free_port(), emulator.base_url)
        async with open_app(settings) as app:
            await import_folder(app.store, DATA / "civicrm")
            async with (
                serving(app),
                httpx.AsyncClient(base_url=settings.server.base_url, trust_env=False) as http,
            ):
                yield Site(app, settings, emulator, http)


def _fresh_database(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "demo.sqlite"
    for end in ("", "-wal", "-shm"):
        database.with_name(database.name + end).unlink(missing_ok=True)
    return database


def free_port() -> int:
    """A port nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _settings(database: Path, port: int, mailchimp: str) -> Settings:
    return Settings(
        server=ServerSettings(port=port, base_url=f"http://127.0.0.1:{port}", site_key=secrets.token_hex(16)),
        database=DatabaseSettings(url=f"sqlite:///{database}"),
        mailchimp=MailchimpSettings(base_url=mailchimp, poll_seconds=0.2),
        scheduler=SchedulerSettings(enabled=True),
        log=LogSettings(level="warning"),
        users=(UserSettings("admin", secrets.token_hex(16), frozenset({"*"})),),
    )
