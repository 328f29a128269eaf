"""CSV files uploaded on the pages of an empty site: all rows or none, with each mistake in plain words."""

import re
from collections.abc import AsyncIterator

import aiohttp
import pytest

from civiapi.api.dispatch import Api
from civiapi.importer.sheets import SHEETS
from civiapi.ui.people.contact_import import ROWS
from tests.conftest import Ask
from tests.support.ui_server import READER_KEY, Browser, PageResponse, a_browser, ui_server

BASE = "/civicrm/mailchimpsync"
IMPORT = f"{BASE}/import"
TITLE = "Import contacts from a CSV file"
CONTACTS = "id,contact_type,first_name,last_name\n1,Individual,Ada,Lovelace\n2,Individual,Zoë,Ünal\n"
EMAILS = "contact_id,email\n1,ada@example.org\n2,zoe@example.org\n"
GROUPS = "id,title\n1,Newsletter\n"


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    async with ui_server(api, max_body=20_000) as base, a_browser(base) as opened:
        await opened.log_in()
        yield opened


def form(token: str, files: dict[str, str | bytes]) -> aiohttp.FormData:
    """The form as a browser posts it: also without a file there is a field for one."""
    made = aiohttp.FormData()
    made.add_field("token", token)
    for name, text in (files or {"": ""}).items():
        made.add_field("files", text if isinstance(text, bytes) else text.encode(), filename=name)
    return made


async def upload(browser: Browser, files: dict[str, str | bytes]) -> PageResponse:
    return await browser.post(IMPORT, data=form((await browser.get(IMPORT)).token, files))


def text_of(answer: PageResponse) -> str:
    """What the page says, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", answer.text))


async def people(call: Ask) -> list[str]:
    """The names of all that have an address."""
    found = await call("Email", "get", {"return": ["contact_id.display_name"], "sequential": 1})
    return [row["contact_id.display_name"] for row in found["values"]]


async def test_files_are_imported_and_counted_and_the_next_step_is_offered(browser: Browser, call: Ask) -> None:
    files: dict[str, str | bytes] = {"contacts.csv": CONTACTS, "emails.csv": EMAILS, "groups.csv": GROUPS}
    answer = await upload(browser, files)
    assert answer.status == 200
    assert "Imported: 2 contacts, 2 email addresses, 1 group." in text_of(answer)
    assert f'href="{BASE}/config"' in answer.text
    assert await people(call) == ["Ada Lovelace", "Zoë Ünal"]
    assert "Nothing new" in text_of(await upload(browser, files))
    assert await people(call) == ["Ada Lovelace", "Zoë Ünal"]


async def test_one_list_of_people_is_enough_where_nobody_has_an_address(browser: Browser, call: Ask) -> None:
    people_list = "First name;Surname;E-mail\r\nAda;Lovelace;ada@example.org\r\n;;zoe@example.org\r\n"
    answer = await upload(browser, {"members.csv": people_list.replace("zoe@", "zoe")})
    assert "members.csv, line 3: email" in text_of(answer)
    assert await people(call) == []
    answer = await upload(browser, {"members.csv": people_list})
    assert "Imported: 2 contacts, 2 email addresses." in text_of(answer)
    assert await people(call) == ["Ada Lovelace", "zoe@example.org"]
    answer = await upload(browser, {"members.csv": people_list + "New;Person;new@example.org\r\n"})
    assert (answer.status, "cannot be told from the people who are here" in text_of(answer)) == (422, True)
    assert await people(call) == ["Ada Lovelace", "zoe@example.org"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"contacts.csv": CONTACTS + "3,Robot,R,D\n"}, "contacts.csv, line 4: contact_type"),
        ({"contacts.csv": CONTACTS, "emails.csv": "contact_id,email\n9,ada@example.org\n"}, "emails.csv, line 2: "),
        ({"contacts.csv": CONTACTS.encode("latin-1")}, "contacts.csv, line 3: first_name is not UTF-8"),
        ({"contacts.csv": "contact_type;id\n"}, "contacts.csv, line 1: there is no column"),
        ({"contacts.csv": CONTACTS, "friends.csv": EMAILS}, "friends.csv: has an unknown name; the files are contacts"),
        ({"contacts.csv": CONTACTS, "../emails.csv.csv": EMAILS}, "emails.csv.csv: has an unknown name"),
        ({"contacts.csv": "id,contact_type\n" + ",<b>\n" * 150}, "There may be more mistakes"),
        ({}, "Choose at least one CSV file first."),
    ],
    ids=["value", "reference", "encoding", "heading", "name", "path", "very many", "no file"],
)
async def test_a_mistake_is_named_with_its_line_and_nothing_is_written(
    browser: Browser, call: Ask, files: dict[str, str | bytes], says: str
) -> None:
    answer = await upload(browser, files)
    assert (answer.status, "Nothing was imported" in answer.text) == (422, True)
    assert says in text_of(answer)
    assert "<b>" not in answer.text
    assert await people(call) == []
    assert await call("Contact", "getcount", {"last_name": "Lovelace"}) == 0
    assert TITLE in answer.text


async def test_only_our_own_form_posted_by_somebody_who_may_imports(browser: Browser, call: Ask) -> None:
    files: dict[str, str | bytes] = {"contacts.csv": CONTACTS, "emails.csv": EMAILS}
    assert (await browser.post(IMPORT, data=form("wrong", files))).status == 403
    token = (await browser.get(IMPORT)).token
    assert (await browser.send("PUT", IMPORT, data=form(token, files))).status == 404
    async with a_browser(browser.base) as stranger:
        assert (await stranger.get(IMPORT)).headers["Location"].startswith("/civicrm/login")
        assert (await stranger.post(IMPORT, data=form(token, files))).status == 401
        await stranger.log_in("reader", READER_KEY)
        assert (await stranger.get(IMPORT)).status == 403
        assert (await stranger.post(IMPORT, data=form(token, files))).status == 403
    assert await people(call) == []


async def test_files_above_the_limit_are_refused_with_what_takes_larger_ones(browser: Browser, call: Ask) -> None:
    answer = await upload(browser, {"contacts.csv": CONTACTS + "," * 30_000})
    assert answer.status == 413
    assert "at most 0.02 MB together" in text_of(answer)
    assert "civiapi import FOLDER" in text_of(answer)
    assert await people(call) == []


async def test_a_form_that_breaks_off_is_refused(browser: Browser) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    assert (await browser.post(IMPORT, data=b"--x\r\nContent-Dispo", headers=head)).status == 400


async def test_the_people_page_offers_the_import_until_somebody_has_an_address(browser: Browser) -> None:
    assert TITLE in (await browser.get(f"{BASE}/people")).text
    await upload(browser, {"contacts.csv": CONTACTS, "emails.csv": EMAILS})
    assert TITLE not in (await browser.get(f"{BASE}/people")).text


def test_the_page_has_words_for_the_rows_of_every_file() -> None:
    assert set(ROWS) == {sheet.file for sheet in SHEETS}
