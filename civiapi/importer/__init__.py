"""Loads a folder of CSV files with CiviCRM's column names into the database, all of it or nothing.

Dates are kept, and ids where they are free; a row whose id is taken gets a new one and what refers to it follows.
What was loaded before is recognised, however the database has changed since, so the same folder twice changes nothing.
"""

from pathlib import Path

from civiapi.importer.loading import load
from civiapi.importer.reading import BadRow, Times, survey
from civiapi.importer.reporting import FileReport, ImportRefused, ImportReport
from civiapi.importer.sheets import SHEETS
from civiapi.store.clock import site_clock
from civiapi.store.engine import Store
from civiapi.store.errors import NotUnique

RIVALS = 2
"""How often an import begins anew because somebody else made the same row at the same time."""

__all__ = ["BadRow", "FileReport", "ImportRefused", "ImportReport", "import_folder"]


async def import_folder(store: Store, folder: Path, *, zone: str = "") -> ImportReport:
    """Load *folder* in one transaction. *zone* (IANA) is that of the files' times, the site's own if not given.

    The schema must be up to date. Raises ``ImportRefused`` (nothing was loaded), ``StoreError``, and ``ValueError``
    for an unknown zone.
    """
    clock = store.clock
    times = Times(clock.now(), site_clock(zone).zone if zone else clock.zone, clock.zone)
    try:
        found = survey(folder)
    except OSError as error:
        raise ImportRefused([BadRow(str(folder), 0, f"cannot be read: {error.strerror}")]) from error
    if not found.files:
        names = ", ".join(sheet.file for sheet in SHEETS)
        raise ImportRefused([BadRow(str(folder), 0, f"holds none of {names}")])
    for _ in range(RIVALS):
        try:
            return await store.write(load, found, times)
        except (NotUnique, ImportRefused):
            if not store.is_shared:
                raise
            # Somebody else may have made such a row after we had looked: look again.
    return await store.write(load, found, times)
