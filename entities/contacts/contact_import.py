"""``Contact.importcsv``: CSV files with CiviCRM's column names, sent in a call; not an action of CiviCRM's."""

from dataclasses import asdict

from civiapi.api.context import Context
from civiapi.api.declaration.fields import TEXT, Field
from civiapi.api.declaration.spec import Action, Request, Result
from civiapi.api.errors import ApiError, InvalidValue
from civiapi.importer.import_folder import ImportRefused
from civiapi.importer.uploaded import NAMES, import_texts


async def import_csv(request: Request, ctx: Context) -> Result:
    """Import contacts, addresses, groups and tags from CSV files, all rows or none.

    A row that was imported before is recognized. An error lists every invalid row under ``rows``.
    """
    files = request.params["files"]
    if not isinstance(files, dict) or not all(isinstance(text, str) for text in files.values()):
        raise InvalidValue("files is not a map of file names to texts", 2001, error_field="files", type="map")
    try:
        report = await import_texts(ctx.api.store, files)
    except ImportRefused as refused:
        rows = [{"file": row.file, "line": row.line, "reason": row.reason} for row in refused.rows]
        raise ApiError(str(refused), "import_refused", rows=rows, complete=int(refused.complete)) from refused
    return Result([asdict(one) for one in report.files], key=None)


IMPORT = Action(
    "importcsv",
    run_async=import_csv,
    writes=True,
    long_running=True,
    validated=False,
    title="Import CSV files",
    params=(
        Field(
            "files",
            TEXT,
            title="Files",
            description=f"A map of file names ({', '.join(NAMES)}) to their texts; or, where nobody has an email "
            "address yet, one list of people of any name, with a column email.",
            required_by={"importcsv"},
        ),
    ),
)
