"""What a running emulator does by itself: works through batches, sends webhooks, checks a hook's URL.

Turn `auto_batches` or `auto_webhooks` off and it waits to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from sync.mailchimp.emulator import batches
from sync.mailchimp.emulator.events import signature
from sync.mailchimp.emulator.model import Delivery
from sync.mailchimp.emulator.world import World

OPERATIONS_AT_A_TIME = 50
TICK = 0.05
"""Seconds between looks at the clock while something waits for it."""
AGENT = {"User-Agent": "MailChimp"}


class Courier:
    """Runs beside the server while it is up."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._wake = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Work until the block ends; what is being sent is then cut off."""
        async with aiohttp.ClientSession(headers=AGENT, connector=aiohttp.TCPConnector(limit=20)) as session:
            self._session = session
            worker = asyncio.create_task(self._work())
            try:
                yield
            finally:
                tasks = [worker, *self._sending]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._session = None

    def poke(self) -> None:
        """Look for work now: something was asked, or the clock was moved."""
        self._wake.set()

    async def answers_get(self, url: str) -> bool:
        """Tell whether *url* answers a GET with a 2xx within the webhook time limit."""
        if self._session is None:
            return False
        limit = aiohttp.ClientTimeout(total=self.world.default_account.knobs.webhook_timeout_s)
        try:
            async with self._session.get(url, timeout=limit) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def deliver(self, *, everything: bool = True) -> int:
        """Send what is due (or all that is queued) and wait until it was answered; returns how many were sent."""
        return await self._deliver(self.world.due_deliveries(everything=everything))

    async def settle(self, *, rounds: int = 50) -> None:
        """Run batches and send fresh webhooks until nothing is left to do; failing hooks keep their retries."""
        for _ in range(rounds):
            ran = self.world.run_batches()
            fresh = [one for one in self.world.due_deliveries(everything=True) if one.attempts == 0]
            sent = await self._deliver(fresh)
            if self._sending:
                await asyncio.gather(*self._sending)
            elif not ran and not sent:
                return

    async def _deliver(self, deliveries: list[Delivery]) -> int:
        for one in deliveries:
            one.state = "sending"
        await asyncio.gather(*(self._send(one) for one in deliveries))
        return len(deliveries)

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            moved = self._work_once()
            if moved:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK if self._something_waits() else None):
                    await self._wake.wait()

    def _work_once(self) -> bool:
        """Take every automatic account one step on; True if anything moved."""
        moved = False
        for account in list(self.world.accounts.values()):
            if account.knobs.auto_batches:
                moved |= batches.work(self.world, account, limit=OPERATIONS_AT_A_TIME)
        for delivery in self.world.due_deliveries():
            if self.world.account(delivery.account_id).knobs.auto_webhooks:
                delivery.state = "sending"
                task = asyncio.create_task(self._send(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
        return moved

    def _something_waits(self) -> bool:
        return bool(self.world.queued) or any(batches.unfinished(one) for one in self.world.accounts.values())

    async def _send(self, delivery: Delivery) -> None:
        """POST one delivery and take note of the answer; none in time counts as 0."""
        status = await self._post(delivery)
        if delivery.account_id in self.world.accounts:
            self.world.settle_delivery(delivery, status)

    async def _post(self, delivery: Delivery) -> int:
        if self._session is None:
            return 0
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if delivery.signing_secret:
            at = self.world.clock.seconds()
            headers["X-Mailchimp-Signature"] = signature(delivery.signing_secret, at, delivery.body)
        seconds = self.world.account(delivery.account_id).knobs.webhook_timeout_s
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            sent = self._session.post(delivery.url, data=delivery.body.encode(), headers=headers, timeout=limit)
            async with sent as got:
                return got.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0
