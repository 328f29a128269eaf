"""How templates are found and rendered, with or without a server."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civiapi.runtime.wording import many
from civiapi.store.clock import SiteClock
from civiapi.ui.core.times import Times

UI_FOLDER = Path(__file__).parents[1]
STATIC_FOLDER = UI_FOLDER / "static"


def template_options() -> dict[str, Any]:
    """Options of the Jinja environment. A name that a template is not given is an error."""
    return {
        "loader": FileSystemLoader(UI_FOLDER / "templates"),
        "autoescape": True,
        "undefined": StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }


def add_globals(templates: Environment, clock: SiteClock) -> None:
    """Give all templates what they write times and numbers with, in the site's zone."""
    times = Times(clock)
    templates.globals |= {"ago": times.ago, "when": times.when, "number": number, "many": many}


def number(value: float) -> str:
    """``12,345``."""
    return f"{value:,}"
