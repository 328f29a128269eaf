"""What Prometheus is shown at ``/metrics``: counts of this process, and what the database says is waiting.

Labels come from closed sets only (the catalogue's entities and actions, stages, outcomes, linked audiences), so that
no caller can make new series and no address or key can get in. ``civiapi/adapters/metrics.py`` serves it.
"""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from civiapi.registry import Registry, action_name
from civiapi.store.engine import Store
from civiapi.store.errors import StoreError
from sync.gauges import Gauges, read_gauges
from sync.mailchimp.transport import CallRecord

OTHER = "other"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
LONG = (0.01, 0.1, 1, 5, 15, 60, 300, 1800, 7200)

WAITING = (
    ("civiapi_updates_waiting", "Updates owed to Mailchimp that are in no batch yet", "updates_waiting"),
    ("civiapi_updates_sent", "Updates sent to Mailchimp whose result is not known yet", "updates_sent"),
    ("civiapi_webhooks_waiting", "Webhook events written down and not worked on yet", "webhooks_waiting"),
    ("civiapi_webhook_lag_seconds", "Age of the oldest of them", "webhook_lag"),
)
BY_AUDIENCE = (
    ("civiapi_rows_todo", "Cache rows that wait to be reconciled", "rows_todo"),
    ("civiapi_batches_open", "Batches whose results are not written down yet", "batches"),
    ("civiapi_batch_age_seconds", "Age of the oldest of them", "oldest_batch"),
    ("civiapi_run_age_seconds", "Seconds since the run that holds the claim began", "run_age"),
    ("civiapi_claim_left_seconds", "Seconds until the claim lapses unless it is renewed", "claim_left"),
)


class Metrics:
    """The numbers of one process."""

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
            "civiapi_members", "Members worked on; its rate is members per second", ["stage"], registry=self._registry
        )
        self._pace = Gauge(
            "civiapi_stage_members_per_second", "Pace of the latest run", ["stage"], registry=self._registry
        )
        self._calls = Counter(
            "civiapi_mailchimp_calls", "Requests to Mailchimp", ["method", "outcome"], registry=self._registry
        )
        self._call_seconds = Histogram(
            "civiapi_mailchimp_call_seconds", "Time of a request to Mailchimp", ["method"], registry=self._registry
        )
        self._up = Gauge("civiapi_database_up", "1 when the database answered just now", registry=self._registry)
        self._waiting = {key: Gauge(name, said, registry=self._registry) for name, said, key in WAITING}
        self._by_audience = {
            key: Gauge(name, said, ["audience"], registry=self._registry) for name, said, key in BY_AUDIENCE
        }

    def count_call(self, registry: Registry, entity: str, action: str, outcome: str, seconds: float) -> None:
        """An API call was answered; names that the catalogue does not know are ``other``."""
        one = registry.find_entity(entity)
        known = action_name(action) if one and action_name(action) in registry.actions(one) else OTHER
        names = (one.name if one else OTHER), known
        self._requests.labels(*names, outcome).inc()
        self._answer_seconds.labels(*names).observe(seconds)

    def count_stage(self, stage: str, seconds: float, members: int) -> None:
        """A stage of a run came to its end or to the end of its time."""
        self._stage_seconds.labels(stage).observe(seconds)
        self._members.labels(stage).inc(members)
        if members and seconds > 0:
            self._pace.labels(stage).set(members / seconds)

    def count_mailchimp(self, call: CallRecord) -> None:
        """Mailchimp was asked something."""
        method = call.method if call.method in METHODS else OTHER
        self._calls.labels(method, call.outcome).inc()
        self._call_seconds.labels(method).observe(call.seconds)

    async def page(self, store: Store) -> bytes:
        """Everything as Prometheus reads it, what waits as the database has it now."""
        try:
            self._show(await store.read(read_gauges, store.clock, datetime.now(UTC)))
            self._up.set(1)
        except StoreError:
            self._up.set(0)
        return generate_latest(self._registry)

    def _show(self, gauges: Gauges) -> None:
        for key, gauge in self._waiting.items():
            gauge.set(getattr(gauges, key))
        for key, gauge in self._by_audience.items():
            gauge.clear()  # an audience linked no more shall not be shown for ever
            for audience, value in getattr(gauges, key).items():
                gauge.labels(audience).set(value)
