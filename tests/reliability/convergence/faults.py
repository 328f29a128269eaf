"""Faults that occur by themselves while people act and syncs run: their kinds, rates and counts.

A history has no, few or many faults until its end phase. Each request, operation of a batch, download of results, page,
sync and set of webhooks draws a fault here, so faults are as frequent as syncs. A fault may come in a burst, an outage
longer than the client's retries. Steps that inject faults on purpose count here as well. No fault is invented: each is
named by `contract/mailchimp.md` or is a killed process.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from random import Random

from sync.emulator.model.faults import FaultAction
from tests.reliability.convergence.store import KillSwitch

RATE_NONE, RATE_LOW, RATE_HIGH = 0, 1, 2


class Kind(StrEnum):
    """Everything that may strike, as the report names it."""

    TOO_MANY_JSON = "429 in JSON"
    TOO_MANY_BARE = "429 with no body"
    FORBIDDEN_HTML = "403 with a page"
    USER_DISABLED = "403: the user is disabled for a while"
    SERVER_ERROR = "500"
    BAD_GATEWAY = "502 with a page"
    BLOCK_PAGE = "503 with a block page"
    GATEWAY_TIMEOUT = "504 with a page after two minutes, carried out"
    OK_HTML = "200 with a page"
    NO_CONNECTION = "no connection"
    HANG = "time-out, not carried out"
    HANG_AFTER = "time-out, carried out"
    RESET_BEFORE = "reset, not carried out"
    RESET_AFTER = "reset, carried out"
    TRUNCATED_JSON = "JSON cut off"
    SLOW_BODY = "an answer that takes half a minute"

    OPERATION_TOO_MANY = "batch operation: 429"
    OPERATION_ERROR = "batch operation: 5xx"
    OPERATION_LOST_BEFORE = "batch operation without a result, not carried out"
    OPERATION_LOST_AFTER = "batch operation without a result, carried out"

    RESULTS_MISSING = "results: some missing from the file"
    RESULTS_EMPTY = "results: all files empty"
    RESULTS_NO_FILE = "results: an archive without files"
    RESULTS_CUT = "results: archive cut off"
    RESULTS_PAGE = "results: a page for an archive"
    RESULTS_RESET = "results: download broken off"
    LINK_EXPIRED = "results: link expired"
    BATCH_GONE = "batch gone"

    DRIFT = "rows moved between two pages"
    HOOK_LOST = "webhook lost"
    HOOK_TWICE = "webhook doubled"
    HOOK_LATE = "webhook late"
    HOOK_DISORDER = "webhooks out of order"
    SKEW = "clocks differ (histories)"

    KILLED_BEFORE_COMMIT = "killed before a commit"
    KILLED_AFTER_COMMIT = "killed after a commit"
    KILLED_BEFORE_SENDING = "killed before sending"
    KILLED_BEFORE_ANSWER = "killed when it was sent, before the answer"


KILLED: Mapping[tuple[str, bool] | None, Kind] = {
    ("commit", False): Kind.KILLED_BEFORE_COMMIT,
    ("commit", True): Kind.KILLED_AFTER_COMMIT,
    ("call", False): Kind.KILLED_BEFORE_SENDING,
    ("call", True): Kind.KILLED_BEFORE_ANSWER,
}
"""How a process died, by where its fuse burnt down and whether after."""

INSTEAD: Mapping[Kind, FaultAction] = {
    Kind.TOO_MANY_JSON: FaultAction.TOO_MANY_JSON,
    Kind.TOO_MANY_BARE: FaultAction.TOO_MANY_BARE,
    Kind.FORBIDDEN_HTML: FaultAction.FORBIDDEN_HTML,
    Kind.USER_DISABLED: FaultAction.USER_DISABLED,
    Kind.SERVER_ERROR: FaultAction.SERVER_ERROR,
    Kind.BAD_GATEWAY: FaultAction.BAD_GATEWAY,
    Kind.BLOCK_PAGE: FaultAction.BLOCK_PAGE,
    Kind.OK_HTML: FaultAction.OK_HTML,
}
"""What is answered instead of carrying a request out, in the emulator's words."""

NOT_CARRIED_OUT = frozenset({Kind.NO_CONNECTION, Kind.HANG, Kind.RESET_BEFORE})
TIMES_OUT = frozenset({Kind.HANG, Kind.HANG_AFTER, Kind.GATEWAY_TIMEOUT})
BREAKS = frozenset({Kind.RESET_BEFORE, Kind.RESET_AFTER})

REQUESTS = (
    *INSTEAD,
    *(Kind.GATEWAY_TIMEOUT, Kind.NO_CONNECTION, Kind.HANG, Kind.HANG_AFTER, Kind.RESET_BEFORE, Kind.RESET_AFTER),
    *(Kind.TRUNCATED_JSON, Kind.SLOW_BODY, Kind.USER_DISABLED),
    *(Kind.RESET_AFTER, Kind.HANG_AFTER),  # a write that took effect unheard is the worst of all
)
OPERATIONS: Mapping[Kind, FaultAction] = {
    Kind.OPERATION_TOO_MANY: FaultAction.TOO_MANY_JSON,
    Kind.OPERATION_ERROR: FaultAction.SERVER_ERROR,
    Kind.OPERATION_LOST_BEFORE: FaultAction.RESET_BEFORE,
    Kind.OPERATION_LOST_AFTER: FaultAction.RESET_AFTER,
}
DOWNLOADS = (
    Kind.RESULTS_MISSING,
    Kind.RESULTS_MISSING,
    Kind.RESULTS_EMPTY,
    Kind.RESULTS_NO_FILE,
    Kind.RESULTS_CUT,
    Kind.RESULTS_PAGE,
    Kind.RESULTS_RESET,
    Kind.LINK_EXPIRED,
)
HOOKS: Mapping[str, Kind] = {
    "lost": Kind.HOOK_LOST,
    "twice": Kind.HOOK_TWICE,
    "late": Kind.HOOK_LATE,
    "reversed": Kind.HOOK_DISORDER,
}

