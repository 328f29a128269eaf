"""Imports CSV files that a caller sent as texts: through a private folder, by ``import_folder``."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, select

from civiapi.importer.import_folder import import_folder
from civiapi.importer.people_list import is_list, split_list
from civiapi.importer.reading import BadRow
from civiapi.importer.reporting import ImportRefused, ImportReport
from civiapi.importer.sheets import SHEETS
from civiapi.runtime.worker_threads import in_thread
from civiapi.store.engine import Store
from civiapi.store.schema.tables import email

NAMES = tuple(sheet.file for sheet in SHEETS)
UNKNOWN = f"has an unknown name; the files are {', '.join(NAMES)}, or one list of people with a column email"
NOT_EMPTY = (
    "is a list of people, whose rows cannot be told from the people who are here already. A list is imported while "
    "nobody has an email address; later, contacts.csv and emails.csv with ids are"
)


async def import_texts(store: Store, files: Mapping[str, str]) -> ImportReport:
    """Import *files*, texts by file name, in one transaction; times are in the site's zone.

    A single file of any name may be a list of people (``people_list``), for a site where nobody has an address. A byte
    that is not UTF-8 is a surrogate (``surrogateescape``), which makes its row invalid. Raises as ``import_folder``.
    """
    if len(files) == 1 and await in_thread(is_list, *files.values()):
        [(name, text)] = files.items()
        return await _import_list(store, name[:100], text)
    if bad := [BadRow(name[:100], 0, UNKNOWN) for name in files if name not in NAMES]:
        raise ImportRefused(bad)
    with TemporaryDirectory(prefix="civiapi-import-") as folder:  # readable by its owner only
        await in_thread(_write, Path(folder), files)
        return await import_folder(store, Path(folder))


async def _import_list(store: Store, name: str, text: str) -> ImportReport:
    if await store.read(_has_addresses):
        raise ImportRefused([BadRow(name, 0, NOT_EMPTY)])
    files = await in_thread(split_list, name, text)
    try:
        return await import_texts(store, files)
    except ImportRefused as refused:
        rows = [replace(row, file=name) for row in refused.rows]
        raise ImportRefused(list(dict.fromkeys(rows)), complete=refused.complete) from refused


def _has_addresses(conn: Connection) -> bool:
    return conn.execute(select(email.c.id).limit(1)).first() is not None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():  # a known name each, so no path of the caller's
        try:
            content = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ImportRefused([BadRow(name, 0, "is not UTF-8")]) from error
        (folder / name).write_bytes(content)
