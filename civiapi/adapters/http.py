"""What every way in over HTTP shares: an aiohttp request read into plain values, and an answer to send.

Adapters see only ``Incoming`` and ``Answer``; nothing else of HTTP. Bodies are read here, within their limit, in each
form that CiviCRM's clients use.
"""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from civiapi.adapters import forms, multipart
from civiapi.auth import Shown
from civiapi.jsontext import NotRead, read_json

SESSION_COOKIE = "civiapi_session"
JSON = "application/json"
SAFE_METHODS = frozenset({"GET", "HEAD"})
GUARDS = {"Server": "civiapi", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class BadBody(Exception):
    """The body cannot be used; the text says why, ``status`` what HTTP calls it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request. ``fields`` are query and form together, ``query`` the query alone, ``body`` the bytes."""

    method: str
    path: str
    fields: forms.Fields
    query: forms.Fields = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    address: str = ""
    session: str = field(default="", repr=False)
    https: bool = False

    @property
    def is_get(self) -> bool:
        """Whether the request promises to change nothing."""
        return self.method in SAFE_METHODS

    def header(self, name: str) -> str:
        """A header's text, ``""`` without it; bytes that are no UTF-8 become ``?``."""
        value = self.headers.get(name, "")
        return value if value.isascii() else value.encode("utf-8", "replace").decode()


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: a body and how it travels. ``cookie`` opens a session, ``""`` ends it, ``None`` leaves it."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cookie: str | None = None


class Way(Protocol):
    """A way in: reads a request, answers it, and can word a failure around it in its own form."""

    raw_body: bool  # it reads ``body`` itself; otherwise forms and JSON objects arrive in ``fields``

    async def answer(self, incoming: Incoming) -> Answer:
        """The answer to one request."""

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        """An answer that says only what went wrong; all that is known of the request is its query."""


class Proxies:
    """The proxies in front of us whose word we take for who called and how."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        """*trusted*: addresses or networks (``10.0.0.0/8``). Raises ``ValueError`` for anything else."""
        self._networks = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)

    def caller(self, remote: str, forwarded_for: str) -> str:
        """The nearest address on the way here that is no trusted proxy."""
        address = remote
        hops = [hop.strip() for hop in forwarded_for.split(",") if hop.strip()]
        while hops and self.trusts(address):
            address = hops.pop()
        return address

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a trusted proxy."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


async def read(
    request: web.Request, *, raw_body: bool, max_body: int, body_seconds: float, proxies: Proxies
) -> Incoming:
    """The request as plain values. Raises ``BadBody``."""
    url = request.rel_url
    query = forms.parse(url.raw_query_string)
    fields, body = query, b""
    headers = request.headers
    content_type = ""
    if request.body_exists and request.method not in SAFE_METHODS:
        content_type = request.content_type
        if (request.content_length or 0) > max_body:
            raise too_large(max_body)
        try:
            async with asyncio.timeout(body_seconds):
                body = await request.read()
            if not raw_body:
                fields = forms.merge(query, _read_fields(content_type, headers.get("Content-Type", ""), body))
        except TimeoutError as error:
            raise BadBody(f"The body took longer than {body_seconds:g} seconds.", 408) from error
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large(max_body) from error
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:  # or the caller hung up
            raise BadBody("The body cannot be read.") from error
    remote = request.remote or ""
    trusted = proxies.trusts(remote)
    return Incoming(
        method=request.method,
        path=url.path,
        fields=fields,
        query=query,
        headers=headers,
        body=body,
        content_type=content_type,
        address=proxies.caller(remote, headers.get("X-Forwarded-For", "")) if trusted else remote,
        session=request.cookies.get(SESSION_COOKIE, "") if "Cookie" in headers else "",
        https=request.secure or (trusted and headers.get("X-Forwarded-Proto", "").lower() == "https"),
    )


def too_large(max_body: int) -> BadBody:
    """The refusal of a body that is longer than we read."""
    return BadBody(f"The request is too large; at most {max_body} bytes are read.", 413)


def _read_fields(content_type: str, header: str, body: bytes) -> forms.Fields:
    """The fields of a form or of a JSON object; a body of any other type is not for us, as in PHP."""
    try:
        if content_type == "application/x-www-form-urlencoded":
            return forms.parse_body(body)
        if content_type == "multipart/form-data":
            return forms.from_pairs(multipart.text_fields(header, body))
    except forms.TooMany as error:
        raise BadBody(str(error), 413) from error
    except multipart.Broken as error:
        raise BadBody("The multipart body cannot be read.") from error
    if content_type == JSON and body.strip():
        try:
            fields = read_json(body)
        except NotRead as error:
            raise BadBody("Unable to decode supplied JSON.", 200) from error
        if not isinstance(fields, dict):
            raise BadBody("Unable to decode supplied JSON.", 200)
        return fields
    return {}


def shown(incoming: Incoming) -> Shown:
    """Everything in the request that may say who calls."""
    fields = incoming.fields
    return Shown(
        address=incoming.address,
        key=forms.scalar(fields, "key"),
        api_key=forms.scalar(fields, "api_key"),
        x_civi_auth=incoming.header("X-Civi-Auth"),
        authorization=incoming.header("Authorization"),
        authx=forms.scalar(fields, "_authx"),
        guard_key=incoming.header("X-Civi-Key") or forms.scalar(fields, "_authxSiteKey"),
        session=incoming.session,
    )


def to_response(answer: Answer, https: bool) -> web.Response:
    """The answer as aiohttp sends it."""
    response = web.Response(
        body=answer.body,
        status=answer.status,
        headers={**GUARDS, "Content-Type": answer.content_type, **answer.headers},
    )
    if answer.cookie:
        response.set_cookie(SESSION_COOKIE, answer.cookie, httponly=True, samesite="Lax", secure=https, path="/")
    elif answer.cookie == "":
        response.del_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="Lax", secure=https)
    return response
