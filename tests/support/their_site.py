"""A CiviCRM's database (``civicrm.py``) with the Mailchimp that its extension was in the middle of a sync with."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stamina

from civiapi.maintenance.adopt import take_over
from civiapi.settings import DatabaseSettings, MailchimpSettings, Settings
from civiapi.store.engine import open_store
from sync.connections.clients import Clients
from sync.context import SyncContext
from sync.emulator.server.running import Emulator, running_emulator
from sync.mailchimp.wire import BatchOperation, subscriber_hash
from tests.support.civicrm import ZONE, a_civicrm
from tests.support.extension import Extension
from tests.support.linked_site import Site, sync_settings


@dataclass
class Theirs:
    """CiviCRM's database and the Mailchimp it is in the middle of a sync with."""

    url: str
    emulator: Emulator
    list_id: str
    settings: Settings

    @property
    def extension(self) -> Extension:
        """The extension, which goes on working on it."""
        return Extension(self.url, self.list_id)

    def write_settings(self, folder: Path) -> Path:
        """The settings, as a file in *folder*."""
        path = folder / "settings.ini"
        path.write_text(
            f"[database]\nurl = {self.url}\ntimezone = {ZONE}\n[mailchimp]\nbase_url = {self.emulator.root_url}\n",
            "utf-8",
        )
        return path

    @asynccontextmanager
    async def taken_over(self, **sync: Any) -> AsyncIterator[Site]:
        """Our part of a site on it."""
        await take_over(self.settings)
        store = await open_store(self.url, ZONE)
        clients = Clients(base_url=self.emulator.root_url)
        try:
            with stamina.set_testing(True, attempts=2):
                ctx = SyncContext(store, clients, sync_settings(poll_seconds=0.05, **sync), holder="tests")
                yield Site(store, self.emulator, clients, ctx, self.list_id)
        finally:
            await clients.close()
            await store.close()


@asynccontextmanager
async def their_site(folder: Path, *, smart: bool = False, then: Sequence[str] = ()) -> AsyncIterator[Theirs]:
    """Such a site; *then*: statements that its database is given besides."""
    async with running_emulator(auto_batches=False) as emulator:
        list_id = emulator.audience().id
        for local in ("zoe", "bob", "newcomer"):
            emulator.admin("import", f"{local}@example.org")
        body = {"email_address": "cy@example.org", "status": "subscribed", "status_if_new": "subscribed"}
        path = f"/lists/{list_id}/members/{subscriber_hash('cy@example.org')}"
        clients = Clients(base_url=emulator.root_url)
        sent = await clients.client_for(emulator.key).submit_batch([BatchOperation("PUT", path, "theirs1", body, {})])
        await clients.close()
        made = a_civicrm(folder, key=emulator.key, list_id=list_id, batch_id=sent.id, smart=smart, then=then)
        with made as url:
            yield Theirs(
                url,
                emulator,
                list_id,
                Settings(
                    database=DatabaseSettings(url=url, timezone=ZONE),
                    mailchimp=MailchimpSettings(base_url=emulator.root_url),
                ),
            )
