"""`civiapi import`: a folder of CSV files goes in whole or not at all, once, with its dates and its ids if free."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, String, delete, insert, select, text, type_coerce, update

from civiapi.importer.import_folder import ImportRefused, import_folder
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.migrations import migrate
from civiapi.store.schema.tables import METADATA, contact, email, group, subscription_history, tag
from tests.support.databases import database_at

Folder = Callable[..., Path]

PEOPLE = (
    "id,contact_type,first_name,last_name,organization_name,is_opt_out\n"
    "1,Individual,Ada,Lovelace,,0\n"
    "2,Individual,Zoë,Ünal,,1\n"
    "5,Organization,,,Trees Ltd,\n"
)
ADDRESSES = (
    "id,contact_id,email,is_primary,on_hold\n"
    "1,1,Ada@Example.org,1,0\n"
    "3,2,zoë+list@example.org,1,0\n"
    "4,1,ada@work.example.org,0,2\n"
)
GROUPS = 'id,name,title,group_type\n2,news,Newsletter,"1,2"\n'
MEMBERS = "id,group_id,contact_id,status\n1,2,1,Added\n2,2,2,Removed\n"
HISTORY = (
    "id,contact_id,group_id,date,method,status\n"
    "1,1,2,2024-01-31 15:30:00,Admin,Added\n"
    "2,2,2,2023-02-28 09:00:00,Web,Added\n"
    "3,2,2,2024-03-01 10:00:00,Email,Removed\n"
)
TAGS = "id,name\n1,Friend\n"
TAGGED = "tag,contact_id\nFriend,1\n"
ALL = {
    "contacts": PEOPLE,
    "emails": ADDRESSES,
    "groups": GROUPS,
    "group_contacts": MEMBERS,
    "subscription_history": HISTORY,
    "tags": TAGS,
    "entity_tags": TAGGED,
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def make(name: str = "in", **files: str) -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        for sheet, words in files.items():
            (path / f"{sheet}.csv").write_text(words, encoding="utf-8")
        return path

    return make


def everything(conn: Connection) -> dict[str, list[Any]]:
    """All rows of CiviCRM's tables."""
    names = [name for name in METADATA.tables if name.startswith("civicrm_")]
    return {name: list(map(tuple, conn.execute(select(METADATA.tables[name])))) for name in sorted(names)}


async def rows(store: Store, table: Any) -> dict[int, Mapping[str, Any]]:
    found = await store.read(lambda conn: conn.execute(select(table)).all())
    return {row.id: row._mapping for row in found}


async def test_rows_keep_their_ids_dates_and_references(store: Store, folder: Folder) -> None:
    report = await import_folder(store, folder(**ALL))
    assert report.loaded == 14
    assert report.renumbered == 0
    people = await rows(store, contact)
    assert [(i, people[i]["display_name"], people[i]["sort_name"]) for i in people] == [
        (1, "Ada Lovelace", "Lovelace, Ada"),
        (2, "Zoë Ünal", "Ünal, Zoë"),
        (5, "Trees Ltd", "Trees Ltd"),
    ]
    assert people[2]["is_opt_out"] == 1
    addresses = await rows(store, email)
    assert {i: row["email"] for i, row in addresses.items()} == {
        1: "ada@example.org",
        3: "zoë+list@example.org",
        4: "ada@work.example.org",
    }
    assert (await rows(store, group))[2]["group_type"] == "\x011\x012\x01"
    assert (await rows(store, subscription_history))[1]["date"] == "2024-01-31 15:30:00"


async def test_times_of_another_zone_become_site_times(tmp_path: Path, folder: Folder) -> None:
    store = await open_store(database_at(tmp_path / "kyiv.sqlite"), "Europe/Kyiv")
    await migrate(store)
    await import_folder(store, folder(**ALL), zone="UTC")
    history = await rows(store, subscription_history)
    await store.close()
    assert history[1]["date"] == "2024-01-31 17:30:00"


