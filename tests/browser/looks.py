"""What every page must stand, wide and narrow, light and dark: axe finds nothing, nothing sticks out; with pictures."""

import json
from pathlib import Path
from typing import Any

import axe_playwright_python
from playwright.async_api import Page

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
NARROW, MIDDLE, WIDE = 360, 720, 1280
HEIGHT = 900


async def faults(tab: Page) -> list[str]:
    """What axe finds wrong with the page as it is, a line each."""
    if not await tab.evaluate("'axe' in window"):
        await tab.evaluate(AXE)
    found: Any = await tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {fault['help']}: {json.dumps(node['target'])} {node['html'][:160]}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


async def sticks_out(tab: Page) -> list[str]:
    """Elements that reach beyond the window, or whose text reaches beyond a box that hides what is too much."""
    return list(await tab.evaluate(STICKS_OUT))


async def stands(tab: Page, name: str, screenshots: Path, *, full: bool = True) -> None:
    """Look at the page wide and light, then narrow and dark: a picture each, and nothing wrong; nor between the two."""
    wrong = []
    for width, scheme in ((WIDE, "light"), (NARROW, "dark")):
        await tab.set_viewport_size({"width": width, "height": HEIGHT})
        await tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await tab.screenshot(path=screenshots / f"{name}-{width}-{scheme}.png", full_page=full)
        wrong += [f"{name}, {width}: {text}" for text in await sticks_out(tab)]
        wrong += [f"{name}, {width}, {scheme}: {text}" for text in await faults(tab)]
    await tab.set_viewport_size({"width": MIDDLE, "height": HEIGHT})
    wrong += [f"{name}, {MIDDLE}: {text}" for text in await sticks_out(tab)]
    await tab.set_viewport_size({"width": WIDE, "height": HEIGHT})
    await tab.emulate_media(color_scheme="light")
    assert not wrong, "\n".join(wrong)


STICKS_OUT = """
(() => {
  const width = document.documentElement.clientWidth;
  const across = (one) => getComputedStyle(one).overflowX;
  const scrolls = (one) => one && (['auto', 'scroll'].includes(across(one)) || scrolls(one.parentElement));
  const shown = [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()
    && !one.closest('.unseen, .skip, svg') && !scrolls(one.parentElement));
  const outside = shown.filter((one) => one.getBoundingClientRect().right > width + 1);
  const cut = shown.filter((one) => across(one) === 'hidden' && one.scrollWidth > one.clientWidth + 1
    && getComputedStyle(one).textOverflow !== 'ellipsis' && one.tagName !== 'PROGRESS');
  return [...outside, ...cut].slice(0, 5).map((one) => one.outerHTML.slice(0, 160));
})()
"""
