"""The pictures of the documents, of the demo's charity: ``python -m tests.browser.pictures docs/pictures``.

Each is made light at one size and is meant to be below 150 kB.
"""

import asyncio
import io
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright
from rich.console import Console

from civiapi.cli.demo import story
from civiapi.cli.demo.site import GROUP, CallFailed, Site, running_site
from tests.browser.conftest import CHROMIUM, QUIET

SIZE = {"width": 1200, "height": 760}
STATUS = "/civicrm/mailchimpsync"


async def main(folder: Path) -> None:
    """Play the demo, and take a picture of each page worth showing."""
    quiet = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as data:
        async with running_site(Path(data)) as site, async_playwright() as playwright:
            chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
            list_id = await story.link_audience(site, quiet)
            tab = await _log_in(chromium, site)
            audience = f"{STATUS}/audience/{list_id}"
            await _take(tab, folder, "waiting", site, audience)
            await tab.goto(f"{site.settings.server.base_url}{audience}/preview")
            await tab.get_by_role("button", name="Calculate the preview").click()
            await tab.wait_for_url("**plan_id**")
            await tab.screenshot(path=folder / "preview.png")
            await story.first_sync(site, list_id, quiet)
            await _take(tab, folder, "status", site, audience)
            await _take(tab, folder, "people", site, f"{STATUS}/people")
            await tab.get_by_role("link", name="Tove Dahl").click()
            await tab.screenshot(path=folder / "person.png")
            await _empty_the_group(site)
            await _take(tab, folder, "brake", site, audience)
            await chromium.close()


async def _log_in(chromium: Browser, site: Site) -> Page:
    tab = await (await chromium.new_context(viewport=SIZE)).new_page()  # type: ignore[arg-type]
    await tab.goto(site.settings.server.base_url)
    await tab.get_by_label("User name").fill(site.settings.users[0].name)
    await tab.get_by_label("API key").fill(site.settings.users[0].api_key)
    await tab.get_by_role("button", name="Log in").click()
    return tab


async def _take(tab: Page, folder: Path, name: str, site: Site, path: str) -> None:
    await tab.goto(f"{site.settings.server.base_url}{path}")
    await tab.screenshot(path=folder / f"{name}.png")


async def _empty_the_group(site: Site) -> None:
    """Somebody takes everybody out of the group by mistake; the sync that follows stops."""
    [group] = (await site.call("Group", "get", title=GROUP, sequential=1))["values"]
    people = await site.call("GroupContact", "get", group_id=group["id"], sequential=1, options={"limit": 0})
    for one in people["values"]:
        gone = {"contact_id": one["contact_id"], "group_id": group["id"], "status": "Removed"}
        await site.call("GroupContact", "create", **gone)
    try:
        await site.call("Mailchimpsync", "fetchandreconcile", group_id=group["id"], max_time=0)
    except CallFailed:  # the brake, which is what the picture shows
        return
    raise SystemExit("the brake did not stop the sync")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(Path(sys.argv[1])))
