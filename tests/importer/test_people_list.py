"""A list of names and addresses becomes contacts and emails, each row at the line that it has in the list."""

import csv
import io

import pytest

from civiapi.importer.people_list import is_list, split_list
from civiapi.importer.reporting import ImportRefused

LIST = 'First Name,Last Name,E-Mail\nAda,Lovelace,ada@example.org\n\nBob,"B\nB",\nCyd,C,cyd@example.org\n'


def rows(text: str) -> dict[int, list[str]]:
    """The rows by the line they begin at."""
    reader, found, start = csv.reader(io.StringIO(text, newline="")), {}, 1
    for cells in reader:
        found |= {start: cells} if cells else {}
        start = reader.line_num + 1
    return found


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_row_keeps_its_line(delimiter: str, end: str) -> None:
    split = split_list("people.csv", "\ufeff" + LIST.replace(",", delimiter).replace("\n", end))
    assert rows(split["contacts.csv"]) == {
        1: ["first_name", "last_name", "id", "contact_type"],
        2: ["Ada", "Lovelace", "2", "Individual"],
        4: ["Bob", f"B{end}B", "4", "Individual"],
        6: ["Cyd", "C", "6", "Individual"],
    }
    assert rows(split["emails.csv"]) == {
        1: ["contact_id", "email", "is_primary"],
        2: ["2", "ada@example.org", "1"],
        6: ["6", "cyd@example.org", "1"],
    }


def test_ids_and_types_of_the_list_are_kept() -> None:
    split = split_list("people.csv", "id,email,contact_type,display_name\n7,x@example.org,Organization,Trees\n")
    assert rows(split["contacts.csv"])[2] == ["7", "Organization", "Trees"]
    assert rows(split["emails.csv"])[2] == ["7", "x@example.org", "1"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("email\n", True),
        ("Email Address;Name\n", True),
        ("contact_id,email\n", False),
        ("id,first_name\n", False),
        ("", False),
        ('"email', False),
    ],
)
def test_a_list_has_addresses_and_no_column_for_their_contacts(text: str, answer: bool) -> None:
    assert is_list(text) is answer


def test_rows_that_do_not_fit_the_heading_are_named() -> None:
    with pytest.raises(ImportRefused) as refused:
        split_list("people.csv", "email,first_name\na@example.org\nb@example.org,B\nc@example.org,C,C\n")
    assert [(row.file, row.line) for row in refused.value.rows] == [("people.csv", 2), ("people.csv", 4)]
