"""The explorer in a real browser: log in, pick Contact.get, try it, read the answer; narrow, dark, by keyboard."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from civiapi.api.call import SYSTEM, Call
from civiapi.api.dispatch import Api
from tests.support.ui_server import ADMIN_KEY, SITE_KEY, ui_server

pytestmark = pytest.mark.browser


@pytest.fixture
async def site(api: Api) -> AsyncIterator[str]:
    """A server with two people in its database, one with a name that would be markup."""
    for first, last, address in (("Ada", "Byron", "ada@example.org"), ("<b>Bob</b>", "O'Brien", "bob@example.org")):
        params = {"contact_type": "Individual", "first_name": first, "last_name": last, "email": address}
        made = await api.respond(Call("Contact", "create", params, SYSTEM))
        assert made["is_error"] == 0, made
    async with ui_server(api) as base:
        yield base


@pytest.fixture
async def page(chromium: Browser, site: str) -> AsyncIterator[Page]:
    """A new tab in which nothing goes wrong unseen: errors of scripts and broken rules of the page fail the test.

    It asks for the site so that it is closed before the server is.
    """
    context = await chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = await context.new_page()
    wrong: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            wrong.append(message.text)

    tab.on("console", hear)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    yield tab
    await context.close()
    assert wrong == []


async def log_in(page: Page, site: str, key: str = ADMIN_KEY) -> None:
    await page.goto(f"{site}/civicrm/api3")
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Log in").click()


async def open_action(page: Page, entity: str, action: str) -> None:
    await page.get_by_label("Entity", exact=True).select_option(entity)
    await page.get_by_label("Action", exact=True).select_option(action)
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{entity}.{action}")


async def test_someone_logs_in_picks_contact_get_tries_it_and_reads_the_answer(
    page: Page, site: str, screenshots: Path
) -> None:
    await log_in(page, site, "wrong")
    await expect(page.get_by_role("alert")).to_contain_text("Wrong user name or API key.")
    await page.screenshot(path=screenshots / "login.png", full_page=True)
    await page.get_by_label("API key").fill(ADMIN_KEY)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("API explorer")
    await page.screenshot(path=screenshots / "explorer-index.png", full_page=True)

    await open_action(page, "Contact", "get")
    await page.locator("#p-last_name").fill("O'Brien")
    await page.get_by_role("button", name="Try it").click()

    await expect(page.get_by_role("status")).to_have_text("Answered: 1 row.")
    answer = json.loads(await page.locator("#answer").inner_text())
    [row] = answer["values"].values()
    assert (row["first_name"], row["email"]) == ("<b>Bob</b>", "bob@example.org")
    await page.screenshot(path=screenshots / "explorer-answer.png")


async def test_the_samples_follow_the_form_and_what_curl_shows_works(page: Page, site: str) -> None:
    await log_in(page, site)
    await open_action(page, "Contact", "get")
    await page.locator("#p-last_name").fill("O'Brien")
    await page.get_by_label("More parameters").fill('{"return": ["first_name"]}')
    await page.get_by_role("radio", name="curl").check()
    sample = page.locator("#sample-curl")
    await expect(sample).to_contain_text('"return"')
    await expect(page.locator("#sample-rest")).to_be_hidden()
    command = await sample.inner_text()
    assert ADMIN_KEY not in await page.content()
    for placeholder, key in (("YOUR_API_KEY", ADMIN_KEY), ("YOUR_SITE_KEY", SITE_KEY)):
        command = command.replace(placeholder, key)
    shell = await asyncio.create_subprocess_exec("sh", "-c", f"{command} --silent", stdout=subprocess.PIPE)
    printed, _ = await shell.communicate()
    assert [row["first_name"] for row in json.loads(printed)["values"].values()] == ["<b>Bob</b>"]


async def test_a_call_that_changes_data_asks_first(page: Page, site: str, api: Api) -> None:
    await log_in(page, site)
    await open_action(page, "Contact", "create")
    await page.locator("#p-first_name").fill("Cleo")
    await page.get_by_label("More parameters").fill('{"contact_type": "Individual"}')
    page.once("dialog", lambda dialog: dialog.dismiss())
    await page.get_by_role("button", name="Try it").click()
    await expect(page.get_by_role("status")).to_have_text("Not sent yet.")
    page.once("dialog", lambda dialog: dialog.accept())
    await page.get_by_role("button", name="Try it").click()
    await expect(page.get_by_role("status")).to_have_text("Answered: 1 row.")
    found: Any = await api.respond(Call("Contact", "getcount", {"first_name": "Cleo"}, SYSTEM))
    assert found == 1


async def test_choices_that_a_site_keeps_itself_are_offered(page: Page, site: str) -> None:
    await log_in(page, site)
    await open_action(page, "Email", "create")
    await page.locator("#p-location_type_id").focus()
    offered = page.locator("#list-location_type_id option")
    await expect(offered.filter(has_text="Home")).to_have_attribute("value", "1")


async def test_mistakes_are_told_where_they_are_made(page: Page, site: str) -> None:
    await log_in(page, site)
    await open_action(page, "Contact", "get")
    await page.get_by_label("More parameters").fill("{")
    await page.get_by_role("button", name="Try it").click()
    await expect(page.get_by_role("alert")).to_contain_text("must be a JSON object")
    await page.get_by_label("More parameters").fill('{"contact_id": "abc"}')
    await page.get_by_role("button", name="Try it").click()
    await expect(page.get_by_role("status")).to_contain_text("Error: ")


async def test_a_session_that_is_over_leads_to_the_log_in(page: Page, site: str) -> None:
    await log_in(page, site)
    await open_action(page, "Contact", "get")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Try it").click()
    await page.get_by_role("alert").get_by_role("link", name="Log in").click()
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("API key").fill(ADMIN_KEY)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Contact.get")


async def test_the_keyboard_alone_is_enough(page: Page, site: str) -> None:
    await page.goto(f"{site}/civicrm/login?next=/civicrm/api3/Contact/getcount")
    await expect(page.get_by_label("User name")).to_be_focused()  # given when the page is drawn, after it is loaded
    await page.keyboard.type("admin")
    await page.keyboard.press("Tab")
    await page.keyboard.type(ADMIN_KEY)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Contact.getcount")
    await page.wait_for_load_state()  # the heading is there before the scripts
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    for _ in range(12):
        if await page.locator("#search").evaluate("one => one === document.activeElement"):
            break
        await page.keyboard.press("Tab")
    await page.keyboard.type("last_name")
    await page.keyboard.press("Tab")
    await expect(page.locator("#p-last_name")).to_be_focused()
    await page.keyboard.type("Byron")
    await page.keyboard.press("Enter")
    await expect(page.locator("#answer")).to_contain_text('"result": 1')


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("where", ["", "/Contact", "/Contact/get"])
async def test_at_360_pixels_nothing_sticks_out(
    page: Page, site: str, screenshots: Path, where: str, scheme: str
) -> None:
    await log_in(page, site)
    await page.set_viewport_size({"width": 360, "height": 740})
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.goto(f"{site}/civicrm/api3{where}")
    width = await page.evaluate("document.documentElement.scrollWidth")
    name = where.strip("/").replace("/", "-") or "index"
    await page.screenshot(path=screenshots / f"explorer-{name}-360-{scheme}.png")
    assert width <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_stands_out_from_its_ground(page: Page, site: str, scheme: str) -> None:
    await log_in(page, site)
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.goto(f"{site}/civicrm/api3/Contact/create")
    poor = await page.evaluate(CONTRAST)
    assert poor == []


async def test_every_field_has_a_name_for_a_screen_reader(page: Page, site: str) -> None:
    await log_in(page, site)
    await open_action(page, "Contact", "create")
    unnamed = await page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select, textarea')]"
        ".filter((one) => !one.labels.length).map((one) => one.outerHTML)"
    )
    assert unnamed == []
    repeated = await page.evaluate(
        "(() => { const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);"
        " return ids.filter((id, place) => ids.indexOf(id) !== place); })()"
    )
    assert repeated == []


# Elements with text of their own whose colour is nearer to what lies behind it than 4.5 to 1 (WCAG 2.1, 1.4.3).
CONTRAST = """
(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((part) => part / 255)
    .map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const parts = numbers(getComputedStyle(one).backgroundColor);
      if (parts.length === 3 || parts[3] > 0) return parts;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())).filter((one) => {
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  }).map((one) => one.outerHTML.slice(0, 120));
})()
"""
