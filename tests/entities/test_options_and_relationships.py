"""OptionGroup, OptionValue, Relationship and RelationshipType; what tags are used for; the site's sender."""

import pytest
from sqlalchemy import insert

from civiapi.store.engine import Store
from civiapi.store.schema import tables
from tests.conftest import Ask
from tests.support.contacts import a_contact


async def test_a_new_choice_gets_the_next_number_and_place_and_can_be_chosen_at_once(call: Ask) -> None:
    assert "4" not in (await call("Contact", "getoptions", {"field": "gender_id"}))["values"]
    made = await call("OptionValue", "create", {"option_group_id": "gender", "label": "Other still"})
    row = await call("OptionValue", "getsingle", {"id": made["id"]})
    assert (row["value"], row["weight"], row["name"]) == ("4", "4", "Other still")
    ada = await a_contact(call, gender_id="other still")
    assert await call("Contact", "getvalue", {"id": ada, "return": "gender"}) == "Other still"
    await call("OptionValue", "delete", {"id": made["id"]})
    assert "4" not in (await call("Contact", "getoptions", {"field": "gender_id"}))["values"]


async def test_choices_are_found_by_the_name_of_their_list(call: Ask) -> None:
    found = await call("OptionValue", "get", {"option_group_id": "phone_type", "return": "label", "sequential": 1})
    assert [row["label"] for row in found["values"]] == ["Phone", "Mobile", "Fax", "Pager", "Voicemail"]
    assert await call("OptionValue", "getcount", {"option_group_id.name": "phone_type"}) == 5
    unknown = await call("OptionValue", "getcount", {"option_group_id": "no such list"})
    assert unknown["is_error"] == 1


async def test_a_list_of_ones_own(call: Ask) -> None:
    made = await call("OptionGroup", "create", {"name": "colours"})
    assert await call("OptionGroup", "getvalue", {"id": made["id"], "return": "title"}) == "colours"
    await call("OptionValue", "create", {"option_group_id": "colours", "label": "Red"})
    assert await call("OptionValue", "getvalue", {"option_group_id": "colours", "return": "value"}) == "1"
    await call("OptionGroup", "delete", {"id": made["id"]})
    assert await call("OptionValue", "getcount", {"label": "Red"}) == 0


@pytest.mark.parametrize("name", ["contact_id", "contact_id_a"])
async def test_relationships_of_a_contact_are_those_on_either_side(call: Ask, store: Store, name: str) -> None:
    ids = [await a_contact(call, one) for one in ("Ada", "Bea", "Cy")]
    kind = int(await call("RelationshipType", "getvalue", {"name_a_b": "Child of", "return": "id"}))
    rows = [
        {"contact_id_a": a, "contact_id_b": b, "relationship_type_id": kind}
        for a, b in ((ids[0], ids[1]), (ids[2], ids[0]), (ids[1], ids[2]))
    ]
    await store.write(lambda conn: conn.execute(insert(tables.relationship), rows))
    found = await call("Relationship", "get", {name: ids[0], "sequential": 1})
    assert [row["id"] for row in found["values"]] == (["1", "2"] if name == "contact_id" else ["1"])
    chained = await call("Contact", "get", {"id": ids[0], "api.Relationship.getcount": 1, "sequential": 1})
    assert chained["values"][0]["api.Relationship.getcount"] == 2
    labels = await call("Relationship", "getlist", {"id": [1]})
    assert labels["values"][0]["label"] == "Child of"


@pytest.mark.parametrize("sent", ["civicrm_contact,civicrm_activity", ["civicrm_contact", "civicrm_activity"]])
async def test_what_a_tag_is_used_for_is_text_with_commas(call: Ask, sent: object) -> None:
    made = await call("Tag", "create", {"name": "x", "used_for": sent})
    assert await call("Tag", "getvalue", {"id": made["id"], "return": "used_for"}) == "civicrm_contact,civicrm_activity"
    plain = await call("Tag", "create", {"name": "y", "sequential": 1})
    assert await call("Tag", "getvalue", {"id": plain["id"], "return": "used_for"}) == "civicrm_contact"
    refused = await call("Tag", "create", {"name": "z", "used_for": "civicrm_contact,moon"})
    assert refused["error_message"] == "'moon' is not a valid option for field used_for"


async def test_a_domain_has_what_is_asked_for_and_the_sender_of_the_sites_mail(call: Ask) -> None:
    always = {"id", "domain_version", "from_name", "from_email", "domain_email"}
    assert (await call("Domain", "getsingle", {"return": ["name"]})).keys() == {*always, "name"}
    assert (await call("Domain", "getsingle", {"return": ["description"]})).keys() == always
    assert await call("Domain", "getvalue", {"id": 1, "return": "domain_version"}) == "5.75.1"
    assert (await call("Domain", "getsingle", {"current_domain": 1}))["from_email"] == ""
    sender = {"option_group_id": "from_email_address", "label": '"The Site" <site@example.org>', "is_default": 1}
    await call("OptionGroup", "create", {"name": "from_email_address"})
    await call("OptionValue", "create", sender)
    row = await call("Domain", "getsingle", {"current_domain": 1})
    assert (row["from_name"], row["from_email"]) == ("The Site", "site@example.org")
    assert await call("Domain", "getvalue", {"id": 1, "return": "from_email"}) == "site@example.org"
