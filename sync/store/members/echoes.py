"""Note in SQL which Mailchimp change a group change mirrors: `member_codec.with_text`, for many rows where they are.

A first sync notes it in the data of every member. Only data in the form that this program writes can be changed so;
``read_forms`` says which, and the rest goes through Python.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, and_, case, func, literal, or_
from sqlalchemy import update as change

from civiapi.store.databases.expressions import in_list, joined_bytes
from sync.store.members.member_codec import ECHO, FLAT, NESTED
from sync.store.tables import cache

Forms = dict[bytes, list[int]]
"""Rows by the head of their data (``a:6:{``)."""

_KEY = f'"{ECHO}status@"'.encode()
_BEGIN = b"s:%d:%b;s:14:" % (len(_KEY) - 2, _KEY)
_STATUS = b's:7:"status@";s:'
_DATED = _STATUS + b'14:"'
_HEAD = re.compile(rb"a:(\d+):\{")
MAX_HEAD = 12


def form_columns() -> tuple[ColumnElement[Any], ...]:
    """What ``read_forms`` has to know of a row's data: its head, its ``status@``, and whether it has the form."""
    data = cache.c.mailchimp_data
    has_form = and_(
        _place(_DATED) > 0,
        _place(_STATUS) == _place(_DATED),
        func.substr(data, -1) == _bytes(b"}"),
        _place(_KEY) == 0,
        or_(_place(NESTED) == 0, _place(FLAT) > 0),
    )
    return _part(1, MAX_HEAD), _stamp(), case((has_form, 1), else_=0)


def read_forms(rows: Iterable[Sequence[Any]]) -> tuple[Forms, list[int]]:
    """Rows (id, contact, ``form_columns``) whose data SQL can change, and the ids of the others."""
    forms: Forms = defaultdict(list)
    others = []
    for cache_id, _, head, stamp, has_form in rows:
        found = _HEAD.match(head) if has_form else None
        if found is not None and stamp[0:1] == b'"' and stamp[15:] == b'";' and stamp[1:15].isdigit():
            forms[found[0]].append(cache_id)
        else:
            others.append(cache_id)
    return forms, others


def note_echoes(conn: Connection, forms: Forms, **values: Any) -> None:
    """Note that the group change mirrors the member's status, and set other columns of the row to *values*."""
    for head, cache_ids in forms.items():
        noted = _with_echo(head)
        rows = in_list(cache.c.id, cache_ids)
        conn.execute(change(cache).where(rows, _place(_KEY) == 0).values(mailchimp_data=noted, **values))


def _with_echo(head: bytes) -> ColumnElement[bytes]:
    size = int(head[2:-2])
    inside = _part(len(head) + 1, func.length(cache.c.mailchimp_data) - len(head) - 1)
    return joined_bytes(_bytes(b"a:%d:{" % (size + 1)), inside, _bytes(_BEGIN), _stamp(), _bytes(b"}"))


def _stamp() -> ColumnElement[bytes]:
    """The text of ``status@`` with its quotes and the semicolon."""
    return _part(_place(_DATED) + len(_DATED) - 1, 17)


def _part(start: Any, length: Any) -> ColumnElement[bytes]:
    return func.substr(cache.c.mailchimp_data, start, length, type_=LargeBinary())


def _place(sought: bytes) -> ColumnElement[int]:
    return func.instr(cache.c.mailchimp_data, _bytes(sought))


def _bytes(value: bytes) -> ColumnElement[bytes]:
    return literal(value, LargeBinary())
