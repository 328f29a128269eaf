"""Results of batches that are downloaded: where a link may lead, what a download carries, and how large it may be."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import traceback
from random import Random
from typing import Any

import anyio
import orjson
import pytest
import stamina
from aiohttp import web

from sync.mailchimp.archive import ArchiveLimits, write_archive
from sync.mailchimp.client import MailchimpClient
from sync.mailchimp.errors import (
    BadArchive,
    ResultsMissing,
    Unreachable,
)
from sync.mailchimp.links import may_be_fetched, resolves_to_public
from sync.mailchimp.transport import Transport
from tests.support.fake_mailchimp import KEY, client_of


@pytest.fixture(autouse=True)
def _no_waiting() -> Any:
    with stamina.set_testing(True, attempts=3):
        yield


class Storage:
    """A finished batch whose results lie in a storage that answers as the test says."""

    def __init__(self, *answers: tuple[int, bytes, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.downloads: list[web.Request] = []
        self.batch: dict[str, Any] = {"id": "734a070347", "status": "finished"}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/3.0/"):
            self.asked.append(request)
            url = f"http://{request.host}/storage?Signature=hush{len(self.asked)}"
            body = orjson.dumps({"response_body_url": url, **self.batch})
            return web.Response(body=body, content_type="application/json")
        self.downloads.append(request)
        status, content, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if "Break" in headers:
            return await self._break_off(request, content)
        return web.Response(status=status, body=content, headers=headers)

    async def _break_off(self, request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.abort()
        return response


ARCHIVE = write_archive(
    [{"status_code": 200, "operation_id": str(number), "response": "{}"} for number in range(30)], rng=Random(1)
)


async def result_ids(client: MailchimpClient) -> set[str | None]:
    return {result.operation_id async for result in client.iter_results("734a070347")}


EVERY_ID = {str(number) for number in range(30)}


async def test_a_download_carries_no_credentials_and_its_link_reaches_no_log(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "httpx"):  # whatever another test left them at
        caplog.set_level(logging.DEBUG, logger=name or None)
    storage = Storage((200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    assert "Authorization" not in storage.downloads[0].headers
    sent = storage.asked[0].headers["Authorization"].partition(" ")[2]
    assert "/storage" in caplog.text
    assert not [secret for secret in ("hush", KEY, sent) if secret in caplog.text]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        pytest.param(ARCHIVE, {"Content-Type": "application/x-gzip"}, id="Gzip of the file is undone."),
        pytest.param(gzip.compress(ARCHIVE), {"Content-Encoding": "gzip"}, id="Gzip on top of it is undone as well."),
        pytest.param(ARCHIVE, {"Content-Encoding": "gzip"}, id="Gzip that HTTP has undone already is not missed."),
    ],
)
async def test_gzip_is_told_by_its_magic_bytes(content: bytes, headers: dict[str, str]) -> None:
    async with client_of(Storage((200, content, headers)).answer) as client:
        assert await result_ids(client) == EVERY_ID


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(403, {}, id="A link that has expired is asked for anew."),
        pytest.param(503, {}, id="A storage that is busy is asked again."),
        pytest.param(200, {"Break": "yes"}, id="A download that breaks off begins again."),
    ],
)
async def test_a_download_that_fails_is_repeated_with_a_fresh_link(status: int, headers: dict[str, str]) -> None:
    storage = Storage((status, ARCHIVE, headers), (200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    assert [request.query["Signature"] for request in storage.downloads] == ["hush1", "hush2"]


async def test_a_download_that_never_works_is_unreachable_and_shows_no_link() -> None:
    storage = Storage((403, b"<Error/>", {}))
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable) as caught:
            await result_ids(client)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0x1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[::ffff:8.8.8.8]/",
        "https://[::10.0.0.1]/",
        "https://[::8.8.8.8]/",
        "https://[::]/",
        "https://0.0.0.0/",
        "https://[64:ff9b::a00:1]/",
        "https://[64:ff9b::808:808]/",
        "https://[64:ff9b:1::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://[2001:0:a00:1::]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fc00::1]/",
        "https://[fec0::1]/",
        "https://[ff02::1]/",
        "https://[ff0e::1]/",
        "https://[2001:db8::1]/",
        "https://[4000::1]/",
        "https://224.0.0.1/",
        "https://239.255.255.250/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://100.64.0.1/",
        "https://192.0.2.1/",
        "https://198.18.0.1/",
        "https://storage.example.org:8443/",
        "https://storage.example.org:80/",
        "https://storage.example.org:22/",
        "https://8.8.8.8:6379/",
        "https://user:password@10.0.0.1/",
        "https://storage.example.org@10.0.0.1/",
        "https://10.0.0.1#@storage.example.org/",
        "https://10.0.0.1?@storage.example.org/",
        "https://LOCALHOST/",
        "https://127.0.0.1./",
        "https://0177.0.0.1/",
        "https://10.1.2.3/",
        "https://localhost/",
        "https://db.internal/",
        "https://router/",
        "https://crm.local./",
        "http://storage.example.org/",
        "file:///etc/passwd",
        "ftp://storage.example.org/x",
        "https://[::1",
        "https://storage.example.org:x/",
        "//storage.example.org/",
        "",
    ],
)
def test_a_link_into_a_network_of_ours_is_not_followed(url: str) -> None:
    assert not may_be_fetched(url, "https://us1.api.mailchimp.com/3.0")


def test_a_link_to_a_public_storage_or_to_where_mailchimp_is_reached_is_followed() -> None:
    assert may_be_fetched("https://mailchimp-api-batch.s3.amazonaws.com/x?Signature=y", "https://us1.api.mailchimp.com")
    assert may_be_fetched("https://mailchimp-api-batch.s3.amazonaws.com:443/x", "https://us1.api.mailchimp.com")
    assert may_be_fetched("https://us1.api.mailchimp.com:8443/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("https://[2606:4700::1111]/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("https://8.8.8.8/x", "https://us1.api.mailchimp.com/3.0")
    assert may_be_fetched("http://127.0.0.1:8011/results/1", "http://127.0.0.1:8011/3.0")
    assert may_be_fetched("http://localhost:8012/results/1", "http://127.0.0.1:8011/3.0")
    assert not may_be_fetched("http://10.0.0.7:8011/results/1", "http://127.0.0.1:8011/3.0")


@pytest.mark.parametrize(
    ("addresses", "public"),
    [
        (["52.216.1.1"], True),
        (["52.216.1.1", "2600:1f18::1"], True),
        (["64:ff9b::808:808"], True),  # 8.8.8.8, as a network without IPv4 sees it
        (["10.0.0.1"], False),
        (["52.216.1.1", "10.0.0.1"], False),
        (["127.0.0.1"], False),
        (["169.254.169.254"], False),
        (["::1"], False),
        (["fe80::1%2"], False),
        (["::ffff:127.0.0.1"], False),
        (["64:ff9b::a00:1"], False),
        (["64:ff9b:1::a00:1"], False),
        (["2002:7f00:1::"], False),
        (["nonsense"], False),
    ],
)
async def test_a_name_is_followed_only_to_public_addresses(addresses: list[str], public: bool) -> None:
    url, base = "https://storage.example.org/x", "https://us1.api.mailchimp.com/3.0"
    assert await resolves_to_public(url, base, lambda _host: addresses) is public


async def test_mailchimp_itself_may_be_anywhere_and_an_unknown_name_is_for_the_connection_to_find() -> None:
    base = "https://mailchimp.internal/3.0"
    assert await resolves_to_public("https://mailchimp.internal/x", base, lambda _host: ["10.0.0.1"])

    def unknown(_host: str) -> list[str]:
        raise OSError("no such name")

    assert await resolves_to_public("https://storage.example.org/x", base, unknown)


async def test_a_name_that_leads_inside_is_found_out_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it did so when it was looked up, or only when it was connected to."""
    received: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    connect = anyio.connect_tcp
    connected: list[str] = []

    async def lead_inside(remote_host: str, remote_port: int, **how: Any) -> Any:
        connected.append(f"{remote_host}:{remote_port}")
        return await connect("127.0.0.1", port, **how)

    monkeypatch.setattr(anyio, "connect_tcp", lead_inside)
    transport = Transport("key-us1", base_url="https://us1.api.mailchimp.com/3.0")
    for address in ("127.0.0.1", "52.216.1.1"):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, found=found, **_kwargs: found)
        with pytest.raises(Unreachable, match="leads where we do not go"):
            async with transport.download("https://storage.example.org/x"):
                pytest.fail("it was opened")
    await transport.close()
    server.close()
    await server.wait_closed()
    assert connected == ["storage.example.org:443"], "the first was not even connected to"
    assert b"".join(received) == b""


