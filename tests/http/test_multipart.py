"""A multipart body holds fields and files, each read without the other."""

import pytest

from civiapi.http.multipart import Broken, files, text_fields

TYPE = "multipart/form-data; boundary=x"


def body(*parts: tuple[str, bytes]) -> bytes:
    """A body with these parts, each with its disposition."""
    made = [b"--x\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + text for head, text in parts]
    return b"\r\n".join([*made, b"--x--\r\n"])


BOTH = body(('name="a"', b"1"), ('name="f"; filename="b.csv"', b"\xff,2\r\n"), ('name="f"; filename=""', b""))


def test_fields_are_read_without_files_and_files_without_fields() -> None:
    assert list(text_fields(TYPE, BOTH)) == [("a", "1")]
    assert list(files(TYPE, BOTH)) == [("b.csv", b"\xff,2\r\n")]


@pytest.mark.parametrize("path", ["b.csv", "in/b.csv", "../../b.csv", "/etc/b.csv", r"C:\\Users\\Ada\\b.csv"])
def test_of_a_path_only_the_name_is_kept(path: str) -> None:
    assert [name for name, _ in files(TYPE, body((f'name="f"; filename="{path}"', b"1")))] == ["b.csv"]


def test_a_body_that_breaks_off_has_no_files() -> None:
    with pytest.raises(Broken):
        list(files(TYPE, BOTH[:-20]))
