"""Imports a folder of CSV files with CiviCRM's column names, all or nothing.

Ids are kept where they are free; a row whose id is taken gets a new one, and references to it follow. Rows imported
before are recognized, however the database has changed since, so a repeated import changes nothing.
"""

from pathlib import Path

from civiapi.importer.loading import load
from civiapi.importer.reading import BadRow, Times, survey
from civiapi.importer.reporting import FileReport, ImportRefused, ImportReport
from civiapi.importer.sheets import SHEETS
from civiapi.runtime.worker_threads import in_thread
from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.errors import NotUnique

RETRIES = 2
"""Retries after a concurrent write of the same row."""

__all__ = ["BadRow", "FileReport", "ImportRefused", "ImportReport", "import_folder"]


async def import_folder(store: Store, folder: Path, *, zone: str = "") -> ImportReport:
    """Import *folder* in one transaction. *zone* (IANA): that of the times in the files (default: the site's).

    The schema must be current. Raises ``ImportRefused`` (nothing was imported), ``StoreError``, and ``ValueError`` for
    an unknown zone.
    """
    clock = store.clock
    times = Times(clock.now(), site_clock(zone).zone if zone else clock.zone, clock.zone)
    try:
        found = await in_thread(survey, folder)
    except OSError as error:
        raise ImportRefused([BadRow(str(folder), 0, f"cannot be read: {error.strerror}")]) from error
    if not found.files:
        names = ", ".join(sheet.file for sheet in SHEETS)
        raise ImportRefused([BadRow(str(folder), 0, f"holds none of {names}")])
    for _ in range(RETRIES):
        try:
            return await store.write(load, found, times)
        except (NotUnique, ImportRefused):
            if not store.is_shared:
                raise
            # A concurrent write may have created the row after it was looked up.
    return await store.write(load, found, times)
