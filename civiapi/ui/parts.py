"""The changing parts of the status pages, rendered: once for the page, and again for whoever watches it.

A part has a name in the page and a mark, which differs when its HTML does. So a page says what it has, and its stream
of events sends what has become different.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp_jinja2
from aiohttp import web
from jinja2.environment import TemplateModule
from markupsafe import Markup

from civiapi.ui.connections import STAGE_TITLES, Connection

PATH = "/civicrm/mailchimpsync"
ON_PAGE = ("standing", "pipeline", "balance", "batches", "runs", "log")
MODULE = web.AppKey("status_parts", TemplateModule)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a page: its HTML, safe to put in, and a mark that tells it from what it was before."""

    name: str
    html: Markup

    @property
    def mark(self) -> str:
        return hashlib.sha256(self.html.encode()).hexdigest()[:10]


def set_up(app: web.Application) -> None:
    """Compile the parts once. The application's templates must be set up."""
    template = aiohttp_jinja2.get_env(app).get_template("_status_parts.html")
    app[MODULE] = template.make_module(
        {"path": PATH, "titles": STAGE_TITLES, "duration": duration, "did": did},
    )


def card(request: web.Request, one: Connection) -> Part:
    """A connection on the list of all."""
    return _part(request, f"card-{one.list_id}", "card", one)


def page_parts(request: web.Request, one: Connection) -> dict[str, Part]:
    """The parts of a connection's own page."""
    return {name: _part(request, name, name, one) for name in ON_PAGE}


def _part(request: web.Request, name: str, macro: str, one: Connection) -> Part:
    return Part(name, Markup(getattr(request.app[MODULE], macro)(one)))  # noqa: S704  # nosec B704


def spoken(one: Connection) -> str:
    """What a screen reader is told when it changes: the state, not every number."""
    if one.is_running:
        done, total = one.progress["done"], one.progress["total"]
        quarter = f", {4 * done // total * 25} %" if total and done < total else ""
        return f"{one.group}: running, {one.stage}{quarter}."
    return f"{one.group}: {one.state.word}."


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


def did(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What a run did, stage by stage, in a line; nothing to say is said too."""
    told = []
    for stage, numbers in (counts or {}).items():
        words = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in numbers.items() if count)
        if words:
            told.append(f"{STAGE_TITLES.get(stage, stage)}: {words}")
    return "; ".join(told) or "Nothing had changed."