async def test_the_same_folder_twice_changes_nothing(store: Store, folder: Folder) -> None:
    await import_folder(store, folder(**ALL))
    before = await store.read(everything)
    report = await import_folder(store, folder(**ALL))
    assert report.loaded == 0
    assert [file.already for file in report.files] == [3, 3, 1, 2, 3, 1, 1]
    assert await store.read(everything) == before


async def test_the_same_folder_changes_nothing_after_its_rows_were_changed_or_deleted(
    store: Store, folder: Folder
) -> None:
    await import_folder(store, folder(**ALL))

    def live_on(conn: Connection) -> None:
        conn.execute(update(contact).where(contact.c.id == 1).values(last_name="King", display_name="Ada King"))
        conn.execute(update(group).values(name="renamed", title="Renamed"))
        conn.execute(delete(contact).where(contact.c.id == 2))
        conn.execute(delete(tag))

    await store.write(live_on)
    before = await store.read(everything)
    assert (await import_folder(store, folder("moved", **ALL))).loaded == 0
    assert await store.read(everything) == before


async def test_a_folder_that_grew_brings_only_its_new_rows(store: Store, folder: Folder) -> None:
    await import_folder(store, folder(**ALL))
    await store.write(lambda conn: conn.execute(update(contact).values(last_name="Else")))
    grown = ALL | {
        "contacts": PEOPLE + "7,Individual,Eve,New,,0\n",
        "emails": ADDRESSES + "7,7,eve@example.org,1,0\n8,1,ada@third.example.org,0,0\n",
    }
    report = await import_folder(store, folder("grown", **grown))
    assert {file.file: file.loaded for file in report.files if file.loaded} == {"contacts.csv": 1, "emails.csv": 2}
    assert (await rows(store, email))[8]["contact_id"] == 1


async def test_what_belongs_to_a_row_deleted_since_is_left_out(store: Store, folder: Folder) -> None:
    await import_folder(store, folder(**ALL))
    await store.write(lambda conn: conn.execute(delete(contact).where(contact.c.id == 1)))
    report = await import_folder(store, folder(**ALL | {"emails": ADDRESSES + "9,1,ada@new.example.org,0,0\n"}))
    assert report.loaded == 0
    assert {file.file: file.left_out for file in report.files if file.left_out} == {
        "emails.csv": 3,
        "group_contacts.csv": 1,
        "subscription_history.csv": 1,
        "entity_tags.csv": 1,
    }


def strangers(conn: Connection) -> None:
    """People, a group and a history of our own, under ids that the files use."""
    conn.execute(insert(contact), [{"id": i, "contact_type": "Individual", "display_name": "Us"} for i in (1, 6)])
    conn.execute(insert(email), [{"id": 3, "contact_id": 1, "email": "us@example.org", "is_primary": 1}])
    conn.execute(insert(group), [{"id": 2, "name": "ours", "title": "Ours"}])
    conn.execute(
        insert(subscription_history),
        [{"id": 2, "contact_id": 1, "group_id": 2, "date": "2022-01-01 00:00:00", "status": "Added"}],
    )


async def test_a_taken_id_gets_a_new_one_and_references_follow(store: Store, folder: Folder) -> None:
    await store.write(strangers)
    report = await import_folder(store, folder(**ALL))
    assert {file.file: file.renumbered for file in report.files if file.renumbered} == {
        "contacts.csv": 1,
        "emails.csv": 1,
        "groups.csv": 1,
        "subscription_history.csv": 3,
    }
    people, addresses = await rows(store, contact), await rows(store, email)
    ada = next(i for i, row in people.items() if row["first_name"] == "Ada")
    assert ada == 7
    assert {row["email"] for row in addresses.values() if row["contact_id"] == ada} == {
        "ada@example.org",
        "ada@work.example.org",
    }
    before = await store.read(everything)
    assert (await import_folder(store, folder(**ALL))).loaded == 0
    assert await store.read(everything) == before


