"""Pages of the documentation that are made from the program when the site is built; mkdocs loads this file.

``settings.md`` comes from ``settings.example.ini``, ``api.md`` and the folder ``api/`` from the catalogue of entities
(as ``civiapi docs`` writes it). Pages that the navigation does not name are built as well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mkdocs.structure.files import File, Files

from civiapi.api.declaration.reference import make_reference
from civiapi.ui.explorer.export import write_reference
from entities import catalogue

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "settings.example.ini"


@dataclass
class Group:
    """Keys of one section that share a comment, each with its default."""

    section: str
    comment: str
    keys: list[tuple[str, str]]


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    files.append(File.generated(config, "settings.md", content=settings_page()))
    files.append(File.generated(config, "api.md", content=api_page()))
    with TemporaryDirectory() as folder:
        for path in write_reference(catalogue(), Path(folder)):
            files.append(File.generated(config, f"api/{path.name}", content=path.read_text("utf-8")))
    return files


def settings_page() -> str:
    """Every setting with its default, its environment variable and its meaning."""
    text = EXAMPLE.read_text("utf-8")
    first, _, rest = text.partition("\n\n")
    parts = [
        "# Settings\n",
        _prose(first) + "\n",
        "The file is `settings.ini` in the working directory, or what `--config` or `CIVIAPI_CONFIG` names. "
        "A mistake in it ends a command with exit code 2 and one sentence that names the key.\n",
    ]
    section = ""
    for group in read_groups(rest):
        if group.section != section:
            section = group.section
            parts.append(f"## [{section}] {{ #{_anchor(section)} }}\n")
        parts += [_key(section, key, default) for key, default in group.keys]
        parts.append(_prose(group.comment) + "\n")
    return "\n".join(parts)


def read_groups(text: str) -> Iterator[Group]:
    """The keys of the example in its order, by the comment they stand under."""
    section, comment, keys = "", "", list[tuple[str, str]]()
    ahead = ""  # a comment before a section belongs to its first key
    for line in [*text.splitlines(), "[end]"]:
        if header := re.fullmatch(r"\[(.+)\]", line):
            if keys:
                yield Group(section, comment, keys)
            section, comment, ahead, keys = header[1], ahead, "", []
        elif assignment := re.fullmatch(r"(?:# )?(\w+) =(.*)", line):
            comment, ahead = (ahead or comment), ""
            keys.append((assignment[1], assignment[2].strip()))
        elif line.startswith("#"):
            if keys:
                yield Group(section, comment, keys)
                comment, keys = "", []
            ahead = f"{ahead}\n{line}" if ahead else line


def api_page() -> str:
    """The entities with their actions, leading to the page of each."""
    rows = [
        f"| [{one.name}](api/{one.name}.html) | {', '.join(f'`{action.name}`' for action in one.actions)} |"
        for one in make_reference(catalogue())
    ]
    return "\n".join(
        [
            "# API reference\n",
            "Every entity and action of APIv3 that civiapi answers, with parameters, types and permissions: "
            "[the reference](api/index.html). The same is at `/civicrm/api3` of a running server, where each call can "
            "be tried, and `civiapi docs` writes it to a folder.\n",
            "How to call it: [Scripting](scripting.md).\n",
            "| Entity | Actions |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _key(section: str, key: str, default: str) -> str:
    variable = f"CIVIAPI_{section.replace(':', '_')}__{key}".upper()
    word = "for example" if section.startswith("user:") else "default"
    shown = f"{word} `{default}`" if default else f"{word}: empty"
    return f"### {key} {{ #{_anchor(section)}-{key} }}\n\n{shown} · `{variable}`\n"


def _anchor(section: str) -> str:
    return section.replace(":", "-")


def _prose(comment: str) -> str:
    return "\n".join(line.removeprefix("#").strip() for line in comment.splitlines())
