"""Plugins: the example of the documentation as an installed package; those that fail; what extensions have left."""

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from sync.data.plugins import DataMember, DataPlugins, MemberData, data_plugins, hookimpl
from sync.store.members.blobs import dump_data, load_data
from tests.support.api_caller import ApiCaller
from tests.support.linked_site import Site
from tests.support.merge_fields import a_merge_field, merges, run_sql, use_rules

ADA = "ada@example.org"
DOCS = Path(__file__).parents[3] / "docs" / "plugins.md"
FILES = re.compile(r"`([\w.]+)`\n\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the example of docs/plugins.md is installed: its module, and its metadata as pip writes them.

    Not by pip itself, which would have to download what it builds with.
    """
    target = tmp_path_factory.mktemp("site-packages")
    (project_name, project), (module_name, module) = FILES.findall(DOCS.read_text("utf-8"))
    assert (project_name, module_name) == ("pyproject.toml", "civiapi_notes.py")
    declared = tomllib.loads(project)["project"]
    assert [f"{one}.py" for one in tomllib.loads(project)["tool"]["setuptools"]["py-modules"]] == [module_name]
    a_distribution(target, declared["name"], declared["entry-points"]["civiapi"])
    (target / module_name).write_text(module, "utf-8")
    return target


def a_distribution(target: Path, name: str, entry_points: dict[str, str]) -> None:
    """The metadata of an installed package with these entry points."""
    info = target / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    listed = "".join(f"{one} = {value}\n" for one, value in entry_points.items())
    (info / "entry_points.txt").write_text(f"[civiapi]\n{listed}")


@pytest.fixture
def on_path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The installed example can be imported, and its entry point found."""
    monkeypatch.syspath_prepend(str(installed))
    yield installed
    sys.modules.pop("civiapi_notes", None)


async def a_member(site: Site, *plugins: object) -> int:
    """Ada in step, on a site with these plugins."""
    site.ctx = replace(site.ctx, plugins=data_plugins(*plugins))
    contact_id = await site.person(ADA)
    site.joined(ADA, merge_fields={"FNAME": "Ada", "LNAME": "Byron"})
    return contact_id


def tags_of(site: Site) -> set[str]:
    found = site.emulator.member(ADA)
    names = {one.id: one.name for one in site.emulator.audience().tags.values()}
    return {names[one] for one in (found.tags if found else None) or ()}


async def stored(site: Site) -> dict[str, Any]:
    return load_data((await site.row(ADA)).civicrm_data)


async def log_of(site: Site, **request: Any) -> str:
    await site.run(with_data=True, **request)
    log = (await site.status())["log"]
    await site.settle()
    return "\n".join(one["message"] for one in log)


@pytest.mark.usefixtures("on_path")
async def test_the_example_of_the_documentation_is_found_as_installed_and_sends(site: Site) -> None:
    contact_id = await a_member(site)
    assert (site.ctx.plugins or data_plugins()).names == ["notes"]
    a_merge_field(site, "NOTES", "number")
    notes = "INSERT INTO civicrm_note (entity_table, entity_id, note, privacy) VALUES ('civicrm_contact', {}, 'x', '0')"
    await run_sql(site, *[notes.format(contact_id)] * 3)
    await site.sync(since="ever", with_data=True)
    assert (merges(site, ADA), tags_of(site)) == ({"NOTES": 3}, {"Many notes"})
    source = (await stored(site))["org.example.notes"]
    assert source["mailchimp_updates"] == {"merge_fields": {"NOTES": 3}}
    assert list(source["tag_updates"].values()) == [{"name": "Many notes", "status": "active"}]
    sent = len(await site.updates())
    await site.sync(since="ever", with_data=True)
    assert len(await site.updates()) == sent
    await run_sql(site, "DELETE FROM civicrm_note")
    await site.sync(with_data=True)
    assert (merges(site, ADA), tags_of(site)) == ({"NOTES": 0}, set())


class Donors:
    """Gives a field and two tags by each hook."""

    def __init__(self, value: Any = "gold") -> None:
        self.value = value

    @hookimpl
    def member_data(self, conn: Connection, members: list[DataMember]) -> Any:
        for one in members:
            yield one.id, "org.example.donors", MemberData({"X": self.value}, {"Gold": True})

    @hookimpl
    def contact_tags(self, conn: Connection, contact_ids: list[int]) -> Any:
        return {one: ["Donor"] for one in contact_ids}


class Broken:
    """Fails after it has begun, in both hooks, or gives what is no data."""

    def __init__(self, what: str) -> None:
        self.what = what

    @hookimpl
    def member_data(self, conn: Connection, members: list[DataMember]) -> Any:
        for one in members:
            yield one.id, "org.example.broken", MemberData({"Y": "half"})
            if self.what == "raises":
                raise ValueError("no such thing")
            if self.what == "sql":
                conn.exec_driver_sql("SELECT nothing FROM nowhere")
            yield (one.id, "org.example.broken", {"Y": 1}) if self.what == "shape" else None


@pytest.mark.parametrize("what", ["raises", "sql", "shape", "none"])
async def test_a_plugin_that_fails_is_named_and_spoils_nothing_else(site: Site, what: str) -> None:
    await a_member(site, Donors(), Broken(what))
    a_merge_field(site, "X")
    a_merge_field(site, "Y")
    log = await log_of(site, since="ever")
    assert re.search(r"The plugin \S*Broken failed, and what it gives was left as it was: \w+", log)
    assert (merges(site, ADA), tags_of(site)) == ({"X": "gold"}, {"Gold", "Donor"})


async def test_what_a_plugin_gave_before_it_failed_stays(site: Site) -> None:
    class Fails:
        @hookimpl
        def contact_tags(self, conn: Connection, contact_ids: list[int]) -> Any:
            raise RuntimeError("out of order")

    await a_member(site, Donors())
    a_merge_field(site, "X")
    await site.sync(since="ever", with_data=True)
    site.ctx = replace(site.ctx, plugins=data_plugins(Fails()))
    assert "out of order" in await log_of(site, since="ever")
    assert (merges(site, ADA), tags_of(site)) == ({"X": "gold"}, {"Gold", "Donor"})


async def test_what_a_plugin_gives_no_more_is_taken_off_and_its_fields_stay(site: Site) -> None:
    await a_member(site, Donors())
    a_merge_field(site, "X")
    await site.sync(since="ever", with_data=True)
    site.ctx = replace(site.ctx, plugins=data_plugins())
    await site.sync(with_data=True)
    assert (merges(site, ADA), tags_of(site)) == ({"X": "gold"}, set())


async def test_a_plugin_that_cannot_be_loaded_is_named_and_the_others_work(
    site: Site, on_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_distribution(tmp_path, "bad", {"bad": "no_such_module_of_ours"})
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = data_plugins()
    assert (plugins.names, list(plugins.broken)) == (["notes"], ["bad"])
    await a_member(site)
    a_merge_field(site, "NOTES", "number")
    assert "The plugin bad failed" in await log_of(site, since="ever")
    assert merges(site, ADA) == {"NOTES": 0}


async def test_a_rule_goes_before_a_plugin(site: Site) -> None:
    await a_member(site, Donors())
    a_merge_field(site, "X")
    await use_rules(site, X="contact:last_name")
    await site.sync(since="ever", with_data=True)
    assert merges(site, ADA) == {"X": "Byron"}


@pytest.mark.parametrize("value", [None, True, ["x"], float("nan"), float("inf")])
async def test_what_mailchimp_refuses_of_any_member_is_not_sent(site: Site, value: Any) -> None:
    await a_member(site, Donors(value))
    a_merge_field(site, "X")
    await site.sync(since="ever", with_data=True)
    assert (merges(site, ADA), tags_of(site)) == ({}, {"Gold", "Donor"})


async def test_a_tag_that_is_taken_off_under_another_case_is_taken_off_once(site: Site) -> None:
    class TakesOff:
        @hookimpl
        def member_data(self, conn: Connection, members: list[DataMember]) -> Any:
            for one in members:
                yield one.id, "org.example.off", MemberData({}, {"DONOR": False})

    await a_member(site, Donors())
    a_merge_field(site, "X")
    await site.sync(since="ever", with_data=True)
    site.ctx = replace(site.ctx, plugins=data_plugins(Donors(), TakesOff()))
    await site.sync(since="ever", with_data=True)
    assert tags_of(site) == {"Gold"}
    sent = len(await site.updates())
    await site.sync(since="ever", with_data=True)
    assert len(await site.updates()) == sent


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
async def test_a_number_that_json_does_not_have_keeps_nothing_else_back(site: Site, value: float) -> None:
    class Computes:
        @hookimpl
        def member_data(self, conn: Connection, members: list[DataMember]) -> Any:
            for one in members:
                yield one.id, "org.example.computes", MemberData({"X": value, "Y": "fits"})

    await a_member(site, Computes())
    a_merge_field(site, "X", "number")
    a_merge_field(site, "Y")
    for _ in range(2):
        await site.sync(since="ever", with_data=True)
        assert merges(site, ADA) == {"Y": "fits"}
    assert len(await site.updates()) == 1


async def test_a_name_of_a_tag_that_is_too_long_for_mailchimp_is_cut_and_keeps_no_other_back(site: Site) -> None:
    class Wordy:
        @hookimpl
        def member_data(self, conn: Connection, members: list[DataMember]) -> Any:
            for one in members:
                yield one.id, "org.example.wordy", MemberData({}, {"x" * 300: True})

    await a_member(site, Wordy())
    await site.sync(since="ever", with_data=True)
    assert tags_of(site) == {"x" * 100}
    site.ctx = replace(site.ctx, plugins=data_plugins())
    await site.sync(with_data=True)
    assert tags_of(site) == set()


async def test_a_tag_that_one_plugin_names_in_another_case_than_another_is_one_tag(site: Site) -> None:
    class More:
        @hookimpl
        def contact_tags(self, conn: Connection, contact_ids: list[int]) -> Any:
            return {one: ["donor", " GOLD "] for one in contact_ids}

    await a_member(site, Donors(), More())
    await site.sync(since="ever", with_data=True)
    assert {name.lower() for name in tags_of(site)} == {"gold", "donor"}
    site.ctx = replace(site.ctx, plugins=data_plugins(More()))
    await site.sync(with_data=True)
    assert {name.lower() for name in tags_of(site)} == {"gold", "donor"}
    site.ctx = replace(site.ctx, plugins=data_plugins())
    await site.sync(with_data=True)
    assert tags_of(site) == set()


# ── What extensions of CiviCRM have left ────────────────────────────────────────────────────────────────────────────


async def leave(site: Site, **sources: Any) -> None:
    """What an extension wrote for the only row."""
    row = await site.row(ADA)
    data = dump_data({**load_data(row.civicrm_data), **sources}).hex()
    quoted = f"X'{data}'"
    await run_sql(site, f"UPDATE civicrm_mailchimpsync_cache SET civicrm_data = {quoted} WHERE id = {row.id}")


async def test_what_an_extension_left_is_sent_once_and_its_status_is_ignored(site: Site) -> None:
    await a_member(site)
    a_merge_field(site, "X")
    site.emulator.admin("import", ADA, tags=["Old", "Other"])
    await site.sync(since="ever")
    updates = {"status": "unsubscribed", "merge_fields": {"X": "theirs"}}
    tags = [{"name": "New", "status": "active"}, {"name": "Old", "status": "inactive"}]
    left = {"mailchimp_updates": updates, "tag_updates": tags, "previous": {"a": 1}}
    await leave(site, theirs=left, empty={"mailchimp_updates": {}, "tag_updates": {}}, odd="text")
    await site.sync(with_data=True)
    assert site.at_mailchimp(ADA) == "subscribed"
    assert (merges(site, ADA), tags_of(site)) == ({"X": "theirs"}, {"New", "Other"})
    kept = (await stored(site))["theirs"]
    assert (kept["mailchimp_updates"], kept["previous"]) == (updates, {"a": 1})
    sent = len(await site.updates())
    await site.sync(since="ever", with_data=True)
    assert len(await site.updates()) == sent


async def test_a_value_that_mailchimp_refuses_keeps_nothing_else_back_and_is_said(site: Site) -> None:
    await a_member(site)
    a_merge_field(site, "X", "number")
    a_merge_field(site, "Y")
    await site.sync(since="ever", with_data=True)
    await leave(site, theirs={"mailchimp_updates": {"merge_fields": {"X": "many", "Y": "fits"}}, "tag_updates": {}})
    await site.sync(since="ever", with_data=True)
    assert merges(site, ADA) == {}
    await site.sync(with_data=True)
    assert merges(site, ADA) == {"Y": "fits"}
    sent = len(await site.updates())
    await site.sync(since="ever", with_data=True)
    assert len(await site.updates()) == sent
    [one] = await ApiCaller(site)("explain", email=ADA)
    assert one["data"]["left_out"][0].startswith("X is left out: Mailchimp refused “many”.")


def test_the_plugins_of_a_process_have_names_that_stay() -> None:
    assert data_plugins(Donors()).names == data_plugins(Donors()).names
    assert isinstance(data_plugins(), DataPlugins)
