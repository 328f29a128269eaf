"""The documentation is true to the program: what it names exists, and what it has people type works."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bench import report
from civiapi.api.declaration.reference import make_reference, permission_table
from civiapi.cli.main import cli
from civiapi.settings import load_settings
from entities import catalogue
from sync.audience import CIVICRM, MAILCHIMP
from sync.reconcile.categories import KINDS, QUIET
from sync.reconcile.decide import Decision, Standing, decide
from tests.project.check_links import dead_links
from tests.support.processes import ADMIN_KEY, ROOT, SITE_KEY, civiapi, free_port, serving, write_settings

DOCS = ROOT / "docs"
OURS = ("index", "quick-start", "scripting", "concepts", "troubleshooting", "operations", "contributing", "releases")
PAGES = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in OURS}
TEMPLATES = " ".join(
    re.sub(r"\s+", " ", path.read_text("utf-8"))
    for path in sorted((ROOT / "civiapi" / "ui").rglob("*.*"))
    if path.suffix in (".html", ".py")
)
SAMPLE = ROOT / "civiapi" / "cli" / "demo" / "data" / "civicrm"

pages = pytest.mark.parametrize("page", OURS)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every `civiapi …` of a page, in blocks and in lines."""
    for found in re.finditer(r"(?:^|[`|(/] ?)civiapi ((?:[a-z-]|\$|\[)[^`|\n#]*)", text, re.M):
        yield found[1].split()


@pages
def test_every_command_and_option_that_a_page_names_is_there(page: str) -> None:
    top = typer.main.get_command(cli)
    known: Any = {**top.commands, **top.commands["cv"].commands}  # type: ignore[attr-defined]
    for words in commands(PAGES[page]):
        if words[0].startswith("-"):
            options = {option for one in top.params for option in one.opts}
        elif words[0] in known:
            options = {option for one in known[words[0]].params for option in one.opts} | {"--help"}
        else:
            continue  # a path or a sentence, not a command
        for word in words:
            assert not word.startswith("--") or word.partition("=")[0].rstrip(").,;") in options, " ".join(words)


def test_scripting_names_every_kind_of_change_in_a_plan() -> None:
    assert [kind for kind in KINDS if kind not in QUIET and f"`{kind}`" not in PAGES["scripting"]] == []


@pages
def test_every_call_that_a_page_names_is_there(page: str) -> None:
    registry = catalogue()
    text = PAGES[page].replace("Entity.action", "")
    for entity, action in re.findall(r"\b([A-Z][A-Za-z]+)\.([a-z]{3,})\b", text):
        found = registry.find_entity(entity)
        assert found is not None, f"{entity}.{action}"
        assert action in registry.actions(found), f"{entity}.{action}"


@pages
def test_every_setting_that_a_page_names_is_there(page: str) -> None:
    settings = load_settings(None, {})
    for section, key in re.findall(r"`\[(\w+)\] (\w+)", PAGES[page]):
        assert hasattr(getattr(settings, section), key), f"[{section}] {key}"


@pages
def test_every_file_and_target_that_a_page_names_is_there(page: str) -> None:
    for path in re.findall(r"`((?:deploy|civiapi|docs|tests|bench|\.ci)/[^` ]+)`", PAGES[page]):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"`make ([\w-]+)`", PAGES[page]):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.M), target


@pytest.mark.parametrize("page", ["quick-start", "troubleshooting"])
def test_every_button_and_page_that_is_named_in_bold_is_on_the_screen(page: str) -> None:
    for name in re.findall(r"\*\*(.+?)\*\*", PAGES[page]):
        assert name in TEMPLATES, name


SIDES = {"never": None, "Added": "Added", "Removed": "Removed"}
NOW = datetime(2026, 5, 3, 12, tzinfo=UTC)
OUTCOMES = {
    "does nothing": Decision.IN_SYNC,
    "subscribes them at Mailchimp": Decision.SUBSCRIBE,
    "unsubscribes them at Mailchimp": Decision.UNSUBSCRIBE,
    "adds them to the group": Decision.JOIN_GROUP,
    "removes them from the group": Decision.LEAVE_GROUP,
}
ROWS = re.findall(
    r"^\| (Added|Removed|never) \| (\w+) \| ([\w ]+) \| ([\w ]+) \|$",
    PAGES["concepts"].partition("## The dec")[2],
    re.M,
)


