"""The system's Chromium for the suites that need a real browser; without one they are skipped and say so."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.browser.tabs import a_tab
from tests.browser.whole import Whole, a_whole_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
ROOT = Path(__file__).parents[2]

expect.set_options(timeout=20_000)  # ms until what never comes fails a test; no test waits for it otherwise


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A new Chromium that speaks to nobody but the test."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here; `apt-get install chromium` brings one")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        await browser.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Whole]:
    """An empty server and the Mailchimp it speaks to; a suite that needs people in them has a fixture of its own."""
    async with a_whole_site(tmp_path) as running:
        yield running


@pytest.fixture
async def tab(chromium: Browser, site: Whole) -> AsyncIterator[Page]:
    """A tab that closes before the server does."""
    async with a_tab(chromium) as opened:
        yield opened


@pytest.fixture
def screenshots() -> Path:
    """Where pictures go, for people to look at."""
    folder = ROOT / "screenshots"
    folder.mkdir(exist_ok=True)
    return folder
