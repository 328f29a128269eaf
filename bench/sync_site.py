"""Sites to measure the sync on: an emulator in another process, a database, and who is in it beforehand."""

import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.floor_sync import Link, open_database
from bench.surface import free_port, running
from civiapi.api.call import Call
from civiapi.app import open_app
from civiapi.settings import load_settings

MAILCHIMP_KEY = "0123456789abcdef0123456789abcdef-us1"
OVERLAP_S = 10
"""Of the emulator's members some changed lately: an overlap of two hours would read more where there are more."""

PEOPLE_AT = "2020-01-01 00:00:00"  # before anything the emulator's members did


@dataclass(frozen=True, slots=True)
class Mailchimp:
    """An emulator that runs: where, and the audience."""

    root: str
    list_id: str

    @property
    def base_url(self) -> str:
        """Where its API lives."""
        return f"{self.root}/3.0"


@contextmanager
def emulator(members: int, latency_ms: int) -> Iterator[Mailchimp]:
    """An emulator with so many members, each answer after *latency_ms*, while the block lasts."""
    port = free_port()
    command = [sys.executable, "-m", "sync.emulator", "--port", str(port), "--members", str(members)]
    command += ["--key", MAILCHIMP_KEY, "--latency", str(latency_ms), "--seed", "5", "--control"]
    with running(command, port, patience=600, quiet=True):
        root = f"http://127.0.0.1:{port}"
        answer = Link(f"{root}/3.0", MAILCHIMP_KEY).ask("GET", "/lists")
        yield Mailchimp(root, answer["lists"][0]["id"])


@dataclass(frozen=True, slots=True)
class Site:
    """A folder with a database, its settings file beside it, and the emulator it is linked with.

    *url*: of the MariaDB database that is used instead.
    """

    folder: Path
    mailchimp: Mailchimp
    port: int
    url: str = ""

    @property
    def database(self) -> Path:
        """The database file."""
        return self.folder / "site.sqlite"

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.folder / "settings.ini"

    @property
    def api_key(self) -> str:
        """The key of the one user."""
        return "bench-api-key"

    def as_case(self) -> str:
        """The parameters of a case, as JSON."""
        return json.dumps(
            {
                "settings": str(self.settings),
                "database": self.url or str(self.database),
                "mailchimp": self.mailchimp.base_url,
                "control": self.mailchimp.root,
                "key": MAILCHIMP_KEY,
                "list_id": self.mailchimp.list_id,
            }
        )


def new_site(
    folder: Path, mailchimp: Mailchimp, database: Path | None = None, *, poll_seconds: float = 0.05, url: str = ""
) -> Site:
    """A site in *folder*: on a copy of *database*, or with nobody in it but the group that is linked; *url*: there."""
    folder.mkdir(parents=True)
    site = Site(folder, mailchimp, free_port(), url)
    site.settings.write_text(
        f"[server]\nport = {site.port}\nbase_url = http://127.0.0.1:{site.port}\nsite_key = {secrets.token_hex(8)}\n"
        f"[database]\nurl = {url or f'sqlite:///{site.database}'}\n"
        f"[mailchimp]\nbase_url = {mailchimp.base_url}\npoll_seconds = {poll_seconds}\n"
        f"[sync]\noverlap_seconds = {OVERLAP_S}\n[scheduler]\nenabled = no\n[log]\nlevel = error\n"
        f"[user:bench]\napi_key = {site.api_key}\npermissions = *\n"
    )
    if database is not None:
        for part in database.parent.glob(f"{database.name}*"):
            shutil.copy(part, folder / part.name)
    else:
        asyncio.run(_link(site))
    return site


async def _link(site: Site) -> None:
    list_id = site.mailchimp.list_id
    config = {
        "accounts": {MAILCHIMP_KEY: {"audiences": {list_id: {"name": "Bench"}}}},
        "lists": {list_id: {"apiKey": MAILCHIMP_KEY, "subscriptionGroup": 1, "interests": {}}},
    }
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("Group", {"title": "Bench"}),
        ("Setting", {"mailchimpsync_config": json.dumps(config)}),
    )
    async with open_app(load_settings(site.settings)) as app:
        for entity, params in calls:
            answer = await app.api.respond(Call(entity, "create", params))
            if answer["is_error"]:
                raise SystemExit(f"{entity}.create: {answer['error_message']}")


def let_all_be_known(site: Site) -> None:
    """A contact for each member, in the group if they get mail."""
    link = Link(site.mailchimp.base_url, MAILCHIMP_KEY)
    conn = open_database(site.url or str(site.database))
    first = (conn.execute("SELECT max(id) FROM civicrm_contact").fetchone()[0] or 0) + 1
    for members in link.pages(site.mailchimp.list_id):
        people = [(m["email_address"].lower(), m["status"] in ("subscribed", "pending")) for m in members]
        add_people(conn, first, people)
        first += len(people)
    conn.close()


def let_all_be_contacts(site: Site, count: int) -> None:
    """*count* contacts in the group that Mailchimp does not have."""
    conn = open_database(site.url or str(site.database))
    first = (conn.execute("SELECT max(id) FROM civicrm_contact").fetchone()[0] or 0) + 1
    for start in range(first, first + count, 10_000):
        stop = min(start + 10_000, first + count)
        add_people(conn, start, [(f"person.{number}@example.org", True) for number in range(start, stop)])
    conn.close()


def add_people(conn: Any, first: int, people: list[tuple[str, bool]]) -> None:
    """Contacts from id *first* on, each with an address, in the group where it says so."""
    conn.execute("BEGIN")
    conn.executemany(
        "INSERT INTO civicrm_contact (id, contact_type, first_name, last_name, display_name, sort_name, created_date,"
        " modified_date) VALUES (?, 'Individual', 'Ada', 'Byron', 'Ada Byron', 'Byron, Ada',"
        f" '{PEOPLE_AT}', '{PEOPLE_AT}')",
        [(number,) for number, _ in enumerate(people, first)],
    )
    conn.executemany(
        "INSERT INTO civicrm_email (contact_id, location_type_id, email, is_primary) VALUES (?, 1, ?, 1)",
        [(number, address) for number, (address, _) in enumerate(people, first)],
    )
    inside = [(number,) for number, (_, is_in) in enumerate(people, first) if is_in]
    conn.executemany("INSERT INTO civicrm_group_contact (group_id, contact_id, status) VALUES (1, ?, 'Added')", inside)
    conn.executemany(
        "INSERT INTO civicrm_subscription_history (contact_id, group_id, date, method, status)"
        f" VALUES (?, 1, '{PEOPLE_AT}', 'Admin', 'Added')",
        inside,
    )
    conn.execute("COMMIT")
