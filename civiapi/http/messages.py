"""HTTP messages as endpoints see them: an aiohttp request read into plain values, and a response to send.

Bodies are read here, within their limit, in every format that CiviCRM's clients use.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.auth.authenticator import AuthenticationFailed, Credentials
from civiapi.http import forms, multipart
from civiapi.http.body_budget import SMALL, BodyBudget, HeldBody, NoRoom
from civiapi.http.proxies import FORWARDED_FOR, FORWARDED_PROTO, Proxies
from civiapi.runtime.values import call_value
from civiapi.runtime.worker_threads import in_thread
from civiapi.settings import ServerSettings

BODIES = web.AppKey("bodies", BodyBudget)
"""The bytes that the bodies of all requests to an application hold."""

SESSION_COOKIE = "civiapi_session"
HOST_PREFIX = "__Host-"  # browsers accept such a cookie over HTTPS and from this host only
JSON = "application/json"
MAX_WAITING_BODY = 16_384  # bytes that a request may hold while it waits for an attempt to authenticate
SAFE_METHODS = frozenset({"GET", "HEAD"})
GUARDS = {"Server": "civiapi", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class BadBody(Exception):
    """The body cannot be used; the text says why, ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@call_value
class HttpRequest:
    """One request. ``fields`` are query and form together, ``query`` the query alone.

    ``body`` are the bytes, empty for a large body that is in ``fields``: it would be held twice until the answer.
    ``has_large_body``: the request holds more memory than it may while it waits.
    """

    method: str
    path: str
    fields: forms.Fields
    query: forms.Fields = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    has_large_body: bool = False
    content_type: str = ""
    address: str = ""
    session: str = field(default="", repr=False)
    https: bool = False

    @property
    def is_get(self) -> bool:
        """Whether the method is safe, so that the request must not change anything."""
        return self.method in SAFE_METHODS

    @property
    def may_write(self) -> bool:
        """Whether the request may change data: a POST alone, whatever other methods promise elsewhere."""
        return self.method == "POST"

    def header(self, name: str) -> str:
        """The value of a header, ``""`` without it; bytes that are not UTF-8 become ``?``."""
        value = self.headers.get(name, "")
        return value if value.isascii() else value.encode("utf-8", "replace").decode()


@call_value
class HttpResponse:
    """A response. ``cookie`` opens a session, ``""`` ends it, ``None`` leaves it unchanged."""

    body: bytes
    content_type: str = JSON
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cookie: str | None = None


class Endpoint(Protocol):
    """Answers the requests at one path, and formats errors that occur outside of it."""

    max_body: int | None  # bytes of a body, where the limit is lower than that of the settings
    raw_body: bool  # ``body`` is left unread; otherwise forms and JSON objects are read into ``fields``

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        """The answer to one request."""

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        """The response to a request of which only the query could be read."""


@dataclass(frozen=True, slots=True)
class HttpPolicy:
    """How requests are read and cookies are set. *https_only*: cookies are ``Secure``, with the prefix ``__Host-``."""

    max_body: int
    body_seconds: float
    proxies: Proxies
    https_only: bool = False

    @classmethod
    def of(cls, server: ServerSettings) -> "HttpPolicy":
        """The policy of the settings. Raises ``ValueError`` for a trusted proxy that is not an address."""
        https = server.base_url.lower().startswith("https:")
        return cls(server.max_body, server.body_seconds, Proxies(server.trusted_proxies), https)

    def cookie_name(self, name: str) -> str:
        """The name with the prefix, where cookies have one; a cookie without it is then ignored."""
        return HOST_PREFIX + name if self.https_only else name

    def cookie(self, request: web.Request, name: str) -> str:
        """The value of our cookie in the request, ``""`` without it."""
        return request.cookies.get(self.cookie_name(name), "") if "Cookie" in request.headers else ""

    def set_cookie(self, response: web.Response, name: str, value: str, *, https: bool, samesite: str) -> None:
        """Set our cookie until the browser closes; an empty value deletes it."""
        secure = https or self.https_only
        if value:
            response.set_cookie(
                self.cookie_name(name), value, httponly=True, samesite=samesite, secure=secure, path="/"
            )
        else:
            response.del_cookie(self.cookie_name(name), path="/", httponly=True, samesite=samesite, secure=secure)


