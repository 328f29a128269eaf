"""What CiviCRM works out of a contact's parts: names and greetings, and what every new contact has."""

from typing import Any

import pytest

from civiapi.store.civicrm.contact_names import Conventions, greeting_columns, name_columns, new_contact_columns
from civiapi.store.schema.seed import GREETINGS

SITE = Conventions(
    labels={
        **{name: {value: template for value, template, _, _ in rows} for name, rows in GREETINGS.items()},
        "individual_prefix": {"4": "Dr."},
        "individual_suffix": {"1": "Jr."},
    },
    defaults={
        (name, kind): value
        for name, rows in GREETINGS.items()
        for value, _, number, is_default in rows
        for kind, its in (("Individual", 1), ("Household", 2), ("Organization", 3))
        if is_default and number == its
    },
    style=1,
    language="de_DE",
)
ADA = {"contact_type": "Individual", "first_name": "Ada", "last_name": "Byron"}


def site_with(template: str) -> Conventions:
    """A site whose members are greeted by *template* in letters."""
    labels = {**SITE.labels, "postal_greeting": {"9": template}}
    return Conventions(labels, {**SITE.defaults, ("postal_greeting", "Individual"): "9"}, 1, "de_DE")


@pytest.mark.parametrize(
    ("parts", "display", "sort"),
    [
        ({}, "Ada Byron", "Byron, Ada"),
        ({"prefix_id": 4, "suffix_id": "1"}, "Dr. Ada Byron Jr.", "Byron, Ada Jr."),
        ({"last_name": None, "suffix_id": 1}, "Ada Jr.", "Ada Jr."),
        ({"first_name": " ", "last_name": None, "prefix_id": 4}, "Dr.", "Dr."),
        ({"first_name": None, "last_name": ""}, "a@b.org", "a@b.org"),
        ({"first_name": "x" * 64, "last_name": "<" * 64}, "x" * 64 + " " + "<" * 15, "<" * 32),
    ],
)
def test_an_individual_is_named_by_its_parts(parts: dict[str, Any], display: str, sort: str) -> None:
    assert name_columns(SITE, ADA | parts, "a@b.org") == {"display_name": display, "sort_name": sort}


@pytest.mark.parametrize(
    ("parts", "texts"),
    [
        ({}, ("Dear Ada", "Dear Ada", "Ada Byron")),
        (
            {"middle_name": "Augusta", "prefix_id": 4, "suffix_id": 1},
            ("Dear Ada",) * 2 + ("Dr. Ada Augusta Byron Jr.",),
        ),
        ({"first_name": None}, ("Dear", "Dear", "Byron")),
        ({"email_greeting_id": 2}, ("Dear Ada Byron", "Dear Ada", "Ada Byron")),
        ({"email_greeting_id": "3", "prefix_id": 4}, ("Dear Dr. Byron", "Dear Ada", "Dr. Ada Byron")),
        ({"addressee_id": 4, "addressee_custom": "My Lady"}, ("Dear Ada", "Dear Ada", "My Lady")),
        ({"contact_type": "Household", "household_name": "Byrons"}, ("Dear Byrons", "Dear Byrons", "Byrons")),
        ({"contact_type": "Organization", "organization_name": "Slate"}, (None, None, "Slate")),
        ({"email_greeting_id": 77}, (None, "Dear Ada", "Ada Byron")),
    ],
)
def test_greetings_are_the_chosen_or_the_default_template(parts: dict[str, Any], texts: tuple[str, ...]) -> None:
    found = greeting_columns(SITE, ADA | parts)
    assert tuple(found[f"{name}_display"] for name in ("email_greeting", "postal_greeting", "addressee")) == texts


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{contact.last_name}{ }{contact.nick_name}{ }!", "Byron !"),
        ("Hello {contact.individual_prefix} {contact.first_name}", "Hello Ada"),
        ("Hello {if $x}you{/if}", None),
        ("Hello {contact.custom_5}", None),
        ("Hello {contact.first_name|upper}", None),
        ("Hello", "Hello"),
        ("x" * 300, "x" * 255),
    ],
)
def test_a_template_with_more_than_columns_is_left_to_civicrm(template: str, text: str | None) -> None:
    found = greeting_columns(site_with(template), ADA)
    assert (found["postal_greeting_id"], found["postal_greeting_display"]) == (9, text)


def test_a_new_contact_has_the_sites_style_and_language_unless_it_was_given_others() -> None:
    made = new_contact_columns(SITE, ADA | {"preferred_language": "fr_FR"}, None)
    assert (made["communication_style_id"], made["preferred_language"]) == (1, "fr_FR")
    assert new_contact_columns(SITE, ADA, None)["preferred_language"] == "de_DE"
