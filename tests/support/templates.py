"""Compiled templates of a test process. A server for each test would compile the same again, most of its set-up."""

from functools import partialmethod

from jinja2 import BytecodeCache, Environment
from jinja2.bccache import Bucket


class _Compiled(BytecodeCache):
    """Keeps bytecode in memory; Jinja checks that it is that of the present source."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


def compile_once() -> None:
    """Let all environments that are made from now on share what they compile."""
    Environment.__init__ = partialmethod(Environment.__init__, bytecode_cache=_Compiled())  # type: ignore[method-assign,assignment]
