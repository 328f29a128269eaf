"""The archive of a finished batch: a gzip-compressed tar of JSON arrays, read and written.

The archive comes from outside, so reading enforces limits and ignores file names. It streams: one result and a read
buffer are in memory, nothing is written to disk. The functions are synchronous; async callers use `read_in_thread`.
The HTTP layer may have removed the gzip; the first entry is a directory ``./``; files may be empty. What somebody's
tools put beside the results (links, ``._x.json``) is left out.
"""

from __future__ import annotations

import asyncio
import codecs
import gzip
import io
import itertools
import json
import tarfile
import zlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import IO, Any, NoReturn, cast

import orjson

from sync.mailchimp.errors import BadArchive, find_problem
from sync.mailchimp.lenient_json import loads, repaired
from sync.mailchimp.wire import OperationResult, as_count

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 64 * 1024
MEGABYTE = 1024 * 1024
HEADER_ALLOWANCE = 128 * 1024
"""Bytes allowed between the content of two files: padding, headers, read-ahead."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """The limits beyond which an archive counts as hostile; sizes in bytes.

    The ratio applies only after `ratio_free` bytes: a thousand equal answers compress well.
    """

    unpacked: int = 256 * MEGABYTE
    result: int = MEGABYTE
    files: int = 10_000
    ratio: int = 300
    ratio_free: int = 16 * MEGABYTE


DEFAULT_LIMITS = ArchiveLimits()


def write_archive(results: Sequence[dict[str, Any]], *, files: int = 1, rng: Random) -> bytes:
    """Return *results* as Mailchimp archives them: gzip, tar, ``./`` first, then ``./<hex>.json`` arrays.

    The results are spread over *files* files at random, sometimes with an empty file among them. The same *rng* gives
    the same archive.
    """
    parts: list[list[dict[str, Any]]] = [[] for _ in range(max(1, files))]
    for result in results:
        rng.choice(parts).append(result)
    contents = [orjson.dumps(part) for part in parts]
    if rng.random() < 0.25:
        contents.insert(rng.randrange(len(contents) + 1), b"")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        folder = tarfile.TarInfo("./")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for content in contents:
            entry = tarfile.TarInfo(f"./{rng.getrandbits(40):010x}.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)


def read_archive(stream: IO[bytes], *, limits: ArchiveLimits = DEFAULT_LIMITS) -> Iterator[OperationResult]:
    """Yield every result in the archive that *stream* holds, in no promised order.

    Raises BadArchive when it is broken (then it may be retried: another download may be whole), goes past *limits*, or
    holds files of which none is a JSON array; results yielded before that stand. Source: Mailchimp Marketing API, batch
    operations.
    """
    try:
        yield from _read_archive(stream, limits)
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
        broken = BadArchive(f"The batch result archive cannot be read: {error or type(error).__name__}")
        broken.may_be_retried = True
        raise broken from error


async def read_in_thread(
    stream: IO[bytes], *, limits: ArchiveLimits = DEFAULT_LIMITS, chunk: int = 200
) -> AsyncIterator[OperationResult]:
    """Yield what `read_archive` yields, *chunk* results to a trip, so that unpacking never blocks the event loop."""
    results = read_archive(stream, limits=limits)
    while taken := await asyncio.to_thread(_take, results, chunk):
        for result in taken:
            yield result


def _take(results: Iterator[OperationResult], count: int) -> list[OperationResult]:
    return list(itertools.islice(results, count))


def _read_archive(stream: IO[bytes], limits: ArchiveLimits) -> Iterator[OperationResult]:
    meter = _Meter(stream, limits)
    if meter.is_empty():
        raise EOFError("it is empty")
    is_any_whole, skipped = False, ""
    with tarfile.open(fileobj=cast(IO[bytes], meter), mode="r|") as tar:
        for count in itertools.count(1):
            meter.allow_headers()
            entry = tar.next()
            if entry is None:
                break
            if count > limits.files:
                _refuse(f"more than {limits.files} files")
            if entry.type == tarfile.DIRTYPE:
                continue
            why = yield from _read_entry(tar, entry, meter, limits)
            is_any_whole, skipped = is_any_whole or not why, skipped or why
    meter.drain()
    if skipped and not is_any_whole:
        _refuse(skipped)


def _read_entry(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, meter: _Meter, limits: ArchiveLimits
) -> Generator[OperationResult, None, str]:
    """Yield the results in one file; returns why it, or its rest, was left out, nothing where it was read whole."""
    if not 0 <= entry.size <= limits.unpacked:
        _refuse(f"a file claims {entry.size} bytes")
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        return "it holds something that is neither a file nor a directory"
    content = tar.extractfile(entry)
    if content is None:
        return "a file in it cannot be opened"
    meter.allow_content()
    try:
        for element in split_array(content.read, limit=limits.result):
            yield _result(element)
    except (ValueError, RecursionError) as error:
        while content.read(CHUNK):
            pass
        return f"a file is no list of results ({error})"
    return ""


def split_array(read: Callable[[int], bytes], *, limit: int = MEGABYTE) -> Iterator[dict[str, Any]]:
    """Yield the objects of one JSON array as they come from *read*; nothing at all is an empty array.

    One odd result must not take the others with it: as in ``lenient_json``, bytes that are not UTF-8 become U+FFFD and
    numbers that are none null, and an element that is no object is left out: its operation has no result.
    Never holds more than one element of at most *limit* characters, and a chunk. Raises ValueError (RecursionError for
    bottomless nesting) for anything but an array, BadArchive for an element past the limit.
    """
    text = _Text(read, limit)
    opening = text.next_character()
    if opening == "":
        return
    if opening != "[":
        raise ValueError("a file is not a JSON array")
    if text.peek_character() == "]":
        text.next_character()
    else:
        separator = ","
        while separator == ",":
            element = text.next_value()
            if isinstance(element, dict):
                yield element
            separator = text.next_character()
        if separator != "]":
            raise ValueError("a JSON array breaks off" if separator == "" else "a JSON array is malformed")
    if text.next_character() != "":
        raise ValueError("something follows a JSON array")


class _Text:
    """A buffer of decoded text that grows only as far as the element at its start needs."""

    def __init__(self, read: Callable[[int], bytes], limit: int) -> None:
        self._read = read
        self._limit = limit
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._json = json.JSONDecoder(parse_constant=lambda _: None, strict=False)
        self._text = ""
        self._at = 0
        self._ended = False

    def peek_character(self) -> str:
        """Return the next character that is not white space, ``""`` at the end."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest == "":
                if not self._fill(CHUNK):
                    return ""
            elif rest in " \t\r\n":
                self._at += 1
            else:
                return rest

    def next_character(self) -> str:
        """Consume and return the next character that is not white space; ``""`` at the end."""
        character = self.peek_character()
        self._at += len(character)
        return character

    def next_value(self) -> Any:
        """Return the JSON value that comes next; None for a number or a word."""
        if self.peek_character() not in '{["':
            self._skip_word()
            return None
        while True:
            try:
                element, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                waiting = len(self._text) - self._at
                self._check_length(waiting)
                if not self._fill(max(CHUNK, waiting)):
                    raise
            else:
                self._check_length(end - self._at)
                self._at = end
                return element

    def _skip_word(self) -> None:
        """Consume what comes before the next separator: only that shows that a number has ended."""
        if self.peek_character() in ",]":
            raise ValueError("a JSON array is malformed")
        while self.peek_character() not in ",]":
            self._at += 1

    def _check_length(self, length: int) -> None:
        if length > self._limit:
            _refuse(f"a result is longer than {self._limit} characters, or malformed")

    def _fill(self, size: int) -> bool:
        """Read more, dropping what was consumed; False at the end."""
        if self._ended:
            return False
        data = self._read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decode(data, self._ended)
        self._at = 0
        return not self._ended


