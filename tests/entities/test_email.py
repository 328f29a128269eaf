"""Email: which address is primary, holds and their dates, bulk mail, and what a change does to the contact (8.2)."""

from typing import Any

import pytest
import time_machine

from tests.conftest import Ask
from tests.support.contacts import a_caller, a_contact, an_email


async def flags(call: Ask, contact_id: int, name: str) -> dict[str, str]:
    """Each address of a contact with one of its flags."""
    answer = await call("Email", "get", {"contact_id": contact_id, "sequential": 1})
    return {row["email"]: row.get(name, "") for row in answer["values"]}


async def test_an_address_is_stored_in_lower_case(call: Ask) -> None:
    email_id = await an_email(call, await a_contact(call), "  Ada.LOVELACE@Example.ORG ")
    assert await call("Email", "getvalue", {"id": email_id, "return": "email"}) == "ada.lovelace@example.org"


async def test_create_answers_every_column_with_what_was_given(call: Ask) -> None:
    contact_id = await a_contact(call)
    made = await call("Email", "create", {"contact_id": contact_id, "email": "A@example.org"})
    assert made["values"][str(made["id"])] == {
        "id": "1",
        "contact_id": "1",
        "location_type_id": "1",
        "email": "a@example.org",
        "is_primary": "1",
        "is_billing": "",
        "on_hold": "0",
        "is_bulkmail": "",
        "hold_date": "",
        "reset_date": "",
        "signature_text": "",
        "signature_html": "",
    }


async def test_reload_adds_what_the_database_filled_in(call: Ask) -> None:
    contact_id = await a_contact(call)
    asked = {"contact_id": contact_id, "email": "a@example.org", "sequential": 1, "options": {"reload": 1}}
    assert (await call("Email", "create", asked))["values"][0]["is_billing"] == "0"


async def test_the_first_address_is_primary_whatever_was_sent(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "a@example.org", is_primary=0)
    await an_email(call, contact_id, "b@example.org")
    assert await flags(call, contact_id, "is_primary") == {"a@example.org": "1", "b@example.org": "0"}


async def test_a_new_primary_address_takes_the_place_of_the_old(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "a@example.org")
    await an_email(call, contact_id, "b@example.org", is_primary=1)
    assert await flags(call, contact_id, "is_primary") == {"a@example.org": "0", "b@example.org": "1"}


async def test_unsetting_the_primary_promotes_another(call: Ask) -> None:
    contact_id = await a_contact(call)
    first = await an_email(call, contact_id, "a@example.org")
    await an_email(call, contact_id, "b@example.org")
    await call("Email", "create", {"id": first, "is_primary": 0})
    assert await flags(call, contact_id, "is_primary") == {"a@example.org": "0", "b@example.org": "1"}


async def test_unsetting_the_only_primary_leaves_it_primary(call: Ask) -> None:
    contact_id = await a_contact(call)
    first = await an_email(call, contact_id, "a@example.org")
    changed = await call("Email", "create", {"id": first, "is_primary": 0, "sequential": 1})
    assert changed["values"][0]["is_primary"] == "1"
    assert await flags(call, contact_id, "is_primary") == {"a@example.org": "1"}


async def test_an_update_that_says_nothing_of_primary_changes_nothing_about_it(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "a@example.org")
    second = await an_email(call, contact_id, "b@example.org")
    await call("Email", "create", {"id": second, "email": "c@example.org"})
    assert await flags(call, contact_id, "is_primary") == {"a@example.org": "1", "c@example.org": "0"}


async def test_deleting_the_primary_promotes_another(call: Ask) -> None:
    contact_id = await a_contact(call)
    first = await an_email(call, contact_id, "a@example.org")
    await an_email(call, contact_id, "b@example.org")
    assert await call("Email", "delete", {"id": first}) == {"is_error": 0, "version": 3, "count": 1, "values": 1}
    assert await flags(call, contact_id, "is_primary") == {"b@example.org": "1"}


