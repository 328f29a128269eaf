"""CiviCRM's detailed logging names who wrote: the caller's contact, or the domain's for a sync."""

from civiapi.api.call import Call, Caller
from civiapi.api.dispatch import Api
from entities import catalogue
from tests.support.databases import sql
from tests.support.extension import authors, log_in_detail
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