async def test_a_download_is_led_on_only_to_where_a_link_may_lead() -> None:
    storage = Storage((302, b"", {"Location": "/elsewhere"}), (200, ARCHIVE, {}))
    async with client_of(storage.answer) as client:
        assert await result_ids(client) == EVERY_ID
    inside = Storage((302, b"", {"Location": "http://169.254.169.254/latest/meta-data"}))
    async with client_of(inside.answer) as client:
        with pytest.raises(Unreachable, match="leads where we do not go"):
            await result_ids(client)
    assert not [one for one in [*storage.downloads, *inside.downloads] if "Authorization" in one.headers]


async def test_a_download_that_is_led_on_forever_is_given_up() -> None:
    storage = Storage((302, b"", {"Location": "/round"}))
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable, match="more than 3 redirects"):
            await result_ids(client)


async def test_a_download_larger_than_allowed_is_given_up_at_once() -> None:
    storage = Storage((200, ARCHIVE * 1000, {}))
    async with client_of(storage.answer, max_download=len(ARCHIVE)) as client:
        with pytest.raises(BadArchive, match="larger than"):
            await result_ids(client)
    assert len(storage.downloads) == 1


async def test_an_archive_past_its_limits_is_refused() -> None:
    async with client_of(Storage((200, ARCHIVE, {})).answer, archive_limits=ArchiveLimits(unpacked=2000)) as client:
        with pytest.raises(BadArchive, match="cannot be trusted"):
            await result_ids(client)


@pytest.mark.parametrize("url", ["ftp://storage/x", "file:///etc/passwd", "//storage/x", "gopher://x"])
async def test_a_link_that_is_not_http_is_not_followed(url: str) -> None:
    storage = Storage((200, ARCHIVE, {}))
    storage.batch["response_body_url"] = url
    async with client_of(storage.answer) as client:
        with pytest.raises(Unreachable, match="leads where we do not go"):
            await result_ids(client)
    assert storage.downloads == []


async def test_a_finished_batch_without_a_link_has_no_results() -> None:
    storage = Storage((200, ARCHIVE, {}))
    storage.batch["response_body_url"] = ""
    async with client_of(storage.answer) as client:
        with pytest.raises(ResultsMissing) as caught:
            await result_ids(client)
    assert not caught.value.may_be_retried
