"""The options of an account with their defaults. They can be changed while the emulator runs.

The clock options (``clock_skew_s``, ``clock_freeze``, ``clock_rate``) belong to the whole emulator: `Clock.configure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sync.emulator.model.faults import FaultRule


@dataclass(slots=True)
class AccountOptions:
    """How the API behaves for one account. Times in ``_ms`` and ``time_limit_s`` are real, others emulator seconds."""

    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0
    latency_routes: dict[str, float] = field(default_factory=dict)
    """``"GET /lists/"`` to milliseconds: method and path prefix; the longest match applies."""
    page_ms_per_1000: float = 0.0
    offset_ms_per_10000: float = 0.0
    time_limit_s: float = 120.0
    slow_body_s: float = 1.0

    batch_start_delay: float = 0.0
    batch_ops_per_second: float = 0.0
    """0: as fast as the machine can."""
    batch_finalize_delay: float = 0.0
    batch_stuck_finalizing: bool = False
    auto_batches: bool = True
    """The server runs batches by itself; off, they wait for a call."""
    auto_webhooks: bool = True

    max_connections: int = 10
    max_pending_batches: int = 500
    max_batch_ops: int = 1000
    max_bulk_members: int = 500
    fault_rules: list[FaultRule] = field(default_factory=list)

    compliance_emails: list[str] = field(default_factory=list)
    forgotten_emails: list[str] = field(default_factory=list)
    throttled_emails: list[str] = field(default_factory=list)
    reject_domains: list[str] = field(default_factory=list)

    listing_default_archived: bool = False
    since_inclusive: bool = False
    since_ignores_offset: bool = True
    since_ancient_hangs: bool = True
    resubscribe_api_unsubscribed: str = "allow"
    """``allow`` or ``compliance``."""
    unchanged_write_bumps: bool = True
    """A PUT that changes nothing still moves ``last_changed``."""
    stats_lag_s: float = 0.0
    problem_without_type: bool = False

    webhook_signing: bool = False
    webhook_duplicates: bool = False
    webhook_shuffle: bool = False
    webhook_timeout_s: float = 10.0
    webhook_retry_gaps: list[float] = field(default_factory=lambda: [60.0, 300.0, 600.0, 900.0, 1200.0, 1440.0])
    """Seconds between tries of one delivery; after the last, the webhook is disabled. The sum is 75 minutes."""

    def configure(self, values: Mapping[str, Any]) -> None:
        """Set the options in *values*. Raises ValueError naming the option, and then sets none."""
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """Return all options as JSON data, which `configure` accepts."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"fault_rules": [_rule_json(rule) for rule in self.fault_rules]}

    def _checked(self, name: str, value: Any) -> Any:
        if name not in {f.name for f in fields(self)}:
            raise ValueError(f"There is no option {name!r}")
        if name == "fault_rules":
            return [rule if isinstance(rule, FaultRule) else FaultRule.from_json(rule) for rule in value]
        if name == "resubscribe_api_unsubscribed" and value not in ("allow", "compliance"):
            raise ValueError("Option resubscribe_api_unsubscribed is 'allow' or 'compliance'")
        return _typed(name, value, type(getattr(self, name)))


def _typed(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind is list and isinstance(value, list | tuple | set | frozenset):
        return [item.lower() if isinstance(item, str) else item for item in value]
    if kind in (bool, str, dict) and isinstance(value, kind):
        return value
    raise ValueError(f"Option {name!r} takes a {kind.__name__}, not {value!r}")


def _rule_json(rule: FaultRule) -> dict[str, Any]:
    return {f.name: getattr(rule, f.name) for f in fields(rule)}
