"""Names: which are sent, and which Mailchimp has later ones of. One row a rule."""

import pytest

from civiapi.store.engine import open_store
from sync.context import SyncContext
from sync.data.names import ContactNames, names_to_send, newer_names
from tests.support.databases import HOST
from tests.support.linked_site import Site
from tests.support.merge_fields import run_sql, sent_updates

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


LONG = "Lo" * 40  # 80 characters
ENCODED = "<" * 20
# Mailchimp's name, CiviCRM's, whether its tables are narrow; then whether they are the same name
STORED = [
    ("Longer than the column.", LONG, LONG[:64], False, True),
    ("Longer than the column, and another one.", LONG, "Lola", False, False),
    ("Cut where a blank was.", "A" * 63 + " Bee", "A" * 63, False, True),
    ("Longer than the column once it is encoded.", ENCODED, ENCODED[:16], False, True),
    ("An emoji, in narrow tables.", "Ada \U0001f600 B", "Ada  B", True, True),
    ("An emoji at which the server ended the text.", "Ada \U0001f600 B", "Ada", True, True),
    ("An emoji, taken off where tables hold it.", "Ada \U0001f600 B", "Ada  B", False, False),
    ("Long, with emoji among what is kept.", "\U0001f600" * 4 + LONG, LONG[:60], True, True),
    ("Nothing but emoji, in narrow tables.", "\U0001f600", "", True, True),
]


@pytest.mark.parametrize(
    ("theirs", "ours", "is_narrow", "is_same"), [one[1:] for one in STORED], ids=[one[0] for one in STORED]
)
@pytest.mark.parametrize("changed", [EARLY, LATE])
def test_what_civicrm_can_store_of_a_name_is_that_name(
    theirs: str, ours: str, is_narrow: bool, is_same: bool, changed: str
) -> None:
    has = {"first_name": theirs, "first_name@": NOON, "last_name": "Byron", "status@": EARLY}
    names = ContactNames(ours, "Byron", changed, is_narrow)
    is_newer_there = not is_same and changed == EARLY
    assert newer_names(names, has, {}) == ({"first_name": theirs} if is_newer_there else {})
    assert ("FNAME" in names_to_send(names, has, {}, {}, {})) is (not is_same and not is_newer_there)
    married = ContactNames(ours, "Lovelace", LATE, is_narrow)
    expected = {"LNAME": "Lovelace"} | ({} if is_same else {"FNAME": ours})
    assert names_to_send(married, has, {}, {}, {}) == expected


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


async def test_a_name_longer_than_civicrms_column_stays_whole_at_mailchimp(site: Site) -> None:
    site.joined("lo@example.org", merge_fields={"FNAME": LONG, "LNAME": "Byron"})
    await stays_whole(site, LONG[:64], LONG)


async def test_a_name_with_an_emoji_stays_whole_at_mailchimp_where_civicrms_tables_are_old(site: Site) -> None:
    if not site.store.is_shared:
        pytest.skip("SQLite holds every character")
    await use_charset(site, "utf8mb3")
    name = await site.store.read(lambda conn: conn.exec_driver_sql("SELECT DATABASE()").scalar())
    wide, narrow = site.store, await open_store(f"{HOST}/{name}")
    try:
        site.store = narrow
        site.ctx = SyncContext(narrow, site.clients, site.ctx.settings, holder="tests")
        site.joined("lo@example.org", merge_fields={"FNAME": "Ada \U0001f600", "LNAME": "Byron"})
        await stays_whole(site, "Ada ", "Ada \U0001f600")
    finally:
        await narrow.close()
        site.store = wide
        await use_charset(site, "utf8mb4")


async def use_charset(site: Site, charset: str) -> None:
    names = "first_name", "last_name"
    column = f"VARCHAR(64) CHARACTER SET {charset} COLLATE {charset}_unicode_ci"
    await run_sql(site, f"ALTER TABLE civicrm_contact {', '.join(f'MODIFY {name} {column}' for name in names)}")


async def stays_whole(site: Site, ours: str, theirs: str) -> None:
    for _ in range(2):
        await site.sync(since="ever", with_data=True)
        assert [one.first_name for one in await site.contacts()] == [ours]
        found = site.emulator.member("lo@example.org")
        assert found is not None
        assert (found.merges["FNAME"], await sent_updates(site)) == (theirs, 0)