class _Meter:
    """The unpacked bytes of an archive, counted against the limits."""

    def __init__(self, stream: IO[bytes], limits: ArchiveLimits) -> None:
        self._packed = _Counted(stream)
        self._limits = limits
        self._head = self._packed.read(2)
        joined = cast(IO[bytes], _Joined(self._head, self._packed))
        self._stream = gzip.GzipFile(fileobj=joined, mode="rb") if self._head == GZIP_MAGIC else joined
        self._unpacked = 0
        self._ceiling = limits.unpacked

    def is_empty(self) -> bool:
        return not self._head

    def allow_headers(self) -> None:
        """Until content is allowed, limit the bytes to what headers need: tarfile keeps these in memory."""
        self._ceiling = min(self._limits.unpacked, self._unpacked + HEADER_ALLOWANCE)

    def allow_content(self) -> None:
        self._ceiling = self._limits.unpacked

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._unpacked += len(data)
        if self._unpacked > self._limits.unpacked:
            _refuse(f"it unpacks to more than {self._limits.unpacked} bytes")
        if self._unpacked > self._ceiling:
            _refuse("a header in it is too large")
        if self._unpacked > self._limits.ratio_free and self._unpacked > self._limits.ratio * self._packed.count:
            _refuse(f"it unpacks to more than {self._limits.ratio} times its size")
        return data

    def drain(self) -> None:
        """Read to the end, which verifies the checksum of the gzip."""
        self.allow_content()
        while self.read(CHUNK):
            pass


class _Counted:
    """A stream that counts what was read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data


class _Joined:
    """A stream that returns its first bytes, read before, and then the rest."""

    def __init__(self, head: bytes, rest: _Counted) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        cut = len(self._head) if size < 0 else size
        data, self._head = self._head[:cut], self._head[cut:]
        return data


def _result(element: dict[str, Any]) -> OperationResult:
    operation_id = element.get("operation_id")
    response = _response(element.get("response"))
    return OperationResult(
        operation_id=operation_id if isinstance(operation_id, str) and operation_id else None,
        status_code=as_count(element.get("status_code")),
        response=response and (find_problem(response) or response),
    )


def _response(response: object) -> dict[str, Any] | None:
    if isinstance(response, str) and response:
        try:
            response = loads(response)
        except ValueError:
            return None
    return repaired(response) if isinstance(response, dict) else None


def _refuse(reason: str) -> NoReturn:
    raise BadArchive(f"The batch result archive cannot be trusted: {reason}")
