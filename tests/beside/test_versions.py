"""Databases of CiviCRM 5.39 to today: adopted, synced and called; old rows that are odd stop nobody."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.auth.authenticator import Auth, Credentials
from civiapi.maintenance.adopt import survey_database
from civiapi.settings import UserSettings
from civiapi.store.schema.live_columns import absent_columns
from civiapi.store.schema.migrations import missing_indexes
from civiapi.store.schema.tables import contact
from entities import catalogue
from sync.reports.checks import Severity
from tests.support.civicrm_versions import ABSENT, VERSIONS
from tests.support.their_site import Theirs, their_site

SMILING = "Zoë \N{SMILING FACE WITH SUNGLASSES}"
OUTSIDE = ("Mailchimpsync", "MailchimpsyncWebhookEvent", "System", "Entity", "Setting")


@pytest.fixture(params=VERSIONS)
async def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def theirs(version: str, tmp_path: Path) -> AsyncIterator[Theirs]:
    async with their_site(tmp_path, then=VERSIONS[version]) as site:
        yield site


async def test_a_database_of_this_version_is_adopted_synced_and_called(theirs: Theirs, version: str) -> None:
    theirs.emulator.admin("import", "smiling@example.org", merge_fields={"FNAME": SMILING, "LNAME": ""})
    sections = await survey_database(theirs.settings)
    found = [one for section in sections for one in section.findings]
    assert [one for one in found if one.severity >= Severity.WARNING] == []
    lacking = {one.code.rpartition(".")[2] for one in found if one.code.startswith("column:")}
    assert lacking == {name for names in ABSENT[version].values() for name in names}
    assert [one.code for one in found if one.code == "utf8mb3"] == ["utf8mb3"] * (version == "5.39")
    async with theirs.taken_over() as site:
        theirs.extension.store("readyToFetch")
        outcome = await site.run(since="ever", with_data=True)
        assert outcome.outcome == "finished"
        await site.settle_with_batches()
        assert {row.sync_status for row in await site.rows()} == {"ok"}
        assert await _names(site.store) == {"Zoë" if version == "5.39" else SMILING}
        api = Api(site.store, catalogue(await site.store.read(absent_columns)))
        await _call_everything(api, version)


@pytest.mark.parametrize("row_format", ["COMPACT", "REDUNDANT"])
async def test_tables_that_an_older_server_made_are_adopted_and_synced(tmp_path: Path, row_format: str) -> None:
    """They stay in its row format when the server is upgraded; an index takes 767 bytes of a column there."""
    tables = ("cache", "update", "batch", "status")
    then = [f"ALTER TABLE civicrm_mailchimpsync_{name} ROW_FORMAT={row_format};" for name in tables]
    async with their_site(tmp_path, then=then) as theirs:
        theirs.extension.store("readyToFetch")
        async with theirs.taken_over() as site:
            assert await site.store.read(missing_indexes) == []
            assert (await site.run(since="ever")).outcome == "finished"


async def test_a_civicrm_that_has_its_own_users_gets_none_of_ours_and_answers_ours(tmp_path: Path) -> None:
    """CiviCRM Standalone: each row of ``civicrm_uf_match`` needs a user name to log in with."""
    async with their_site(tmp_path, then=VERSIONS["5.75"]) as theirs:
        [said] = [
            one.sentence
            for section in await survey_database(theirs.settings)
            for one in section.findings
            if one.code.startswith("demanded:")
        ]
        assert "civicrm_uf_match.username" in said
        async with theirs.taken_over() as site:
            auth = Auth(site.store, "site-key", (UserSettings("officer", "key-of-the-officer", frozenset({"*"})),))
            caller = await auth.by_key(Credentials("192.0.2.1", "site-key", "key-of-the-officer"))
            api = Api(site.store, catalogue(await site.store.read(absent_columns)))
            account = {"uf_id": 9, "uf_name": "x", "contact_id": caller.contact_id}
            answer = await api.respond(Call("UFMatch", "create", account, caller))
            assert "need a value for username, which only CiviCRM knows" in answer["error_message"]


async def _names(store: Any) -> set[str]:
    wanted = select(contact.c.first_name).where(contact.c.display_name.like("Zo%"), contact.c.last_name.is_(None))
    return set(await store.read(lambda conn: [name.strip() for name in conn.execute(wanted).scalars()]))


async def _call_everything(api: Api, version: str) -> None:
    caller = Caller(5, frozenset({"*"}))

    async def ask(entity: str, action: str, **params: Any) -> Any:
        found = await api.respond(Call(entity, action, params, caller))
        assert isinstance(found, int) or not found["is_error"], (version, entity, action, found)
        return found

    absent = ABSENT[version]
    for entity in catalogue().entities():
        if entity.table is None or entity.name in OUTSIDE:
            continue
        fields = await ask(entity.name, "getfields")
        assert not set(absent.get(entity.name, ())) & fields["values"].keys()
        listed = {"mailchimp_list_id": "x"} if entity.name == "MailchimpsyncCache" else {}
        if not listed:
            rows = (await ask(entity.name, "get", sequential=1, options={"limit": 0}))["values"]
            assert all(not set(absent.get(entity.name, ())) & row.keys() for row in rows), entity.name
            await ask(entity.name, "get", **{"return": absent.get(entity.name, ["id"])})
    made = await ask("Contact", "create", contact_type="Individual", first_name=SMILING, email="x@example.org")
    await ask("Contact", "create", id=made["id"], last_name="Byron", preferred_mail_format="Both")
    await ask("Tag", "create", name="Donor", label="Donor")
    await ask("Group", "create", title="New", frontend_title="New")
    [job_id] = [row["id"] for row in (await ask("Job", "get", sequential=1))["values"]][:1]
    await ask("Job", "clone", id=job_id)
    await ask("Email", "create", contact_id=made["id"], email="y@example.org")