_BY_RULE: Mapping[FaultAction, Kind] = {action: kind for kind, action in INSTEAD.items()} | {
    FaultAction.HANG: Kind.HANG,
    FaultAction.RESET_BEFORE: Kind.RESET_BEFORE,
    FaultAction.RESET_AFTER: Kind.RESET_AFTER,
    FaultAction.TRUNCATED_JSON: Kind.TRUNCATED_JSON,
    FaultAction.SLOW_BODY: Kind.SLOW_BODY,
}
_OF_OPERATIONS: Mapping[FaultAction, Kind] = {
    FaultAction.TOO_MANY_JSON: Kind.OPERATION_TOO_MANY,
    FaultAction.TOO_MANY_BARE: Kind.OPERATION_TOO_MANY,
    FaultAction.RESET_BEFORE: Kind.OPERATION_LOST_BEFORE,
    FaultAction.RESET_AFTER: Kind.OPERATION_LOST_AFTER,
    FaultAction.SERVER_ERROR: Kind.OPERATION_ERROR,
    FaultAction.BAD_GATEWAY: Kind.OPERATION_ERROR,
    FaultAction.BLOCK_PAGE: Kind.OPERATION_ERROR,
    FaultAction.HANG: Kind.OPERATION_ERROR,
}

CHANCES = {RATE_NONE: 0.0, RATE_LOW: 0.08, RATE_HIGH: 0.25}
BURST = 0.25
LONGEST_BURST = 6
KILLED_SHARE = 0.4
"""The share of syncs with faults whose process is killed: at any of so many commits or requests."""
COMMITS, CALLS = 40, 8


class FaultPlan:
    """The faults of one history: *how* many, and which by its *seed*."""

    def __init__(self, how: int = RATE_NONE, seed: int = 0) -> None:
        self.chance = CHANCES[how]
        self.rng = Random(seed)
        self.counts: Counter[Kind] = Counter()
        self._burst: list[Kind] = []

    @property
    def is_off(self) -> bool:
        """Whether no fault occurs by itself."""
        return self.chance == 0.0

    def switch_off(self) -> None:
        """No fault occurs by itself from now on."""
        self.chance = 0.0
        self._burst = []

    def count(self, kind: Kind, times: int = 1) -> Kind:
        """Count a fault."""
        self.counts[kind] += times
        return kind

    def of_rule(self, action: FaultAction, *, is_operation: bool) -> Kind | None:
        """The fault that a rule of the emulator caused, counted; None for one without effect on an operation."""
        kind = (_OF_OPERATIONS if is_operation else _BY_RULE).get(action)
        return None if kind is None else self.count(kind)

    def request(self) -> Kind | None:
        """The fault of a request, if any; sometimes the next requests have it too."""
        if self._burst:
            return self.count(self._burst.pop())
        kind = self._draw(REQUESTS)
        if kind is not None and kind is not Kind.USER_DISABLED and self.rng.random() < BURST:
            self._burst = [kind] * self.rng.randint(1, LONGEST_BURST)
        return kind

    def operation(self) -> FaultAction | None:
        """The fault of an operation of a batch, as the emulator names it."""
        kind = self._draw(tuple(OPERATIONS), 1.5)
        return None if kind is None else OPERATIONS[kind]

    def download(self) -> Kind | None:
        """The fault of a download of results; often, as downloads are few."""
        return self._draw(DOWNLOADS, 2.5)

    def loses_batch(self) -> bool:
        """Whether the batch that is asked about is gone."""
        return self._draw((Kind.BATCH_GONE,), 0.3) is not None

    def moves_rows(self) -> bool:
        """Whether rows move between two pages; counted where the move is seen."""
        return self.rng.random() < 4 * self.chance

    def webhook_delivery(self) -> str | None:
        """How waiting webhooks are delivered; None: not yet."""
        if self.is_off or self.rng.random() < 0.3:
            return None
        return self.rng.choice(("all", *HOOKS))

    def kill_switch(self) -> KillSwitch | None:
        """The kill switch of the next sync's process, if it is to be killed."""
        if self.is_off or self.rng.random() >= KILLED_SHARE:
            return None
        at_call = self.rng.random() < 0.5
        length = self.rng.randint(1, CALLS if at_call else COMMITS)
        return KillSwitch(length, after=self.rng.random() < 0.5, only="call" if at_call else "commit")

    def _draw(self, kinds: Sequence[Kind], weight: float = 1.0) -> Kind | None:
        if self.is_off or self.rng.random() >= weight * self.chance:
            return None
        return self.count(self.rng.choice(kinds))
