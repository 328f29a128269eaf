"""Mailchimp as a pure function of its state: a request in, a response out, no I/O.

The clock is passed in. Webhooks and batches wait in queues until the caller (the server, or a test) runs them.
"""

from __future__ import annotations

from urllib.parse import unquote

from sync.emulator.endpoints.routes import resolve
from sync.emulator.model.faults import FaultAction
from sync.emulator.model.records import Delivery, EmulatedAccount, User
from sync.emulator.model.state import EmulatorState
from sync.emulator.protocol.exchange import JSON_TYPE, PROBLEM_JSON, UNREADABLE, ApiCall, Request, Response
from sync.emulator.protocol.fault_responses import instead, timed_out
from sync.emulator.protocol.problems import (
    Hang,
    Problem,
    forbidden,
    key_invalid,
    key_missing,
    unreadable_json,
    user_disabled,
    wrong_datacenter,
)
from sync.emulator.rules import batch_results, webhook_events
from sync.emulator.rules.batch_runner import BatchRunner
from sync.mailchimp.wire import subscriber_hash

DESCRIBED_BY = '<https://us1.api.mailchimp.com/schema/3.0/Definitions/ProblemDetailDocument.json>; rel="describedBy"'


class World(EmulatorState):
    """The state with the API on it."""

    def authenticate(self, credential: str | None, method: str = "GET") -> EmulatedAccount:
        """Return the account of a key or token. Raises the 401s and 403s of the error catalogue."""
        if not credential:
            raise key_missing()
        for account in self.accounts.values():
            for user in account.users:
                if credential in user.keys or credential in user.tokens:
                    _authorize(user, method)
                    return account
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
            response = handler(ApiCall(self, account, request, ids))
        except Problem as problem:
            return self.refusal(problem, account)
        except Hang:
            return timed_out()
        response.headers = {"Content-Type": JSON_TYPE, **response.headers, **self._tracking_headers()}
        return response

    def refusal(self, reason: Problem | Response, account: EmulatedAccount | None = None) -> Response:
        """Render a problem as its document, with the request id as ``instance``; a response only gets the id."""
        if isinstance(reason, Response):
            reason.headers = {**reason.headers, "X-Request-Id": self.new_uuid()}
            return reason
        headers = self._tracking_headers()
        with_type = account is None or not account.options.problem_without_type
        document = reason.document(headers["X-Request-Id"], with_type=with_type)
        return Response(reason.status, document, {"Content-Type": PROBLEM_JSON, **reason.headers, **headers})

    def match_fault(self, request: Request, operation_id: str = "") -> FaultAction | None:
        """Return the first injected fault that matches this request, and count it."""
        if request.account is None or not request.account.options.fault_rules:
            return None
        emails = _addresses(request)
        for rule in request.account.options.fault_rules:
            if rule.fires(request.method, request.path, emails, operation_id, self.rng):
                return rule.action
        return None

    def execute(self, request: Request, operation_id: str) -> Response | None:
        """Carry out one batch operation; None when a fault loses its result."""
        fault = self.match_fault(request, operation_id)
        if fault is FaultAction.RESET_BEFORE:
            return None
        refused = instead(fault) if fault else None
        response = self.handle(request) if refused is None else self.refusal(refused, request.account)
        return None if fault is FaultAction.RESET_AFTER else response

    def work_batches(self, account: EmulatedAccount, *, ignore_delays: bool = False, limit: int | None = None) -> bool:
        """Advance an account's batches by one step, of at most *limit* operations; True if anything changed."""
        return BatchRunner(self, account, self.execute, ignore_delays).work(limit)

    def run_batches(self, *, ignore_delays: bool = True) -> bool:
        """Advance every account's batches: to the end, or one step with its delays. True if anything changed.

        Stuck batches stay stuck.
        """
        changed = False
        for account in self.accounts.values():
            while self.work_batches(account, ignore_delays=ignore_delays):
                changed = True
                if not ignore_delays:
                    break
        return changed

    def download(self, name: str, token: str) -> tuple[int, bytes]:
        """Return (status, bytes) for a batch's ``response_body_url``."""
        return batch_results.download(self, name, token)

    def due_deliveries(self, *, everything: bool = False) -> list[Delivery]:
        """Return the webhook deliveries to send now; with *everything*, those waiting for a retry as well."""
        return webhook_events.due(self, everything=everything)

    def record_delivery(self, delivery: Delivery, status: int) -> None:
        """Record the HTTP status a delivery was answered with (0: no answer)."""
        webhook_events.settle(self, delivery, status)

    def _tracking_headers(self) -> dict[str, str]:
        return {"X-Request-Id": self.new_uuid(), "Link": DESCRIBED_BY}


def _authorize(user: User, method: str) -> None:
    if user.disabled:
        raise user_disabled()
    if user.role == "viewer" and method != "GET":
        raise forbidden()


def _addresses(request: Request) -> set[str]:
    """Return the addresses a fault rule may match: the one in the body, and those whose hash is in the path."""
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
        rules = request.account.options.fault_rules
        found |= {rule.email.lower() for rule in rules if rule.email and steps[3] == subscriber_hash(rule.email)}
    return found
