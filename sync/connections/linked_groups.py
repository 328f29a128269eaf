"""Which groups a connection can use: a smart group only as a source, and only if CiviCRM knows its members."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy import Connection, select

from civiapi.store.clock import SiteClock
from civiapi.store.schema.tables import group
from sync.audience import Audience
from sync.errors import SyncError
from sync.store.sources import why_not_fresh

MISSING = "which does not exist"
SMART = "a smart group: its members are computed from a search, so nobody can be added or removed"
NOT_ONE_WAY = f"{SMART}. It can be a source, one way, once the connection is saved again"
NOT_SMART = "no smart group any more, but linked as one, one way"
ORDINARY, COMPUTE = (
    "Link an ordinary group on the Config screen.",
    "Enable CiviCRM's scheduled job “Rebuild Smart Group Cache”, or open the group in CiviCRM.",
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkedGroup:
    """A group named in the configuration. *fault* says why it cannot be used two ways; empty for a usable group.

    *computed*: when CiviCRM computed the members of a smart group (aware), None where it did not.
    """

    id: int
    title: str
    fault: str
    is_smart: bool = False
    computed: datetime | None = None

    def why_unusable(self, *, one_way: bool, clock: SiteClock, now: datetime) -> tuple[str, str]:
        """Why the subscription group of a link cannot be used, and what to do; both empty where it can."""
        if one_way and self.is_smart:
            fault = why_not_fresh(self.computed, now, clock)
            return fault, COMPUTE if fault else ""
        if one_way:
            fault = self.fault or NOT_SMART
            return fault, ORDINARY if self.fault else "Save the connection again on the Config screen."
        if self.is_smart:
            return NOT_ONE_WAY, "Save the connection again on the Config screen, or link an ordinary group."
        return self.fault, ORDINARY if self.fault else ""


def linked_groups(conn: Connection, group_ids: Iterable[int], clock: SiteClock | None = None) -> dict[int, LinkedGroup]:
    """Each of these groups by its id; with a *clock*, with when CiviCRM computed a smart one."""
    ids = list(dict.fromkeys(group_ids))
    columns = (group.c.id, group.c.title, group.c.saved_search_id, group.c.cache_date)
    found = {}
    for row in conn.execute(select(*columns).where(group.c.id.in_(ids))):
        is_smart = bool(row.saved_search_id)
        computed = clock.read(row.cache_date) if clock is not None and is_smart else None
        found[row.id] = LinkedGroup(row.id, row.title or "", SMART if is_smart else "", is_smart, computed)
    return {one: found.get(one, LinkedGroup(one, "", MISSING)) for one in ids}


def with_usable_groups(conn: Connection, audience: Audience, *, fresh: bool = True) -> Audience:
    """The audience without interests whose group cannot be used. Raises SyncError without its subscription group.

    Not *fresh*: what the last sync read of a smart group is used, however old CiviCRM's cache of it is.
    """
    groups = linked_groups(conn, audience.group_ids, audience.clock)
    one, now = groups[audience.group_id], datetime.now(UTC)
    fault, remedy = one.why_unusable(one_way=audience.one_way, clock=audience.clock, now=now)
    if fault and not (one.is_smart and audience.one_way and not fresh):
        raise SyncError(f"Audience {audience.list_id} is linked with group {audience.group_id}, {fault}. {remedy}")
    usable = {key: group_id for key, group_id in audience.interests.items() if not groups[group_id].fault}
    if usable != dict(audience.interests):
        left_out = sorted(set(audience.interests) - set(usable))
        log.warning("interests without a usable group are left out", list_id=audience.list_id, interests=left_out)
    return replace(audience, interests=usable)
