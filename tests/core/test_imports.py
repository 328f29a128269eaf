"""Imports point one way, so that each folder can be read without the ones above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# folder: what it may import of ours, by the beginning of the module name
MAY_IMPORT = {
    "civiapi/store": ("civiapi.store",),
    "sync/mailchimp": ("sync.mailchimp",),
    "sync": ("sync", "civiapi.store"),
    "entities": (
        "entities",
        "sync",
        "civiapi.store",
        "civiapi.spec",
        "civiapi.call",
        "civiapi.errors",
        "civiapi.registry",
        "civiapi.request",
        "civiapi.dispatch",
        "civiapi.envelope",
        "civiapi.access",
        "civiapi.describe",
        "civiapi.faults",
        "civiapi.options",
        "civiapi.query",
        "civiapi.params",
        "civiapi.dates",
        "civiapi.policy",
    ),
}


def imports_of(file: Path) -> set[str]:
    """The modules of ours that a file names, under TYPE_CHECKING or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= (
                {node.module}
                if node.module not in ("civiapi", "sync", "entities")
                else {f"{node.module}.{alias.name}" for alias in node.names}
            )
    return {name for name in found if name.split(".")[0] in ("civiapi", "sync", "entities")}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    allowed = MAY_IMPORT[folder]
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(imports_of(file))
        if not any(name == start or name.startswith(f"{start}.") for start in allowed)
    ]
    assert wrong == []


def test_what_answers_one_call_loads_no_web_server() -> None:
    """`civiapi api3` and `cv api3` are called by scripts, once for each thing they do: they start in a second."""
    look = "import civiapi.app, sys; print(*{'aiohttp', 'apscheduler', 'jsonrpcserver'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
