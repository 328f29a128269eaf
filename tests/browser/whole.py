"""A whole server (API, sync, pages) linked to a running emulator: for the screens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from civiapi.api.call import Call
from civiapi.app import App, open_app
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
from sync.emulator.server.running import Emulator, running_emulator
from tests.support.databases import database_at
from tests.support.processes import free_port

ADMIN = "admin"
ADMIN_KEY = "admin-key-of-a-whole-site"
HOSTILE = """<img src=x onerror="alert(1)"> & 'quotes' </script>"""


@dataclass(slots=True)
class Whole:
    """Both ends, running."""

    base: str
    app: App
    emulator: Emulator

    @property
    def list_id(self) -> str:
        return self.emulator.audience().id

    async def call(self, entity: str, action: str, **params: Any) -> Any:
        """The answer to an API call, which must be a good one."""
        answer = await self.app.api.respond(Call(entity, action, params))
        assert not (isinstance(answer, dict) and answer.get("is_error")), answer
        return answer

    async def link(self, title: str = "Newsletter", **more: Any) -> int:
        """Link the audience with a new group, as the Config page does. The group's id."""
        group_id = int((await self.call("Group", "create", title=title))["id"])
        account = (await self.call("Mailchimpsync", "fetchaccountinfo", api_key=self.emulator.key))["values"]
        link = {"apiKey": self.emulator.key, "subscriptionGroup": str(group_id), "interests": {}, **more}
        accounts = {self.emulator.key: account | {"apiKey": self.emulator.key}}
        await self.call("Mailchimpsync", "updateconfig", config={"accounts": accounts, "lists": {self.list_id: link}})
        return group_id

    async def sync(self, group_id: int, **more: Any) -> None:
        """A whole sync, until nothing is under way."""
        await self.call("Mailchimpsync", "fetchandreconcile", group_id=group_id, **more)
        assert await self.app.sync.wait_until_idle(seconds=20)


@asynccontextmanager
async def a_whole_site(folder: Path, **options: Any) -> AsyncIterator[Whole]:
    """A server on an empty database in *folder*, and the Mailchimp it speaks to."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with running_emulator(**options) as emulator:
        settings = Settings(
            server=ServerSettings(port=port, base_url=base, site_key="site-key-of-a-whole-site"),
            database=DatabaseSettings(url=database_at(folder / "site.sqlite")),
            mailchimp=MailchimpSettings(base_url=emulator.root_url, poll_seconds=0.05),
            scheduler=SchedulerSettings(enabled=False),
            log=LogSettings(level="warning"),
            users=(UserSettings(ADMIN, ADMIN_KEY, frozenset({"*"})),),
        )
        async with open_app(settings) as app, serving(app):
            yield Whole(base, app, emulator)
