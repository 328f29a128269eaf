"""Deletes what is older than the settings keep, of each of `RULES`. Never what a sync still needs.

Of each row's updates, each audience's runs and each job's log entries the newest stays, whatever its age: a sync and
the health checks read it. An update has no date of its own, so the dates of batches say which ids are old. The figures
for charts (``civiapi_daily``) are not touched.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, delete, exists, func, select

from civiapi.settings import RetentionSettings
from civiapi.store.clock import SiteClock
from civiapi.store.databases.expressions import in_list
from civiapi.store.schema.tables import job_log
from sync.store.batches import PROCESSED
from sync.store.tables import batch, campaign, campaign_response, campaign_unknown, event, run_change, run_log, update

AT_ONCE = 1_000
"""Rows that are examined in one unit."""


class Rule(NamedTuple):
    """Which rows of *table* are deleted: those that meet *condition*, up to *last*, the highest id that can be old.

    *setting*: whose days count, where not those of the rule's own name.
    """

    table: Table
    last: Callable[[datetime, SiteClock], Select[Any]]
    condition: Callable[[datetime, SiteClock], ColumnElement[bool]]
    setting: str = ""


def _last_update(before: datetime, clock: SiteClock) -> Select[Any]:
    sent = select(func.max(update.c.id)).join(batch, batch.c.id == update.c.mailchimpsync_batch_id)
    return sent.where(_old_batch(before, clock))


def _old_batch(before: datetime, clock: SiteClock) -> ColumnElement[bool]:
    return batch.c.completed_at < clock.write(before)


def _old_run(before: datetime, _clock: SiteClock) -> ColumnElement[bool]:
    return run_log.c.ended_s < int(before.timestamp())


def _old_event(before: datetime, _clock: SiteClock) -> ColumnElement[bool]:
    return event.c.at_ms < int(before.timestamp() * 1000)


def _of_old_run(before: datetime, clock: SiteClock) -> ColumnElement[bool]:
    old = select(run_log.c.id).where(_old_run(before, clock), _has_newer(run_log, "list_id"))
    return run_change.c.run_id.in_(old)


def _has_changes() -> ColumnElement[bool]:
    return exists().where(run_change.c.run_id == run_log.c.id)


def _old_job_log(before: datetime, clock: SiteClock) -> ColumnElement[bool]:
    return job_log.c.run_time < clock.write(before)


def _of_old_campaign(table: Table, before: datetime) -> ColumnElement[bool]:
    old = select(campaign.c.id).where(campaign.c.sent_s < int(before.timestamp()))
    return table.c.campaign.in_(old)


def _rule_of_campaigns(table: Table, setting: str = "") -> Rule:
    """The rule for rows of campaigns, by when these were sent."""
    return Rule(
        table,
        lambda before, _: select(func.max(table.c.id)).where(_of_old_campaign(table, before)),
        lambda before, _: _of_old_campaign(table, before),
        setting,
    )


def _has_newer(table: Table, name: str) -> ColumnElement[bool]:
    """There is a newer row with the same value in this column."""
    newer = table.alias()
    return exists().where(newer.c[name].is_not_distinct_from(table.c[name]), newer.c.id > table.c.id)


RULES: Mapping[str, Rule] = {
    "updates": Rule(
        update,
        _last_update,
        lambda *_: and_(
            update.c.completed == 1,
            update.c.mailchimpsync_cache_id.is_not(None),
            _has_newer(update, "mailchimpsync_cache_id"),
        ),
    ),
    "batches": Rule(
        batch,
        lambda *when: select(func.max(batch.c.id)).where(_old_batch(*when)),
        lambda *when: and_(
            _old_batch(*when),
            batch.c.response_processed == PROCESSED,
            ~exists().where(update.c.mailchimpsync_batch_id == batch.c.id),  # they would be deleted with it
        ),
    ),
    "run_changes": Rule(
        run_change,
        lambda *when: select(func.max(run_change.c.id)).where(_of_old_run(*when)),
        lambda *when: _of_old_run(*when),
        "runs",
    ),
    "runs": Rule(
        run_log,
        lambda *when: select(func.max(run_log.c.id)).where(_old_run(*when)),
        lambda *when: and_(_old_run(*when), _has_newer(run_log, "list_id"), ~_has_changes()),
    ),
    "events": Rule(
        event,
        lambda *when: select(func.max(event.c.id)).where(_old_event(*when)),
        lambda *when: _old_event(*when),
    ),
    "job_logs": Rule(
        job_log,
        lambda *when: select(func.max(job_log.c.id)).where(_old_job_log(*when)),
        lambda *when: and_(_old_job_log(*when), _has_newer(job_log, "job_id")),
    ),
    "campaigns": _rule_of_campaigns(campaign_response),
    "unknown_recipients": _rule_of_campaigns(campaign_unknown, "campaigns"),
}
"""What is deleted, in this order: updates before the batches that they belong to, and what a run did before the run."""


def days_kept(settings: RetentionSettings) -> dict[str, float]:
    """The days that each of ``RULES`` is kept; those kept for ever are left out."""
    days: dict[str, float] = {name: getattr(settings, f"{rule.setting or name}_days") for name, rule in RULES.items()}
    return {name: kept for name, kept in days.items() if kept}


def last_old(conn: Connection, name: str, before: datetime, clock: SiteClock) -> int:
    """The highest id that can be older than *before* (aware); 0 where none is."""
    return conn.execute(RULES[name].last(before, clock)).scalar() or 0


def delete_some(
    conn: Connection, name: str, before: datetime, clock: SiteClock, after: int, last: int
) -> tuple[int, int | None]:
    """Examine some rows with ids above *after*, up to *last*, and delete those that are older than *before* (aware).

    Returns how many, and the id to go on after; None: all were examined.
    """
    table, condition = RULES[name].table, RULES[name].condition
    candidates = table.c.id > after, table.c.id <= last
    ids = list(conn.execute(select(table.c.id).where(*candidates).order_by(table.c.id).limit(AT_ONCE)).scalars())
    if not ids:
        return 0, None
    between = table.c.id > after, table.c.id <= ids[-1]
    old = list(conn.execute(select(table.c.id).where(*between, condition(before, clock))).scalars())
    if old:
        conn.execute(delete(table).where(in_list(table.c.id, old)))
    return len(old), ids[-1]
