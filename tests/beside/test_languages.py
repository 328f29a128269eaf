"""A CiviCRM in several languages has a column of texts for each: those of the site's language are read and written."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.cli.rehearse.database_copy import copy_database
from civiapi.maintenance.adopt import survey_database
from civiapi.store.databases.languages import find_views
from civiapi.store.engine import Store, open_store
from civiapi.store.schema.live_columns import absent_columns
from entities import catalogue
from tests.support.civicrm import NEWS
from tests.support.civicrm_versions import TEXTS, in_languages
from tests.support.databases import raw_sqlite, sql
from tests.support.their_site import Theirs, their_site

FRENCH, ENGLISH = "fr_FR", "en_US"


@pytest.fixture
async def theirs(tmp_path: Path) -> AsyncIterator[Theirs]:
    async with their_site(tmp_path, then=tuple(in_languages(FRENCH, ENGLISH))) as site:
        yield site


async def api_over(store: Store) -> Api:
    return Api(store, catalogue(await store.read(absent_columns)))


async def ask(api: Api, entity: str, action: str, **params: Any) -> Any:
    answer = await api.respond(Call(entity, action, {"sequential": 1, **params}, Caller(5, frozenset({"*"}))))
    assert isinstance(answer, int | str) or not answer["is_error"], answer
    return answer["values"] if isinstance(answer, dict) else answer


def stored(theirs: Theirs, wanted: str) -> list[list[str]]:
    return sql(wanted, database=theirs.url.rpartition("/")[2])


async def test_texts_are_read_found_and_sorted_by_in_the_sites_language(theirs: Theirs) -> None:
    [[french, english]] = stored(theirs, f"SELECT title_fr_FR, title_en_US FROM civicrm_group WHERE id = {NEWS}")
    assert english == f"({ENGLISH}) {french}"
    async with theirs.taken_over() as site:
        api = await api_over(site.store)
        assert [row["title"] for row in await ask(api, "Group", "get", id=NEWS)] == [french]
        assert [row["id"] for row in await ask(api, "Group", "get", title={"LIKE": f"{french[:3]}%"})] == [str(NEWS)]
        assert await ask(api, "Group", "getcount", title=english) == 0
        titles = [row["title"] for row in await ask(api, "Group", "get", options={"sort": "title"})]
        assert titles == sorted(titles, key=str.lower)
        joined = await ask(api, "GroupContact", "get", **{"return": "group_id.title", "group_id": NEWS})
        assert {row["group_id.title"] for row in joined} == {french}


async def test_texts_are_written_in_the_sites_language_and_others_are_left_as_they_are(theirs: Theirs) -> None:
    titles = "SELECT title_fr_FR, title_en_US FROM civicrm_group WHERE id = {}"
    async with theirs.taken_over() as site:
        api = await api_over(site.store)
        [made] = await ask(api, "Group", "create", title="Amis", frontend_title="Amis")
        assert stored(theirs, titles.format(made["id"])) == [["Amis", "Amis"]], "CiviCRM's trigger fills the others"
        [[_, english]] = stored(theirs, titles.format(NEWS))
        await ask(api, "Group", "create", id=NEWS, title="Nouvelles")
        assert stored(theirs, titles.format(NEWS)) == [["Nouvelles", english]]
        await ask(api, "Group", "delete", id=made["id"])
        assert stored(theirs, titles.format(made["id"])) == []


async def test_no_text_is_missing_and_the_language_is_said_before_the_database_is_adopted(theirs: Theirs) -> None:
    findings = [one for section in await survey_database(theirs.settings) for one in section.findings]
    assert [one.sentence for one in findings if one.code == "languages"] == [
        f"This CiviCRM is in several languages; civiapi reads and writes its texts in {FRENCH}."
    ]
    texts = {f"column:civicrm_{table}.{name}" for table, names in TEXTS.items() for name in names}
    assert not texts & {one.code for one in findings}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [(f's:5:"{ENGLISH}";', ENGLISH), ('s:5:"de_DE";', ENGLISH), ("N;", ENGLISH), (None, ENGLISH)],
    ids=["another", "one that is not there", "none", "never set"],
)
async def test_the_sites_language_is_its_setting_and_else_the_first_that_it_has(
    theirs: Theirs, setting: str | None, expected: str
) -> None:
    name = theirs.url.rpartition("/")[2]
    if setting is None:
        sql("DELETE FROM civicrm_setting WHERE name = 'lcMessages'", database=name)
    else:
        sql(f"UPDATE civicrm_setting SET value = '{setting}' WHERE name = 'lcMessages'", database=name)
    store = await open_store(theirs.url)
    try:
        api = await api_over(store)
        [[wanted]] = stored(theirs, f"SELECT title_{expected} FROM civicrm_group WHERE id = {NEWS}")
        assert [row["title"] for row in await ask(api, "Group", "get", id=NEWS)] == [wanted]
    finally:
        await store.close()


def test_views_are_found_on_a_server_that_has_names_in_lower_case() -> None:
    class Server:
        """Answers what it was asked last."""

        asked = ""

        def execute(self, statement: str) -> None:
            self.asked = statement

        def fetchall(self) -> list[tuple[str]]:
            if "views" in self.asked:
                return [("civicrm_group_en_us",), ("civicrm_group_fr_fr",), ("civicrm_option_value_fr_fr",)]
            return [("en_US\x01fr_FR" if "locales" in self.asked else 's:5:"fr_FR";',)]

    assert find_views(Server()) == {
        "civicrm_group": "civicrm_group_fr_fr",
        "civicrm_option_value": "civicrm_option_value_fr_fr",
    }


async def test_views_that_are_left_of_several_languages_are_not_used_where_there_is_one(tmp_path: Path) -> None:
    left = f"CREATE VIEW civicrm_group_{FRENCH} AS SELECT id, name FROM civicrm_group;"
    async with their_site(tmp_path, then=(left,)) as theirs, theirs.taken_over() as site:
        api = await api_over(site.store)
        assert [[row["title"]] for row in await ask(api, "Group", "get", id=NEWS)] == stored(
            theirs, f"SELECT title FROM civicrm_group WHERE id = {NEWS}"
        )


async def test_a_rehearsal_copies_the_texts_of_the_sites_language(theirs: Theirs, tmp_path: Path) -> None:
    """They were left out, and the copy takes no group without a title: "constraint violation"."""
    copied = await copy_database(theirs.settings.database, tmp_path)
    with closing(raw_sqlite(str(copied.file))) as conn:
        titles = [title for (title,) in conn.execute("SELECT title FROM civicrm_group ORDER BY id")]
    assert [[one] for one in titles] == stored(theirs, "SELECT title_fr_FR FROM civicrm_group ORDER BY id")
