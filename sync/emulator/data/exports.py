"""Load Mailchimp's audience export, a snapshot or a seed file into a state.

An export is three CSV files, ``subscribed_…``, ``unsubscribed_…`` and ``cleaned_…``; the audience's id ends each file
name (``_9f2c1e7d44.csv``). Times have no zone: LAST_CHANGED is UTC, and so are the others here. A row that cannot be
used is reported with file, line and reason, and left out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from sync.emulator.data.seeding import SNAPSHOT, BadRecord, Seeder, restore
from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.clock import from_text
from sync.emulator.model.records import CLEANED, SUBSCRIBED, UNSUBSCRIBED, USER, Json, MergeField
from sync.emulator.model.state import EmulatorState

FILE_NAME = re.compile(r"(subscribed|unsubscribed|cleaned)_.*?_?([0-9a-f]{10})\.csv")
STATUS_OF = {"subscribed": SUBSCRIBED, "unsubscribed": UNSUBSCRIBED, "cleaned": CLEANED}
NAMED_MERGES = {"First Name": "FNAME", "Last Name": "LNAME", "Address": "ADDRESS", "Phone Number": "PHONE"}
ADDRESS = "Email Address"
OWN_COLUMNS = {
    "MEMBER_RATING",
    "OPTIN_TIME",
    "OPTIN_IP",
    "CONFIRM_TIME",
    "CONFIRM_IP",
    "LATITUDE",
    "LONGITUDE",
    "GMTOFF",
    "DSTOFF",
    "TIMEZONE",
    "CC",
    "REGION",
    "LAST_CHANGED",
    "LEID",
    "EUID",
    "NOTES",
    "UNSUB_TIME",
    "UNSUB_CAMPAIGN_TITLE",
    "UNSUB_CAMPAIGN_ID",
    "UNSUB_REASON",
    "UNSUB_REASON_OTHER",
    "CLEAN_TIME",
    "CLEAN_CAMPAIGN_TITLE",
    "CLEAN_CAMPAIGN_ID",
    "TAGS",
}
NUMBERS = {"LATITUDE": "latitude", "LONGITUDE": "longitude", "GMTOFF": "gmtoff", "DSTOFF": "dstoff"}
TEXTS = {"TIMEZONE": "timezone", "CC": "country_code", "REGION": "region"}
BY_ADMIN = re.compile(r"admin", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass
class Loaded:
    """The result of loading: members added, rows left out."""

    members: int = 0
    bad: list[BadRow] = field(default_factory=list)


def load(state: EmulatorState, path: Path) -> Loaded:
    """Load an export folder, one export file, a snapshot or a JSON-lines seed.

    Raises FileNotFoundError, and ValueError for a folder or file that is none of these.
    """
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if FILE_NAME.fullmatch(one.name))
        if not files:
            raise ValueError(f"{path} holds no Mailchimp export: no file like subscribed_…_<audience id>.csv")
        loaded = Loaded()
        for one in files:
            _load_export(state, one, loaded)
        return loaded
    if path.suffix == ".csv":
        loaded = Loaded()
        _load_export(state, path, loaded)
        return loaded
    return _load_json(state, path)


def _load_json(state: EmulatorState, path: Path) -> Loaded:
    """Load a snapshot (known by its first line) or JSON lines."""
    with path.open("rb") as lines:
        if SNAPSHOT.encode() in lines.read(200):
            restore(state, orjson.loads(path.read_bytes()))
            return Loaded(sum(len(a.members) for one in state.accounts.values() for a in one.audiences.values()))
        lines.seek(0)
        loaded, seeder = Loaded(), Seeder(state)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                _add_line(seeder, line, path.name, number, loaded)
    return loaded


def _add_line(seeder: Seeder, line: bytes, name: str, number: int, loaded: Loaded) -> None:
    try:
        record = orjson.loads(line)
        seeder.add(record if isinstance(record, dict) else {})
    except orjson.JSONDecodeError as error:
        loaded.bad.append(BadRow(name, number, f"not JSON: {error}"))
    except BadRecord as error:
        loaded.bad.append(BadRow(name, number, str(error)))
    else:
        loaded.members += record["kind"] == "member"


def _load_export(state: EmulatorState, path: Path, loaded: Loaded) -> None:
    named = FILE_NAME.fullmatch(path.name)
    if named is None:
        raise ValueError(f"{path.name} is not named like subscribed_…_<audience id>.csv")
    audience = _audience(state, named[2])
    seeder = Seeder(state)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        try:
            merges = _merge_columns(audience, _headings(rows))
            for number, row in _numbered(rows, path, loaded):
                try:
                    record = _record(row, STATUS_OF[named[1]], merges)
                    seeder.add({"kind": "member", "list": audience.id, **record})
                except ValueError as error:
                    loaded.bad.append(BadRow(path.name, number, str(error)))
                else:
                    loaded.members += 1
        except UnicodeDecodeError as error:
            raise ValueError(_why_not_utf8(path)) from error


def _headings(rows: csv.DictReader[str]) -> Sequence[str]:
    """The names of the columns. Raises ValueError for those of something else."""
    try:
        names = rows.fieldnames or ()
    except csv.Error as error:
        raise ValueError(f"its first line is not CSV ({error})") from error
    if ADDRESS not in names:
        shown = ", ".join(names)[:80] or "nothing"
        raise ValueError(f"it has no column {ADDRESS!r} (separated by commas), but {shown}")
    return names


def _why_not_utf8(path: Path) -> str:
    use = "use the file as Mailchimp made it"
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith((b"\xff\xfe", b"\xfe\xff")) and number == 1:
                return f"it is UTF-16, where Mailchimp's own is UTF-8; {use}"
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number} is not UTF-8 (saved by a spreadsheet?); {use}"
    return f"it is not UTF-8; {use}"


def _numbered(rows: csv.DictReader[str], path: Path, loaded: Loaded) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield rows with their line; a row with too few or too many cells, or broken quoting, is reported."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            loaded.bad.append(BadRow(path.name, rows.line_num, f"not CSV: {error}"))
            continue
        if None in row or None in row.values():
            loaded.bad.append(BadRow(path.name, rows.line_num, "has not as many cells as the heading"))
            continue
        yield rows.line_num, row


def _audience(state: EmulatorState, list_id: str) -> EmulatedAudience:
    try:
        return state.find_audience(list_id)[1]
    except KeyError:
        return state.add_audience(f"Export {list_id}", list_id=list_id)


def _merge_columns(audience: EmulatedAudience, names: Sequence[str]) -> dict[str, str]:
    """Return column to merge tag; a column we do not know becomes a text merge field."""
    columns = {}
    for name in names:
        if name == ADDRESS or name in OWN_COLUMNS:
            continue
        tag = NAMED_MERGES.get(name) or re.sub(r"[^A-Z0-9]", "", name.upper())[:10] or "MMERGE"
        if audience.merge_field(tag) is None:
            number = max(audience.merge_fields, default=0) + 1
            audience.merge_fields[number] = MergeField(number, tag, name, display_order=number + 1)
        columns[name] = tag
    return columns


def _record(row: dict[str, str], status: str, merges: dict[str, str]) -> Json:
    """Return one CSV row as a seed record. Raises ValueError naming the column."""
    record: Json = {
        "email_address": row.get(ADDRESS, ""),
        "status": status,
        "merge_fields": {tag: _merge(tag, row[name]) for name, tag in merges.items() if row[name].strip()},
        "tags": next(csv.reader([row.get("TAGS", "")]), []),
        "last_changed": _time(row, "LAST_CHANGED"),
        "timestamp_signup": _time(row, "OPTIN_TIME"),
        "timestamp_opt": _time(row, "CONFIRM_TIME"),
        "ip_signup": row.get("OPTIN_IP", ""),
        "ip_opt": row.get("CONFIRM_IP", ""),
        "rating": int(row.get("MEMBER_RATING") or 2),
        "source": "Import",
        "unique_email_id": row.get("EUID", ""),
        "web_id": int(row.get("LEID") or 0),
        "location": _location(row),
    }
    if row.get("NOTES"):
        note = {"note_id": 1, "created_at": record["last_changed"], "created_by": "", "note": row["NOTES"]}
        record["last_note"] = note
    if status == UNSUBSCRIBED:
        reason = row.get("UNSUB_REASON", "")
        record |= {"unsubscribe_reason": reason, "unsubscribed_at": from_text(_time(row, "UNSUB_TIME"))}
        record["unsubscribed_by"] = "admin" if BY_ADMIN.search(reason) else USER
    return record


def _merge(tag: str, text: str) -> object:
    return {"addr1": text, "city": "", "state": "", "zip": "", "country": ""} if tag == "ADDRESS" else text


def _time(row: dict[str, str], name: str) -> str:
    try:
        from_text(row.get(name, ""))
    except ValueError:
        raise ValueError(f"{name} is not a time: {row[name]!r}") from None
    return row.get(name, "")


def _location(row: dict[str, str]) -> Json:
    location: Json = {}
    for name, key in NUMBERS.items():
        if row.get(name):
            location[key] = float(row[name]) if key in ("latitude", "longitude") else int(float(row[name]))
    return location | {key: row[name] for name, key in TEXTS.items() if row.get(name)}
