"""Imports point one way, so that each folder can be read without the ones above it."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]

LAYERS = (
    "civiapi.runtime",
    "civiapi.store",
    "civiapi.settings",
    "civiapi.logs",
    "civiapi.api",
    "civiapi.auth",
    "civiapi.http",
    "civiapi.importer",
    "sync.mailchimp",
    "sync.model",
    "sync.errors",
    "sync.field_rules",
    "sync.audience",
    "sync.store",
    "sync.reconcile",
    "sync.data",
    "sync.context",
    "sync.connections",
    "sync.leases",
    "sync.campaigns",
    "sync.outbox",
    "sync.runs",
    "sync.undo",
    "sync.inbox",
    "sync.reports",
    "civiapi.alerts",
    "sync.service",
    "entities",
    "civiapi.metrics",
    "civiapi.app",
    "civiapi.endpoints",
    "civiapi.ui",
    "civiapi.maintenance",
    "civiapi.server",
    "civiapi.cli",
    "civiapi.__main__",
)
"""From the lowest to the highest: a module imports its own layer and those before it."""

EMULATOR = "sync.emulator"
EMULATOR_IMPORTS = (EMULATOR, "sync.mailchimp.wire", "sync.mailchimp.archive")
EMULATOR_USERS = (EMULATOR, "civiapi.cli")
EMULATOR_LAYERS = tuple(
    f"{EMULATOR}.{name}" for name in ("model", "protocol", "rules", "endpoints", "world", "data", "server", "__main__")
)


def _modules() -> dict[str, Path]:
    found = {}
    for top in ("civiapi", "entities", "sync"):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = _modules()


def imports_of(module: str) -> set[str]:
    """The modules of ours that a module names, under TYPE_CHECKING or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in MODULES else node.module for part in parts}
    return (found & set(MODULES)) - {module}


@cache
def all_imports() -> dict[str, set[str]]:
    """By module; every process that collects tests imports this file, and few run its tests."""
    return {module: imports_of(module) for module in MODULES}


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _layer(module: str) -> int:
    [found] = [n for n, layer in enumerate(LAYERS) if _within(module, layer)]
    return found


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    placed = [m for m in MODULES if "." in m and not _within(m, EMULATOR)]
    assert [
        f"{module} imports {name}"
        for module in placed
        for name in sorted(all_imports()[module])
        if not _within(name, EMULATOR) and _layer(name) > _layer(module)
    ] == []


def test_the_emulator_stands_apart() -> None:
    imports = [(module, name) for module in MODULES for name in sorted(all_imports()[module])]
    out = [f"{m} imports {n}" for m, n in imports if _within(m, EMULATOR) and not _any(n, EMULATOR_IMPORTS)]
    into = [f"{m} imports {n}" for m, n in imports if _within(n, EMULATOR) and not _any(m, EMULATOR_USERS)]
    assert out + into == []


def test_a_module_of_the_emulator_imports_only_its_own_layer_and_those_below() -> None:
    def layer(module: str) -> int:
        return next(n for n, package in enumerate(EMULATOR_LAYERS) if _within(module, package))

    placed = [m for m in MODULES if _any(m, EMULATOR_LAYERS)]
    assert [
        f"{module} imports {name}"
        for module in placed
        for name in sorted(all_imports()[module])
        if _any(name, EMULATOR_LAYERS) and layer(name) > layer(module)
    ] == []


def _any(module: str, packages: tuple[str, ...]) -> bool:
    return any(_within(module, package) for package in packages)


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(all_imports()).prepare()  # raises CycleError, which names the modules


def test_what_answers_one_call_loads_no_web_server() -> None:
    """`civiapi api3` and `cv api3` are called by scripts, once for each thing they do: they start in a second."""
    look = "import civiapi.app, sys; print(*{'aiohttp', 'apscheduler', 'jsonrpcserver'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []


def test_what_all_commands_share_loads_no_database_library() -> None:
    """It takes longer to load than all else of a command that opens no database, such as `civiapi --help`."""
    look = "import civiapi.cli.common, sys; print(*{'sqlalchemy', 'asyncmy'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.split() == []