async def test_moving_an_address_to_another_contact_leaves_both_with_one_primary(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    moved = await an_email(call, ada, "a@example.org")
    await an_email(call, ada, "b@example.org")
    await an_email(call, bea, "c@example.org")
    await call("Email", "create", {"id": moved, "contact_id": bea})
    assert list((await flags(call, ada, "is_primary")).values()) == ["1"]
    assert sorted((await flags(call, bea, "is_primary")).values()) == ["0", "1"]


async def test_one_address_at_most_is_for_bulk_mail(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "a@example.org", is_bulkmail=1)
    await an_email(call, contact_id, "b@example.org", is_bulkmail=1)
    assert await flags(call, contact_id, "is_bulkmail") == {"a@example.org": "0", "b@example.org": "1"}


async def test_a_hold_is_dated_now_whatever_date_was_sent(call: Ask) -> None:
    with time_machine.travel("2024-01-31 10:15:00+00:00", tick=False):
        contact_id = await a_contact(call)
        email_id = await an_email(call, contact_id, "a@example.org", on_hold=2, hold_date="2020-01-01")
    assert await call("Email", "getvalue", {"id": email_id, "return": "hold_date"}) == "2024-01-31 10:15:00"


async def test_a_hold_taken_away_is_dated_and_a_later_one_dated_anew(call: Ask) -> None:
    email_id = await an_email(call, await a_contact(call), "a@example.org", on_hold=1)

    async def change(on_hold: int) -> tuple[Any, Any]:
        await call("Email", "create", {"id": email_id, "on_hold": on_hold})
        row = await call("Email", "getsingle", {"id": email_id})
        return row.get("hold_date"), row.get("reset_date")

    with time_machine.travel("2024-01-31 10:15:00+00:00", tick=False):
        assert await change(0) == (None, "2024-01-31 10:15:00")
        assert await change(0) == (None, "2024-01-31 10:15:00")
    with time_machine.travel("2024-02-01 10:15:00+00:00", tick=False):
        assert await change(1) == ("2024-02-01 10:15:00", None)
    with time_machine.travel("2024-02-02 10:15:00+00:00", tick=False):
        assert await change(2) == ("2024-02-01 10:15:00", None)


async def test_an_update_that_says_nothing_of_holds_leaves_them(call: Ask) -> None:
    email_id = await an_email(call, await a_contact(call), "a@example.org", on_hold=1)
    before = await call("Email", "getsingle", {"id": email_id})
    await call("Email", "create", {"id": email_id, "signature_text": "x"})
    assert (await call("Email", "getsingle", {"id": email_id})).items() >= before.items()


async def test_every_change_of_an_address_counts_as_a_change_of_the_contact(call: Ask) -> None:
    async def modified() -> str:
        return str(await call("Contact", "getvalue", {"id": 1, "return": "modified_date"}))

    with time_machine.travel("2024-01-01", tick=False):
        contact_id = await a_contact(call)
    with time_machine.travel("2024-01-02", tick=False):
        email_id = await an_email(call, contact_id, "a@example.org")
        assert await modified() == "2024-01-02 00:00:00"
    with time_machine.travel("2024-01-03", tick=False):
        await call("Email", "create", {"id": email_id, "on_hold": 1})
        assert await modified() == "2024-01-03 00:00:00"
    with time_machine.travel("2024-01-04", tick=False):
        await call("Email", "delete", {"id": email_id})
        assert await modified() == "2024-01-04 00:00:00"


async def test_a_contact_without_a_name_is_called_by_its_primary_address(call: Ask) -> None:
    made = await call("Contact", "create", {"contact_type": "Individual", "email": "Old@example.org"})
    await an_email(call, made["id"], "new@example.org", is_primary=1)
    row = await call("Contact", "getsingle", {"id": made["id"], "return": "display_name,sort_name"})
    assert (row["display_name"], row["sort_name"]) == ("new@example.org", "new@example.org")


async def test_a_contact_with_a_name_keeps_it(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "new@example.org")
    assert await call("Contact", "getvalue", {"id": contact_id, "return": "display_name"}) == "Ada Lovelace"


async def test_addresses_of_trashed_contacts_are_found(call: Ask) -> None:
    contact_id = await a_contact(call)
    await an_email(call, contact_id, "a@example.org")
    await call("Contact", "delete", {"id": contact_id})
    assert (await call("Email", "get", {"email": "a@example.org"}))["count"] == 1
    assert (await call("Email", "get", {"contact_id.is_deleted": 0}))["count"] == 0


async def test_a_contact_that_is_not_there_is_named(call: Ask) -> None:
    answer = await call("Email", "create", {"contact_id": 999, "email": "a@example.org"})
    assert (answer["is_error"], answer["error_message"]) == (1, "contact_id is not valid : 999")
    assert "civicrm_email" not in str(answer)


@pytest.mark.parametrize("action", ["create", "delete"])
async def test_an_address_that_is_not_there_is_an_error(call: Ask, action: str) -> None:
    answer = await call("Email", action, {"id": 99, "on_hold": 1})
    says = {"create": "No Email with id 99", "delete": "Could not delete entity id 99"}[action]
    assert (answer["is_error"], answer["error_message"]) == (1, says)


async def test_a_caller_sees_and_changes_the_addresses_of_the_contacts_that_are_theirs(call: Ask) -> None:
    ada, bea = await a_contact(call), await a_contact(call, "Bea")
    own, foreign = await an_email(call, ada, "a@example.org"), await an_email(call, bea, "b@example.org")
    caller = a_caller("access CiviCRM", "view my contact", "edit my contact", contact_id=ada)
    assert (await call("Email", "get", {}, caller))["id"] == own
    assert (await call("Email", "create", {"id": own, "on_hold": 1}, caller))["is_error"] == 0
    for action in ("create", "delete"):
        refused = await call("Email", action, {"id": foreign, "on_hold": 1}, caller)
        assert refused["error_message"] == "Permission denied to modify contact record"
        assert refused["error_code"] == "unauthorized"
