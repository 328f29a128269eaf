"""Who writes: what CiviCRM's detailed logging (MariaDB only) and the timeline name as the author of a change."""

from contextvars import ContextVar, Token
from typing import NamedTuple

SCHEDULE = "job"
"""What the caller of scheduled jobs is called."""


class Author(NamedTuple):
    """A contact, or None; and what the caller is called (``api.call.Caller.name``), or a part of this program."""

    contact_id: int | None = None
    name: str = ""

    @property
    def is_schedule(self) -> bool:
        """Whether a scheduled job writes: nobody asked for it at this moment."""
        return self.name == SCHEDULE


_author: ContextVar[Author] = ContextVar("author", default=Author())  # noqa: B039  a tuple is immutable


class authored_by:  # named as the function it is used as; a generator would cost every call a microsecond
    """While the block lasts, what this task writes is this contact's; None: the domain's."""

    __slots__ = ("_author", "_before")

    def __init__(self, contact_id: int | None, name: str = "") -> None:
        self._author = Author(contact_id, name)

    def __enter__(self) -> None:
        self._before: Token[Author] = _author.set(self._author)

    def __exit__(self, *_: object) -> None:
        _author.reset(self._before)


def current_author() -> Author:
    """Who writes in this task. A unit of work on SQLite runs in another thread: it is given its author."""
    return _author.get()
