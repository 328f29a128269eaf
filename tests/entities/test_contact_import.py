"""Contact.importcsv: what a call sends is imported as a folder is, or refused with every invalid row."""

from typing import Any

import pytest

from civiapi.api.call import Caller
from tests.conftest import Ask

CONTACTS = "id,contact_type,first_name\n7,Individual,Ada\n"


async def test_files_are_imported_with_a_line_about_each(call: Ask) -> None:
    answer = await call("Contact", "importcsv", {"files": {"contacts.csv": CONTACTS}})
    assert answer["is_error"] == 0, answer
    assert answer["values"] == [
        {"file": "contacts.csv", "rows": 1, "loaded": 1, "already": 0, "renumbered": 0, "left_out": 0}
    ]
    assert await call("Contact", "getvalue", {"id": 7, "return": "first_name"}) == "Ada"


async def test_an_error_lists_every_invalid_row(call: Ask) -> None:
    answer = await call("Contact", "importcsv", {"files": {"contacts.csv": CONTACTS + "8,Robot,B\n9,,C\n"}})
    assert (answer["error_code"], answer["complete"]) == ("import_refused", 1)
    assert [(row["file"], row["line"]) for row in answer["rows"]] == [("contacts.csv", 3), ("contacts.csv", 4)]
    assert await call("Contact", "getcount") == 0


@pytest.mark.parametrize("files", [None, "", "a", 1, [], ["id"], {}, {"contacts.csv": 1}, {"contacts.csv": {"a": "b"}}])
async def test_what_is_no_map_of_texts_is_refused(call: Ask, files: Any) -> None:
    assert (await call("Contact", "importcsv", {"files": files}))["is_error"] == 1


@pytest.mark.parametrize("name", ["/etc/passwd", "../contacts.csv", "contacts.csv/..", "contacts.csv\0", "x" * 500])
async def test_a_name_is_one_of_ours_and_never_a_path(call: Ask, name: str) -> None:
    answer = await call("Contact", "importcsv", {"files": {name: CONTACTS}})
    assert "unknown name" in answer["error_message"]
    assert len(answer["error_message"]) < 400


async def test_half_a_surrogate_is_no_text(call: Ask) -> None:
    answer = await call("Contact", "importcsv", {"files": {"contacts.csv": CONTACTS + "\ud800"}})
    assert "is not UTF-8" in answer["error_message"]


async def test_it_needs_an_administrator(call: Ask) -> None:
    caller = Caller(1, frozenset({"access CiviCRM", "add contacts", "edit all contacts"}))
    answer = await call("Contact", "importcsv", {"files": {"contacts.csv": CONTACTS}}, caller)
    assert "administer CiviCRM" in answer["error_message"]