class received:  # named as the function it is used as; a generator would cost every request 10 µs
    """In the block, the request as plain values, with room for its body in the application's ``BODIES``.

    *max_body*: a lower limit than that of the policy. Entering raises ``BadBody``.
    """

    __slots__ = ("_held", "_max_body", "_policy", "_raw_body", "_request")

    def __init__(
        self, request: web.Request, policy: HttpPolicy, *, raw_body: bool = False, max_body: int | None = None
    ) -> None:
        self._request = request
        self._policy = policy
        self._raw_body = raw_body
        self._max_body = policy.max_body if max_body is None else min(max_body, policy.max_body)
        self._held = request.app[BODIES].hold()

    async def __aenter__(self) -> HttpRequest:
        try:
            return await self._read()
        except BaseException:
            self._held.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._held.release()

    async def _read(self) -> HttpRequest:
        request, policy = self._request, self._policy
        url, headers = request.rel_url, request.headers
        query = forms.parse(url.raw_query_string)
        fields, body, content_type, is_large = query, b"", "", False
        if request.body_exists and request.method not in SAFE_METHODS:
            content_type = request.content_type
            body = await _read_body(request, self._held, self._max_body, policy.body_seconds)
            is_large = len(body) > MAX_WAITING_BODY
            if not self._raw_body:
                header = headers.get("Content-Type", "")
                if len(body) > SMALL:
                    given = await in_thread(_read_fields, content_type, header, body)
                    body = b""  # no signed webhook event is as large
                else:
                    given = _read_fields(content_type, header, body)
                fields = forms.merge(query, given)
        remote = request.remote or ""
        proxies = policy.proxies
        trusted = proxies.trusts(remote)
        return HttpRequest(
            method=request.method,
            path=url.path,
            fields=fields,
            query=query,
            headers=headers,
            body=body,
            has_large_body=is_large,
            content_type=content_type,
            address=proxies.route(remote, headers.getall(FORWARDED_FOR, ())).address if trusted else remote,
            session=policy.cookie(request, SESSION_COOKIE),
            https=request.secure or (trusted and _last(headers.getall(FORWARDED_PROTO, ())) == "https"),
        )


async def _read_body(request: web.Request, held: HeldBody, max_body: int, seconds: float) -> bytes:
    """The whole body, counted as it arrives. Raises ``BadBody``."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise BadBody("Compressed requests are not read; send the body without Content-Encoding.", 415)
    length, content = request.content_length, request.content
    if length is not None and length > max_body:
        raise too_large(max_body)
    try:
        await held.make_room(SMALL if length is None else length)
        if length is not None and content.is_eof():  # it arrived with the head: nothing to wait for
            return content.read_nowait()
        async with asyncio.timeout(seconds) as held.reading:
            return await _receive(request, held, max_body)
    except TimeoutError as error:
        raise BadBody(f"The body took longer than {seconds:g} seconds.", 408) from error
    except NoRoom as error:
        raise BadBody("The server is reading too many requests at once; try again in some seconds.", 503) from error
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:  # or the client disconnected
        raise BadBody("The body cannot be read.") from error
    finally:
        held.reading = None


async def _receive(request: web.Request, held: HeldBody, max_body: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        if len(body) + len(chunk) > max_body:
            raise too_large(max_body)
        if len(body) + len(chunk) > held.room:  # its length was not announced, and it is a large one
            await held.make_room(max_body)
        body += chunk
        held.arrived = len(body)
    return bytes(body)


def _last(lines: Sequence[str]) -> str:
    """The last element of a header with a list: what the nearest proxy added."""
    return ",".join(lines).rpartition(",")[2].strip().lower()


def too_large(max_body: int) -> BadBody:
    """The error for a body above the limit."""
    return BadBody(f"The request is too large; at most {max_body} bytes are read.", 413)


def _read_fields(content_type: str, header: str, body: bytes) -> forms.Fields:
    """The fields of a form or of a JSON object; a body of any other type is ignored, as in PHP."""
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


def is_from_elsewhere(incoming: HttpRequest) -> bool:
    """Whether a browser sent this on behalf of another site. Programs, which send no such headers, are not browsers."""
    if incoming.header("X-Requested-With").lower() == "xmlhttprequest":  # needs CORS
        return False
    if site := incoming.header("Sec-Fetch-Site"):
        return site not in ("same-origin", "none")
    origin = incoming.header("Origin") or incoming.header("Referer")
    if not origin:
        return False
    try:
        return urlsplit(origin).netloc.lower() != incoming.header("Host").lower()
    except ValueError:
        return True


_CREDENTIALS = ("key", "api_key", "_authx", "_authxSiteKey")


def credentials_of(incoming: HttpRequest) -> Credentials:
    """The credentials in the request."""
    key = api_key = authx = guard_key = ""
    fields = incoming.fields
    if not fields.keys().isdisjoint(_CREDENTIALS):
        key, api_key, authx, guard_key = [forms.scalar(fields, name) for name in _CREDENTIALS]
    return Credentials(
        address=incoming.address,
        key=key,
        api_key=api_key,
        x_civi_auth=incoming.header("X-Civi-Auth"),
        authorization=incoming.header("Authorization"),
        authx=authx,
        guard_key=incoming.header("X-Civi-Key") or guard_key,
        session=incoming.session,
        with_large_body=incoming.has_large_body,
    )


def refuse(answer: HttpResponse, refusal: AuthenticationFailed) -> HttpResponse:
    """The answer to a failed authentication, as 429 where it was not attempted."""
    return too_many(answer, refusal.retry_after) if refusal.retry_after else answer


def too_many(answer: HttpResponse, retry_after: int) -> HttpResponse:
    """The answer as 429."""
    return replace(answer, status=429, headers={**answer.headers, "Retry-After": str(retry_after)})


def to_response(answer: HttpResponse, policy: HttpPolicy, *, https: bool = False) -> web.Response:
    """The aiohttp response; *https*: the request came over HTTPS, where that is known."""
    response = web.Response(
        body=answer.body,
        status=answer.status,
        headers={**GUARDS, "Content-Type": answer.content_type, **answer.headers},
    )
    if answer.cookie is not None:
        policy.set_cookie(response, SESSION_COOKIE, answer.cookie, https=https, samesite="Lax")
    return response
