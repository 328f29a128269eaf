"""Plugins say what else of a member is sent to Mailchimp: tags and merge fields.

A plugin (pluggy, project ``civiapi``) is an installed package with an entry point in the group ``civiapi``; it
implements any of the hooks of `DataHooks` (``docs/plugins.md``). The built-in one gives each CiviCRM tag of a contact
as ``CiviCRM: NAME``. A plugin that fails, when it is loaded or when it is asked, is named and left out; the others and
the sync go on.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import pluggy
import structlog
from sqlalchemy import Connection, select

from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import entity_tag, tag

PROJECT = "civiapi"
PREFIX = "CiviCRM: "
TAG_LENGTH = 100  # the longest tag name Mailchimp takes
BUILT_IN = "civicrm_tags"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

log = structlog.get_logger(__name__)


class DataMember(NamedTuple):
    """A member in an audience whose data may be sent. *id* is that of its row in ``civicrm_mailchimpsync_cache``."""

    id: int
    list_id: str
    contact_id: int
    email: str


@dataclass(frozen=True, slots=True)
class MemberData:
    """What a plugin gives for a member: merge fields (tag → text, number or address) and tags (name → on or off)."""

    merge_fields: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, bool] = field(default_factory=dict)


class DataHooks:
    """What a data plugin may implement. Hooks are called inside a transaction: read from *conn*, write nothing."""

    @hookspec
    def contact_tags(self, conn: Connection, contact_ids: Sequence[int]) -> Mapping[int, Iterable[str]]:  # type: ignore[empty-body]
        """The names of the tags each of these contacts should have at Mailchimp; a contact without any may be left out.

        A tag that is not given any more is taken off. Give names a prefix of your own.
        """

    @hookspec
    def member_data(  # type: ignore[empty-body]
        self, conn: Connection, members: Sequence[DataMember]
    ) -> Iterable[tuple[int, str, MemberData]]:
        """Merge fields and tags of these members: yields (id of the member, identifier, data).

        The identifier names the source of the data, and is the plugin's own (``org.example.donors``). Data is kept
        under it in ``civicrm_data`` and sent where it changed; a member that is not yielded has none.
        """


class CiviTags:
    """The built-in plugin: a contact's tags in CiviCRM, as ``CiviCRM: NAME``."""

    @hookimpl
    def contact_tags(self, conn: Connection, contact_ids: Sequence[int]) -> Mapping[int, Iterable[str]]:
        """The tags of these contacts."""
        found: dict[int, list[str]] = defaultdict(list)
        rows = conn.execute(
            select(entity_tag.c.entity_id, tag.c.name)
            .join(tag, tag.c.id == entity_tag.c.tag_id)
            .where(entity_tag.c.entity_table == "civicrm_contact", in_list(entity_tag.c.entity_id, contact_ids))
        )
        for contact_id, name in rows:
            found[contact_id].append(f"{PREFIX}{name}")
        return found


@dataclass(frozen=True, slots=True)
class Answers:
    """What the plugins gave for some members; *failed*: the name of each that failed, with the error."""

    tags: Mapping[int, set[str]] = field(default_factory=dict)
    """By contact id; a name that is too long for Mailchimp is cut."""
    data: Mapping[int, Mapping[str, MemberData]] = field(default_factory=dict)
    """By row, then by identifier."""
    failed: Mapping[str, str] = field(default_factory=dict)


class DataPlugins:
    """The plugins of a process, the built-in one among them. *broken* could not be loaded: name → error."""

    def __init__(self, manager: pluggy.PluginManager, broken: Mapping[str, str] | None = None) -> None:
        self._manager = manager
        self.broken = dict(broken or {})

    @property
    def names(self) -> list[str]:
        """The plugins that were loaded, the built-in one left out."""
        return sorted(name for name, _ in self._manager.list_name_plugin() if name != BUILT_IN)

    def ask(self, conn: Connection, members: Sequence[DataMember]) -> Answers:
        """Ask every plugin about these members."""
        if not members:
            return Answers()
        failed: dict[str, str] = {}
        tags: dict[int, set[str]] = defaultdict(set)
        contact_ids = list(dict.fromkeys(one.contact_id for one in members))
        for found in self._call(conn, "contact_tags", _read_tags, failed, contact_ids=contact_ids):
            for contact_id, names in found.items():
                tags[contact_id] |= names
        data: dict[int, dict[str, MemberData]] = defaultdict(dict)
        for given in self._call(conn, "member_data", _read_data, failed, members=members):
            for cache_id, identifier, one in given:
                data[cache_id][identifier] = one
        return Answers(tags, data, failed)

    def _call(
        self, conn: Connection, hook: str, read: Callable[[Any], Any], failed: dict[str, str], **asked: Any
    ) -> Iterator[Any]:
        """The answer of each plugin to a hook, checked by *read*; one that fails is added to *failed*."""
        every = self._manager.get_plugins()
        implemented = [one.plugin_name for one in getattr(self._manager.hook, hook).get_hookimpls()]
        for name in implemented:
            others = [one for one in every if one is not self._manager.get_plugin(name)]
            try:
                with conn.begin_nested():  # what a failing one has begun is undone
                    answers = self._manager.subset_hook_caller(hook, remove_plugins=others)(conn=conn, **asked)
                    found = [read(answer) for answer in answers]
            except Exception as error:
                log.warning("a plugin failed", plugin=name, hook=hook, error=repr(error))
                failed[name] = f"{type(error).__name__}: {error}"
                continue
            yield from found


def data_plugins(*more: object) -> DataPlugins:
    """The built-in plugin, those installed as entry points ``civiapi``, and *more*."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(DataHooks)
    manager.register(CiviTags(), BUILT_IN)
    broken: dict[str, str] = {}
    for name in _installed(tuple(sys.path)):
        try:
            manager.load_setuptools_entrypoints(PROJECT, name)
        except Exception as error:
            log.warning("a plugin cannot be loaded", plugin=name, error=repr(error))
            broken[name] = f"{type(error).__name__}: {error}"
    for plugin in more:
        manager.register(plugin, f"{type(plugin).__module__}.{type(plugin).__qualname__}")
    return DataPlugins(manager, broken)


@cache
def _installed(_path: tuple[str, ...]) -> list[str]:
    """The names of the plugins that are installed in *_path*: to look through all that is there takes 5 ms and more."""
    return sorted({one.name for one in entry_points(group=PROJECT)})


def _read_tags(answer: Any) -> dict[int, set[str]]:
    return {
        int(contact_id): {str(name)[:TAG_LENGTH] for name in names if name}
        for contact_id, names in (answer or {}).items()
    }


def _read_data(answer: Any) -> list[tuple[int, str, MemberData]]:
    """A plugin's data, read to the end here, where its errors are caught. Raises TypeError for anything else."""
    found = []
    for cache_id, identifier, data in answer or ():
        if not isinstance(data, MemberData) or not isinstance(identifier, str) or not identifier:
            raise TypeError("member_data must yield (id, identifier, MemberData)")
        tags = {str(name)[:TAG_LENGTH]: on for name, on in data.tags.items()}
        found.append((int(cache_id), identifier, replace(data, tags=tags)))
    return found
