"""The reference as static HTML and JSON files: ``civiapi docs``."""

import json
from pathlib import Path

from jinja2 import Environment

from civiapi.api.declaration.reference import COMMON, as_data, make_reference, permission_table
from civiapi.api.declaration.spec import Registry
from civiapi.ui.core.templates import STATIC_FOLDER, template_options
from civiapi.ui.explorer.pages import as_common


def write_reference(registry: Registry, folder: Path) -> list[Path]:
    """Write the reference of every entity into *folder* (made if missing); the files written. Raises ``OSError``.

    ``index.html`` links to ``ENTITY.html``; ``reference.json`` has all of it as data, ``permissions.md`` the table of
    ``docs/security.md``. Other files stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = make_reference(registry)
    templates = Environment(**template_options())  # noqa: S701  # nosec B701
    texts = {
        "index.html": templates.get_template("explorer/docs_index.html").render(reference=reference, common=COMMON),
        "ui.css": (STATIC_FOLDER / "ui.css").read_text("utf-8"),
        "permissions.md": permission_table(reference),
        "reference.json": json.dumps({"entities": as_data(reference), "common": as_common()}, indent=2) + "\n",
    }
    template = templates.get_template("explorer/docs_entity.html")
    texts |= {f"{entity.name}.html": template.render(entity=entity) for entity in reference}
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]
