"""MariaDB's ``utf8mb4_unicode_ci`` for SQLite, so that both databases find, sort and call equal the same texts.

CiviCRM's text columns have this collation: case and accents are ignored (``MÜLLER`` is ``muller``), ``ß`` is ``ss``,
spaces at the end do not count. LIKE compares character by character, so there ``ß`` is not ``ss``. SQLite calls
``compare`` and ``like`` for each comparison, so they are short, and ASCII does not need the table of characters.
"""

import re
import sqlite3
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

NAME = "utf8mb4_unicode_ci"

MAX_KEYS = 20_000  # of other than ASCII texts, kept
MAX_TEXT_KEYS = 4_000  # of what a unit of a sync writes
MAX_KEPT_LENGTH = 256
MAX_REGEX_STEPS = 1_000_000  # pattern × text; above it a search whose cost does not grow with the pattern is used

_PRINTABLE = b" `^_-,;:!?.'\"()[]{}@*/\\&#%+<=>|~$0123456789" + b"abcdefghijklmnopqrstuvwxyz"
_ASCII = bytes(_PRINTABLE.find(bytes([code]).lower()) + 1 for code in range(256))
"""What sorts as what among printable ASCII characters."""

_KEYS = bytes(2 * rank - 1 if rank else 0 for rank in _ASCII)
"""The byte of each of these in a key; other characters have four, of which the first is a number between those."""


def register(raw: sqlite3.Connection) -> None:
    """Give a connection the collation, its keys, LIKE and LOWER. Every connection to a database of ours needs it."""
    raw.create_collation(NAME, compare)
    raw.create_function("like", 2, like, deterministic=True)
    raw.create_function("like", 3, like, deterministic=True)
    raw.create_function("like_low", 1, like_low, deterministic=True)
    raw.create_function("like_high", 1, like_high, deterministic=True)
    raw.create_function("lower_of_any", 1, lower, deterministic=True)
    raw.create_function("text_key", 1, text_key, deterministic=True)


def compare(a: str, b: str) -> int:
    """-1, 0 or 1 as *a* sorts before, with or after *b*."""
    if a == b:
        return 0
    if a.isascii() and b.isascii() and a.isprintable() and b.isprintable():
        x: Any = a.rstrip(" ").encode().translate(_ASCII)
        y: Any = b.rstrip(" ").encode().translate(_ASCII)
    else:
        x, y = _keys[a], _keys[b]
    return -1 if x < y else x > y


def sort_key(text: str) -> str:
    """A text that is the same for equal texts, and sorts as the collation does."""
    return _keys[text]


class _TextKeys(dict[Any, "bytes | None"]):
    """``text_key`` of each text, computed once while it is in use.

    SQLite asks for each index: a new contact's sort name stands in two of them, and first names are those of others.
    """

    def __missing__(self, text: Any) -> bytes | None:
        if text is None:
            return None
        if text.__class__ is not str:
            return self[_text(text)]
        plain = text if text.isascii() else text.translate(_as_ascii())
        if plain.isascii() and plain.isprintable():
            key = plain.rstrip(" ").encode().translate(_KEYS) + b"\x01"
        else:
            key = b"".join(map(_key_bytes, _keys[text]))
        if len(text) <= MAX_KEPT_LENGTH:
            if len(self) >= MAX_TEXT_KEYS:
                self.clear()
            self[text] = key
        return key


text_key: Callable[[Any], bytes | None] = _TextKeys().__getitem__
"""Bytes that are the same for equal texts, and sort as the collation does: what SQLite's indexes hold."""


@cache
def _as_ascii() -> dict[int, str]:
    """The printable ASCII characters that weigh the same as another character."""
    weights = _weights()
    plain = {weights[ord(one)]: one for one in map(chr, range(32, 127))}
    alike = {code: [plain.get(one, "") for one in weight] for code, weight in weights.items() if code > 126 and weight}
    return {code: "".join(parts) for code, parts in alike.items() if all(parts)}


@lru_cache(maxsize=4096)
def _key_bytes(weight: str) -> bytes:
    ranks = _ascii_weights()
    place = bisect_left(ranks, weight)
    if place < len(ranks) and ranks[place] == weight:
        return bytes([2 * place + 1])
    return bytes([2 * place]) + ord(weight).to_bytes(3)


@cache
def _ascii_weights() -> list[str]:
    """The weights of printable ASCII characters, in order."""
    weights = _weights()
    return sorted({weights[ord(one)] for one in map(chr, range(32, 127))})


def like(pattern: Any, value: Any, escape: str = "\\") -> bool | None:
    """SQL's ``value LIKE pattern``; as on MariaDB a backslash escapes if nothing else is said."""
    if pattern is None or value is None:
        return None
    text = value if value.__class__ is str else _text(value)
    return _matcher(_text(pattern), escape)(text.lower() if text.isascii() else text.translate(_table()[1]))


def lower(text: Any) -> Any:
    """MariaDB's LOWER, character by character; SQLite's own knows ASCII letters only."""
    if not isinstance(text, str):
        return text
    return text.lower() if text.isascii() else "".join(low if len(low := one.lower()) == 1 else one for one in text)


LOWEST, HIGHEST = "\t", "\U0010ffff"
"""Characters before which, and after which, no other sorts."""

LONGEST = 255
"""Characters of the longest text in an index."""


def literal_beginning(pattern: str) -> str:
    """The text with which all that a LIKE pattern fits begins; what does not count at its end left out."""
    begins = re.split(r"[%_\\]", pattern, maxsplit=1)[0].rstrip(" ")
    return begins if begins.isascii() and begins.isprintable() else begins.rstrip(_uncounted())


