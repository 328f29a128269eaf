"""The report of reliability says what tests found and nothing else."""

import ast
import json
import re
from pathlib import Path

import pytest

from tests.reliability.report.evidence import CHAPTERS, every_test, find_file
from tests.reliability.report.evidence_of_traps import TRAPS
from tests.reliability.report.write import REPORT, read_results, render
from tests.support.processes import ROOT

NAMES = re.compile(r"\btest_\w+\.py(?:::\w+)+")
FILES = re.compile(r"\btests/\w+/test_\w+\.py\b")


def names_in(path: Path) -> set[str]:
    """The tests of a file, those of classes with the class before them."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{one.name}" for one in inner}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def test_every_claim_is_backed_by_tests_that_are_there() -> None:
    assert all(claim.says and claim.tests for chapter in CHAPTERS for claim in chapter.claims)
    missing = [one for one in every_test() if one.partition("::")[2] not in names_in(find_file(one))]
    assert missing == []


def test_every_test_that_the_report_names_is_there() -> None:
    report = REPORT.read_text("utf-8")
    named = sorted(set(NAMES.findall(report)))
    assert len(named) > 100
    assert [one for one in named if one.partition("::")[2] not in names_in(find_file(one))] == []
    assert [one for one in FILES.findall(report) if not (ROOT / one).is_file()] == []


def test_the_report_is_made_of_the_results_that_are_kept() -> None:
    assert REPORT.read_text("utf-8") == render(read_results()), "run: python -m tests.reliability.report.write"


def test_every_claim_is_in_the_report_and_held() -> None:
    results = read_results()
    for chapter in CHAPTERS:
        told = results[f"claims-{chapter.name}"]
        assert [row[0].partition(" (")[0] for row in told["rows"]] == [
            claim.says.partition(" (")[0] for claim in chapter.claims
        ], "run: make reliability"
        for says, tests, passed, failed in told["rows"]:
            assert passed >= len(tests), says
            assert failed == 0, says


def test_each_section_of_the_contract_that_names_traps_has_its_table() -> None:
    assert [number for number, _ in TRAPS] == [1, 4, 7, 8, 9, 12]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"title": "Trust me"}))
    with pytest.raises(ValueError, match=r"odd\.json has \['title'\]"):
        read_results(tmp_path)
    row = {"title": "t", "what": "w", "columns": ["a", "b"], "rows": [[1]], "made_by": "m"}
    (tmp_path / "odd.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="not as long as its columns"):
        read_results(tmp_path)


def test_a_table_shows_lists_one_a_line_and_keeps_bars_inside_cells() -> None:
    told = {"title": "T", "what": "W.", "columns": ["a"], "rows": [["x|y"], [["p", "q"]]], "made_by": "m", "seed": 7}
    assert "Seed: 7." in render({"t": told})
    assert "| x\\|y |\n| `p`<br>`q` |\n" in render({"t": told})
