"""CiviCRM's pipe protocol: one JSON text per line, one session from the first line to the last.

It is JSON-RPC 2.0 with CiviCRM's differences: a request without an ``id`` is answered too (without one), parse errors
have none, and errors have ``"data":null``. A session is trusted (for a program that runs with our rights) or untrusted;
a login lasts until the session ends.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.api.call import ALL_PERMISSIONS, Call, Caller, Responder
from civiapi.auth.authenticator import Auth, AuthenticationFailed, Credentials
from civiapi.http.rendering import encode
from civiapi.store.schema.seed import CIVICRM_VERSION

log = structlog.get_logger(__name__)

FLAGS = "vtl"
PARSE_ERROR = (-32700, "Parse error")
INVALID_REQUEST = (-32600, "Invalid Request")
METHOD_NOT_FOUND = (-32601, "Method not found")
INVALID_PARAMS = (-32602, "Invalid params")
OTHER = -32099
METHOD_NAME = re.compile(r"[a-z][a-zA-Z0-9_]*")
ANONYMOUS = Caller(contact_id=None, permissions=frozenset())

Json = dict[str, Any]


class PipeError(Exception):
    """An error reply."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


# Each option with its default and its check.
OPTIONS: Mapping[str, tuple[Any, Callable[[Any], bool]]] = {
    "apiError": ("exception", lambda value: value in ("exception", "array")),
    "apiCheckPermissions": (True, lambda value: isinstance(value, bool)),
    "bufferSize": (524_288, lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0),
    "responsePrefix": (None, lambda value: value is None or isinstance(value, str)),
}


async def run_pipe(
    api: Responder, auth: Auth, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flags: str = FLAGS
) -> None:
    """Send the greeting, then answer line by line. *flags*: entries of the greeting; ``t`` makes the session trusted.

    Lines longer than the reader's limit or the session's ``bufferSize`` are parse errors.
    """
    session = PipeSession(api, auth, trusted="t" in flags and "u" not in flags)
    writer.write(encode(greeting(flags)) + b"\n")
    await writer.drain()
    while True:
        line = await read_line(reader)
        if not line:
            return
        if line.strip():
            writer.write(await session.answer(line))
            await writer.drain()


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """The next line, ``b""`` at the end. One above the reader's limit is skipped and replaced by invalid JSON."""
    too_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            line = end.partial
        except asyncio.LimitOverrunError as overrun:
            await reader.readexactly(overrun.consumed)
            too_long = True
            continue
        return b"too long" if too_long and line else line


def greeting(flags: str) -> Json:
    """The first line: one entry for each flag, ``null`` for an unknown one."""
    known = {"v": CIVICRM_VERSION, "j": ["jsonrpc-2.0"], "l": ["login"], "t": "trusted", "u": "untrusted"}
    return {"Civi::pipe": {flag: known.get(flag) for flag in flags}}


