"""A Mailchimp that is one function, for answers that the emulator does not give."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from sync.mailchimp.client import MailchimpClient

KEY = "0123456789abcdef0123456789abcdef-us1"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def client_of(answer: Handler, **more: Any) -> AsyncIterator[MailchimpClient]:
    """A client whose Mailchimp is one function."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with MailchimpClient(KEY, base_url=base, **more) as client:
            yield client
    finally:
        await runner.cleanup()


def constant_answer(
    status: int, body: bytes, content_type: str = "application/json", **headers: str
) -> tuple[Handler, list[web.Request]]:
    """An answer that never changes, and the requests it was given to."""
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return web.Response(status=status, body=body, headers={"Content-Type": content_type, **headers})

    return answer, asked
