"""Mailchimp as a pure function of its state: a request in, a response out, nothing read or sent.

The clock is handed in; webhooks wait in a queue and batches wait to be run, until somebody (the server, or a test)
says so. With the same seed and the same calls everything comes out the same.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any
from urllib.parse import unquote

from sync.mailchimp.emulator import batches, events
from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.clock import Clock
from sync.mailchimp.emulator.exchange import (
    JSON_TYPE,
    PROBLEM_JSON,
    UNREADABLE,
    Call,
    Request,
    Response,
)
from sync.mailchimp.emulator.faults import FaultAction
from sync.mailchimp.emulator.mischief import timed_out
from sync.mailchimp.emulator.model import Account, Delivery, User
from sync.mailchimp.emulator.problems import (
    Hang,
    Problem,
    forbidden,
    key_invalid,
    key_missing,
    unreadable_json,
    user_disabled,
    wrong_datacenter,
)
from sync.mailchimp.emulator.routes import resolve
from sync.mailchimp.wire import subscriber_hash

DEFAULT_KEY = "0123456789abcdef0123456789abcdef-us1"
DELIVERIES_REMEMBERED = 100_000
DESCRIBED_BY = '<https://us1.api.mailchimp.com/schema/3.0/Definitions/ProblemDetailDocument.json>; rel="describedBy"'


class World:
    """Every account of one emulated Mailchimp. A new one has one account, without audiences."""

    def __init__(self, *, seed: int = 0, clock: Clock | None = None, key: str = DEFAULT_KEY) -> None:
        self.seed = seed
        self.clock = clock or Clock()
        self.base_url = "http://127.0.0.1"
        self.reset(key)

    def reset(self, key: str | None = None) -> None:
        """Start again with one empty account that bears *key* (default: the key it had)."""
        key = key or self.key
        self.rng = Random(self.seed)  # noqa: S311 - the same run twice is the point
        self._ids = Random(self.seed + 1)  # noqa: S311
        self.secret = self._ids.randbytes(16)
        self.accounts: dict[str, Account] = {}
        self.queued: dict[int, Delivery] = {}
        self.deliveries: deque[Delivery] = deque(maxlen=DELIVERIES_REMEMBERED)
        self._numbers = 0
        self.add_account("Demo", key=key)

    @property
    def api_root(self) -> str:
        """The URL of the API itself."""
        return f"{self.base_url}/3.0"

    @property
    def default_account(self) -> Account:
        """The first account."""
        return next(iter(self.accounts.values()))

    @property
    def key(self) -> str:
        """An API key of the first account."""
        return self.default_account.users[0].keys[0]

    def add_account(self, name: str, *, key: str | None = None, account_id: str | None = None) -> Account:
        """Add an account with one user. Its data centre is the key's suffix; no key: one is made."""
        key = key or f"{self.new_id(32)}-us1"
        dc = key.rpartition("-")[2] if "-" in key else ""
        if not dc:
            raise ValueError("An API key ends in its data centre, such as -us1")
        account = Account(account_id or self.new_id(25), name, [User(self.new_id(6), [key])], dc)
        self.accounts[account.id] = account
        return account

    def add_audience(
        self, name: str = "Newsletter", *, list_id: str | None = None, account: Account | None = None
    ) -> Audience:
        """Add an audience with Mailchimp's four starting merge fields. *list_id* is 10 hex; none: one is made."""
        owner = account or self.default_account
        audience = Audience(list_id or self.new_id(), name, self.clock.seconds(), 90_001 + len(owner.audiences))
        audience.add_default_merge_fields()
        owner.audiences[audience.id] = audience
        return audience

    def account(self, account_id: str) -> Account:
        """Return an account. Raises KeyError."""
        return self.accounts[account_id]

    def find_audience(self, list_id: str | None = None) -> tuple[Account, Audience]:
        """Return an audience and whose it is; without an id the first there is. Raises KeyError."""
        for account in self.accounts.values():
            for audience in account.audiences.values():
                if list_id in (None, audience.id):
                    return account, audience
        raise KeyError(f"There is no audience {list_id or 'at all'}")

    def authenticate(self, credential: str | None, method: str = "GET") -> Account:
        """Return the account that a key or token opens. Raises the 401s and 403s of the error catalogue."""
        if not credential:
            raise key_missing()
        for account in self.accounts.values():
            for user in account.users:
                if credential in user.keys or credential in user.tokens:
                    return _admit(account, user, method)
                if any(credential.rpartition("-")[0] == key.rpartition("-")[0] for key in user.keys):
                    raise wrong_datacenter()
        raise key_invalid()

    def handle(self, request: Request) -> Response:
        """Answer one request; never raises for anything a caller may send."""
        account = request.account
        try:
            if account is None:
                raise key_missing()
            if request.body is UNREADABLE:
                raise unreadable_json()
            handler, ids = resolve(request.method, request.path)
            response = handler(Call(self, account, request, ids))
        except Problem as problem:
            return self.refusal(problem, account)
        except Hang:
            return timed_out()
        response.headers = {"Content-Type": JSON_TYPE, **response.headers, **self._tracks()}
        return response

    def refusal(self, what: Problem | Response | None, account: Account | None = None) -> Response:
        """Word a problem as its document, with the request id as ``instance``; a response passes as it is."""
        if isinstance(what, Response):
            what.headers = {**what.headers, "X-Request-Id": self._request_id()}
            return what
        if what is None:
            raise ValueError("nothing to refuse with")
        tracks = self._tracks()
        with_type = account is None or not account.knobs.problem_without_type
        document = what.document(tracks["X-Request-Id"], with_type=with_type)
        return Response(what.status, document, {"Content-Type": PROBLEM_JSON, **what.headers, **tracks})

    def strike(self, request: Request, operation_id: str = "") -> FaultAction | None:
        """Return the first injected fault that strikes this request, and count it."""
        if request.account is None or not request.account.knobs.fault_rules:
            return None
        emails = _addresses(request)
        for rule in request.account.knobs.fault_rules:
            if rule.strikes(request.method, request.path, emails, operation_id, self.rng):
                return rule.action
        return None

    def run_batches(self, *, now_or_never: bool = True, limit: int | None = None) -> bool:
        """Work on every account's batches. *now_or_never*: until all are done, delays or not; else one step.

        Returns True if anything moved. Stuck batches stay stuck.
        """
        moved = False
        for account in self.accounts.values():
            while batches.work(self, account, now_or_never=now_or_never, limit=limit):
                moved = True
                if not now_or_never:
                    break
        return moved

    def download(self, name: str, token: str) -> tuple[int, bytes]:
        """Return (status, bytes) behind a batch's ``response_body_url``."""
        return batches.download(self, name, token)

    def enqueue(self, delivery: Delivery) -> None:
        """Let a webhook delivery wait to be sent."""
        self._numbers = max(self._numbers, delivery.id)
        self.queued[delivery.id] = delivery
        self.deliveries.append(delivery)

    def adopt(self, other: World) -> None:
        """Take over everything that *other* holds, and its time; *other* is not to be used any more."""
        self.accounts, self.clock = other.accounts, other.clock
        self.queued, self.deliveries = other.queued, other.deliveries
        self._numbers = max(self._numbers, other._numbers)

    def due_deliveries(self, *, everything: bool = False) -> list[Delivery]:
        """Return webhook deliveries to be sent now; with *everything* those waiting for a retry as well."""
        return events.due(self, everything=everything)

    def settle_delivery(self, delivery: Delivery, status: int) -> None:
        """Take note that a delivery was answered with *status* (0: not at all)."""
        events.settle(self, delivery, status)

    def turn_knobs(self, values: Mapping[str, Any], account: Account | None = None) -> None:
        """Turn knobs of an account (default: of every account) and of the clock. Raises ValueError naming the knob."""
        own = {name: value for name, value in values.items() if not name.startswith("clock_")}
        for one in [account] if account else list(self.accounts.values()):
            one.knobs.turn(own)
        for name in values.keys() - own.keys():
            self._turn_clock(name, values[name])

    def new_id(self, digits: int = 10) -> str:
        """Return so many random hex digits."""
        return f"{self._ids.getrandbits(digits * 4):0{digits}x}"

    def next_number(self) -> int:
        """Return 1, 2, 3 and so on."""
        self._numbers += 1
        return self._numbers

    def _turn_clock(self, name: str, value: Any) -> None:
        if name == "clock_skew_s":
            self.clock.skew = float(value)
        elif name == "clock_freeze":
            self.clock.freeze(bool(value))
        elif name == "clock_rate":
            self.clock.run_at(float(value))
        else:
            raise ValueError(f"There is no knob {name!r}")

    def _tracks(self) -> dict[str, str]:
        return {"X-Request-Id": self._request_id(), "Link": DESCRIBED_BY}

    def _request_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))


def _admit(account: Account, user: User, method: str) -> Account:
    if user.disabled:
        raise user_disabled()
    if user.role == "viewer" and method != "GET":
        raise forbidden()
    return account


def _addresses(request: Request) -> set[str]:
    """Return what a fault rule's address may be found by: the address in the body, and whose hash is in the path."""
    found = set()
    body = request.body
    if isinstance(body, dict) and isinstance(body.get("email_address"), str):
        found.add(body["email_address"].lower())
    steps = [unquote(step) for step in request.path.strip("/").split("/")]
    if len(steps) > 3 and steps[2] == "members" and request.account is not None:
        audience = request.account.audiences.get(steps[1])
        member = audience.members.find(steps[3]) if audience else None
        if member is not None:
            found.add(member.email.lower())
        found |= {rule.email.lower() for rule in request.account.knobs.fault_rules if _is_hash_of(steps[3], rule.email)}
    return found


def _is_hash_of(step: str, email: str) -> bool:
    return bool(email) and step == subscriber_hash(email)
