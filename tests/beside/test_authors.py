"""CiviCRM's detailed logging names who wrote: the caller's contact, or the domain's for a sync. It takes all that is
written, even where its own tables are older."""

from collections.abc import Iterator

import pytest

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from civiapi.maintenance.adopt import survey_database
from entities import catalogue
from tests.support.databases import sql
from tests.support.extension import authors, log_in_detail, logged_connections
from tests.support.their_site import Theirs

DOMAINS, CALLERS = 5, 8


async def test_a_call_is_logged_as_its_callers_and_a_sync_as_the_domains(theirs: Theirs) -> None:
    log_in_detail(theirs.url)
    sql(f"UPDATE civicrm_domain SET contact_id = {DOMAINS}", database=theirs.url.rpartition("/")[2])
    async with theirs.taken_over() as site:
        api = Api(site.store, catalogue())
        caller = Caller(CALLERS, frozenset({"*"}))
        for contact_id in (6, 7):
            await api.answer(Call("Contact", "create", {"id": contact_id, "nick_name": "B"}, caller))
        assert {author for _, author in authors(theirs.url, "civicrm_contact")} == {str(CALLERS)}
        theirs.extension.store("readyToFetch")
        await site.run(since="ever")
    joined = [author for action, author in authors(theirs.url, "civicrm_group_contact") if action == "insert"]
    assert set(joined) == {str(DOMAINS)}  # newcomer@example.org, from Mailchimp


async def test_what_two_callers_write_is_not_logged_as_one_change_though_they_share_a_connection(
    theirs: Theirs,
) -> None:
    log_in_detail(theirs.url)
    async with theirs.taken_over() as site:
        api = Api(site.store, catalogue())
        for author in (CALLERS, 7, CALLERS):
            caller = Caller(author, frozenset({"*"}))
            made = {"contact_type": "Individual", "last_name": "B", "api.Email.create": {"email": "b@example.org"}}
            await api.answer(Call("Contact", "create", made, caller))
    logged = list(dict.fromkeys(logged_connections(theirs.url, "civicrm_contact")))
    assert [author for author, _ in logged] == [str(CALLERS), "7", str(CALLERS)]
    connections = [connection for _, connection in logged]
    assert all(len(one) == 16 for one in connections)
    assert connections[1] not in (connections[0], connections[2])
    assert logged_connections(theirs.url, "civicrm_email") == logged


@pytest.fixture(params=["the same database", "another database"])
def logs(request: pytest.FixtureRequest, theirs: Theirs) -> Iterator[str]:
    """Where the log is; ``""``: in CiviCRM's database."""
    if request.param == "the same database":
        yield ""
        return
    name = f"{theirs.url.rpartition('/')[2]}_log"
    sql(f"CREATE DATABASE {name}")
    yield name
    sql(f"DROP DATABASE {name}")


async def test_a_log_in_an_older_character_set_than_the_tables_stops_no_sync(theirs: Theirs, logs: str) -> None:
    log_in_detail(theirs.url, database=logs, charset="utf8mb3")
    [said] = [
        one.sentence
        for section in await survey_database(theirs.settings)
        for one in section.findings
        if one.code == "utf8mb3"
    ]
    assert "log_civicrm_contact" in said
    theirs.emulator.admin("import", "smile@example.org", merge_fields={"FNAME": "Smile 😀"})
    theirs.extension.store("readyToFetch")
    async with theirs.taken_over() as site:
        outcome = await site.run(since="ever")
        assert outcome.outcome == "finished"
        row = await site.row("smile@example.org")
        [name] = [one.first_name for one in await site.contacts() if one.id == row.civicrm_contact_id]
    assert name.strip() == "Smile"
