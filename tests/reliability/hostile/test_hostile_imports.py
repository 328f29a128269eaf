"""CSV files that nobody meant well, imported into a real database: a folder goes in whole, or is refused."""

import asyncio
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from civiapi.app import open_app
from civiapi.importer.import_folder import ImportRefused, import_folder
from civiapi.importer.sheets import SHEETS
from civiapi.settings import DatabaseSettings, Settings
from civiapi.store.databases.dialect import change_mark

FOLDERS = 40
MOST_CPU_S = 2.0

cells = st.text(max_size=6) | st.sampled_from(
    [
        "", "1", "2", "-1", "0", "4294967296", "Individual", "Added", "x@example.org", "@", "2026-01-09", "2026-02-31",
        "null", "' OR 1=1 --", "=cmd()", "\x00", "\x01", '"', "é🎉", "a" * 300, "Newsletter_Group", "yes",
    ]
)  # fmt: skip


@st.composite
def sheets(draw: st.DrawFn) -> dict[str, str]:
    """Files with their own headings, mostly, and rows of anything."""
    files = {}
    for sheet in draw(st.lists(st.sampled_from(SHEETS), min_size=1, max_size=4, unique_by=lambda one: one.name)):
        names = [column.name for column in sheet.columns]
        heading = draw(st.just(names) | st.lists(st.sampled_from(names) | cells, max_size=12))
        width = len(heading)
        rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width + draw(st.integers(0, 1))), max_size=5))
        files[sheet.file] = "\n".join(",".join(row) for row in [heading, *rows])
    return files


def test_a_folder_is_imported_whole_or_refused_with_nothing_written(tmp_path: Path, record_property: Any) -> None:
    refused = loaded = 0
    with asyncio.Runner() as runner:
        opening = open_app(Settings(database=DatabaseSettings(f"sqlite:///{tmp_path}/site.sqlite")))
        store = runner.run(opening.__aenter__()).store

        @given(files=sheets())
        @settings(max_examples=FOLDERS)
        def hold(files: dict[str, str]) -> None:
            nonlocal refused, loaded
            folder = tmp_path / "in"
            folder.mkdir(exist_ok=True)
            for old in folder.iterdir():
                old.unlink()
            for name, text in files.items():
                (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
            before, began = runner.run(store.read_inline(change_mark)), time.process_time()
            try:
                runner.run(import_folder(store, folder))
                loaded += 1
            except ImportRefused:
                refused += 1
                assert runner.run(store.read_inline(change_mark)) == before
            assert time.process_time() - began < MOST_CPU_S

        hold()
        runner.run(opening.__aexit__(None, None, None))
    record_property("measured", f"{refused + loaded} folders, {refused} refused")
