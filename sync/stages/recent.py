"""Which contacts may have changed since the previous run: by ``modified_date``, which CiviCRM moves for addresses too.

Some slack is taken, because a long transaction writes its time when it begins and shows when it commits.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from civiapi.store.tables import contact
from sync.stages.base import Step

SLACK_SECONDS = 600


def next_modified(conn: Connection, step: Step, after: dict[str, Any], size: int) -> tuple[list[int], dict[str, Any]]:
    """The next *size* contacts modified since the previous run, and where to go on; *after* is empty at the start."""
    since = step.question.contacts_since
    if since is None:
        return [], after
    date = after.get("date") or step.audience.clock.write(datetime.fromtimestamp(since - SLACK_SECONDS, UTC))
    last = after.get("id", 0)
    changed = contact.c.modified_date
    rows = conn.execute(
        select(contact.c.id, changed)
        .where(or_(changed > date, and_(changed == date, contact.c.id > last)), changed >= date)
        .order_by(changed, contact.c.id)
        .limit(size)
    ).all()
    return [row.id for row in rows], {"date": rows[-1].modified_date, "id": rows[-1].id} if rows else after
