"""JSON-RPC 2.0 at ``/jsonrpc`` and ``/civicrm/jsonrpc``, on top of the jsonrpcserver library.

The library keeps the protocol; here is what it leaves open: which methods there are (``api3``, and every
``Entity.action``), how an APIv3 error becomes a JSON-RPC one, and what HTTP says around it. A batch is taken apart here
and its members handed over one by one, because the library would run them side by side and calls have an order.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import structlog
from jsonrpcserver import Error, InvalidParams, Result, Success
from jsonrpcserver.async_main import dispatch_to_response
from jsonrpcserver.codes import (
    ERROR_INTERNAL_ERROR,
    ERROR_INVALID_PARAMS,
    ERROR_INVALID_REQUEST,
    ERROR_METHOD_NOT_FOUND,
    ERROR_PARSE_ERROR,
)
from jsonrpcserver.response import ErrorResponse, Response, SuccessResponse
from jsonrpcserver.sentinels import NODATA
from oslash.either import Left  # type: ignore[import-untyped]

from civiapi.adapters import forms
from civiapi.adapters.dress import encode
from civiapi.adapters.http import JSON, Answer, Incoming, shown
from civiapi.adapters.rest import Responder
from civiapi.auth import Auth, Refused, Shown
from civiapi.call import Call, Caller
from civiapi.envelope import UNKNOWN_ERROR
from civiapi.jsontext import NotRead, read_json

log = structlog.get_logger(__name__)

CONTENT_TYPES = frozenset({JSON, "application/json-rpc", "application/jsonrequest"})
MAX_BATCH = 100
UNAUTHORIZED = -32001
UNAUTHENTICATED = -32000
API_ERROR = -32099  # what CiviCRM's own pipe says for any API error
CODES: Mapping[Any, int] = {
    "not-found": ERROR_METHOD_NOT_FOUND,
    "mandatory_missing": ERROR_INVALID_PARAMS,
    2000: ERROR_INVALID_PARAMS,
    2001: ERROR_INVALID_PARAMS,
    2002: ERROR_INVALID_PARAMS,
    2100: ERROR_INVALID_PARAMS,
    "unauthorized": UNAUTHORIZED,
}
# The specification's own words, where the library says a little more than a caller need know.
WORDS: Mapping[int, str] = {
    ERROR_PARSE_ERROR: "Parse error",
    ERROR_INVALID_REQUEST: "Invalid Request",
    ERROR_INTERNAL_ERROR: "Internal error",
}
NOT_AN_ARRAY = {"error_code": 2000, "is_error": 1, "error_message": "Input variable `params` is not an array"}

Json = dict[str, Any]


class NotARequest(Exception):
    """What came is JSON but no request object."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a method is called with: the API, and who calls from where."""

    api: Responder
    auth: Auth
    caller: Caller
    seen: Shown


class Method:
    """A method as the library calls it. It takes any parameters; what they mean is for *run* to say."""

    # Set once: the library asks for a method's signature at every call, and working it out is dear.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter("positional", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("named", inspect.Parameter.VAR_KEYWORD),
        ]
    )

    def __init__(self, run: Callable[[Session, list[Any] | Json], Awaitable[Result]]) -> None:
        self._run = run

    async def __call__(self, session: Session, /, *positional: Any, **named: Any) -> Result:
        try:
            return await self._run(session, named or list(positional))
        except Exception:
            log.exception("a JSON-RPC method failed")
            return Error(ERROR_INTERNAL_ERROR, WORDS[ERROR_INTERNAL_ERROR])


class Methods(dict[str, Callable[..., Any]]):
    """The named methods, and one for every ``Entity.action`` that anybody asks for."""

    def __missing__(self, name: str) -> Method:
        entity, _, action = name.partition(".")
        if not entity or not action or "." in action or entity.lower() == "rpc":
            raise KeyError(name)
        return Method(lambda session, params: _entity_action(session, entity, action, params))


class JsonRpc:
    """The HTTP endpoint."""

    raw_body = True

    def __init__(self, api: Responder, auth: Auth) -> None:
        self._api = api
        self._auth = auth

    async def answer(self, incoming: Incoming) -> Answer:
        if incoming.method != "POST":
            return self._refuse(405, "Use POST", ERROR_INVALID_REQUEST, {"Allow": "POST"})
        if incoming.content_type not in CONTENT_TYPES:  # a page of another site cannot send these unasked
            return self._refuse(415, "Content-Type must be application/json", ERROR_INVALID_REQUEST)
        seen = shown(incoming)
        try:
            caller = await identify(self._auth, seen)
        except Refused as refusal:
            return self._refuse(401, refusal.message, UNAUTHENTICATED, {"WWW-Authenticate": "Bearer"})
        reply = await answer_text(Session(self._api, self._auth, caller, seen), incoming.body)
        return Answer(b"", JSON, 204) if reply is None else Answer(encode(reply))

    def failure(self, query: forms.Fields, message: str, status: int) -> Answer:
        if status == 500:
            return self._refuse(200, WORDS[ERROR_INTERNAL_ERROR], ERROR_INTERNAL_ERROR)
        return self._refuse(status, message, ERROR_INVALID_REQUEST)

    def _refuse(self, status: int, message: str, code: int, headers: Mapping[str, str] | None = None) -> Answer:
        return Answer(encode(_error(code, message)), JSON, status, headers or {})