async def test_a_renumbered_history_keeps_its_order(store: Store, folder: Folder) -> None:
    """The highest id of a contact and a group is what CiviCRM last said: one taken id must not make row 2 the last."""
    await store.write(strangers)
    await import_folder(store, folder(**ALL))
    history = await rows(store, subscription_history)
    assert [history[i]["status"] for i in sorted(history) if history[i]["contact_id"] == 2] == ["Added", "Removed"]


async def test_rows_that_stand_there_already_are_recognised(store: Store, folder: Folder) -> None:
    """As on the very database that the files were exported from."""
    await import_folder(store, folder(**ALL))
    await store.write(lambda conn: conn.execute(text("DELETE FROM civiapi_import")))
    before = await store.read(everything)
    assert (await import_folder(store, folder(**ALL))).loaded == 0
    assert await store.read(everything) == before


async def test_groups_and_tags_of_the_same_name_are_the_same(store: Store, folder: Folder) -> None:
    await store.write(lambda conn: conn.execute(insert(group).values(id=9, name="NEWS", title="Ours")))
    report = await import_folder(store, folder(**ALL))
    assert next(file.already for file in report.files if file.file == "groups.csv") == 1
    assert {row["group_id"] for row in (await rows(store, subscription_history)).values()} == {9}


async def test_references_may_point_at_the_database_where_the_folder_has_no_such_file(
    store: Store, folder: Folder
) -> None:
    await store.write(strangers)
    await import_folder(store, folder(emails="contact_id,email\n6,Six@Example.org\n"))
    six = next(row for row in (await rows(store, email)).values() if row["contact_id"] == 6)
    assert (six["email"], six["is_primary"], six["location_type_id"]) == ("six@example.org", 1, 1)


async def test_rows_of_a_file_may_refer_to_rows_further_down(store: Store, folder: Folder) -> None:
    await store.write(strangers)
    words = "id,contact_type,first_name,organization_name,employer_id\n1,Individual,Ada,,6\n6,Organization,,Trees,\n"
    await import_folder(store, folder(contacts=words))
    people = {row["display_name"]: row for row in (await rows(store, contact)).values()}
    assert people["Ada"]["employer_id"] == people["Trees"]["id"] == 8


async def test_someone_without_a_name_is_called_by_the_address(store: Store, folder: Folder) -> None:
    people = "id,contact_type,first_name\n1,Individual,\n"
    await import_folder(store, folder(contacts=people, emails="contact_id,email\n1,A@Example.org\n"))
    assert (await rows(store, contact))[1]["display_name"] == "a@example.org"


async def test_each_contact_has_one_primary_address(store: Store, folder: Folder) -> None:
    words = "id,contact_id,email,is_primary\n1,1,a@x.org,1\n2,1,b@x.org,1\n3,2,c@x.org,0\n4,2,d@x.org,0\n"
    await import_folder(store, folder(contacts=PEOPLE, emails=words))
    assert {i: row["is_primary"] for i, row in (await rows(store, email)).items()} == {1: 1, 2: 0, 3: 1, 4: 0}


@pytest.mark.parametrize("name", ["A < B", "A &lt; B"], ids=["as it is meant", "as an export of the tables has it"])
async def test_text_is_stored_as_civicrm_stores_it_and_known_again(store: Store, folder: Folder, name: str) -> None:
    people = f"id,contact_type,first_name\n1,Individual,{name}\n"
    files = {"contacts": people, "tags": f"id,name\n1,{name}\n", "entity_tags": f"tag,contact_id\n{name},1\n"}
    await import_folder(store, folder(**files))
    raw = select(type_coerce(contact.c.display_name, String()))
    assert await store.read(lambda conn: conn.execute(raw).scalars().all()) == ["A &lt; B"]
    again = await import_folder(store, folder("again", groups=GROUPS, **files))
    assert again.loaded == 1


