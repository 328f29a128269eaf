"""What a running emulator does by itself: carries out batches, sends webhooks, checks a webhook's URL.

With the options `auto_batches` or `auto_webhooks` off, it does so only when called.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from sync.emulator.model.records import Delivery
from sync.emulator.rules.batch_runner import unfinished
from sync.emulator.rules.webhook_events import signature
from sync.emulator.world import World

OPERATIONS_AT_A_TIME = 50
TICK = 0.05
"""Seconds between looks at the clock while work waits for it."""
AGENT = {"User-Agent": "MailChimp"}


class BackgroundWorker:
    """Runs beside the server while that is up."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._woken = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work until the block ends; requests in flight are then cancelled."""
        async with aiohttp.ClientSession(headers=AGENT, connector=aiohttp.TCPConnector(limit=20)) as session:
            self._session = session
            loop = asyncio.create_task(self._work())
            try:
                yield
            finally:
                tasks = [loop, *self._sending]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._session = None

    def wake(self) -> None:
        """Look for work now: after a request, or a change of the clock."""
        self._woken.set()

    async def answers_get(self, url: str) -> bool:
        """Return whether *url* answers a GET with a 2xx within the webhook time limit."""
        if self._session is None:
            return False
        limit = aiohttp.ClientTimeout(total=self.world.default_account.options.webhook_timeout_s)
        try:
            async with self._session.get(url, timeout=limit) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return False

    async def deliver(self, *, everything: bool = True) -> int:
        """Send what is due (or all that is queued) and wait for the answers; returns how many were sent."""
        return await self._deliver(self.world.due_deliveries(everything=everything))

    async def run_until_idle(self, *, rounds: int = 50) -> None:
        """Run batches and send new webhooks until nothing is left; failing webhooks keep their retries."""
        for _ in range(rounds):
            ran = self.world.run_batches()
            new = [one for one in self.world.due_deliveries(everything=True) if one.attempts == 0]
            sent = await self._deliver(new)
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
            self._woken.clear()
            changed = self._work_once()
            if changed:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK if self._has_work() else None):
                    await self._woken.wait()

    def _work_once(self) -> bool:
        """Advance every automatic account by one step; True if anything changed."""
        changed = False
        for account in list(self.world.accounts.values()):
            if account.options.auto_batches:
                changed |= self.world.work_batches(account, limit=OPERATIONS_AT_A_TIME)
        for delivery in self.world.due_deliveries():
            if self.world.account(delivery.account_id).options.auto_webhooks:
                delivery.state = "sending"
                task = asyncio.create_task(self._send(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
        return changed

    def _has_work(self) -> bool:
        return bool(self.world.queued) or any(unfinished(one) for one in self.world.accounts.values())

    async def _send(self, delivery: Delivery) -> None:
        """POST one delivery and record the status; no answer in time counts as 0."""
        status = await self._post(delivery)
        if delivery.account_id in self.world.accounts:
            self.world.record_delivery(delivery, status)

    async def _post(self, delivery: Delivery) -> int:
        if self._session is None:
            return 0
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if delivery.signing_secret:
            at = self.world.clock.seconds()
            headers["X-Mailchimp-Signature"] = signature(delivery.signing_secret, at, delivery.body)
        seconds = self.world.account(delivery.account_id).options.webhook_timeout_s
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            sent = self._session.post(delivery.url, data=delivery.body.encode(), headers=headers, timeout=limit)
            async with sent as got:
                return got.status
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return 0
