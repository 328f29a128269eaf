"""Names: which are sent, and which Mailchimp has later ones of. One row a rule."""

import pytest

from sync.data.names import ContactNames, names_to_send, newer_names

EARLY, NOON, LATE = "20260109080000", "20260109120000", "20260109180000"


def member(first: str, since: str, status_since: str = EARLY) -> dict[str, str]:
    return {"first_name": first, "first_name@": since, "last_name": "B", "status@": status_since}


# CiviCRM's name, when the contact changed, Mailchimp's, what was sent last; then what is sent, and what is newer
RULES = [
    ("They agree.", "Ada", NOON, member("Ada", LATE), None, None, None),
    (
        "Never sent, as it was first seen: CiviCRM's.",
        "Ada",
        EARLY,
        member("Eda", NOON, NOON),
        None,
        "Ada",
        0,
    ),
    ("Never sent, changed there later.", "Ada", NOON, member("Eda", LATE), None, None, "Eda"),
    ("Never sent, changed there earlier.", "Ada", LATE, member("Eda", NOON), None, "Ada", None),
    ("Never sent, changed in the same second: CiviCRM's.", "Ada", NOON, member("Eda", NOON), None, "Ada", None),
    ("Changed there since it was sent, and not here.", "Ada", LATE, member("Eda", NOON), "Ada", None, "Eda"),
    ("Changed here since it was sent, and not there.", "Ida", NOON, member("Ada", LATE), "Ada", "Ida", None),
    ("Changed on both sides, there later.", "Ida", NOON, member("Eda", LATE), "Ada", None, "Eda"),
    ("Changed on both sides, here later.", "Ida", LATE, member("Eda", NOON), "Ada", "Ida", None),
    ("An empty one is not sent.", "", LATE, member("Eda", NOON), "Eda", None, None),
    ("Never sent, and empty there.", "Ada", NOON, member("", LATE), None, "Ada", None),
    ("Emptied there after it was sent.", "Ada", NOON, member("", LATE), "Ada", "Ada", None),
]


@pytest.mark.parametrize(
    ("ours", "changed", "theirs", "sent", "expected", "newer"),
    [one[1:] for one in RULES],
    ids=[one[0] for one in RULES],
)
def test_names(ours: str, changed: str, theirs: dict[str, str], sent: str | None, expected: str, newer: str) -> None:
    names, was_sent = ContactNames(ours, "B", changed), {"first_name": sent} if sent is not None else {}
    assert names_to_send(names, theirs, was_sent, {}, {}).get("FNAME") == expected
    assert newer_names(names, theirs, was_sent) == ({"first_name": newer} if newer else {})


def test_a_name_that_mailchimp_has_a_newer_one_of_does_not_go_with_the_other() -> None:
    theirs = {"first_name": "Eda", "first_name@": LATE, "last_name": "X", "last_name@": EARLY, "status@": EARLY}
    assert names_to_send(ContactNames("Ada", "Byron", NOON), theirs, {}, {}, {}) == {"LNAME": "Byron"}


def test_a_name_that_an_undo_took_back_brings_the_other_along_no_more() -> None:
    theirs, held = {"first_name": "Ida", "last_name": ""}, {"LNAME": "Byron"}
    assert names_to_send(ContactNames("Ida", "Byron", NOON), theirs, {}, {}, held) == {}
    assert names_to_send(ContactNames("Ada", "Byron", NOON), theirs, {}, {}, held) == {"FNAME": "Ada"}


def test_a_name_of_which_mailchimp_kept_nothing_is_not_sent_again() -> None:
    """The audience has no such merge field."""
    sent, theirs = {"first_name": "Ada"}, member("", LATE)
    assert names_to_send(ContactNames("Ada", "B", NOON), theirs, sent, {"FNAME": ""}, {}) == {}
    assert names_to_send(ContactNames("Ida", "B", NOON), theirs, sent, {"FNAME": ""}, {}) == {
        "FNAME": "Ida",
        "LNAME": "B",
    }