class PipeSession:
    """One session: the caller, and the options that were set."""

    def __init__(self, api: Responder, auth: Auth, *, trusted: bool) -> None:
        self._api = api
        self._auth = auth
        self._trusted = trusted
        self._caller = ANONYMOUS
        self._options: Json = {name: first for name, (first, _) in OPTIONS.items()}
        self._methods: Mapping[str, Callable[[list[Any] | Json], Awaitable[Any]]] = {
            "api3": self._api3,
            "echo": self._echo,
            "login": self._login,
            "options": self._set_options,
        }

    async def answer(self, line: bytes) -> bytes:
        """The reply to one line, with its line end."""
        reply = encode(await self._reply_to_text(line))
        prefix = self._options["responsePrefix"] or ""
        return prefix.encode("utf-8", "replace") + reply + b"\n"

    async def _reply_to_text(self, line: bytes) -> Any:
        if len(line) > self._options["bufferSize"]:
            return _error(*PARSE_ERROR)
        try:
            request = read_json(line)
        except NotRead:
            return _error(*PARSE_ERROR)
        if isinstance(request, list) and request:
            return [await self._reply_to(each) for each in request]
        return await self._reply_to(request)

    async def _reply_to(self, request: Any) -> Json:
        """The one catch-all of this way in."""
        identity = {"id": request["id"]} if isinstance(request, dict) and "id" in request else {}
        try:
            return {"jsonrpc": "2.0", "result": await self._result(request), **identity}
        except PipeError as error:
            return {**_error(error.code, error.message), **identity}
        except AuthenticationFailed as refusal:
            return {**_error(OTHER, refusal.message), **identity}
        except Exception:
            log.exception("a line of the pipe could not be answered")
            return {**_error(OTHER, "Unknown error."), **identity}

    async def _result(self, request: Any) -> Any:
        if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
            raise PipeError(*INVALID_REQUEST)
        name = request.get("method")
        if not isinstance(name, str):
            raise PipeError(*INVALID_REQUEST)
        name = name.replace(".", "_")
        method = self._methods.get(name) if METHOD_NAME.fullmatch(name) else None
        if method is None:
            raise PipeError(*METHOD_NOT_FOUND)
        params = request.get("params", [])
        if not isinstance(params, list | dict):
            raise PipeError(*INVALID_PARAMS)
        return await method(params)

    async def _api3(self, params: list[Any] | Json) -> Any:
        """``[entity, action, params?]``: the unwrapped answer."""
        parts = list(params.values()) if isinstance(params, dict) else params
        if not 2 <= len(parts) <= 3 or not all(isinstance(name, str) for name in parts[:2]):
            raise PipeError(*INVALID_PARAMS)
        given = (parts[2] if len(parts) == 3 else {}) or {}
        if not isinstance(given, dict):
            raise PipeError(*INVALID_PARAMS)
        checked = not self._trusted or given.get("check_permissions", self._options["apiCheckPermissions"])
        checked = checked not in (False, 0, "0", "", None)
        call = Call(parts[0], parts[1], {**given, "version": 3, "check_permissions": checked}, self._as(checked))
        value = await self._api.respond(call)
        if self._options["apiError"] == "exception" and isinstance(value, dict) and value.get("is_error"):
            raise PipeError(OTHER, str(value.get("error_message", "")))
        return value

    def _as(self, checked: bool) -> Caller:
        caller = self._caller
        if checked:
            return caller
        return Caller(caller.contact_id, frozenset({ALL_PERMISSIONS}), caller.name, caller.flow, caller.cred)

    async def _echo(self, params: list[Any] | Json) -> Any:
        return params

    async def _set_options(self, params: list[Any] | Json) -> Json:
        """All options, or those that were changed; none is changed if one is invalid."""
        if not params:
            return self._options
        if not isinstance(params, dict):
            raise PipeError(*INVALID_PARAMS)
        for name, value in params.items():
            if name not in OPTIONS or not OPTIONS[name][1](value):
                raise PipeError(*INVALID_PARAMS)
        self._options.update(params)
        return params

    async def _login(self, params: list[Any] | Json) -> Json:
        """By a credential, or in a trusted session by name or number. Raises ``AuthenticationFailed``."""
        given = params if isinstance(params, dict) else {}
        credential = given.get("cred")
        if isinstance(credential, str) and credential:
            caller = await self._auth.by_authx(Credentials("pipe", x_civi_auth=credential))
        else:
            caller = await self._principal(given)
        if caller is None:
            raise PipeError(OTHER, "Cannot authenticate. Must specify principal/credentials.")
        self._caller = caller
        return {"contactId": caller.contact_id, "userId": await self._auth.user_id(caller)}

    async def _principal(self, given: Json) -> Caller | None:
        finders: Mapping[str, tuple[type, Callable[[Any], Awaitable[Caller]]]] = {
            "contactId": (int, self._auth.caller_of),
            "userId": (int, self._auth.caller_numbered),
            "user": (str, self._auth.caller_named),
        }
        for name, (kind, find) in finders.items():
            if name in given:
                if not self._trusted:
                    raise PipeError(OTHER, "Session is not trusted.")
                try:
                    value = kind(given[name])
                except (TypeError, ValueError) as error:
                    raise PipeError(*INVALID_PARAMS) from error
                return await find(value)
        return None


def _error(code: int, message: str) -> Json:
    return {"jsonrpc": "2.0", "error": {"code": code, "message": message, "data": None}}
