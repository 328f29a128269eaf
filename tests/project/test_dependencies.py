"""What we depend on: within ranges that have two ends, and the ranges are those that these tests run with."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
REQUIRED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("text", REQUIRED)
def test_a_dependency_has_a_range_with_two_ends_and_is_tested_within_it(text: str) -> None:
    wanted = Requirement(text)
    assert {">=", "<"} <= {one.operator for one in wanted.specifier}, text
    assert version(wanted.name) in wanted.specifier


# Versions from which published holes are closed; a range that admits an earlier one would admit the hole.
CLOSED = {
    "aiohttp": "3.14.5",  # the advisories on the server side up to 3.14.3
    "asyncmy": "0.2.13",  # CVE-2025-65896: keys of maps reached SQL unescaped
    "jinja2": "3.1.6",  # CVE-2025-27516
    "multipart": "1.3.1",  # CVE-2026-28356: a header that takes exponential time
    "orjson": "3.11.6",  # CVE-2025-67221: nesting without limit
    "pyjwt": "2.13",  # CVE-2024-53861, CVE-2026-32597, CVE-2026-48526
}


@pytest.mark.parametrize(("name", "closed"), CLOSED.items())
def test_no_range_admits_a_version_with_a_known_hole(name: str, closed: str) -> None:
    [wanted] = [found for text in PROJECT["dependencies"] if (found := Requirement(text)).name == name]
    [lowest] = [one.version for one in wanted.specifier if one.operator == ">="]
    assert Version(lowest) >= Version(closed)
