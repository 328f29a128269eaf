"""The control API under ``/_emulator/``: seed, inspect, set options and the clock, act as a person or an admin.

Off unless enabled at start. It is not part of Mailchimp's API, needs no credentials, and answers JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from sync.emulator.data.generate import Shares, generate
from sync.emulator.data.seeding import BadRecord, Seeder, member_record, restore, snapshot
from sync.emulator.endpoints.batches import show
from sync.emulator.model.clock import to_wire
from sync.emulator.model.faults import FaultRule
from sync.emulator.model.records import EmulatedAccount, Json
from sync.emulator.protocol.problems import Problem
from sync.emulator.protocol.selection import page_of
from sync.emulator.rules import actions, campaigns
from sync.emulator.server.gateway import Gateway

PREFIX = "/_emulator"
MAX_BAD_SHOWN = 100
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add_control(app: web.Application, gateway: Gateway) -> None:
    """Add the control API to *app*."""
    control = Control(gateway)
    for method, path, handler in control.routes():
        app.router.add_route(method, PREFIX + path, _guarded(handler))


def _guarded(handler: Answer) -> Answer:
    """Answer a caller's error as 400 with the reason."""

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
    """The handlers, over one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._world = gateway.world

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
            ("GET", "/knobs", self.read_options),
            ("PUT", "/knobs", self.write_options),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("GET", "/clock", self.read_clock),
            ("POST", "/clock", self.move_clock),
            ("POST", "/run", self.run),
            ("POST", "/actions/person", self.person),
            ("POST", "/actions/admin", self.admin),
            ("POST", "/campaigns", self.send_campaign),
            ("POST", "/campaigns/{campaign}/open", self.open_campaign),
            ("POST", "/campaigns/{campaign}/click", self.click_campaign),
        )

    async def seed(self, request: web.Request) -> web.Response:
        """Load JSON lines as they arrive; bad ones are listed and left out."""
        seeder, bad, line_number = Seeder(self._world), [], 0
        async for line in request.content:
            line_number += 1
            if not line.strip():
                continue
            try:
                record = orjson.loads(line)
                seeder.add(record if isinstance(record, dict) else {})
            except (orjson.JSONDecodeError, BadRecord) as error:
                bad.append({"line": line_number, "reason": str(error)})
        return _json({"taken": seeder.added, "bad_count": len(bad), "bad": bad[:MAX_BAD_SHOWN]})

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
        self._gateway.clear_requests()
        return _json({"key": self._world.key})

    async def read_state(self, request: web.Request) -> web.Response:
        """Answer a snapshot of the world."""
        return _json(snapshot(self._world))

    async def write_state(self, request: web.Request) -> web.Response:
        """Restore the world from a snapshot."""
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
            for entry in self._gateway.requests
            if entry.method == wanted.get("method", entry.method)
            and str(entry.status) == wanted.get("status", str(entry.status))
            and entry.account == wanted.get("account", entry.account)
            and wanted.get("path", "") in entry.path
        ]
        highest = dict(self._gateway.highest_concurrency)
        return _json({"requests": [asdict(row) for row in rows], "highest_concurrency": highest})

    async def clear_requests(self, request: web.Request) -> web.Response:
        """Clear the request log and the highest concurrency."""
        self._gateway.clear_requests()
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
        lines = [
            f'emulator_requests_total{{status="{code}"}} {n}' for code, n in sorted(self._gateway.answered.items())
        ]
        for account in self._world.accounts.values():
            mark = f'{{account="{account.id}"}}'
            lines.append(f"emulator_highest_concurrency{mark} {self._gateway.highest_concurrency[account.id]}")
            lines.append(f"emulator_members{mark} {sum(len(one.members) for one in account.audiences.values())}")
            waiting = sum(batch.status != "finished" for batch in account.batches.values())
            lines.append(f"emulator_unfinished_batches{mark} {waiting}")
        lines.append(f"emulator_queued_webhooks {len(self._world.queued)}")
        return web.Response(text="\n".join(lines) + "\n")

    async def read_options(self, request: web.Request) -> web.Response:
        """Answer the options of ``account`` (default: the first)."""
        return _json(self._account(request.query.get("account")).options.as_json())

    async def write_options(self, request: web.Request) -> web.Response:
        """Set options of ``?account=`` (default: all)."""
        named = request.query.get("account")
        self._world.configure(await _body(request), self._world.account(named) if named else None)
        self._gateway.worker.wake()
        return _json(self._account(named).options.as_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        """Add a fault rule to ``?account=`` (default: the first)."""
        rule = FaultRule.from_json(await _body(request))
        self._account(request.query.get("account")).options.fault_rules.append(rule)
        return _json(asdict(rule))

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Remove every fault rule."""
        for account in self._world.accounts.values():
            account.options.fault_rules.clear()
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
        options = {"clock_freeze": "freeze", "clock_rate": "rate", "clock_skew_s": "skew"}
        for account in list(self._world.accounts.values())[:1]:
            self._world.configure({option: body[name] for option, name in options.items() if name in body}, account)
        self._gateway.worker.wake()
        return await self.read_clock(request)

    async def run(self, request: web.Request) -> web.Response:
        """Run batches and send webhooks until nothing new is left."""
        await self._gateway.worker.run_until_idle()
        return _json({"queued_webhooks": len(self._world.queued)})

    async def person(self, request: web.Request) -> web.Response:
        """Act as a person: ``action``, ``email``, ``list``, and what the action takes."""
        return self._act(actions.person, await _body(request))

    async def admin(self, request: web.Request) -> web.Response:
        """Act as an admin, with the same keys."""
        return self._act(actions.admin, await _body(request))

    async def send_campaign(self, request: web.Request) -> web.Response:
        """Send a campaign: ``subject``, ``list``, and optionally ``title``, ``links`` and ``only`` (addresses)."""
        body = await _body(request)
        options = {name: body[name] for name in ("title", "links", "only", "status") if name in body}
        sent = campaigns.send(self._world, body["subject"], body.get("list"), **options)
        return _json({"id": sent.id, "recipients": len(sent.recipients)})

    async def open_campaign(self, request: web.Request) -> web.Response:
        """Open a campaign as its recipient ``email``."""
        campaigns.open_mail(self._world, request.match_info["campaign"], (await _body(request))["email"])
        return _json({})

    async def click_campaign(self, request: web.Request) -> web.Response:
        """Click the link ``url`` of a campaign as its recipient ``email``."""
        body = await _body(request)
        campaigns.click(self._world, request.match_info["campaign"], body["email"], body["url"])
        return _json({})

    def _act(self, act: Callable[..., Any], body: Json) -> web.Response:
        action, email, list_id = body.pop("action"), body.pop("email"), body.pop("list", None)
        member = act(self._world, action, email, list_id, **body)
        self._gateway.worker.wake()
        audience = self._world.find_audience(list_id)[1]
        return _json({"member": member_record(audience, member, moved=True) if member else None})

    def _account(self, named: str | None) -> EmulatedAccount:
        return self._world.account(named) if named else self._world.default_account


async def _body(request: web.Request) -> Json:
    body = orjson.loads(await request.read())
    if not isinstance(body, dict):
        raise TypeError("send a JSON object")
    return body


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
