"""Mailchimp's export, found in a folder and loaded into an emulated account."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sync.emulator.data.exports import FILE_NAME, BadRow, load
from sync.emulator.world import World

MAX_FILES = 1000


class BadExport(Exception):
    """The folder holds no export that can be used; the text says why."""


@dataclass(frozen=True, slots=True)
class LoadedExport:
    """An emulated account with the members of an export, and what of the export could not be used."""

    world: World
    files: dict[str, list[str]]
    """The files of each audience, by its id."""
    members: dict[str, Counter[str]]
    """How many members of each status."""
    bad: list[BadRow] = field(default_factory=list)


def load_export(folder: Path) -> LoadedExport:
    """Load the CSV files of an audience export, or of the account export that has it in a subfolder.

    Raises ``BadExport``.
    """
    if folder.suffix.lower() == ".zip":
        raise BadExport(f"{folder} is an archive: unpack it, and name the folder.")
    if not folder.is_dir():
        raise BadExport(f"{folder} is not a folder.")
    world, bad = World(), []
    files: dict[str, list[str]] = {}
    for path in _find(folder):
        named = FILE_NAME.fullmatch(path.name)
        files.setdefault(named[2] if named else "", []).append(str(path.relative_to(folder)))
        try:
            bad += load(world, path).bad
        except (OSError, ValueError) as error:
            raise BadExport(f"{path} cannot be used: {error}.") from error
    members = {one: Counter(member.status for member in world.find_audience(one)[1].members) for one in files}
    if not any(members.values()):
        reason = f" The first row that cannot be used: {bad[0]}." if bad else ""
        raise BadExport(f"The export in {folder} has no members.{reason}")
    return LoadedExport(world, files, members, bad)


def _find(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*.csv") if path.is_file() and FILE_NAME.fullmatch(path.name))
    if not found:
        raise BadExport(
            f"{folder} holds no export of a Mailchimp audience: no file like subscribed_…_<id>.csv, unsubscribed_… or "
            "cleaned_…. At Mailchimp: Audience, All contacts, Export Audience."
        )
    if len(found) > MAX_FILES:
        raise BadExport(f"{folder} holds {len(found):,} exports; name the folder of one.")
    return found
