"""The text fields of a ``multipart/form-data`` body, as PHP reads them. Pure: bytes in, names and values out.

Read from the whole body, which has its limit already, in one pass: a reader that goes line by line takes seconds for a
few megabytes of empty lines. What a part says of its charset or transfer encoding is not heeded; PHP does not either,
and nobody who sends forms uses them (RFC 7578). Files are no API parameters and are left out.
"""

from collections.abc import Iterator
from email.message import Message

from aiohttp import content_disposition_filename, parse_content_disposition

from civiapi.adapters.forms import TooMany

MOST_PARTS = 1000
LONGEST_HEAD = 8192


class Broken(ValueError):
    """The body is not what its type says."""


def text_fields(content_type: str, body: bytes) -> Iterator[tuple[str, str]]:
    """Names and values in their order. Raises ``Broken`` and ``TooMany``."""
    pieces = (b"\r\n" + body).split(b"\r\n--" + _boundary(content_type), MOST_PARTS + 1)
    if len(pieces) > MOST_PARTS + 1:
        raise TooMany(f"The form has too many fields; at most {MOST_PARTS} are read.")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise Broken("it breaks off")
    for piece in pieces[1:-1]:
        head, end, value = piece.partition(b"\r\n\r\n")
        if not end or len(head) > LONGEST_HEAD:
            raise Broken("a part of it has no head")
        name, is_file = _name(head.decode("utf-8", "replace"))
        if not is_file:
            yield name, value.decode("utf-8", "replace")


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary("") or ""
    if not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise Broken("its type names no boundary")
    return boundary.encode()


def _name(head: str) -> tuple[str, bool]:
    """What a part is called, and whether it is a file."""
    for line in head.split("\r\n"):
        label, _, told = line.partition(":")
        if label.strip().lower() == "content-disposition":
            _, params = parse_content_disposition(told.strip())
            name = content_disposition_filename(params, "name")
            if name is not None:
                return name, content_disposition_filename(params, "filename") is not None
    raise Broken("a part of it has no name")
