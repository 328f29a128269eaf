"""Note: whom it is about, who wrote it, and who sees it."""

import time_machine

from civiapi.api.call import Caller
from tests.conftest import Ask
from tests.support.contacts import a_contact

EDITS = frozenset({"access CiviCRM", "view all contacts", "edit all contacts"})


async def test_a_note_is_about_a_contact_by_the_caller_and_of_now(call: Ask) -> None:
    ada = await a_contact(call)
    author = Caller(await a_contact(call, "Bea"), EDITS, "author")
    with time_machine.travel("2026-03-01 12:00:00+00:00", tick=False):
        made = await call("Note", "create", {"entity_id": ada, "note": "called"}, author)
    row = await call("Note", "getsingle", {"id": made["id"]})
    assert (row["entity_table"], row["contact_id"], row["note_date"]) == ("civicrm_contact", "2", "2026-03-01 12:00:00")
    assert row["privacy"] == "0"


async def test_a_private_note_is_seen_and_changed_by_its_author(call: Ask) -> None:
    ada = await a_contact(call)
    author, other = [Caller(await a_contact(call, name), EDITS, name) for name in ("Bea", "Cy")]
    made = await call("Note", "create", {"entity_id": ada, "note": "x", "privacy": "Author Only"}, author)
    assert await call("Note", "getcount", {}, author) == 1
    assert await call("Note", "getcount", {}, other) == 0
    assert await call("Note", "getcount", {}, Caller(3, EDITS | {"view all notes"}, "Cy")) == 1
    assert (await call("Note", "delete", {"id": made["id"]}, other))["is_error"] == 1
    assert (await call("Note", "delete", {"id": made["id"]}, author))["is_error"] == 0


async def test_notes_go_with_a_contact_that_is_deleted_for_good(call: Ask) -> None:
    ada = await a_contact(call)
    await call("Note", "create", {"entity_id": ada, "note": "x"})
    await call("Contact", "delete", {"id": ada, "skip_undelete": 1})
    assert await call("Note", "getcount", {}) == 0


async def test_a_note_moves_only_to_what_the_caller_may_edit(call: Ask) -> None:
    own = frozenset({"access CiviCRM", "view my contact", "edit my contact"})
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    mine = (await call("Note", "create", {"entity_id": ada, "note": "x"}, Caller(ada, own, "Ada")))["id"]
    for change in ({"entity_id": bea}, {"entity_table": "civicrm_contribution"}):
        refused = await call("Note", "create", {"id": mine, **change}, Caller(ada, own, "Ada"))
        assert refused["error_code"] == "unauthorized"
    assert (await call("Note", "create", {"id": mine, "note": "y"}, Caller(ada, own, "Ada")))["is_error"] == 0