async def identify(auth: Auth, seen: Shown) -> Caller:
    """Who calls: by key and api_key where either is shown, else by authx. Raises ``Refused``."""
    if (seen.key or seen.api_key) and not seen.x_civi_auth:
        return await auth.by_key(seen)
    caller = await auth.by_authx(seen)
    if caller is None:
        raise Refused("Authentication required")
    return caller


async def answer_text(session: Session, text: bytes, methods: Methods | None = None) -> Json | list[Json] | None:
    """The reply to a JSON-RPC text, single or batch; ``None`` where nothing asked for one.

    *methods* are ``METHODS`` unless given.
    """
    methods = METHODS if methods is None else methods
    try:
        request = read_json(text)
    except NotRead:
        return _error(ERROR_PARSE_ERROR, WORDS[ERROR_PARSE_ERROR])
    if not isinstance(request, list):
        return await _answer_one(session, request, methods)
    if not request:
        return _error(ERROR_INVALID_REQUEST, WORDS[ERROR_INVALID_REQUEST])
    if len(request) > MAX_BATCH:
        return _error(ERROR_INVALID_REQUEST, f"Invalid Request: a batch holds at most {MAX_BATCH} calls")
    replies = [await _answer_one(session, each, methods) for each in request]
    return [reply for reply in replies if reply is not None] or None


async def _answer_one(session: Session, request: Any, methods: Methods) -> Json | None:
    response = await dispatch_to_response(
        request,
        methods,
        context=session,
        deserializer=_as_it_is,
        validator=_validate,
    )
    return None if response is None else _reply(cast(Response, response))


def _as_it_is(request: Any) -> Any:
    return request


def _validate(request: Any) -> Any:
    """Raise ``NotARequest`` for what is no request of JSON-RPC 2.0."""
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        raise NotARequest("no request")
    identity = request.get("id")
    if isinstance(identity, bool) or not isinstance(identity, str | int | float | None):
        raise NotARequest("an id is a string, a number or null")
    if not isinstance(request.get("params", []), list | dict):
        raise NotARequest("parameters are a list or an object")
    return request


def _reply(response: Response) -> Json:
    """The library's response as the specification prints it; its own explanations stay here."""
    if not isinstance(response, Left):
        success: SuccessResponse = response._value
        return {"jsonrpc": "2.0", "result": success.result, "id": success.id}
    error: ErrorResponse = response._error
    data = error.data if isinstance(error.data, dict) else NODATA
    return _error(error.code, WORDS.get(error.code, error.message), error.id, data)


def _error(code: int, message: str, identity: Any = None, data: Any = NODATA) -> Json:
    error = {"code": code, "message": message}
    if data is not NODATA:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": identity}


# ---- the methods ----


async def _api3(session: Session, params: list[Any] | Json) -> Result:
    """``[entity, action, params?]``, or the same by name."""
    if isinstance(params, dict):
        params = [params.get("entity"), params.get("action"), params.get("params", {})]
    if not 2 <= len(params) <= 3 or not all(isinstance(name, str) and name for name in params[:2]):
        return InvalidParams()
    return await _call(session, params[0], params[1], params[2] if len(params) == 3 else {})


async def _entity_action(session: Session, entity: str, action: str, params: list[Any] | Json) -> Result:
    if isinstance(params, list):
        if len(params) > 1:
            return InvalidParams()
        params = params[0] if params else {}
    return await _call(session, entity, action, params)


async def _call(session: Session, entity: str, action: str, params: Any) -> Result:
    """One APIv3 call: its bare answer, or its whole error as ``data`` under the code that fits."""
    if not params:
        params = {}  # PHP's empty array is a list
    if not isinstance(params, dict):
        return _api_error({**NOT_AN_ARRAY, "entity": entity, "action": action})
    forced = {**params, "version": 3, "check_permissions": True}
    value = await session.api.respond(Call(entity, action, forced, session.caller))
    if isinstance(value, dict) and value.get("is_error"):
        return _api_error(value)
    return Success(value)


def _api_error(value: Json) -> Result:
    if value == UNKNOWN_ERROR:
        return Error(ERROR_INTERNAL_ERROR, WORDS[ERROR_INTERNAL_ERROR])
    fallback = ERROR_INVALID_PARAMS if "error_field" in value else API_ERROR
    return Error(CODES.get(value.get("error_code"), fallback), str(value.get("error_message", "")), value)


async def _echo(_session: Session, params: list[Any] | Json) -> Result:
    return Success(params)


async def _options(_session: Session, _params: list[Any] | Json) -> Result:
    """There is no session to set options of; this is what holds."""
    return Success({"apiError": "exception"})


async def _login(session: Session, params: list[Any] | Json) -> Result:
    """Whom a credential speaks for. No session is kept."""
    credential = params.get("cred") if isinstance(params, dict) else None
    if not isinstance(credential, str) or not credential:
        return InvalidParams()
    seen = Shown(session.seen.address, x_civi_auth=credential, guard_key=session.seen.guard_key or session.seen.key)
    try:
        caller = await session.auth.by_authx(seen)
    except Refused as refusal:
        return Error(UNAUTHENTICATED, refusal.message)
    if caller is None:
        return InvalidParams()
    return Success({"contactId": caller.contact_id, "userId": await session.auth.user_id(caller)})


METHODS = Methods(api3=Method(_api3), echo=Method(_echo), options=Method(_options), login=Method(_login))
