"""The rehearsal: copy, emulated Mailchimp, preview, first sync, report."""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from civiapi.api.call import Call
from civiapi.app import App, open_app
from civiapi.cli.rehearse.database_copy import copy_database
from civiapi.cli.rehearse.export_folder import BadExport, LoadedExport
from civiapi.cli.sync import stage_bars
from civiapi.settings import AlertSettings, DatabaseSettings, SchedulerSettings, ServerSettings, Settings
from sync.connections.config import Config, Link, read_config
from sync.connections.config_values import as_map
from sync.emulator.server.running import Emulator, running_emulator
from sync.errors import BadConfig
from sync.reconcile.categories import QUIET

PAGE = 1000


class RehearsalFailed(Exception):
    """The rehearsal stopped; the text says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An audience of the export and the group that it is rehearsed with; *link*: the connection that has this group."""

    list_id: str
    group_id: int
    link: Link | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the configuration has of that connection: its brake, its rules for merge fields."""


@dataclass(slots=True)
class Rehearsed:
    """What the first sync of one audience did. *people*: of each kind of change, the first few."""

    pair: Pair
    group: str
    plan_id: str
    summary: list[dict[str, Any]]
    people: dict[str, list[dict[str, Any]]]
    brake: str = ""
    failures: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A rehearsal in progress: the copy's API, over the emulator."""

    app: App
    emulator: Emulator

    async def call(self, action: str, params: dict[str, Any], entity: str = "Mailchimpsync") -> Any:
        """The values of an API call. Raises ``RehearsalFailed``."""
        answer = await self.app.api.respond(Call(entity, action, {"version": 3, "sequential": 1, **params}))
        if answer.get("is_error"):
            raise RehearsalFailed(str(answer["error_message"]))
        return answer["values"]


def choose_pairs(config: Config, export: LoadedExport, group: int | None) -> list[Pair]:
    """Which audience of the export is rehearsed with which group. Raises ``BadExport``.

    With a *group*, the one audience that there is. Else each audience that is linked; a single one that is not (the id
    in the file's name may be the export's) stands for the only connection.
    """
    ids, links = list(export.files), list(config.links.values())
    if group is not None:
        chosen = [one for one in ids if one in config.links and config.links[one].group_id == group] or ids
        if len(chosen) > 1:
            raise BadExport(f"The export has {len(ids)} audiences ({', '.join(ids)}); name the folder of one.")
        return [_pair(config, chosen[0], group, next((one for one in links if one.group_id == group), None))]
    linked = [one for one in ids if one in config.links]
    if linked:
        return [_pair(config, one, config.links[one].group_id, config.links[one]) for one in linked]
    if len(ids) == len(links) == 1:
        return [_pair(config, ids[0], links[0].group_id, links[0])]
    known = ", ".join(f"{one.list_id} with group {one.group_id}" for one in links) or "none"
    raise BadExport(
        f"Audience {', '.join(ids)} is linked with no group (linked: {known}). Name the group with --group."
    )


def _pair(config: Config, list_id: str, group_id: int, link: Link | None) -> Pair:
    stored = as_map(as_map(config.raw.get("lists")).get(link.list_id)) if link else {}
    return Pair(list_id, group_id, link, stored)


class Reporter(Protocol):
    """Writes the report (``report.Report``)."""

    async def write(self, stage: Stage, done: Sequence[Rehearsed]) -> None:
        """Write it, while the copy is there."""


