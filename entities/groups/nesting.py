"""Groups inside groups: ``civicrm_group_nesting``, and the columns ``parents`` and ``children`` that repeat it."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select, update

from civiapi.api.errors import ApiError
from civiapi.api.parameters.options import integer
from civiapi.store.schema.tables import group, group_nesting

_parent, _child = group_nesting.c.parent_group_id, group_nesting.c.child_group_id


def read_parents(conn: Connection, given: Any, group_id: int | None) -> list[int]:
    """The parents in a parameter: a list, or ids with commas. Raises ApiError for one that cannot be a parent.

    *group_id* is the group's own, None for a new one: neither it nor a group inside it can be its parent.
    """
    texts = given if isinstance(given, list) else str(given or "").split(",")
    ids = [integer(text) for text in texts if str(text).strip()]
    known = set(conn.execute(select(group.c.id).where(group.c.id.in_([one for one in ids if one]))).scalars())
    inside = _descendants(conn, group_id) if group_id is not None else set()
    for text, one in zip((text for text in texts if str(text).strip()), ids, strict=True):
        if one not in known or one in inside:
            raise ApiError(f"parents is not valid : {text}")
    return sorted({one for one in ids if one is not None})


def set_parents(conn: Connection, group_id: int, parents: Collection[int]) -> None:
    """Put a group into these groups, and out of all others."""
    before = set(conn.execute(select(_parent).where(_child == group_id)).scalars())
    conn.execute(delete(group_nesting).where(_child == group_id, _parent.not_in(list(parents))))
    for parent in sorted(set(parents) - before):
        conn.execute(insert(group_nesting).values(child_group_id=group_id, parent_group_id=parent))
    _repeat(conn, {group_id, *before, *parents})


def remove_from_nesting(conn: Connection, group_id: int) -> None:
    """Take a group that is to be deleted out of all groups, and all groups out of it."""
    mine = or_(_parent == group_id, _child == group_id)
    others = {one for pair in conn.execute(select(_parent, _child).where(mine)) for one in pair}
    conn.execute(delete(group_nesting).where(mine))
    _repeat(conn, others)


def _descendants(conn: Connection, group_id: int) -> set[int]:
    """The group and all groups inside it."""
    found, new = {group_id}, {group_id}
    while new:
        new = set(conn.execute(select(_child).where(_parent.in_(new))).scalars()) - found
        found |= new
    return found


def _repeat(conn: Connection, group_ids: Collection[int]) -> None:
    """Write the nesting of these groups into their columns."""
    for one in group_ids:
        parents = conn.execute(select(_parent).where(_child == one).order_by(_parent)).scalars().all()
        children = conn.execute(select(_child).where(_parent == one).order_by(_child)).scalars().all()
        values = {"parents": ",".join(map(str, parents)) or None, "children": ",".join(map(str, children)) or None}
        conn.execute(update(group).where(group.c.id == one).values(values))
