"""Fixtures of the pages' tests: a site with an emulated Mailchimp, and an administrator's browser."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser.whole import ADMIN, ADMIN_KEY, Whole, a_whole_site
from tests.support.ui_server import Browser, a_browser


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """A new site; a module that needs people in it has its own."""
    async with a_whole_site(tmp_path) as running:
        yield running


@pytest.fixture
async def browser(site: Whole) -> AsyncIterator[Browser]:
    """The browser of somebody who is logged in as the administrator."""
    async with a_browser(site.base) as opened:
        assert (await opened.log_in(ADMIN, ADMIN_KEY)).status == 303
        yield opened
