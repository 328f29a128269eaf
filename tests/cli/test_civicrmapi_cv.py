"""The `civicrmapi` client from the package registry in its cv mode, unmodified, against `civiapi cv`."""

import shlex
import sys
from pathlib import Path

import pytest
from civicrmapi import ApiError, CvApiV3, InvalidResponse

from tests.support.processes import environment, write_settings

CV = f"{shlex.quote(sys.executable)} -m civiapi cv"


@pytest.fixture
def cv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CvApiV3:
    """The client, told the command and the folder to work in."""
    write_settings(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return CvApiV3(cv=CV, cwd=tmp_path)


def test_what_is_created_is_found_changed_and_deleted(cv: CvApiV3) -> None:
    made = cv.Contact.create({"contact_type": "Individual", "first_name": "Ada", "last_name": 'O\'Hara "Søn"'})
    assert made[0]["last_name"] == 'O\'Hara "Søn"'
    found = cv.Contact.get({"first_name": "Ada", "options": {"limit": 5}})
    assert [row["id"] for row in found] == [made[0]["id"]]
    cv.Contact.delete({"id": made[0]["id"]})
    assert cv.Contact.get({"first_name": "Ada"}) == []


def test_an_error_of_the_api_is_the_client_s_own_error_with_civicrm_s_words(cv: CvApiV3) -> None:
    with pytest.raises(ApiError, match=r"Mandatory key\(s\) missing from params array: contact_type"):
        cv.Contact.create({"first_name": "Ada"})
    with pytest.raises(ApiError, match="does not exist"):
        cv("Nonsense", "get")


def test_the_client_runs_it_in_a_context_too(cv: CvApiV3, tmp_path: Path) -> None:
    inside = CvApiV3(cv=CV, cwd=tmp_path, context="sh -c")
    assert inside.Domain.get()[0]["id"]


def test_a_command_that_fails_is_no_answer(tmp_path: Path, cv: CvApiV3) -> None:
    (tmp_path / "settings.ini").write_text("[servr]\n")
    with pytest.raises(Exception, match="returned non-zero exit status") as failed:
        cv.Contact.get()
    assert not isinstance(failed.value, ApiError | InvalidResponse)
