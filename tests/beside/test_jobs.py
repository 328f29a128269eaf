"""CiviCRM's own scheduled jobs stay its own: what its cron goes by is not touched."""

import pytest

from civiapi.api.call import Call
from civiapi.api.dispatch import Api
from civiapi.api.errors import ApiError
from civiapi.server.scheduler import Scheduler
from civiapi.store.engine import Store
from entities import catalogue
from tests.support.databases import sql
from tests.support.their_site import Theirs

THEIRS = (
    "INSERT INTO civicrm_job (id, domain_id, run_frequency, name, api_entity, api_action, is_active) VALUES"
    " (7, 1, 'Always', 'Memberships', 'Job', 'process_membership', 1),"
    " (8, 1, 'Always', 'Count', 'Group', 'getcount', 1)"
)


async def look(theirs: Theirs) -> list[list[str]]:
    """A look for due jobs, and what each then says of its last run."""
    database = theirs.url.rpartition("/")[2]
    sql(THEIRS, "UPDATE civicrm_job SET is_active = 0 WHERE id = 1", database=database)
    async with theirs.taken_over() as site:
        await Scheduler(_api(site.store), site.store, tick_seconds=60).tick()
        with pytest.raises(ApiError, match=r"its own cron runs it"):
            await _api(site.store).answer(_execute(7))
    query = "SELECT id, last_run IS NULL, last_run_end IS NULL FROM civicrm_job WHERE id IN (7, 8) ORDER BY id"
    return sql(query, database=database)


def _api(store: Store) -> Api:
    return Api(store, catalogue())


def _execute(job_id: int) -> Call:
    return Call("Job", "execute", {"id": job_id})


async def test_a_job_that_only_civicrm_answers_is_not_marked_as_run_nor_logged(theirs: Theirs) -> None:
    assert await look(theirs) == [["7", "1", "1"], ["8", "0", "0"]]
    logged = sql("SELECT job_id FROM civicrm_job_log WHERE job_id IS NOT NULL", database=theirs.url.rpartition("/")[2])
    assert {job_id for [job_id] in logged} == {"8"}
