"""Everything that reads what others wrote, given texts made to break it.

Forms, multipart bodies, JSON, XML answers, dates, PHP's serialized values, CSV files, settings, archives of batches.
What must hold for every one: a value or the refusal that the reader documents, within two seconds of CPU and 200 MB of
memory. ``CIVIAPI_HOSTILE_TEXTS`` sets how many texts each is given.
"""

import csv
import gzip
import io
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from civiapi.api.bounds import bounded_json
from civiapi.api.parameters import dates
from civiapi.http import forms, multipart
from civiapi.http.rendering import wrap
from civiapi.http.xml import to_xml
from civiapi.importer.reading import Times, read_heading, read_rows, survey
from civiapi.importer.sheets import SHEETS
from civiapi.settings import SettingsError, load_settings
from civiapi.store.clock import site_clock
from civiapi.store.text.php import BadSerial, as_json, load_php
from sync.mailchimp.archive import read_archive, write_archive
from sync.mailchimp.errors import BadArchive
from sync.store.members.blobs import load_data

TEXTS = int(os.environ.get("CIVIAPI_HOSTILE_TEXTS", "40"))
MOST_CPU_S = 2.0
MOST_MEMORY_KB = 200_000


@dataclass(frozen=True)
class Reader:
    """What reads, what it is given, and how it refuses."""

    read: Callable[[Any], object]
    given: st.SearchStrategy[Any]
    refuses: tuple[type[Exception], ...] = ()


