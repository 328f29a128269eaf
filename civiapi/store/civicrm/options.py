"""Choices of CiviCRM's option lists that a program needs: found by name, made where they are absent."""

from sqlalchemy import Connection, Integer, cast, func, insert, or_, select

from civiapi.store.schema.live_columns import live_values
from civiapi.store.schema.tables import option_group, option_value


def find_or_add_option(conn: Connection, group: str, name: str) -> int:
    """The number that stands for the choice *name* of the list *group*, which is made with the list where absent.

    The list is locked until the commit, so that two processes make one choice. A disabled choice is found as well.
    """
    wanted = select(option_group.c.id).where(option_group.c.name == group).with_for_update()
    group_id = conn.execute(wanted).scalar()
    if group_id is None:
        title = group.replace("_", " ").title()
        key = conn.execute(insert(option_group).values(name=group, title=title)).inserted_primary_key
        group_id = key[0] if key else 0
    of_group = option_value.c.option_group_id == group_id
    same = or_(option_value.c.name == name, option_value.c.label == name)
    known = select(option_value.c.value).where(of_group, same).order_by(option_value.c.id).limit(1).with_for_update()
    value = conn.execute(known).scalar()
    if value is not None:
        return int(value)
    number, weight = conn.execute(
        select(func.max(cast(option_value.c.value, Integer)), func.max(option_value.c.weight)).where(of_group)
    ).one()
    made = {"option_group_id": group_id, "name": name, "label": name, "value": str((number or 0) + 1)}
    made |= {"weight": (weight or 0) + 1, "is_active": 1}
    conn.execute(insert(option_value).values(live_values(conn, option_value, made)))
    return (number or 0) + 1
