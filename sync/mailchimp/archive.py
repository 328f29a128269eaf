"""The archive of a finished batch: a gzip-compressed tar of JSON arrays, read and written.

Reading trusts nothing: it comes from outside, by a link. Everything streams; at no time is more than one
result and a read buffer in memory, nothing is written to disk, and member names are ignored. The functions
here are synchronous and hold their thread: async callers use `read_in_thread`.

What a newcomer trips over: the gzip is of the file, so an HTTP layer may or may not have taken it off; the
first entry is a directory called ``./``; and files may be empty.
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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import IO, Any, NoReturn

import orjson

from sync.mailchimp.errors import BadArchive
from sync.mailchimp.wire import OperationResult

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 64 * 1024
MEGABYTE = 1024 * 1024
HEADER_ALLOWANCE = 128 * 1024
"""Bytes that may pass from the end of one file's content to the start of the next's: padding, headers, read-ahead."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """How far an archive is followed before it counts as hostile; sizes in bytes.

    The ratio counts only once `ratio_free` bytes came out: a thousand equal answers do compress well.
    """

    unpacked: int = 256 * MEGABYTE
    result: int = MEGABYTE
    files: int = 10_000
    ratio: int = 300
    ratio_free: int = 16 * MEGABYTE


DEFAULT_LIMITS = ArchiveLimits()


def write_archive(results: Sequence[dict[str, Any]], *, files: int = 1, rng: Random) -> bytes:
    """Return *results* as Mailchimp packs them: gzip, tar, ``./`` first, then ``./<hex>.json`` arrays.

    The results are dealt out over *files* files without regard to order; now and then an empty file is
    among them. *rng* decides names, dealing and emptiness, so a seed gives the same archive.
    """
    parts: list[list[dict[str, Any]]] = [[] for _ in range(max(1, files))]
    for index, result in enumerate(results):
        parts[index % len(parts) if len(parts) == 1 else rng.randrange(len(parts))].append(result)
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
