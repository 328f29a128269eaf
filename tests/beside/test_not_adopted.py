"""A CiviCRM's database is worked on after ``civiapi adopt`` only, never by accident."""

import asyncio
from pathlib import Path

import pytest

from tests.support.civicrm import ZONE, contents_of, tables_of
from tests.support.processes import civiapi
from tests.support.their_site import Theirs


@pytest.mark.parametrize("words", [("serve",), ("sync",), ("api3", "Contact.getcount")])
async def test_a_command_on_a_database_that_was_not_adopted_refuses_and_writes_nothing(
    theirs: Theirs, tmp_path: Path, words: tuple[str, ...]
) -> None:
    config = tmp_path / "settings.ini"
    config.write_text(f"[server]\nsite_key = 12345678\n[database]\nurl = {theirs.url}\ntimezone = {ZONE}\n", "utf-8")
    before = tables_of(theirs.url), contents_of(theirs.url)
    refused = await asyncio.to_thread(civiapi, *words, "--config", config, cwd=tmp_path)
    assert refused.returncode == 1
    assert "civiapi adopt --check" in refused.stderr
    assert (tables_of(theirs.url), contents_of(theirs.url)) == before
