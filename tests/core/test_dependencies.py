"""What we depend on: within ranges that have two ends, and the ranges are those that these tests run with."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
REQUIRED = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("text", REQUIRED)
def test_a_dependency_has_a_range_with_two_ends_and_is_tested_within_it(text: str) -> None:
    wanted = Requirement(text)
    assert {">=", "<"} <= {one.operator for one in wanted.specifier}, text
    assert version(wanted.name) in wanted.specifier
