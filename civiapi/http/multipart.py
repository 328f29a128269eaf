"""The text fields and the files of a ``multipart/form-data`` body, as PHP reads them. Pure: bytes in, values out.

The charset and transfer encoding of a part are ignored, as by PHP (RFC 7578 deprecates both). Files are no API
parameters, so they are read apart from the fields.
"""

from collections.abc import Iterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from civiapi.http.forms import TooMany

MAX_PARTS = 1000
MAX_HEADER = 8192
MAX_BOUNDARY = 70  # RFC 2046


class Broken(ValueError):
    """The body is not what its content type says."""


def text_fields(content_type: str, body: bytes) -> Iterator[tuple[str, str]]:
    """Names and values in their order, without files. Raises ``Broken`` and ``TooMany``."""
    for part, value in _parts(content_type, body):
        if part.filename is None:
            yield part.name, value.decode("utf-8", "replace")


def files(content_type: str, body: bytes) -> Iterator[tuple[str, bytes]]:
    """File names and contents in their order, without the field that a browser sends where none was chosen.

    Of a path only the name is kept. Raises ``Broken`` and ``TooMany``.
    """
    for part, value in _parts(content_type, body):
        if part.filename:
            yield part.filename.replace("\\", "/").rpartition("/")[2], value


def _parts(content_type: str, body: bytes) -> Iterator[tuple[MultipartSegment, bytes]]:
    count, segment, value = 0, None, b""
    boundary = parse_options_header(content_type)[1].get("boundary", "")
    if len(boundary) > MAX_BOUNDARY or not boundary.isascii():
        raise Broken("the boundary is no boundary")
    try:
        with PushMultipartParser(boundary, max_header_size=MAX_HEADER) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    count, segment, value = count + 1, event, b""
                    if count > MAX_PARTS:
                        raise TooMany(f"The form has too many fields; at most {MAX_PARTS} are read.")
                elif event:
                    value = bytes(event)  # a whole body has the value in one piece
                elif segment is not None:
                    yield segment, value
    except MultipartError as error:
        raise Broken(str(error)) from error
