"""Starting an emulator inside a program: for tests, demos and rehearsals.

`running_emulator` gives an `Emulator` on a free port and takes it down again; `serve` runs one until cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from aiohttp import web

from sync.mailchimp.emulator import actions
from sync.mailchimp.emulator.audience import Audience
from sync.mailchimp.emulator.control import add_control
from sync.mailchimp.emulator.faults import FaultRule
from sync.mailchimp.emulator.model import Account, Member
from sync.mailchimp.emulator.server import LoggedRequest, Server
from sync.mailchimp.emulator.world import World


class Emulator:
    """A running emulator: where it answers, and a hand on everything it does."""

    def __init__(self, world: World, server: Server, root_url: str) -> None:
        self.world = world
        self.server = server
        self.root_url = root_url
        self.base_url = f"{root_url}/3.0"

    @property
    def key(self) -> str:
        """An API key of the first account."""
        return self.world.key

    @property
    def requests(self) -> list[LoggedRequest]:
        """Every API request so far, oldest first."""
        return list(self.server.requests)

    @property
    def highest_concurrency(self) -> int:
        """The most requests of one account ever handled at once."""
        return max(self.server.highest_concurrency.values(), default=0)

    def clear_requests(self) -> None:
        """Forget the requests so far, and the highest concurrency."""
        self.server.requests.clear()
        self.server.highest_concurrency.clear()

    def advance(self, seconds: float) -> None:
        """Move the emulator's clock on, and let what then is due happen."""
        self.world.clock.advance(seconds)
        self.server.courier.poke()

    def set_clock(self, instant: datetime, *, freeze: bool = True) -> None:
        """Set the emulator's clock to *instant* (aware) and stop it there, unless told otherwise."""
        self.world.clock.freeze(freeze)
        self.world.clock.set(instant.timestamp())
        self.server.courier.poke()

    def turn(self, account: Account | None = None, **knobs: Any) -> None:
        """Turn knobs of an account (default: of all) and of the clock. Raises ValueError naming the knob."""
        self.world.turn_knobs(knobs, account)
        self.server.courier.poke()

    def add_fault(self, action: str, *, account: Account | None = None, **match: Any) -> FaultRule:
        """Let *action* strike matching requests; see `FaultRule`. Returns the rule, whose `struck` counts."""
        rule = FaultRule.from_json({"action": action, **match})
        (account or self.world.default_account).knobs.fault_rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        """Let nothing strike any more."""
        for account in self.world.accounts.values():
            account.knobs.fault_rules.clear()

    def person(self, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
        """Let a person do something; see `actions.PERSON`."""
        try:
            return actions.person(self.world, action, email, list_id, **more)
        finally:
            self.server.courier.poke()

    def admin(self, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
        """Let an admin do something; see `actions.ADMIN_ACTIONS`."""
        try:
            return actions.admin(self.world, action, email, list_id, **more)
        finally:
            self.server.courier.poke()

    def audience(self, list_id: str | None = None) -> Audience:
        """Return an audience, by default the first. Raises KeyError."""
        return self.world.find_audience(list_id)[1]

    def member(self, email: str, list_id: str | None = None) -> Member | None:
        """Return a member with hidden facts and all, None if absent."""
        return self.audience(list_id).members.find_address(email)

    def run_batches(self) -> bool:
        """Finish every batch now, delays or not; True if there was anything to do."""
        return self.world.run_batches()

    async def deliver_webhooks(self) -> int:
        """Send everything that is queued, retries before their time too; returns how many were sent."""
        return await self.server.courier.deliver()

    async def settle(self) -> None:
        """Finish batches and send webhooks until nothing fresh is left."""
        await self.server.courier.settle()


@contextlib.asynccontextmanager
async def running_emulator(
    world: World | None = None, *, host: str = "127.0.0.1", port: int = 0, control: bool = False, **knobs: Any
) -> AsyncIterator[Emulator]:
    """Run an emulator of *world* (default: one account, one audience, no members) while the block lasts.

    *port* 0 takes a free one; *control* opens ``/_emulator/``. *knobs* are turned for every account before it starts.
    Raises OSError when the port is taken, ValueError for an unknown knob.
    """
    if world is None:
        world = World()
        world.add_audience()
    world.turn_knobs(knobs)
    server = Server(world)
    app = server.application()
    if control:
        add_control(app, server)
    server.serve_api(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        world.base_url = _url(runner, host)
        yield Emulator(world, server, world.base_url)
    finally:
        await runner.cleanup()


async def serve(
    world: World, *, host: str = "127.0.0.1", port: int = 8011, control: bool = False, announce: bool = True
) -> None:
    """Run an emulator of *world* until cancelled or told to stop by SIGINT or SIGTERM.

    *announce* prints where it answers, its key and its audiences. Raises OSError when the port is taken.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, RuntimeError):
            loop.add_signal_handler(signum, stop.set)
    async with running_emulator(world, host=host, port=port, control=control) as emulator:
        if announce:
            print("\n".join(greeting(emulator, control=control)), flush=True)
        await stop.wait()


def greeting(emulator: Emulator, *, control: bool = False) -> list[str]:
    """Return the lines printed at start: URL, keys, audiences."""
    lines = [f"Mailchimp emulator at {emulator.base_url}"]
    for account in emulator.world.accounts.values():
        lines.append(f"Account {account.name}: key {account.users[0].keys[0]}")
        lines += [f"  audience {one.id} {one.name}: {len(one.members)} members" for one in account.audiences.values()]
    return lines + [f"Control at {emulator.root_url}/_emulator/"] * control


def _url(runner: web.AppRunner, host: str) -> str:
    port = runner.addresses[0][1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
