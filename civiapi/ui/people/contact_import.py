"""CSV files of contacts, uploaded at ``/civicrm/mailchimpsync/import``: ``Contact.importcsv``, all rows or none.

The Status and People pages of a site where nobody has an email address show the form too.
"""

from typing import Any

from aiohttp import web

from civiapi.http import forms, multipart
from civiapi.http.messages import BadBody
from civiapi.importer.sheets import SHEETS
from civiapi.runtime.wording import many
from civiapi.runtime.worker_threads import in_thread
from civiapi.ui.config.model import read_stored
from civiapi.ui.core.page import CallFailed, PageRequest

PATH = "/civicrm/mailchimpsync/import"
PERMISSION = "administer CiviCRM"
NO_FILE = "Choose at least one CSV file first."
ROWS = {
    "contacts.csv": ("contact", ""),
    "emails.csv": ("email address", "email addresses"),
    "groups.csv": ("group", ""),
    "group_contacts.csv": ("group membership", ""),
    "subscription_history.csv": ("entry of the group history", "entries of the group history"),
    "tags.csv": ("tag", ""),
    "entity_tags.csv": ("tag of a contact", "tags of contacts"),
}
"""What a row of a file is, one and several."""


async def upload(page: PageRequest) -> web.Response:
    """Import the posted files; shows what was imported, or each mistake."""
    try:
        files = await in_thread(_read_files, page)
    except (multipart.Broken, forms.TooMany) as error:
        raise BadBody(f"The form cannot be read: {error}.") from error
    if not files:
        return await show(page, 422, wrong=NO_FILE)
    try:
        imported = await page.api_values("Contact", "importcsv", {"files": files})
    except CallFailed as failed:
        rows = failed.answer.get("rows") or []
        more = "" if failed.answer.get("complete", 1) else "There may be more mistakes: reading stopped after these."
        return await show(page, 422, wrong="" if rows else failed.message, mistakes=rows, more=more)
    connected = bool((await read_stored(page)).lists)
    return await show(page, imported=imported, summary=_summary(imported), connected=connected)


def _read_files(page: PageRequest) -> dict[str, str]:
    """The texts by file name. Bytes that are not UTF-8 are kept, so that the import can name their line."""
    found = multipart.files(page.incoming.header("Content-Type"), page.incoming.body)
    return {name: content.decode("utf-8", "surrogateescape") for name, content in found}


def _summary(imported: list[dict[str, Any]]) -> str:
    """``2 contacts, 3 email addresses``; ``""`` where all rows were there before."""
    return ", ".join(many(one["loaded"], *ROWS[one["file"]]) for one in imported if one["loaded"])


async def show(page: PageRequest, status: int = 200, **result: Any) -> web.Response:
    """The form; *result*: what the template shows of an import."""
    nothing: dict[str, Any] = {
        "wrong": "",
        "mistakes": [],
        "more": "",
        "imported": None,
        "summary": "",
        "connected": False,
        "rows_of": lambda file: (ROWS[file][1] or f"{ROWS[file][0]}s").capitalize(),
    }
    return page.render("people/import.html", status, **form_context(page), **(nothing | result))


async def form_if_empty(page: PageRequest) -> dict[str, Any]:
    """What a page needs to show the form, if nobody here has an email address."""
    try:
        found = await page.rows("Email", {"options": {"limit": 1}, "return": ["id"]})
    except CallFailed:  # who may not read contacts does not import any
        return {"importing": None}
    return {"importing": None} if found else form_context(page)


def form_context(page: PageRequest) -> dict[str, Any]:
    """What the template of the form needs."""
    limit = page.site.server.max_body
    files = [(one.file, one.required, [col.name for col in one.columns]) for one in SHEETS]
    return {"importing": {"path": PATH, "limit": limit, "too_large": too_large(limit), "files": files}}


def too_large(limit: int) -> str:
    """The message for files of more than *limit* bytes."""
    return (
        f"These files are too large: at most {limit / 1e6:.3g} MB together can be uploaded ([server] max_body). "
        "On the server, “civiapi import FOLDER” takes larger ones. Nothing was imported."
    )


ROUTES = (("GET", PATH, show),)
