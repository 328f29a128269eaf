"""A list of people, a name and an email address in a row, as the contacts and emails that an import reads. Pure.

Both files keep the line of each row, so that a mistake is reported with the line of the list.
"""

import csv
import io
import re

from civiapi.importer.reading import BadRow, uneven
from civiapi.importer.reporting import ImportRefused
from civiapi.importer.sheets import CONTACTS, EMAILS

SPELLINGS = {
    "e_mail": "email",
    "email_address": "email",
    "e_mail_address": "email",
    "given_name": "first_name",
    "forename": "first_name",
    "surname": "last_name",
    "family_name": "last_name",
}
DELIMITERS = ",;\t"
ADDRESS = ["contact_id", "email", "is_primary"]
LINE_END = re.compile(r"\r\n|\r|\n")


def is_list(text: str) -> bool:
    """Whether a file has people and their addresses in one: a column for the address, and none for its contact."""
    try:
        stream, delimiter = _opened(text)
        heading = _heading(next(csv.reader(stream, delimiter=delimiter, strict=True), []))
    except csv.Error:
        return False
    return "email" in heading and "contact_id" not in heading


def split_list(name: str, text: str) -> dict[str, str]:
    """The texts of contacts.csv and emails.csv. People are individuals, numbered by line, unless columns say else.

    *name*: of the file. Raises ``ImportRefused``.
    """
    stream, delimiter = _opened(text)
    rows = csv.reader(stream, delimiter=delimiter, strict=True)
    start, bad = 1, []
    contacts, emails = _Lines(), _Lines()
    heading: list[str] = []
    try:
        for cells in rows:
            if not heading:
                heading = _heading(cells)
                contacts.add(start, [*(one for one in heading if one != "email"), *_absent(heading)])
                emails.add(start, ADDRESS)
            elif cells and len(cells) != len(heading):
                bad.append(BadRow(name, start, uneven(cells, heading)))
            elif cells:
                row = dict(zip(heading, cells, strict=True))
                more = _absent(heading) | {"id": row.get("id") or str(start)}
                own = [cell for one, cell in zip(heading, cells, strict=True) if one != "email"]
                contacts.add(start, [*own, *(more[one] for one in _absent(heading))])
                if row["email"].strip():
                    emails.add(start, [more["id"], row["email"], "1"])
            start = rows.line_num + 1
    except csv.Error as error:
        bad.append(BadRow(name, start, f"the row cannot be read: {error}"))
    if bad:
        raise ImportRefused(bad)
    return {CONTACTS.file: contacts.text(), EMAILS.file: emails.text()}


def _opened(text: str) -> tuple[io.StringIO, str]:
    text = text.removeprefix("\ufeff")
    heading = text[: text.find("\n")] if "\n" in text else text
    return io.StringIO(text, newline=""), max(DELIMITERS, key=heading.count)


def _heading(cells: list[str]) -> list[str]:
    names = [re.sub(r"[\s-]+", "_", cell.strip().lower()) for cell in cells]
    return [SPELLINGS.get(name, name) for name in names]


def _absent(heading: list[str]) -> dict[str, str]:
    """The columns that contacts need and the list does not have, with their value (of ``id``: the line)."""
    return {name: value for name, value in (("id", ""), ("contact_type", "Individual")) if name not in heading}


class _Lines:
    """CSV text whose rows begin at given lines; between them are empty ones."""

    def __init__(self) -> None:
        self._text = io.StringIO(newline="")
        self._next = 1

    def add(self, line: int, cells: list[str]) -> None:
        row = io.StringIO(newline="")
        csv.writer(row, lineterminator="\n").writerow(cells)
        self._text.write("\n" * (line - self._next) + row.getvalue())
        self._next = line + len(LINE_END.findall(row.getvalue()))

    def text(self) -> str:
        return self._text.getvalue()
