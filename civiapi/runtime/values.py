"""Values that are made for every call: frozen for mypy, and cheap to make."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def call_value(cls: type[T]) -> type[T]:
    """A dataclass whose fields mypy lets nobody set, for values of which every call makes some.

    A frozen one takes four times as long to make (2.4 µs for seven fields instead of 0.6), and a call makes a dozen.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
