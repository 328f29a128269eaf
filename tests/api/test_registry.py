"""Names of entities and actions, as forgiving as contract 3.1 says."""

import pytest

from civiapi.api.declaration.names import action_name, entity_name
from civiapi.api.errors import NoSuchAction
from entities import catalogue

ENTITIES = {
    "contact": "Contact",
    "Contact_": "Contact",
    "group_contact": "GroupContact",
    "Group-Contact": "GroupContact",
    "uf_match": "UFMatch",
    "UfMatch": "UFMatch",
    "IM": "Im",
    "mailchimpsync_cache": "MailchimpsyncCache",
    "groupcontact": "Groupcontact",
}


@pytest.mark.parametrize(("sent", "name"), ENTITIES.items(), ids=[f"{s} is {n}" for s, n in ENTITIES.items()])
def test_an_entity_is_known_by_its_camel_case_name(sent: str, name: str) -> None:
    assert entity_name(sent) == name


def test_a_name_is_cut_to_63_characters() -> None:
    assert len(entity_name("x" * 100)) == 63


@pytest.mark.parametrize("sent", ["groupcontact", "CONTACT", "mailchimpsynccache", "Uf_Match"])
def test_an_entity_in_another_case_is_found_all_the_same(sent: str) -> None:
    assert catalogue().find_entity(sent) is not None


def test_actions_are_found_in_any_case_but_not_with_underscores() -> None:
    registry = catalogue()
    assert action_name("getSingle") == "getsingle"
    assert registry.resolve("contact", "GETCOUNT")[1].name == "getcount"
    with pytest.raises(NoSuchAction, match=r"API \(Contact, get_count\) does not exist"):
        registry.resolve("contact", "get_count")


def test_every_declared_reference_leads_to_a_declared_entity() -> None:
    registry = catalogue()
    missing = [
        (e.name, f.name, f.fk) for e in registry.entities() for f in e.fields if f.fk and not registry.find_entity(f.fk)
    ]
    assert missing == []


def test_every_column_that_an_entity_declares_has_a_title_and_a_known_type() -> None:
    untitled = [(e.name, f.name) for e in catalogue().entities() for f in e.fields if not f.label]
    assert untitled == []