class Rehearsal:
    """One rehearsal of *export*, for the site of *settings*. Use ``run``; then the copy is gone."""

    def __init__(self, settings: Settings, export: LoadedExport, console: Console, *, rows: int) -> None:
        self._settings = settings
        self._export = export
        self._console = console
        self._rows = rows

    async def run(self, group: int | None, report: Reporter) -> list[Rehearsed]:
        """Rehearse, and have *report* written while the copy is there.

        Raises ``StoreError`` if there can be no copy, ``BadExport`` and ``RehearsalFailed``.
        """
        with tempfile.TemporaryDirectory(prefix="civiapi-rehearsal-", ignore_cleanup_errors=True) as folder:
            with self._console.status("Copying the database …"):
                copied = await copy_database(self._settings.database, Path(folder))
            async with (
                running_emulator(self._export.world) as emulator,
                open_app(rehearsal_settings(self._settings, copied, emulator)) as app,
            ):
                stage = Stage(app, emulator)
                pairs = choose_pairs(await _read_links(app), self._export, group)
                await _link(stage, pairs)
                done = [await self._rehearse(stage, pair) for pair in pairs]
                await report.write(stage, done)
                return done

    async def _rehearse(self, stage: Stage, pair: Pair) -> Rehearsed:
        with self._console.status(f"Calculating what would change in group {pair.group_id} …"):
            plan = await stage.call("plan", {"group_id": pair.group_id, "since": "ever", "options": {"limit": 1}})
        found = Rehearsed(pair, await _title(stage, pair.group_id), plan["plan_id"], plan["summary"], {})
        for one in plan["summary"] if self._rows else ():
            asked = {"group_id": pair.group_id, "plan_id": found.plan_id, "kind": one["kind"]}
            if is_listed(one["kind"]):
                plan = await stage.call("plan", asked | {"options": {"limit": self._rows}})
                found.people[one["kind"]] = plan["people"]
        found.brake = await self._sync(stage, pair)
        found.failures = await stage.call("getfailures", {"group_id": pair.group_id})
        found.stats = (await _status(stage, pair))["stats"]
        return found

    async def _sync(self, stage: Stage, pair: Pair) -> str:
        """The whole first sync; returns why the brake would stop it, ``""`` where it would not."""
        asked: dict[str, Any] = {"group_id": pair.group_id, "since": "ever", "max_time": 0}
        brake = ""
        with stage_bars(stage.app.sync, self._console):
            try:
                await stage.call("fetchandreconcile", asked)
            except RehearsalFailed:
                status = await _status(stage, pair)
                if not status["brake"]:
                    raise
                brake = str(status["brake"]["sentence"])
                await stage.call("fetchandreconcile", asked | {"confirm": 1})
        with self._console.status("Waiting for the emulator to finish the batches …"):
            await stage.app.sync.wait_until_idle([pair.list_id])
        return brake


def rehearsal_settings(settings: Settings, copied: DatabaseSettings, emulator: Emulator) -> Settings:
    """The site's settings, but for everything that would reach the world outside."""
    mailchimp = replace(settings.mailchimp, base_url=emulator.base_url, poll_seconds=0.05)
    return replace(
        settings,
        server=ServerSettings(),
        database=copied,
        mailchimp=mailchimp,
        scheduler=SchedulerSettings(enabled=False),
        alerts=AlertSettings(),
        users=(),
    )


async def _read_links(app: App) -> Config:
    try:
        return await app.store.read(read_config)
    except BadConfig:
        return Config()


async def _link(stage: Stage, pairs: Sequence[Pair]) -> None:
    """Replace the copy's configuration, and with it all rows of earlier syncs, by the pairs and the emulator's key.

    Interests and marketing permissions are not in an export under their ids, so none are linked.
    """
    await stage.call("updateconfig", {"config": {"accounts": {}, "lists": {}}})
    key = stage.emulator.key
    account = await stage.call("fetchaccountinfo", {"api_key": key, "sequential": 0})
    same = {"apiKey": key, "interests": {}, "permissions": {}}
    lists = {one.list_id: {**one.settings, **same, "subscriptionGroup": one.group_id} for one in pairs}
    await stage.call("updateconfig", {"config": {"accounts": {key: account | {"apiKey": key}}, "lists": lists}})


async def _status(stage: Stage, pair: Pair) -> dict[str, Any]:
    statuses: dict[str, Any] = await stage.call("getstatus", {"health": 1, "sequential": 0})
    return dict(statuses[pair.list_id])


async def _title(stage: Stage, group_id: int) -> str:
    found = await stage.call("get", {"id": group_id, "return": ["title"]}, "Group")
    return str(found[0]["title"]) if found else f"Group {group_id}"


def is_listed(kind: str) -> bool:
    """Whether a preview lists the people of this kind; others it only counts."""
    return kind not in QUIET


async def changes(stage: Stage, one: Rehearsed) -> AsyncIterator[list[dict[str, Any]]]:
    """All people for whom the sync would change something, in pages."""
    known: dict[str, Any] = {"group_id": one.pair.group_id, "plan_id": one.plan_id}
    offset = 0
    while True:
        people = (await stage.call("plan", known | {"options": {"limit": PAGE, "offset": offset}}))["people"]
        yield people
        offset += len(people)
        if len(people) < PAGE:
            return


async def failing(stage: Stage, one: Rehearsed) -> AsyncIterator[list[dict[str, Any]]]:
    """All people whose sync would fail, in pages."""
    asked = {"mailchimp_list_id": one.pair.list_id, "sync_status": "fail", "troubleshoot": 1}
    after = 0
    while True:
        page = {"id": {">": after}, "options": {"limit": PAGE, "sort": "id"}}
        rows = await stage.call("get", asked | page, "MailchimpsyncCache")
        yield rows
        if len(rows) < PAGE:
            return
        after = int(rows[-1]["id"])
