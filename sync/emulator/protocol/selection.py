"""The parameters ``fields`` and ``exclude_fields`` (dotted paths from the root), ``count`` and ``offset``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sync.emulator.protocol.problems import bad_fields, field_error, schema_failed

DEFAULT_COUNT = 10
MAX_COUNT = 1000
MAX_DIGITS = 12

Tree = dict[str, "Tree"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which parts of an answer to keep; an empty `keep` keeps everything."""

    keep: Tree
    drop: Tree

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Selection:
        """Read both parameters. Raises a 422 for a path with an empty step."""
        return cls(_tree(query.get("fields", "")), _tree(query.get("exclude_fields", "")))

    def apply(self, body: Any) -> Any:
        """Return *body* trimmed."""
        if self.keep:
            body = _kept(body, self.keep)
        return _dropped(body, self.drop) if self.drop else body

    def keys_within(self, collection: str, keys: Sequence[str]) -> Sequence[str]:
        """Return which of *keys* survive inside the items of *collection*, so that others are not computed."""
        inside = self.keep.get(collection, {})
        if self.keep and collection not in self.keep:
            return ()
        wanted = [key for key in keys if key in inside] if inside else keys
        gone = self.drop.get(collection)
        if gone is None:
            return wanted
        return [key for key in wanted if gone.get(key) != {}] if gone else ()


def page_of(query: Mapping[str, str]) -> tuple[int, int]:
    """Return (count, offset): default 10, at most 1000, none negative. Raises a 400 otherwise."""
    count = _whole(query, "count", DEFAULT_COUNT)
    if count > MAX_COUNT:
        raise schema_failed([field_error("count", f"Please limit the count to {MAX_COUNT} or fewer.")])
    return count, _whole(query, "offset", 0)


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, "")
    if text == "":
        return default
    if not text.isascii() or not text.isdigit() or len(text) > MAX_DIGITS:
        raise schema_failed([field_error(name, "Schema describes integer, string found instead")])
    return int(text)


def is_true(text: str | None) -> bool:
    """Read a boolean query parameter."""
    return (text or "").lower() in ("true", "1", "yes", "on")


def _tree(text: str) -> Tree:
    tree: Tree = {}
    if not text.strip():
        return tree
    for path in text.split(","):
        steps = path.strip().split(".")
        if not all(steps):
            raise bad_fields(path)
        _plant(tree, steps)
    return tree


def _plant(tree: Tree, steps: list[str]) -> None:
    """Add one path; a shorter path replaces longer ones below it."""
    for step in steps[:-1]:
        known = tree.get(step)
        if known == {}:
            return
        tree = tree.setdefault(step, {})
    tree[steps[-1]] = {}


def _kept(body: Any, tree: Tree) -> Any:
    if isinstance(body, list):
        return [_kept(item, tree) for item in body]
    if not isinstance(body, dict):
        return body
    return {key: _kept(value, tree[key]) if tree[key] else value for key, value in body.items() if key in tree}


def _dropped(body: Any, tree: Tree) -> Any:
    if isinstance(body, list):
        return [_dropped(item, tree) for item in body]
    if not isinstance(body, dict):
        return body
    return {
        key: _dropped(value, tree[key]) if key in tree else value for key, value in body.items() if tree.get(key) != {}
    }
