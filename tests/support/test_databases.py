"""The databases that tests are given: nobody has another's."""

from pathlib import Path

import pytest

from tests.support import databases


def test_a_database_that_outlives_a_test_is_given_to_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server that a module's tests share went on writing into what the next test took for its own."""
    if why := databases.why_no_mariadb():
        pytest.skip(why)
    monkeypatch.setenv(databases.VARIABLE, "mariadb")
    of_the_module = databases.database_at(tmp_path / "module")
    others = databases.in_use()
    of_the_test = databases.database_at(tmp_path / "test")
    databases.give_back(others)
    assert databases.database_at(tmp_path / "next") == of_the_test
    assert databases.database_at(tmp_path / "module") == of_the_module
