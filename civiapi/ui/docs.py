"""The reference as files: HTML that needs no server, and the same as JSON. What ``civiapi docs`` writes."""

import json
from pathlib import Path

from jinja2 import Environment

from civiapi.reference import COMMON, as_data, make_reference
from civiapi.registry import Registry
from civiapi.ui.explorer import as_common
from civiapi.ui.pages import HERE, template_options


def write_reference(registry: Registry, folder: Path) -> list[Path]:
    """Write the reference of every entity into *folder* (made if missing); the files written. Raises ``OSError``.

    ``index.html`` leads to ``ENTITY.html``; ``reference.json`` holds all of it as data. Other files are left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = make_reference(registry)
    templates = Environment(**template_options())  # noqa: S701  # nosec B701
    texts = {
        "index.html": templates.get_template("docs_index.html").render(reference=reference, common=COMMON),
        "ui.css": (HERE / "static" / "ui.css").read_text("utf-8"),
        "reference.json": json.dumps({"entities": as_data(reference), "common": as_common()}, indent=2) + "\n",
    }
    page = templates.get_template("docs_entity.html")
    texts |= {f"{entity.name}.html": page.render(entity=entity) for entity in reference}
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]
