"""Text as CiviCRM stores it: ``<`` as ``&lt;`` and ``>`` as ``&gt;``, no other character.

CiviCRM's screens print most columns as they are stored, so a name ``<script>`` must never be stored as it is. The type
of a column says so (``column_types.civicrm_text``): whatever is written to it or compared with it is encoded, and what
is read from it is decoded. Text that is encoded already stays as it is, as in CiviCRM.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Dialect, String
from sqlalchemy.types import TypeDecorator, TypeEngine

FOUR_BYTES = re.compile("[\U00010000-\U0010ffff]")
"""What the columns of old tables (utf8mb3) cannot hold: emoji, for example."""


def encode(text: str) -> str:
    """*text* as stored."""
    if "<" in text:
        text = text.replace("<", "&lt;")
    return text.replace(">", "&gt;") if ">" in text else text


def decode(text: str) -> str:
    """Stored text as it was meant."""
    return text.replace("&lt;", "<").replace("&gt;", ">") if "&" in text else text


def cut(text: str, length: int) -> str:
    """The longest beginning of *text* that fits a column of *length* characters once it is encoded."""
    if len(text) * 4 <= length:  # as long as encoded text can be
        return text
    stored = encode(text)
    if len(stored) <= length:
        return text
    start = stored.rfind("&", max(length - 3, 0), length)
    if start >= 0 and stored.startswith(("&lt;", "&gt;"), start):
        length = start  # not half of a character
    return decode(stored[:length])


def stored_forms(text: str, length: int, *, is_narrow: bool) -> set[str]:
    """What a column of *length* characters may hold of *text*, without blanks around it.

    *is_narrow*: tables may be without characters of four bytes. We leave those out; the server ends the text there for
    programs that send them.
    """
    parts = {text, cut(text, length)}
    if is_narrow and not text.isascii():
        parts |= {FOUR_BYTES.sub("", one) for one in parts} | {FOUR_BYTES.split(text)[0]}
    return {cut(one, length).strip() for one in parts}


def encode_value(value: Any) -> Any:
    """A value for a column of encoded text; a list is encoded element by element."""
    if value.__class__ is str:
        return encode(value)
    return type(value)(map(encode_value, value)) if isinstance(value, list | tuple) else value


def _decode_value(value: Any) -> Any:
    return decode(value) if value.__class__ is str else value


class EncodedText(TypeDecorator[str]):
    """A column of encoded text; *stored* is the type in the database."""

    impl = String
    cache_ok = True

    def __init__(self, stored: TypeEngine[str]) -> None:
        super().__init__()
        self.stored = stored
        self.length: int | None = getattr(stored, "length", None)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        return self.stored

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        return encode_value

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        return _decode_value

    def literal_processor(self, dialect: Dialect) -> Any:
        inner = self.stored.dialect_impl(dialect).literal_processor(dialect)
        return None if inner is None else lambda value: inner(encode_value(value))


def is_encoded(type_: TypeEngine[Any]) -> bool:
    """Whether a column of this type holds encoded text."""
    return isinstance(type_, EncodedText)


def encode_rows(rows: Sequence[tuple[Any, ...]], places: Sequence[int]) -> Sequence[tuple[Any, ...]]:
    """*rows* with the values at *places* encoded; the same object where nothing is to be encoded."""
    changed: dict[int, tuple[Any, ...]] = {}
    for number, row in enumerate(rows):
        for place in places:
            value = row[place]
            if value.__class__ is str and ("<" in value or ">" in value):
                changed[number] = tuple(encode_value(v) if n in places else v for n, v in enumerate(row))
                break
    return [changed.get(number, row) for number, row in enumerate(rows)] if changed else rows