@cache
def _uncounted() -> str:
    """The characters that do not count at the end of a text: those that are worth a space, and those worth nothing."""
    weights = _weights()
    return "".join(chr(code) for code, weight in weights.items() if weight in ("", weights[ord(" ")]))


def like_low(pattern: Any) -> str | None:
    """A text that sorts before everything that the pattern fits."""
    return None if pattern is None else literal_beginning(_text(pattern)) + LOWEST * LONGEST


def like_high(pattern: Any) -> str | None:
    """A text that sorts after everything that the pattern fits."""
    return None if pattern is None else literal_beginning(_text(pattern)) + HIGHEST * LONGEST


class _Keys(dict[str, str]):
    """The sort keys of texts, computed once while they are in use."""

    def __missing__(self, text: str) -> str:
        table = _weights()
        space = table[ord(" ")]
        key = text.translate(table).rstrip(space) + space  # shorter texts compare as if filled up with spaces
        if len(text) <= MAX_KEPT_LENGTH:
            if len(self) >= MAX_KEYS:
                self.clear()
            self[text] = key
        return key


_keys = _Keys()


class _Weights(dict[int, str]):
    """The replacement of a character in a sort key; unlisted ones sort by code point, above the BMP alike."""

    def __missing__(self, code: int) -> str:
        if code > 0xFFFF:
            return "\U00050000"
        is_cjk = 0x4E00 <= code <= 0x9FA5 or 0xFA0E <= code <= 0xFA29
        return chr((0x10000 if is_cjk else 0x20000 if 0x3400 <= code <= 0x4DB5 else 0x30000) + code)


@cache
def _table() -> tuple[_Weights, dict[int, str]]:
    """The weights of ``unicode_ci.txt``, and for LIKE one character for all of the same weight."""
    weights, folds = _Weights(), dict[int, str]()
    lines = (files("civiapi.store.text") / "unicode_ci.txt").read_text("ascii").splitlines()
    for rank, line in enumerate(line for line in lines if line[0] not in "#=-"):
        codes = [int(code, 16) for code in line.split()]
        weights |= dict.fromkeys(codes, chr(rank + 1))
        folds |= dict.fromkeys(codes, chr(codes[0]))
    for line in (line for line in lines if line[0] in "=-"):
        named, _, worth = line.lstrip("=- ").partition(" = ")
        codes = [int(code, 16) for code in named.split()]
        weights |= dict.fromkeys(codes, "".join(weights[int(code, 16)] for code in worth.split()))
        folds |= dict.fromkeys(codes, chr(codes[0]))
    return weights, folds


def _weights() -> _Weights:
    return _table()[0]


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_table()[1])


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else str(value)


Matcher = Callable[[str], bool]


@lru_cache(maxsize=256)
def _matcher(pattern: str, escape: str) -> Matcher:
    """A test of folded texts. Parts between ``%`` are searched from left to right, each where it fits first."""
    parts = [_part(one) for one in _split(pattern, escape)]
    if len(parts) == 1:
        return lambda text: parts[0].fits(text)
    first, *middle, last = parts
    if len(middle) == 1 and not first.length and not last.length:
        return lambda text: middle[0].find(text, 0, len(text)) >= 0

    def matches(text: str) -> bool:
        at, end = first.length, len(text) - last.length
        if at > end or not first.fits(text[:at]) or not last.fits(text[end:]):
            return False
        for part in middle:
            at = part.find(text, at, end)
            if at < 0:
                return False
            at += part.length
        return True

    return matches


def _split(pattern: str, escape: str) -> Iterator[list[str | None]]:
    """The characters of each part between ``%``; None is ``_``, any character."""
    part: list[str | None] = []
    characters = iter(pattern)
    for one in characters:
        if one == escape:
            part += _folded(next(characters, one))
        elif one == "%":
            yield part
            part = []
        else:
            part += [None] if one == "_" else _folded(one)
    yield part


class _Literal:
    def __init__(self, text: str) -> None:
        self._text = text
        self.length = len(text)

    def fits(self, text: str) -> bool:
        return text == self._text

    def find(self, text: str, start: int, end: int) -> int:
        return text.find(self._text, start, end)


class _Wild:
    """A part with ``_``."""

    def __init__(self, characters: list[str | None]) -> None:
        self._characters = characters
        self.length = len(characters)
        self._regex = re.compile("".join("." if one is None else re.escape(one) for one in characters), re.DOTALL)

    def fits(self, text: str) -> bool:
        return self._regex.fullmatch(text) is not None

    def find(self, text: str, start: int, end: int) -> int:
        if self.length * (end - start) > MAX_REGEX_STEPS:
            return self._shift_and(text, start, end)
        found = self._regex.search(text, start, end)
        return -1 if found is None else found.start()

    def _shift_and(self, text: str, start: int, end: int) -> int:
        """The Shift-And algorithm: one step of bits for each character, so that no pattern takes long."""
        anything = sum(1 << place for place, one in enumerate(self._characters) if one is None)
        places = dict.fromkeys(filter(None, self._characters), anything)
        for place, one in enumerate(self._characters):
            if one is not None:
                places[one] |= 1 << place
        state, full = 0, 1 << (self.length - 1)
        for at in range(start, end):
            state = (state << 1 | 1) & places.get(text[at], anything)
            if state & full:
                return at - self.length + 1
        return -1


def _part(characters: list[str | None]) -> _Literal | _Wild:
    if None in characters:
        return _Wild(characters)
    return _Literal("".join(one for one in characters if one is not None))