def memory_kb(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def words(*known: str, letters: str = "") -> st.SearchStrategy[str]:
    """Texts put together of *known* pieces, of letters, and of one of them very often."""
    piece = st.sampled_from(known) | st.text(letters, max_size=4) if letters else st.sampled_from(known)
    often = st.builds(lambda one, count: one * count, piece, st.sampled_from([3, 60, 2000]))
    return st.lists(piece | piece | piece | often, max_size=12).map("".join)


def as_bytes(text: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    return text.map(lambda one: one.encode("utf-8", "surrogatepass")) | st.binary(max_size=200)


# ---- forms, multipart, JSON, XML ----

FORMS = as_bytes(words("a", "=", "&", "[", "]", "[]", "%5B", "%", "%F0%9F", "+", ".", "json={", "\x00", "é", "\ud800"))
PARTS = as_bytes(
    words(
        "--x", "--x--", "\r\n", "\r\n\r\n", "\n", "Content-Disposition: form-data; ", 'name="a"', "name=",
        "; filename=a", 'name*=utf-8\'\'%ff', "Content-Type: text/plain; charset=", "value", '"', "\\", "\x00", "é",
    )
)  # fmt: skip
TYPES = words("multipart/form-data", "; ", "boundary=", "x", '"', "\\", "é", " ", "boundary*0=a")
JSONS = words("[", "]", "{", "}", '"a"', ":", ",", "1", "-", "e9", "null", "9" * 30, "\\ud800", '"', " ", "\x00")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def read_parts(given: tuple[str, bytes]) -> object:
    content_type, body = given
    return list(multipart.text_fields(content_type, body)), list(multipart.files(content_type, body))


def read_call(body: bytes) -> object:
    """A form to its API parameters, through the JSON in it."""
    fields = forms.parse_body(body)
    return forms.api_params(fields), forms.scalar(fields, "a"), forms.wants_json(fields)


def write_xml(value: Any) -> None:
    ElementTree.fromstring(to_xml(wrap(value)))


# ---- dates, PHP ----

DATES = words(
    "+", "-", " ", "1", "99", "2026", "-02-30", "T", ":", "12:00", "last ", "next ", "first day of ", "monday", " ago",
    "1000000000 ", "weekdays", "fortnights", "months", "@", "z", "utc", "Europe/", "../", "/", "january",
    "w53", "٣", "\x00",
)  # fmt: skip
CLOCK = site_clock("Europe/London")
PHP = as_bytes(
    words(
        "a:", "1", "9" * 12, "-", ":", "{", "}", ";", "i:1;", "s:", '"', 's:1:"a";', "N;", "b:1;", "d:1e999;", "O:8:",
        '"stdClass"', "R:1;", "C:", "é",
    )
)  # fmt: skip


def read_stored(data: bytes) -> object:
    load_data(data)
    return orjson.dumps(as_json(load_php(data)), option=orjson.OPT_NON_STR_KEYS)


# ---- CSV, settings, archives ----

ZONE = ZoneInfo("Europe/London")
TIMES = Times("2026-01-09 12:00:00", ZONE, ZONE)
SHEET = {sheet.name: sheet for sheet in SHEETS}
CELLS = words(
    ",", "\n", "\r\n", '"', '""', "1", "-1", "9" * 20, "Individual", "a@b.org", "@", "2026-01-09", " ", "\x00", "\x01",
    "=cmd()", "é", "Added", "\ufeff", ";",
)  # fmt: skip
HEADINGS = st.sampled_from([",".join(column.name for column in sheet.columns) for sheet in SHEETS]) | CELLS
SECRET = "a-secret-that-nobody-repeats"
INI = words(
    "[server]", "[log]", "[user:admin]", "[user:", "[", "]", "\n", "=", "port",
    "max_body", f"\napi_key = {SECRET}\n", "%",
    "99999999999999999999", "-1", "nan", "inf", "1e999", "\x00", "#", ";", "  ", "[DEFAULT]", "${a:b}", "é",
)  # fmt: skip
PACKED = write_archive([{"status_code": 200, "operation_id": "1", "response": "{}"}] * 20, files=2, rng=Random(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read_csv(folder: Path, given: tuple[str, str, str]) -> int:
    """A file looked at and read as an import does, up to the database."""
    name, heading, rows = given
    sheet, path = SHEET[name], folder / f"{name}.csv"
    path.write_bytes(f"{heading}\n{rows}".encode("utf-8", "surrogatepass"))
    survey(folder)
    columns, _ = read_heading(path, sheet)
    return sum(1 for _ in read_rows(path, sheet, columns, TIMES)) if columns else 0


def read_settings(folder: Path, text: str) -> None:
    path = folder / "settings.ini"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(SettingsError):
        load_settings(path, {})
        return
    with pytest.raises(SettingsError) as told:
        load_settings(path, {})
    assert SECRET not in str(told.value)


def damaged(places: Iterable[tuple[int, int]], unpacked: bool) -> bytes:
    data = bytearray(gzip.decompress(PACKED) if unpacked else PACKED)
    for place, value in places:
        data[place % len(data)] = value
    return bytes(data)


ARCHIVES = st.builds(damaged, st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 255)), max_size=9), st.booleans())


def readers(folder: Path) -> dict[str, Reader]:
    return {
        "forms": Reader(read_call, FORMS, (forms.BadJson, forms.TooMany)),
        "multipart": Reader(read_parts, st.tuples(TYPES, PARTS), (multipart.Broken, forms.TooMany)),
        "multipart of x": Reader(lambda one: read_parts(("m/f; boundary=x", one)), PARTS, (multipart.Broken,)),
        "JSON": Reader(bounded_json.read_json, JSONS | as_bytes(JSONS), (bounded_json.NotRead,)),
        "XML": Reader(write_xml, values),
        "dates": Reader(lambda text: dates.parse(text, CLOCK), DATES),
        "PHP": Reader(read_stored, PHP, (BadSerial,)),
        "CSV": Reader(
            lambda one: read_csv(folder, one), st.tuples(st.sampled_from(sorted(SHEET)), HEADINGS, CELLS), (csv.Error,)
        ),
        "settings": Reader(lambda one: read_settings(folder, one), INI),
        "archives": Reader(lambda one: list(read_archive(io.BytesIO(one))), ARCHIVES, (BadArchive,)),
    }


@pytest.mark.parametrize("name", sorted(readers(Path())))
def test_what_others_wrote_is_read_or_refused_in_time_and_in_little_memory(
    name: str, folder: Path, record_property: Any
) -> None:
    reader = readers(folder)[name]
    longest, tried = 0.0, 0
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = memory_kb("VmRSS")

    @given(reader.given)
    @settings(max_examples=TEXTS, suppress_health_check=list(HealthCheck))
    def hold(text: Any) -> None:
        nonlocal longest, tried
        began = time.process_time()
        with suppress(*reader.refuses):
            reader.read(text)
        longest, tried = max(longest, time.process_time() - began), tried + 1
        assert longest < MOST_CPU_S

    hold()
    grown = max(0, memory_kb("VmHWM") - before)
    assert grown < MOST_MEMORY_KB
    record_property("measured", f"{name}: {tried:,} texts, {longest * 1000:.0f} ms and {grown // 1000} MB at most")
