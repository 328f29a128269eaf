"""Every template is rendered over rows of which nothing is known but what the database insists on."""

from typing import Any

import aiohttp_jinja2
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from jinja2 import UndefinedError
from sqlalchemy import Connection, insert, update

from civiapi.endpoints.routes import make_web_app
from civiapi.store.schema import tables as civicrm
from civiapi.ui.core.templates import UI_FOLDER
from civiapi.ui.routes import ui_pages
from civiapi.ui.status.fragments import ON_PAGE
from sync.store import tables as theirs
from tests.browser.whole import ADMIN, ADMIN_KEY, Whole
from tests.support.ui_server import Browser, a_browser
from tests.ui.test_status_states import a_connection, fragments_module

TEMPLATES = {file.relative_to(UI_FOLDER / "templates").as_posix() for file in UI_FOLDER.rglob("*.html")}
CIVIAPI = "/civicrm/mailchimpsync"


def bare_rows(conn: Connection, list_id: str) -> None:
    """A row of each kind that a page shows, with no more in it than it must have."""
    conn.execute(insert(civicrm.job).values(domain_id=1))
    conn.execute(insert(civicrm.job_log).values(domain_id=1))
    contact_id = conn.execute(insert(civicrm.contact).values(contact_type="Individual")).lastrowid
    conn.execute(insert(civicrm.email).values(contact_id=contact_id))
    for more in ({}, {"civicrm_contact_id": contact_id}, {"mailchimp_member_id": "m"}, {"sync_status": None}):
        row = conn.execute(insert(theirs.cache).values(mailchimp_list_id=list_id, **more)).lastrowid
        conn.execute(insert(theirs.update).values(mailchimpsync_cache_id=row, data="{}"))
    conn.execute(insert(theirs.batch).values(mailchimp_list_id=list_id, response_processed=0))
    conn.execute(update(theirs.batch).values(finished_operations=None, errored_operations=None, total_operations=None))
    conn.execute(insert(theirs.run_log).values(list_id=list_id, started_s=0))


async def test_every_template_stands_absent_values(site: Whole) -> None:
    app = make_web_app(
        site.app.api, site.app.auth, site.app.settings.server,
        pages=ui_pages(site.app.auth, site.app.api, site.app.settings.server),
    )  # fmt: skip
    async with TestServer(app) as server, a_browser(f"http://127.0.0.1:{server.port}") as browser:
        await browser.log_in(ADMIN, ADMIN_KEY)
        await _expect(browser, CIVIAPI, f"{CIVIAPI}/config", f"{CIVIAPI}/people", f"{CIVIAPI}/import")
        await site.link()
        await site.app.store.write(bare_rows, site.list_id)
        audience = f"{CIVIAPI}/audience/{site.list_id}"
        await _expect(
            browser, CIVIAPI, audience, f"{audience}/preview", f"{CIVIAPI}/config",
            f"{CIVIAPI}/config/link?list_id={site.list_id}", f"{CIVIAPI}/config/remove?list_id={site.list_id}",
            f"{CIVIAPI}/config/fields?list_id={site.list_id}", f"{audience}/campaigns",
            f"{CIVIAPI}/people?list_id={site.list_id}", f"{CIVIAPI}/people.csv?list_id={site.list_id}",
            f"{CIVIAPI}/person?contact_id=1", f"{CIVIAPI}/jobs", f"{CIVIAPI}/timeline", f"{CIVIAPI}/run/1",
            f"{CIVIAPI}/jobs/log", "/civicrm/login", "/civicrm/api3", "/civicrm/api3/Job", "/civicrm/api3/Job/get",
        )  # fmt: skip
        for row in (await site.call("Contact", "get", sequential=1, options={"limit": 0}))["values"]:
            await _expect(browser, f"{CIVIAPI}/person?contact_id={row['id']}")
        plan = (await site.call("Mailchimpsync", "plan", group_id=1))["values"]["plan_id"]
        await _expect(browser, f"{audience}/preview?plan_id={plan}")
        assert (await browser.get(f"{CIVIAPI}/audience/none")).status == 404
    assert _rendered(app) == {one for one in TEMPLATES if not one.startswith("explorer/docs_")}


def _rendered(app: web.Application) -> set[str]:
    cache: Any = aiohttp_jinja2.get_env(app).cache
    return {name for _loader, name in cache.keys()}  # noqa: SIM118  a mapping of jinja's own, which does not iterate


async def _expect(browser: Browser, *paths: str) -> None:
    for path in paths:
        answer = await browser.get(path)
        assert answer.status == 200, (path, answer.status, answer.text[:300])


@pytest.mark.parametrize("part", [*ON_PAGE, "card"])
def test_a_part_of_the_status_page_needs_no_optional_key(part: str) -> None:
    try:
        assert str(getattr(fragments_module(), part)(a_connection()))
    except UndefinedError as error:
        pytest.fail(f"{part}: {error}")