async def test_the_length_of_a_text_is_that_of_what_is_stored(store: Store, folder: Folder) -> None:
    with pytest.raises(ImportRefused, match="has 68 characters, at most 64 fit"):
        await import_folder(store, folder(contacts=f"id,contact_type,first_name\n1,Individual,{'<' * 17}\n"))
    html = "<p>" + "<br>" * 16_000 + "</p>"
    await import_folder(
        store, folder(contacts=PEOPLE, emails=f"id,contact_id,email,signature_html\n1,1,a@b.org,{html}\n")
    )
    assert (await rows(store, email))[1]["signature_html"] == html


async def test_a_group_contact_without_history_gets_its_first_row(store: Store, folder: Folder) -> None:
    await import_folder(store, folder(contacts=PEOPLE, groups=GROUPS, group_contacts=MEMBERS))
    found = (await rows(store, subscription_history)).values()
    assert {(row["contact_id"], row["status"]) for row in found} == {(1, "Added"), (2, "Removed")}


BAD = {
    "an unknown column": (
        "contacts",
        "id,contact_type,frist_name\n1,Individual,Ada\n",
        1,
        "unknown column 'frist_name'",
    ),
    "a column that is missing": ("contacts", "id,first_name\n1,Ada\n", 1, "there is no column 'contact_type'"),
    "an empty file": ("contacts", "", 1, "the file is empty"),
    "text where a number belongs": ("contacts", PEOPLE + "x,Individual,A,,,\n", 5, "id 'x' is not a whole number"),
    "a flag that is neither": ("contacts", PEOPLE + "9,Individual,A,,,maybe\n", 5, "is_opt_out 'maybe' is neither"),
    "an unknown contact type": ("contacts", PEOPLE + "9,Person,A,,,\n", 5, "contact_type 'Person' is none of"),
    "too few values": ("contacts", PEOPLE + "9,Individual\n", 5, "has 2 values, the heading has 6 columns"),
    "too long a name": ("contacts", PEOPLE + f"9,Individual,{'a' * 65},,,\n", 5, "first_name has 65 characters"),
    "an id that is repeated": ("contacts", PEOPLE + "1,Individual,Bob,,,\n", 5, "id 1 is repeated"),
    "a contact that is nowhere": (
        "emails",
        ADDRESSES + "9,77,x@example.org,0,0\n",
        5,
        "contact_id '77' refers to no row",
    ),
    "an address that is none": (
        "emails",
        ADDRESSES + "9,1,not-an-address,0,0\n",
        5,
        "'not-an-address' is not an e-mail",
    ),
    "an address with two @": ("emails", ADDRESSES + "9,1,a@b@example.org,0,0\n", 5, "is not an e-mail address"),
    "an address of 255 characters": ("emails", ADDRESSES + f"9,1,{'a' * 250}@b.cc,0,0\n", 5, "at most 254 fit"),
    "a date that is none": (
        "subscription_history",
        HISTORY + "9,1,2,2024-02-30,Web,Added\n",
        5,
        "date '2024-02-30' is not",
    ),
    "a year out of range": ("subscription_history", HISTORY + "9,1,2,1901-01-01,Web,Added\n", 5, "the year 1901"),
    "a status that is none": (
        "subscription_history",
        HISTORY + "9,1,2,2024-01-01,Web,Gone\n",
        5,
        "status 'Gone' is none",
    ),
    "a person in a group twice": (
        "group_contacts",
        MEMBERS + "9,2,1,Added\n",
        4,
        "contact_id and group_id is repeated",
    ),
    "a tag that is nowhere": ("entity_tags", TAGGED + "Foe,1\n", 3, "tag 'Foe' refers to no row"),
    "a quote that never closes": ("tags", TAGS + '2,"Open\n', 3, "the row cannot be read"),
    "a zero byte": ("tags", TAGS + "2,a\0b\n", 3, "name holds a zero byte"),
}


