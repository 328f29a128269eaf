"""What injected faults answer. Those that break the connection are up to the server."""

from __future__ import annotations

from collections.abc import Callable

from sync.emulator.model.faults import FaultAction
from sync.emulator.protocol import problems
from sync.emulator.protocol.exchange import Response
from sync.emulator.protocol.problems import Problem

HTML = "text/html; charset=UTF-8"
PLAIN = "text/plain; charset=UTF-8"
FORBIDDEN_PAGE = "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"
BAD_GATEWAY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
TIMEOUT_PAGE = "<html><head><title>504 Gateway Time-out</title></head><body><h1>504 Gateway Time-out</h1></body></html>"
BLOCK_PAGE = "This request has been blocked. Reference number: 18.2f7a1502.1767952800.1c9a"
MAINTENANCE_PAGE = "<html><body><h1>We'll be right back</h1></body></html>"


def page(status: int, text: str, kind: str = HTML) -> Response:
    """Return an answer that is not JSON."""
    return Response(status, text, {"Content-Type": kind})


INSTEAD: dict[FaultAction, Callable[[], Problem | Response]] = {
    FaultAction.TOO_MANY_JSON: problems.too_many_requests,
    FaultAction.TOO_MANY_BARE: lambda: page(429, "", PLAIN),
    FaultAction.FORBIDDEN_HTML: lambda: page(403, FORBIDDEN_PAGE),
    FaultAction.USER_DISABLED: problems.user_disabled,
    FaultAction.SERVER_ERROR: problems.server_error,
    FaultAction.BAD_GATEWAY: lambda: page(502, BAD_GATEWAY_PAGE),
    FaultAction.BLOCK_PAGE: lambda: page(503, BLOCK_PAGE, PLAIN),
    FaultAction.OK_HTML: lambda: page(200, MAINTENANCE_PAGE),
    FaultAction.HANG: lambda: timed_out(),
}


def instead(action: FaultAction) -> Problem | Response | None:
    """Return the answer that replaces handling the request; None for the other faults."""
    maker = INSTEAD.get(action)
    return maker() if maker else None


def timed_out() -> Response:
    """Return the gateway's page for a request past the time limit."""
    answer = page(504, TIMEOUT_PAGE)
    answer.hangs = True
    return answer