@pytest.mark.parametrize(("group", "member", "latest", "outcome"), ROWS, ids=[" ".join(row) for row in ROWS])
def test_the_table_of_decisions_is_what_is_decided(group: str, member: str, latest: str, outcome: str) -> None:
    later = NOW + timedelta(seconds=1)
    times = {CIVICRM: (later, NOW), MAILCHIMP: (NOW, later), "same second": (NOW, NOW)}
    for since_group, since_member in times.values() if latest == "either" else [times[latest]]:
        in_civicrm = None if group == "never" else Standing(group, since_group)
        at_mailchimp = None if member == "never" else Standing(member, since_member)
        assert decide(in_civicrm, at_mailchimp) is OUTCOMES[outcome]


def test_the_table_of_decisions_has_every_outcome() -> None:
    assert {OUTCOMES[row[3]] for row in ROWS} == set(Decision)


def test_the_commands_of_scripting_work_in_the_order_it_gives_them(tmp_path: Path) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", PAGES["scripting"], re.S)
    port = free_port()
    config = write_settings(tmp_path, port=port)
    assert civiapi("import", SAMPLE, cwd=tmp_path).returncode == 0
    script = f'set -e\nciviapi() {{ {sys.executable} -m civiapi "$@"; }}\n'
    for kind, block in blocks:
        script += block if kind == "sh" else f"{sys.executable} - <<'END'\n{block}END\n"
    script = script.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{port}")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SITE_KEY": SITE_KEY, "API_KEY": ADMIN_KEY}
    with serving(config, port):
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"is_error": 1' not in done.stdout
    assert '"is_error":1' not in done.stdout
    assert "<error_message>" not in done.stdout
    assert "grace@example.org" in done.stdout


def test_the_navigation_names_pages_that_are_there() -> None:
    generated = {"settings.md", "api.md"}

    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for one in node.values() if isinstance(node, dict) else node:
                yield from leaves(one)

    named = set(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert named - generated <= {path.name for path in DOCS.glob("*.md")}


def test_a_link_or_an_anchor_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>')
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="https://example.org/">not asked for</a>')
    assert dead_links(tmp_path) == ["a.html: b.html#gone", "a.html: c.html"]


def test_the_readme_is_short_and_every_link_of_it_works_wherever_it_is_shown() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", text)
    assert not [link for picture, link in links if not picture and not link.startswith("https://")]
    assert all((ROOT / link).exists() for picture, link in links if picture), "the project has no public address yet"


def test_the_pictures_are_small_and_each_is_shown() -> None:
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    pictures = list((DOCS / "pictures").iterdir())
    assert pictures
    for one in pictures:
        assert one.stat().st_size < 150_000, one.name
        assert f"(pictures/{one.name})" in pages, one.name


def test_the_paths_that_the_readme_names_are_there() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for path in re.findall(r"`((?:deploy|docs)/[^` ]*|[\w.]+\.(?:ini|md)|LICENSE)`", text):
        assert (ROOT / path).exists(), path


def test_the_table_of_permissions_is_that_of_the_declarations() -> None:
    """After a change: `civiapi docs`, and permissions.md into the page."""
    assert permission_table(make_reference(catalogue())) in (DOCS / "security.md").read_text("utf-8")


def test_the_page_on_security_names_every_secret_of_the_settings() -> None:
    text = (DOCS / "security.md").read_text("utf-8")
    settings = load_settings(None, {})
    secrets = [
        f"[{name}] {one.name}"
        for name in ("server", "database", "mailchimp")
        for one in fields(getattr(settings, name))
        if not one.repr
    ]
    assert len(secrets) > 2
    assert [one for one in secrets if f"`{one}`" not in text] == []


@pytest.mark.parametrize("name", report.PAGES)
def test_the_figures_of_a_page_are_those_that_were_measured_last(name: str) -> None:
    page = (ROOT / name).read_text("utf-8")
    assert report.written(page) == page, "python -m bench.report"


def test_every_table_of_the_performance_page_is_written_from_results() -> None:
    page = report.SECTION.sub("", (ROOT / report.PERFORMANCE).read_text("utf-8"))
    assert not re.search(r"^\|", page, re.MULTILINE)


def test_every_figure_that_can_be_written_is_on_a_page() -> None:
    pages = "".join((ROOT / name).read_text("utf-8") for name in report.PAGES)
    assert sorted(report.SECTION.findall(pages)) == sorted(report.SECTIONS)
