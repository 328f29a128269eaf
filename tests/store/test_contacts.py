"""The store's rules about contacts that the sync shares: bulk inserts, the best address to write to, names."""

import pytest

from civiapi.store.civicrm import contacts
from civiapi.store.civicrm.contact_names import GREETINGS
from civiapi.store.civicrm.contacts import NewPerson
from civiapi.store.engine import Store
from tests.conftest import Ask
from tests.support.contacts import a_contact, an_email

AT = "2024-01-31 10:15:00"
RETURNED = (
    ["display_name", "sort_name", "email_greeting_display", "communication_style_id", "preferred_language", "hash"]
    + [f"{name}_{part}" for name in GREETINGS for part in ("id", "display")]
    + ["first_name", "last_name", "contact_type", "preferred_mail_format"]
)


async def test_people_are_made_in_order_with_a_primary_address_each(store: Store, call: Ask) -> None:
    people = [NewPerson("Ada", "Lovelace", "Ada@Example.org"), NewPerson("", "", "nobody@example.org")]
    people += [NewPerson(f"A{n}", "", f"a{n}@example.org") for n in range(1200)]
    ids = await store.write(contacts.create_individuals, people, AT)
    assert len(set(ids)) == len(people)
    for contact_id, name, address in (
        (ids[0], "Ada Lovelace", "ada@example.org"),
        (ids[-1], "A1199", "a1199@example.org"),
    ):
        row = await call("Contact", "getsingle", {"id": contact_id, "return": "display_name,email,created_date"})
        assert (row["display_name"], row["email"], row["created_date"]) == (name, address, AT)
    assert await call("Contact", "getvalue", {"id": ids[1], "return": "sort_name"}) == "nobody@example.org"
    assert (await call("Email", "getsingle", {"contact_id": ids[1]}))["location_type_id"] == "1"


async def test_every_road_makes_the_same_whole_contact_and_a_new_name_reaches_its_greetings(
    store: Store, call: Ask
) -> None:
    named = {"first_name": "Ada <3", "last_name": "Byron"}
    made = [
        *await store.write(contacts.create_individuals, [NewPerson(**named, email="ada@example.org")], AT),
        await a_contact(call, **named, email="ada@example.org"),
        await a_contact(call, first_name="Eda", last_name="Byron", email="ada@example.org"),
        await a_contact(call, first_name="Eda", last_name="Byron", email="ada@example.org"),
    ]
    await store.write(contacts.rename, made[2], {"first_name": "Ada <3"}, AT)
    await call("Contact", "create", {"id": made[3], "first_name": "Ada <3"})
    own = {"id", "contact_id", "hash", "created_date", "modified_date", "email_id"}
    rows = [await call("Contact", "getsingle", {"id": one, "return": RETURNED}) for one in made]
    first, *others = [{name: value for name, value in row.items() if name not in own} for row in rows]
    assert others == [first] * 3
    assert [first[name] for name in RETURNED[:5]] == ["Ada <3 Byron", "Byron, Ada <3", "Dear Ada <3", "1", "en_US"]
    assert all(len(row["hash"]) == 32 for row in rows)


async def test_people_get_their_own_ids_where_numbers_were_left_out(store: Store, call: Ask) -> None:
    """As after a deletion, and as with a program that makes contacts at the same time."""
    people = [NewPerson(f"B{n}", "", f"b{n}@example.org") for n in range(3)]
    [gone] = await store.write(contacts.create_individuals, people[:1], AT)
    await call("Contact", "delete", {"id": gone, "skip_undelete": 1})
    ids = await store.write(contacts.create_individuals, people, AT)
    assert ids == [gone + 1, gone + 2, gone + 3]
    for contact_id, person in zip(ids, people, strict=True):
        row = await call("Contact", "getsingle", {"id": contact_id, "return": "first_name,email"})
        assert (row["first_name"], row["email"]) == (person.first_name, person.email)


async def test_making_nobody_changes_nothing(store: Store, call: Ask) -> None:
    assert await store.write(contacts.create_individuals, [], AT) == []
    assert await call("Contact", "getcount") == 0


BEST = {
    "bulk mail before primary": ([{}, {"is_bulkmail": 1}], "a1@example.org"),
    "primary before any": ([{}, {"is_primary": 1}], "a1@example.org"),
    "any where the primary is on hold": ([{"on_hold": 1}, {}, {}], "a1@example.org"),
    "never one on hold": ([{"on_hold": 2, "is_bulkmail": 1}], None),
    "none where there is none": ([], None),
}


@pytest.mark.parametrize(("addresses", "best"), BEST.values(), ids=BEST)
async def test_the_best_address_is(store: Store, call: Ask, addresses: list[dict[str, int]], best: str | None) -> None:
    contact_id = await a_contact(call)
    for n, flags in enumerate(addresses):
        await an_email(call, contact_id, f"a{n}@example.org", **flags)
    found = await store.read(contacts.addresses_of, [contact_id])
    assert set(found) <= {contact_id}
    assert contacts.best_email(found.get(contact_id, ())) == best


async def test_the_best_addresses_of_many_are_found_at_once(store: Store) -> None:
    ids = await store.write(
        contacts.create_individuals, [NewPerson("A", str(n), f"a{n}@example.org") for n in range(1100)], AT
    )
    found = await store.read(contacts.addresses_of, [*ids, *ids, 99_999])
    assert [contacts.best_email(found[one]) for one in ids] == [f"a{n}@example.org" for n in range(1100)]
