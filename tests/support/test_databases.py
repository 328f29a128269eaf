"""The databases that tests are given: nobody has another's."""

from pathlib import Path

import pytest

from civiapi.store.schema.tables import METADATA
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


def test_what_a_test_changed_is_not_there_for_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only tables that differ are written again; one is emptied, one changed, and of one only the next id differs."""
    if why := databases.why_no_mariadb():
        pytest.skip(why)
    monkeypatch.setenv(databases.VARIABLE, "mariadb")

    def contents(url: str) -> dict[str, list[list[str]]]:
        name = url.rpartition("/")[2]
        counter = "SELECT auto_increment FROM information_schema.tables WHERE table_schema = '{}' AND table_name = '{}'"
        return {
            table: databases.sql(f"SELECT * FROM `{table}`", counter.format(name, table), database=name)
            for table in METADATA.tables
        }

    others = databases.in_use()
    databases.database_at(tmp_path / "one")
    databases.give_back(others)  # what is made first has its own times of birth
    url = databases.database_at(tmp_path / "two")
    before = contents(url)
    databases.sql(
        "DELETE FROM civicrm_country",
        "UPDATE civicrm_domain SET name = 'another'",
        "INSERT INTO civicrm_contact (contact_type) VALUES ('Individual')",
        "DELETE FROM civicrm_contact WHERE contact_type = 'Individual'",
        database=url.rpartition("/")[2],
    )
    assert {table for table, rows in contents(url).items() if rows != before[table]} == {
        "civicrm_country",
        "civicrm_domain",
        "civicrm_contact",
    }
    databases.give_back(others)
    again = databases.database_at(tmp_path / "three")
    assert again == url
    assert contents(again) == before


def test_a_database_whose_columns_a_test_changed_is_given_to_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A column in another character set is of the same type: the next test's emoji were cut."""
    if why := databases.why_no_mariadb():
        pytest.skip(why)
    monkeypatch.setenv(databases.VARIABLE, "mariadb")
    others = databases.in_use()
    url = databases.database_at(tmp_path / "one")
    narrow = "ALTER TABLE civicrm_mailchimpsync_cache MODIFY civicrm_groups LONGTEXT CHARACTER SET utf8mb3"
    databases.sql(narrow, database=url.rpartition("/")[2])
    databases.give_back(others)
    assert databases.database_at(tmp_path / "two") != url
