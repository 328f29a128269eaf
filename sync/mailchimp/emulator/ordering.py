"""Integers kept in order, found by rank: how a page deep inside a million members costs no more than the first.

Blocks of machine integers: an insert or removal moves one block, a rank sums block lengths. Knows nothing of
members; `roster` packs a sort value and a serial number into one integer.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

BLOCK = 2048


class OrderedKeys:
    """A sorted set of 64-bit integers with positions."""

    def __init__(self, keys: Iterable[int] = ()) -> None:
        ordered = array("q", sorted(keys))
        self._blocks = [ordered[i : i + BLOCK] for i in range(0, len(ordered), BLOCK)] or [array("q")]
        self._last = [block[-1] for block in self._blocks if block]
        self._length = len(ordered)

    def __len__(self) -> int:
        return self._length

    def add(self, key: int) -> None:
        """Put *key* in its place."""
        at = min(bisect_left(self._last, key), len(self._blocks) - 1)
        block = self._blocks[at]
        insort(block, key)
        self._length += 1
        if len(block) > 2 * BLOCK:
            self._blocks[at : at + 1] = [block[:BLOCK], block[BLOCK:]]
            self._last[at : at + 1] = [block[BLOCK - 1], block[-1]]
        else:
            self._last[at : at + 1] = [block[-1]]

    def remove(self, key: int) -> None:
        """Take *key* out. Raises KeyError if it is not there."""
        at = bisect_left(self._last, key)
        block = self._blocks[at] if at < len(self._blocks) else array("q")
        inside = bisect_left(block, key)
        if inside == len(block) or block[inside] != key:
            raise KeyError(key)
        del block[inside]
        self._length -= 1
        if block:
            self._last[at] = block[-1]
        else:
            del self._last[at]
            if len(self._blocks) > 1:
                del self._blocks[at]

    def rank(self, key: int) -> int:
        """Return how many keys are smaller than *key*."""
        at = bisect_left(self._last, key)
        if at >= len(self._blocks):
            return self._length
        return sum(map(len, self._blocks[:at])) + bisect_left(self._blocks[at], key)

    def slice(self, start: int, stop: int) -> Iterator[int]:
        """Yield the keys at positions *start* to *stop* (left out), in order."""
        passed = 0
        for block in self._blocks:
            if passed >= stop:
                return
            if passed + len(block) > start:
                yield from block[max(0, start - passed) : stop - passed]
            passed += len(block)
