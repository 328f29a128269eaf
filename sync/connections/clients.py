"""One Mailchimp client for each account, created when first needed and closed when the process stops.

A client keeps connections and a limit on how many are used at once, so an account must never have two. A key that
is only being tested (the Config screen tests one before it is saved) gets a client of its own.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.transport import USER_AGENT, CallRecord, RetryPolicy

TEST_RETRIES = RetryPolicy(attempts=3, total=10.0)
"""For testing a key while a person waits."""


class Clients:
    """The clients of one process. *base_url* overrides the data centre's address; *on_call* is passed every call.

    *transport*, which all clients then use, replaces the network.
    """

    def __init__(
        self,
        *,
        base_url: str = "",
        max_connections: int = 8,
        on_call: Callable[[CallRecord], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._max_connections = max_connections
        self._on_call = on_call
        self._transport = transport
        self._open: dict[str, MailchimpClient] = {}

    def client_for(self, api_key: str) -> MailchimpClient:
        """The client of the account with this key. Raises InvalidApiKey for a key without a data centre."""
        if api_key not in self._open:
            self._open[api_key] = self._make(api_key)
        return self._open[api_key]

    @asynccontextmanager
    async def visit(self, api_key: str) -> AsyncIterator[MailchimpClient]:
        """The client of a key that may be no account of ours: the kept one, or one closed afterwards."""
        if api_key in self._open:
            yield self._open[api_key]
        else:
            async with self._make(api_key, TEST_RETRIES) as visitor:
                yield visitor

    async def close(self) -> None:
        """Close every client; the pool can be used again afterwards."""
        clients, self._open = self._open, {}
        for client in clients.values():
            await client.close()

    def _make(self, api_key: str, retry: RetryPolicy | None = None) -> MailchimpClient:
        return MailchimpClient(
            api_key,
            base_url=self._base_url,
            max_connections=self._max_connections,
            retry=retry,
            user_agent=f"{USER_AGENT} process/{os.getpid()}",
            on_call=self._on_call,
            transport=self._transport,
        )
