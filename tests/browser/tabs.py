"""Windows of a browser, for the tests of the screens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, expect

from tests.browser.whole import ADMIN, ADMIN_KEY, Whole


@asynccontextmanager
async def a_tab(chromium: Browser, **how: Any) -> AsyncIterator[Page]:
    """A new browser window in which nothing goes wrong unseen: errors of scripts and broken rules fail the test."""
    context = await chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
    tab = await context.new_page()
    wrong: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            wrong.append(message.text)

    tab.on("console", hear)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(f"a dialog of the browser: {dialog.message}"))
    try:
        yield tab
    finally:
        await context.close()
    assert wrong == []


async def log_in(tab: Page, site: Whole, path: str = "/") -> None:
    """Go to a page that asks who one is, and say so."""
    await tab.goto(f"{site.base}{path}")
    await tab.get_by_label("User name").fill(ADMIN)
    await tab.get_by_label("API key").fill(ADMIN_KEY)
    button = tab.get_by_role("button", name="Log in")
    await button.click()
    await expect(button).to_have_count(0)
    await tab.wait_for_load_state()  # scripts check what is filled in
