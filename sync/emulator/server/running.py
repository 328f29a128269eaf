"""Run an emulator inside a program: `running_emulator` for the length of a block, `serve` until cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from aiohttp import web

from sync.emulator.model.audience import EmulatedAudience
from sync.emulator.model.faults import FaultRule
from sync.emulator.model.records import EmulatedAccount, Member
from sync.emulator.rules import actions
from sync.emulator.server.control import add_control
from sync.emulator.server.gateway import Gateway, LoggedRequest
from sync.emulator.server.http import Server
from sync.emulator.world import World


class Emulator:
    """A running emulator: its URL, and control of everything it does."""

    def __init__(self, gateway: Gateway, root_url: str) -> None:
        self.world = gateway.world
        self.gateway = gateway
        self.root_url = root_url
        self.base_url = f"{root_url}/3.0"

    @property
    def key(self) -> str:
        """An API key of the first account."""
        return self.world.key

    @property
    def requests(self) -> list[LoggedRequest]:
        """The API requests so far, oldest first."""
        return list(self.gateway.requests)

    @property
    def highest_concurrency(self) -> int:
        """The most requests of one account ever handled at once."""
        return max(self.gateway.highest_concurrency.values(), default=0)

    def clear_requests(self) -> None:
        """Clear the requests so far, and the highest concurrency."""
        self.gateway.clear_requests()

    def advance(self, seconds: float) -> None:
        """Advance the emulator's clock, and run what is due then."""
        self.world.clock.advance(seconds)
        self.gateway.worker.wake()

    def set_clock(self, instant: datetime, *, freeze: bool = True) -> None:
        """Set the emulator's clock to *instant* (aware) and stop it there, unless *freeze* is false."""
        self.world.clock.freeze(freeze)
        self.world.clock.set(instant.timestamp())
        self.gateway.worker.wake()

    def configure(self, account: EmulatedAccount | None = None, **options: Any) -> None:
        """Set options of an account (default: of all) and of the clock. Raises ValueError naming the option."""
        self.world.configure(options, account)
        self.gateway.worker.wake()

    def add_fault(self, action: str, *, account: EmulatedAccount | None = None, **match: Any) -> FaultRule:
        """Inject a fault into matching requests; see `FaultRule`. Returns the rule, whose `struck` counts them."""
        rule = FaultRule.from_json({"action": action, **match})
        (account or self.world.default_account).options.fault_rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        """Remove every fault rule."""
        for account in self.world.accounts.values():
            account.options.fault_rules.clear()

    def person(self, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
        """Act as a person; see `actions.PERSON`."""
        try:
            return actions.person(self.world, action, email, list_id, **more)
        finally:
            self.gateway.worker.wake()

    def admin(self, action: str, email: str, list_id: str | None = None, **more: Any) -> Member | None:
        """Act as an admin; see `actions.ADMIN_ACTIONS`."""
        try:
            return actions.admin(self.world, action, email, list_id, **more)
        finally:
            self.gateway.worker.wake()

    def audience(self, list_id: str | None = None) -> EmulatedAudience:
        """Return an audience, by default the first. Raises KeyError."""
        return self.world.find_audience(list_id)[1]

    def member(self, email: str, list_id: str | None = None) -> Member | None:
        """Return a member with its hidden facts, None if absent."""
        return self.audience(list_id).members.find_address(email)

    def run_batches(self) -> bool:
        """Finish every batch now, without delays; True if anything changed."""
        return self.world.run_batches()

    async def deliver_webhooks(self) -> int:
        """Send every queued webhook, retries included; returns how many were sent."""
        return await self.gateway.worker.deliver()

    async def run_until_idle(self) -> None:
        """Finish batches and send webhooks until nothing new is left."""
        await self.gateway.worker.run_until_idle()


@contextlib.asynccontextmanager
async def running_emulator(
    world: World | None = None, *, host: str = "127.0.0.1", port: int = 0, control: bool = False, **options: Any
) -> AsyncIterator[Emulator]:
    """Run an emulator of *world* (default: one account, one audience, no members) while the block lasts.

    *port* 0 takes a free one; *control* opens ``/_emulator/``. *options* are set for every account first.
    Raises OSError when the port is taken, ValueError for an unknown option.
    """
    if world is None:
        world = World()
        world.add_audience()
    world.configure(options)
    gateway = Gateway(world)
    server = Server(gateway)
    app = server.application()
    if control:
        add_control(app, gateway)
    server.add_api(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        world.base_url = _url(runner, host)
        yield Emulator(gateway, world.base_url)
    finally:
        await runner.cleanup()


async def serve(
    world: World, *, host: str = "127.0.0.1", port: int = 8011, control: bool = False, announce: bool = True
) -> None:
    """Run an emulator of *world* until cancelled, or until SIGINT or SIGTERM.

    *announce* prints its URL, key and audiences. Raises OSError when the port is taken.
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
