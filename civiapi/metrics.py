"""Prometheus metrics: counters of this process, and queue lengths from the database.

Labels have fixed sets of values (entities and actions, stages, outcomes, linked audiences), so that callers cannot
create series, and no address or key becomes a label. ``civiapi/endpoints/metrics.py`` serves them.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from civiapi.api.declaration.names import action_name
from civiapi.api.declaration.spec import Registry
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from sync.errors import SyncError
from sync.mailchimp.transport import CallRecord
from sync.reports.gauges import Gauges, read_gauges
from sync.reports.health import Health

GetHealth = Callable[[], Awaitable[Mapping[str, Health]]]
"""Gives the health of each linked audience."""

OTHER = "other"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
LONG = (0.01, 0.1, 1, 5, 15, 60, 300, 1800, 7200)

WAITING = (
    ("civiapi_updates_waiting", "Updates for Mailchimp that are in no batch yet", "updates_waiting"),
    ("civiapi_updates_sent", "Updates sent to Mailchimp whose result is not known yet", "updates_sent"),
    ("civiapi_webhooks_waiting", "Webhook events stored and not processed yet", "webhooks_waiting"),
    ("civiapi_webhook_lag_seconds", "Age of the oldest of them", "webhook_lag"),
)
BY_AUDIENCE = (
    ("civiapi_rows_todo", "Cache rows that wait to be reconciled", "rows_todo"),
    ("civiapi_batches_open", "Batches whose results are not stored yet", "batches"),
    ("civiapi_batch_age_seconds", "Age of the oldest of them", "oldest_batch"),
    ("civiapi_run_age_seconds", "Seconds since the run that holds the lease began", "run_age"),
    ("civiapi_claim_left_seconds", "Seconds until the lease expires unless it is renewed", "lease_left"),
)


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "civiapi_requests", "API calls answered", ["entity", "action", "outcome"], registry=self._registry
        )
        self._answer_seconds = Histogram(
            "civiapi_request_seconds", "Time to answer an API call", ["entity", "action"], registry=self._registry
        )
        self._stage_seconds = Histogram(
            "civiapi_stage_seconds", "Time of one stage of one run", ["stage"], buckets=LONG, registry=self._registry
        )
        self._members = Counter(
            "civiapi_members", "Members processed; its rate is members per second", ["stage"], registry=self._registry
        )
        self._rate = Gauge(
            "civiapi_stage_members_per_second", "Rate of the latest run", ["stage"], registry=self._registry
        )
        self._calls = Counter(
            "civiapi_mailchimp_calls", "Requests to Mailchimp", ["method", "outcome"], registry=self._registry
        )
        self._call_seconds = Histogram(
            "civiapi_mailchimp_call_seconds", "Time of a request to Mailchimp", ["method"], registry=self._registry
        )
        self._units = Gauge(
            "civiapi_store_units",
            "Units of database work since the start, by where they ran: loop, reader or writer",
            ["place"],
            registry=self._registry,
        )
        self._answers: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        """The two figures of a call, by entity, action and outcome: to look them up takes a tenth of a short call."""
        self._up = Gauge("civiapi_database_up", "1 if the database answers", registry=self._registry)
        self._waiting = {key: Gauge(name, text, registry=self._registry) for name, text, key in WAITING}
        self._by_audience = {
            key: Gauge(name, text, ["audience"], registry=self._registry) for name, text, key in BY_AUDIENCE
        }
        self._health = Gauge(
            "civiapi_health", "1 for the state of a connection", ["audience", "state"], registry=self._registry
        )

    def count_call(self, registry: Registry, entity: str, action: str, outcome: str, seconds: float) -> None:
        """Count an answered API call; unknown names are ``other``."""
        kept = self._answers.get((entity, action, outcome))
        if kept is None:
            one = registry.find_entity(entity)
            known = action_name(action) if one and action_name(action) in registry.actions(one) else OTHER
            names = (one.name if one else OTHER), known
            kept = self._requests.labels(*names, outcome), self._answer_seconds.labels(*names)
            if names == (entity, action):  # not for any name that somebody sends
                self._answers[entity, action, outcome] = kept
        requests, answer_seconds = kept
        requests.inc()
        answer_seconds.observe(seconds)

    def count_stage(self, stage: str, seconds: float, members: int) -> None:
        """Count a stage of a run that ended or ran out of time."""
        self._stage_seconds.labels(stage).observe(seconds)
        self._members.labels(stage).inc(members)
        if members and seconds > 0:
            self._rate.labels(stage).set(members / seconds)

    def count_mailchimp(self, call: CallRecord) -> None:
        """Count a request to Mailchimp."""
        method = call.method if call.method in METHODS else OTHER
        self._calls.labels(method, call.outcome).inc()
        self._call_seconds.labels(method).observe(call.seconds)

    async def page(self, store: Store, get_health: GetHealth) -> bytes:
        """All metrics in Prometheus' format, with current queue lengths and the health of each connection."""
        for place, count in store.units.items():
            self._units.labels(place).set(count)
        try:
            self._set_gauges(await store.read(read_gauges, store.clock, datetime.now(UTC)))
            self._set_health(await get_health())
            self._up.set(1)
        except StoreError:
            self._up.set(0)
        except SyncError:  # the configuration cannot be read: a finding of System.check; no audience is known
            self._set_gauges(Gauges())
            self._set_health({})
            self._up.set(1)
        return generate_latest(self._registry)

    def _set_gauges(self, gauges: Gauges) -> None:
        for key, gauge in self._waiting.items():
            gauge.set(getattr(gauges, key))
        for key, gauge in self._by_audience.items():
            gauge.clear()  # without audiences that are no longer linked
            for audience, value in getattr(gauges, key).items():
                gauge.labels(audience).set(value)

    def _set_health(self, health: Mapping[str, Health]) -> None:
        self._health.clear()
        for audience, current in health.items():
            for state in Health:
                self._health.labels(audience, state).set(state is current)
