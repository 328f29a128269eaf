"""The control prefix ``/_emulator/``: seed, look inside, turn knobs, move the clock, act as a person or an admin.

Closed unless it was asked for at start. It is not part of Mailchimp's API, has no credentials, and answers JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from sync.mailchimp.emulator import actions
from sync.mailchimp.emulator.batches import show
from sync.mailchimp.emulator.clock import to_wire
from sync.mailchimp.emulator.faults import FaultRule
from sync.mailchimp.emulator.generate import Shares, generate
from sync.mailchimp.emulator.model import Account, Json
from sync.mailchimp.emulator.problems import Problem
from sync.mailchimp.emulator.seeding import BadRecord, Seeder, member_record, restore, snapshot
from sync.mailchimp.emulator.selection import page_of
from sync.mailchimp.emulator.server import Server

PREFIX = "/_emulator"
MAX_BAD_SHOWN = 100
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_control(app: web.Application, server: Server) -> None:
    """Open the control prefix on *app*."""
    control = Control(server)
    for method, path, handler in control.routes():
        app.router.add_route(method, PREFIX + path, _guarded(handler))


def _guarded(handler: Answer) -> Answer:
    """Answer what a caller got wrong as 400 with the reason."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return _json({"error": str(problem)}, 400)
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{error.args[0]} is missing or unknown" if isinstance(error, KeyError) else str(error)
            return _json({"error": reason}, 400)

    return answer