@pytest.mark.parametrize(("sheet", "words", "line", "reason"), BAD.values(), ids=BAD.keys())
async def test_a_bad_row_is_named_and_nothing_is_loaded(
    store: Store, folder: Folder, sheet: str, words: str, line: int, reason: str
) -> None:
    before = await store.read(everything)
    with pytest.raises(ImportRefused) as refused:
        await import_folder(store, folder(**ALL | {sheet: words}))
    bad = refused.value.rows
    assert [(row.file, row.line) for row in bad] == [(f"{sheet}.csv", line)]
    assert reason in bad[0].reason
    assert f"{sheet}.csv, line {line}: " in str(refused.value)
    assert await store.read(everything) == before


async def test_bytes_that_are_not_utf8_spoil_their_row_only(store: Store, folder: Folder) -> None:
    path = folder(**ALL)
    (path / "contacts.csv").write_bytes(PEOPLE.encode() + b"8,Individual,Ren\xe9,,,\n")
    with pytest.raises(ImportRefused) as refused:
        await import_folder(store, path)
    assert [str(row) for row in refused.value.rows] == ["contacts.csv, line 5: first_name is not UTF-8"]


async def test_every_bad_row_is_listed_and_a_bad_contact_is_not_held_against_its_addresses(
    store: Store, folder: Folder
) -> None:
    people = PEOPLE.replace("1,Individual,Ada", "1,Robot,Ada")
    tags = TAGS + "2,\n"
    with pytest.raises(ImportRefused) as refused:
        await import_folder(store, folder(**ALL | {"contacts": people, "tags": tags}))
    assert [(row.file, row.line) for row in refused.value.rows] == [("contacts.csv", 2), ("tags.csv", 3)]


async def test_reading_stops_at_a_hundred_bad_rows(store: Store, folder: Folder) -> None:
    people = PEOPLE + "".join(f"{i},Robot,,,,\n" for i in range(10, 5000))
    with pytest.raises(ImportRefused) as refused:
        await import_folder(store, folder(contacts=people))
    assert len(refused.value.rows) >= 100
    assert not refused.value.complete


@pytest.mark.parametrize("where", ["nowhere", "file.txt", "empty"])
async def test_a_folder_with_nothing_to_import_is_refused(store: Store, tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("no folder")
    with pytest.raises(ImportRefused):
        await import_folder(store, tmp_path / where)


async def test_files_of_other_names_are_ignored_and_said_so(store: Store, folder: Folder) -> None:
    report = await import_folder(store, folder(**ALL, contact="id\n"))
    assert report.ignored == ("contact.csv",)
    assert report.lines()[-1].startswith("contact.csv: ignored")


@pytest.mark.sqlite_only("counts SQLite's own steps")
async def test_twice_the_rows_cost_twice_the_work(store: Store, folder: Folder) -> None:
    """Each member of a group was once looked up through the whole history of the group. Counts SQLite's own steps."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    def watch(conn: Connection) -> None:
        conn.connection.driver_connection.set_progress_handler(count, 1000)  # type: ignore[union-attr]

    async def cost(name: str, first: int, many: int) -> int:
        nonlocal steps
        ids = range(first, first + many)
        path = folder(
            name,
            contacts="id,contact_type,first_name\n" + "".join(f"{i},Individual,A{i}\n" for i in ids),
            groups=f"id,title\n{first},{name}\n",
            group_contacts="group_id,contact_id\n" + "".join(f"{first},{i}\n" for i in ids),
            subscription_history="contact_id,group_id,date,status\n"
            + "".join(f"{i},{first},2024-01-01,Added\n" for i in ids),
        )
        steps = 0
        await import_folder(store, path)
        return steps

    await store.write(watch)
    small = await cost("small", 1, 1000)
    assert await cost("large", 10_001, 4000) < 6 * small
