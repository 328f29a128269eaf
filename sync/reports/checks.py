"""Health checks: what a finding is, and the findings about the configuration and about the last sync.

``System.check``, ``civiapi doctor``, ``adopt`` and ``check`` all show these findings. Reads the database only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from sqlalchemy import Connection

from civiapi.store.clock import SiteClock
from sync.audience import interest_kind, interest_name, is_permission
from sync.connections.config import Config, Link, read_config
from sync.connections.linked_groups import LinkedGroup, linked_groups
from sync.connections.webhook_health import missing_hooks, read_hook_state
from sync.errors import SyncError
from sync.reports.health import gone_sources
from sync.reports.status import read_statuses

CONFIG = "mailchimpsyncConfig"
HOOKS = "mailchimpsyncHooks"
LATE = "mailchimpsyncLate"
FIELDS = "mailchimpsyncFields"
CAMPAIGNS = "mailchimpsyncCampaigns"
CONFIG_REMEDY = "Write it again with Mailchimpsync.updateconfig, or restore a backup."


class Severity(IntEnum):
    """How serious a finding is. Those above ``OK`` have the names and numbers of ``System.check``."""

    OK = 0
    INFO = 1
    NOTICE = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    *code* is stable: what was checked and, after a colon, which one. *sentence* says what is the case, *remedy* what to
    do about it (empty where nothing needs doing).
    """

    code: str
    severity: Severity
    sentence: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing needs doing."""
        return self.severity is Severity.OK


def audience_of(code: str) -> str:
    """The id of the audience that a finding of this *code* is about (``mailchimpsyncLate:LIST``), ``""`` for none."""
    what, _, of = code.partition(":")
    return of.partition(":")[0] if what.startswith("mailchimpsync") else ""


def check(code: str, failed: bool, sentence: str, remedy: str, severity: Severity = Severity.ERROR) -> Finding:
    """A finding of this severity if the check *failed*, else an OK one without a remedy."""
    return Finding(code, severity, sentence, remedy) if failed else Finding(code, Severity.OK, sentence)


def configuration(conn: Connection, clock: SiteClock) -> Iterator[Finding]:
    """Whether the configuration can be read, links an audience, and links only usable groups."""
    try:
        config = read_config(conn)
    except SyncError as error:
        yield Finding(CONFIG, Severity.ERROR, str(error), CONFIG_REMEDY)
        return
    remedy = "Link one on the Config screen, or with Mailchimpsync.fetchaccountinfo and Mailchimpsync.updateconfig."
    count = len(config.links)
    yield check(CONFIG, not count, f"{count} audience(s) linked with a group.", remedy, Severity.NOTICE)
    yield from _groups(conn, config, clock)


def _groups(conn: Connection, config: Config, clock: SiteClock) -> Iterator[Finding]:
    groups = linked_groups(conn, (one for link in config.links.values() for one in _ids(link)), clock)
    for list_id, link in config.links.items():
        yield _subscription_group(list_id, link, groups[link.group_id], clock)
        for group_id, links in sorted(link.also_linked.items()):
            yield Finding(
                f"mailchimpsyncShared:{list_id}"
                if group_id == link.group_id
                else f"mailchimpsyncShared:{list_id}:{group_id}",
                Severity.WARNING,
                f"Group {group_id} is linked with {' and with '.join(map(str, links))}: the latest change in either of "
                "them decides about both.",
                "Link each audience and each interest with a group of its own.",
            )
        for interest, group_id in link.interests.items():  # a sync leaves out an interest whose group is not usable
            kind, name = interest_kind(interest), interest_name(interest)
            what = f"{name[0].upper()}{name[1:]} of audience {list_id}"
            if interest in link.gone_interests:
                gdpr = ", or the audience has no GDPR fields" if is_permission(interest) else ""
                yield Finding(
                    f"mailchimpsyncInterest:{list_id}:{interest}",
                    Severity.WARNING,
                    f"{what} (“{link.gone_interests[interest]}”) is gone at Mailchimp{gdpr}; syncs leave it out, "
                    f"and its contacts stay in group {group_id}.",
                    f"Remove the link on the Config screen, or link another {kind} with the group.",
                )
                continue
            yield _group(f"mailchimpsyncInterest:{list_id}:{interest}", what, groups[group_id], Severity.WARNING)


def _ids(link: Link) -> list[int]:
    return [link.group_id, *link.interests.values()]


def _subscription_group(list_id: str, link: Link, group: LinkedGroup, clock: SiteClock) -> Finding:
    """Whether the group of an audience can be used, both ways or as a source."""
    fault, remedy = group.why_unusable(one_way=link.one_way, clock=clock, now=datetime.now(UTC))
    way = ", one way" if link.one_way else ""
    sentence = f"Audience {list_id} is linked with {_named(group)}{way}{', ' if fault else ''}{fault}."
    return check(f"mailchimpsyncGroup:{list_id}", bool(fault), sentence, remedy)


def _named(group: LinkedGroup) -> str:
    return f"group {group.id} “{group.title}”" if group.title else f"group {group.id}"


def _group(code: str, what: str, group: LinkedGroup, severity: Severity) -> Finding:
    sentence = f"{what} is linked with {_named(group)}{', ' if group.fault else ''}{group.fault}."
    return check(code, bool(group.fault), sentence, "Link an ordinary group.", severity)


def last_syncs(conn: Connection, clock: SiteClock, now: datetime, quiet: timedelta) -> Iterator[Finding]:
    """Whether each linked audience was synced as scheduled, and whether its last sync stopped; *now* is aware.

    *quiet*: how long a sync at work may log nothing.
    """
    try:
        statuses = read_statuses(conn, clock, now, quiet=quiet)
    except SyncError:  # a finding of ``configuration``
        return
    for list_id, status in statuses.items():
        brake, hooks = status["brake"], missing_hooks(read_hook_state(conn, list_id))
        if brake:
            remedy = "Look at the preview on the connection's page, then go on, or correct the group."
            yield Finding(f"mailchimpsyncBrake:{list_id}", Severity.WARNING, str(brake["sentence"]), remedy)
        if hooks:
            remedy = "Add it on the Config screen, or with Mailchimpsync.updatewebhook."
            yield Finding(f"{HOOKS}:{list_id}", Severity.WARNING, f"Audience {list_id}: {hooks}", remedy)
        if status["merge_sources_gone"]:
            sentence = f"Audience {list_id}: {gone_sources(status['merge_sources_gone'])}"
            remedy = "Switch it on again in CiviCRM, or change the rules on Connections, Merge fields."
            yield Finding(f"{FIELDS}:{list_id}", Severity.WARNING, sentence, remedy)
        if status["campaigns"] and status["campaigns"]["error"]:
            remedy = "The next import continues; start it on the connection's page of campaigns."
            yield Finding(f"{CAMPAIGNS}:{list_id}", Severity.WARNING, str(status["campaigns"]["error"]), remedy)
        stopped = status["stopped"] or status["crashed"]
        if stopped:
            remedy = "" if status["stopped"] else "The next run continues."
            yield Finding(f"mailchimpsyncStopped:{list_id}", Severity.WARNING, str(stopped), remedy)
        elif status["late"] and not brake:
            remedy = (
                "See on the Jobs screen whether its job ran; civiapi serve with [scheduler] enabled = yes runs jobs."
            )
            sentence = f"The sync of audience {list_id} is late. {status['late']}"
            yield Finding(f"{LATE}:{list_id}", Severity.WARNING, sentence, remedy)
        elif not status["lastSyncTime"]:
            remedy = "Run civiapi sync or Mailchimpsync.fetchandreconcile, or check that scheduled jobs run."
            sentence = f"Audience {list_id} was never synced."
            yield Finding(f"mailchimpsyncNever:{list_id}", Severity.WARNING, sentence, remedy)
        else:
            sentence = f"Audience {list_id} was last synced on {status['lastSyncTimeHuman']}."
            yield Finding(f"mailchimpsyncLast:{list_id}", Severity.OK, sentence)