class Control:
    """The handlers, over one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._world = server.world

    def routes(self) -> Iterable[tuple[str, str, Answer]]:
        """Return (method, path, handler) for every control call."""
        return (
            ("POST", "/seed", self.seed),
            ("POST", "/generate", self.generate),
            ("POST", "/reset", self.reset),
            ("GET", "/state", self.read_state),
            ("PUT", "/state", self.write_state),
            ("GET", "/members", self.members),
            ("GET", "/requests", self.requests),
            ("DELETE", "/requests", self.clear_requests),
            ("GET", "/batches", self.batches),
            ("GET", "/webhook-deliveries", self.deliveries),
            ("GET", "/metrics", self.metrics),
            ("GET", "/knobs", self.read_knobs),
            ("PUT", "/knobs", self.turn_knobs),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("GET", "/clock", self.read_clock),
            ("POST", "/clock", self.move_clock),
            ("POST", "/run", self.run),
            ("POST", "/actions/person", self.person),
            ("POST", "/actions/admin", self.admin),
        )

    async def seed(self, request: web.Request) -> web.Response:
        """Take in JSON lines as they arrive; bad ones are listed and left out."""
        seeder, bad, line_number = Seeder(self._world), [], 0
        async for line in request.content:
            line_number += 1
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
                seeder.take(record if isinstance(record, dict) else {})
            except (orjson.JSONDecodeError, BadRecord) as error:
                bad.append({"line": line_number, "reason": str(error)})
        return _json({"taken": seeder.taken, "bad_count": len(bad), "bad": bad[:MAX_BAD_SHOWN]})

    async def generate(self, request: web.Request) -> web.Response:
        """Add generated members: ``list``, ``members``, ``seed``, and ``shares`` per thousand."""
        body = await _body(request)
        audience = self._world.find_audience(body.get("list"))[1]
        shares = replace(Shares(), **body.get("shares", {}))
        generate(
            audience, int(body["members"]), now=self._world.clock.seconds(), seed=body.get("seed", 0), shares=shares
        )
        return _json({"members": len(audience.members)})

    async def reset(self, request: web.Request) -> web.Response:
        """Start again with one empty account under the same key."""
        self._world.reset()
        self._server.requests.clear()
        self._server.highest_concurrency.clear()
        return _json({"key": self._world.key})

    async def read_state(self, request: web.Request) -> web.Response:
        """Answer the whole world as one snapshot."""
        return _json(snapshot(self._world))

    async def write_state(self, request: web.Request) -> web.Response:
        """Make the world what the snapshot sent says."""
        return _json({"taken": restore(self._world, await _body(request))})

    async def members(self, request: web.Request) -> web.Response:
        """Answer members of ``list`` with hidden facts; ``email`` picks one, ``count`` and ``offset`` page."""
        audience = self._world.find_audience(request.query.get("list"))[1]
        if email := request.query.get("email"):
            found = audience.members.find_address(email)
            return _json({"members": [member_record(audience, found, moved=True)] if found else []})
        count, offset = page_of(request.query)
        rows = [row for row in audience.members.rows if row is not None][offset : offset + count]
        shown = [member_record(audience, row, moved=True) for row in rows]
        return _json({"members": shown, "total_items": len(audience.members)})

    async def requests(self, request: web.Request) -> web.Response:
        """Answer the request log; ``method``, ``status``, ``path`` (a part of it) and ``account`` filter."""
        wanted = request.query
        rows = [
            entry
            for entry in self._server.requests
            if entry.method == wanted.get("method", entry.method)
            and str(entry.status) == wanted.get("status", str(entry.status))
            and entry.account == wanted.get("account", entry.account)
            and wanted.get("path", "") in entry.path
        ]
        highest = dict(self._server.highest_concurrency)
        return _json({"requests": [asdict(row) for row in rows], "highest_concurrency": highest})

    async def clear_requests(self, request: web.Request) -> web.Response:
        """Forget the request log and the highest concurrency."""
        self._server.requests.clear()
        self._server.highest_concurrency.clear()
        return _json({})

    async def batches(self, request: web.Request) -> web.Response:
        """Answer every batch with how many operations are left."""
        rows = [
            show(self._world, batch) | {"account": account.id, "left": len(batch.todo)}
            for account in self._world.accounts.values()
            for batch in account.batches.values()
        ]
        return _json({"batches": rows})

    async def deliveries(self, request: web.Request) -> web.Response:
        """Answer every webhook delivery, sent or not."""
        return _json({"deliveries": [asdict(one) for one in self._world.deliveries]})

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer counts in Prometheus' text form."""
        lines = [f'emulator_requests_total{{status="{code}"}} {n}' for code, n in sorted(self._server.answered.items())]
        for account in self._world.accounts.values():
            mark = f'{{account="{account.id}"}}'
            lines.append(f"emulator_highest_concurrency{mark} {self._server.highest_concurrency[account.id]}")
            lines.append(f"emulator_members{mark} {sum(len(one.members) for one in account.audiences.values())}")
            waiting = sum(batch.status != "finished" for batch in account.batches.values())
            lines.append(f"emulator_unfinished_batches{mark} {waiting}")
        lines.append(f"emulator_queued_webhooks {len(self._world.queued)}")
        return web.Response(text="\n".join(lines) + "\n")

    async def read_knobs(self, request: web.Request) -> web.Response:
        """Answer the knobs of ``account`` (default: the first)."""
        return _json(self._account(request.query.get("account")).knobs.as_json())

    async def turn_knobs(self, request: web.Request) -> web.Response:
        """Turn knobs of ``?account=`` (default: all)."""
        named = request.query.get("account")
        self._world.turn_knobs(await _body(request), self._world.account(named) if named else None)
        self._server.courier.poke()
        return _json(self._account(named).knobs.as_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        """Add a fault rule to ``?account=`` (default: the first)."""
        rule = FaultRule.from_json(await _body(request))
        self._account(request.query.get("account")).knobs.fault_rules.append(rule)
        return _json(asdict(rule))

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Take every fault rule away."""
        for account in self._world.accounts.values():
            account.knobs.fault_rules.clear()
        return _json({})

    async def read_clock(self, request: web.Request) -> web.Response:
        """Answer the emulator's time."""
        clock = self._world.clock
        return _json({"now": to_wire(clock.now()), "frozen": clock.is_frozen, "rate": clock.rate, "skew": clock.skew})

    async def move_clock(self, request: web.Request) -> web.Response:
        """``set`` (ISO 8601 with zone), ``advance`` (seconds), ``freeze``, ``rate``, ``skew``; in this order."""
        body, clock = await _body(request), self._world.clock
        if "set" in body:
            clock.set(datetime.fromisoformat(body["set"]).timestamp())
        if "advance" in body:
            clock.advance(float(body["advance"]))
        knobs = {"clock_freeze": "freeze", "clock_rate": "rate", "clock_skew_s": "skew"}
        for account in list(self._world.accounts.values())[:1]:
            self._world.turn_knobs({knob: body[name] for knob, name in knobs.items() if name in body}, account)
        self._server.courier.poke()
        return await self.read_clock(request)

    async def run(self, request: web.Request) -> web.Response:
        """Let queued batches and hooks finish now."""
        await self._server.courier.settle()
        return _json({"queued_webhooks": len(self._world.queued)})

    async def person(self, request: web.Request) -> web.Response:
        """Act as a person: ``action``, ``email``, ``list``, and what the action takes."""
        return self._acted(actions.person, await _body(request))

    async def admin(self, request: web.Request) -> web.Response:
        """Act as an admin, likewise."""
        return self._acted(actions.admin, await _body(request))

    def _acted(self, act: Callable[..., Any], body: Json) -> web.Response:
        action, email, list_id = body.pop("action"), body.pop("email"), body.pop("list", None)
        member = act(self._world, action, email, list_id, **body)
        self._server.courier.poke()
        audience = self._world.find_audience(list_id)[1]
        return _json({"member": member_record(audience, member, moved=True) if member else None})

    def _account(self, named: str | None) -> Account:
        return self._world.account(named) if named else self._world.default_account


async def _body(request: web.Request) -> Json:
    body = orjson.loads(await request.read())
    if not isinstance(body, dict):
        raise TypeError("send a JSON object")
    return body


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
