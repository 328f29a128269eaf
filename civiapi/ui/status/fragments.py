"""The live parts of the status pages, rendered for the page and again for its event stream.

A part has a name and a mark, a hash of its HTML. The page sends the marks it has; the stream sends parts whose mark
differs.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp_jinja2
from aiohttp import web
from jinja2.environment import TemplateModule
from markupsafe import Markup

from civiapi.ui.status.model import ConnectionView
from sync.runs.progress import summarize_run
from sync.store.runs.checkpoints import STAGE_TITLES

PATH = "/civicrm/mailchimpsync"
ON_PAGE = ("status", "steps", "balance", "batches", "runs", "log")
MODULE = web.AppKey("status_parts", TemplateModule)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page: its HTML, escaped already, and its mark."""

    name: str
    html: Markup

    @property
    def mark(self) -> str:
        """A hash of the HTML: it differs if the part has changed."""
        return hashlib.sha256(self.html.encode()).hexdigest()[:10]


def set_up(app: web.Application) -> None:
    """Compile the parts once. The templates of the application must be set up."""
    template = aiohttp_jinja2.get_env(app).get_template("status/_fragments.html")
    app[MODULE] = template.make_module(module_context())


def module_context() -> dict[str, Any]:
    """The names that the parts use besides their connection."""
    own = (duration, summarize_run, step_counts)
    return {"path": PATH, "titles": STAGE_TITLES} | {one.__name__: one for one in own}


def card(request: web.Request, one: ConnectionView) -> Part:
    """A connection in the list of connections."""
    return _part(request, f"card-{one.list_id}", "card", one)


def alerts(request: web.Request, found: list[dict[str, Any]]) -> Part:
    """The block of open alerts above the connections; empty where there is none."""
    return _part(request, "alerts", "alerts", found)


def page_parts(request: web.Request, one: ConnectionView) -> dict[str, Part]:
    """The parts of the page of one connection."""
    return {name: _part(request, name, name, one) for name in ON_PAGE}


def _part(request: web.Request, name: str, macro: str, shown: Any) -> Part:
    return Part(name, Markup(getattr(request.app[MODULE], macro)(shown)))  # noqa: S704  # nosec B704


def announcement(one: ConnectionView) -> str:
    """The text that a screen reader announces when it changes: the state, without every number."""
    if one.is_running:
        done, total = one.progress["done"], one.progress["total"]
        quarter = f", {4 * done // total * 25} %" if total and done < total else ""
        return f"{one.group}: running, {one.stage}{quarter}."
    return f"{one.group}: {one.state.label}."


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s" if whole or not seconds else "less than 1 s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def step_counts(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """What a run did in each step that did something: the step's title, and its numbers."""
    steps = []
    for stage, numbers in (counts or {}).items():
        changed = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in numbers.items() if count)
        if changed:
            steps.append((STAGE_TITLES.get(stage, stage), changed))
    return steps
