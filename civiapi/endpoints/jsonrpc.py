"""JSON-RPC 2.0 at ``/jsonrpc`` and ``/civicrm/jsonrpc``, on top of the jsonrpcserver library.

The library implements the protocol. This module adds the methods (``api3``, and every ``Entity.action``), the mapping
of APIv3 errors, and HTTP. It takes the library's parts one by one: the whole would run the calls of a batch at the same
time although they have an order, and make a task and bind a signature for each.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from jsonrpcserver import Error, InvalidParams, Result, Success
from jsonrpcserver.async_dispatcher import call
from jsonrpcserver.codes import (
    ERROR_INTERNAL_ERROR,
    ERROR_INVALID_PARAMS,
    ERROR_INVALID_REQUEST,
    ERROR_METHOD_NOT_FOUND,
    ERROR_PARSE_ERROR,
)
from jsonrpcserver.dispatcher import create_request, get_method, to_response
from jsonrpcserver.response import ErrorResponse, Response, SuccessResponse
from jsonrpcserver.sentinels import NODATA, NOID
from oslash.either import Left  # type: ignore[import-untyped]

from civiapi.api.bounds.bounded_json import NotRead, read_json
from civiapi.api.call import Call, Caller, Responder
from civiapi.api.envelope import UNKNOWN_ERROR
from civiapi.auth.authenticator import Auth, AuthenticationFailed, Credentials
from civiapi.endpoints.rest import ApiEndpoint
from civiapi.http import forms
from civiapi.http.body_budget import SMALL
from civiapi.http.messages import JSON, HttpRequest, HttpResponse, credentials_of, refuse
from civiapi.http.rendering import AnswerTotal, encode
from civiapi.runtime.values import call_value
from civiapi.runtime.worker_threads import in_thread

log = structlog.get_logger(__name__)

CONTENT_TYPES = frozenset({JSON, "application/json-rpc", "application/jsonrequest"})
MAX_BATCH = 100
UNAUTHORIZED = -32001
UNAUTHENTICATED = -32000
API_ERROR = -32099  # CiviCRM's pipe has this code for every API error
CODES: Mapping[Any, int] = {
    "not-found": ERROR_METHOD_NOT_FOUND,
    "mandatory_missing": ERROR_INVALID_PARAMS,
    2000: ERROR_INVALID_PARAMS,
    2001: ERROR_INVALID_PARAMS,
    2002: ERROR_INVALID_PARAMS,
    2100: ERROR_INVALID_PARAMS,
    "unauthorized": UNAUTHORIZED,
}
# The messages of the specification; the library's contain internal details.
MESSAGES: Mapping[int, str] = {
    ERROR_PARSE_ERROR: "Parse error",
    ERROR_INVALID_REQUEST: "Invalid Request",
    ERROR_INTERNAL_ERROR: "Internal error",
}
NOT_AN_ARRAY = {"error_code": 2000, "is_error": 1, "error_message": "Input variable `params` is not an array"}

Json = dict[str, Any]


@call_value
class Session:
    """The context of a method: the API, and the caller with its credentials."""

    api: Responder
    auth: Auth
    caller: Caller
    seen: Credentials


class Method:
    """A method as the library calls it, with any parameters."""

    def __init__(self, run: Callable[[Session, list[Any] | Json], Awaitable[Result]]) -> None:
        self._run = run

    async def __call__(self, session: Session, /, *positional: Any, **named: Any) -> Result:
        try:
            return await self._run(session, named or list(positional))
        except Exception:
            log.exception("a JSON-RPC method failed")
            return Error(ERROR_INTERNAL_ERROR, MESSAGES[ERROR_INTERNAL_ERROR])


class Methods(dict[str, Callable[..., Any]]):
    """The named methods, and one for every ``Entity.action``."""

    def __missing__(self, name: str) -> Method:
        entity, _, action = name.partition(".")
        if not entity or not action or "." in action or entity.lower() == "rpc":
            raise KeyError(name)
        return Method(lambda session, params: _entity_action(session, entity, action, params))


class JsonRpc(ApiEndpoint):
    """The HTTP endpoint."""

    raw_body = True

    async def answer(self, incoming: HttpRequest) -> HttpResponse:
        if incoming.method != "POST":
            return self._refuse(405, "Use POST", ERROR_INVALID_REQUEST, {"Allow": "POST"})
        if incoming.content_type not in CONTENT_TYPES:  # browsers do not let other sites send these
            return self._refuse(415, "Content-Type must be application/json", ERROR_INVALID_REQUEST)
        seen = credentials_of(incoming)
        try:
            caller = await identify(self._auth, seen)
        except AuthenticationFailed as refusal:
            answer = self._refuse(401, refusal.message, UNAUTHENTICATED, {"WWW-Authenticate": "Bearer"})
            return refuse(answer, refusal)
        reply = await answer_text(Session(self._api, self._auth, caller, seen), incoming.body)
        return HttpResponse(b"", JSON, 204) if reply is None else HttpResponse(encode(reply))

    def failure(self, query: forms.Fields, message: str, status: int) -> HttpResponse:
        if status == 500:
            return self._refuse(200, MESSAGES[ERROR_INTERNAL_ERROR], ERROR_INTERNAL_ERROR)
        return self._refuse(status, message, ERROR_INVALID_REQUEST)

    def _refuse(self, status: int, message: str, code: int, headers: Mapping[str, str] | None = None) -> HttpResponse:
        return HttpResponse(encode(_error(code, message)), JSON, status, headers or {})


async def identify(auth: Auth, seen: Credentials) -> Caller:
    """The caller, by key and api_key if there is either, else by authx. Raises ``AuthenticationFailed``."""
    if (seen.key or seen.api_key) and not seen.x_civi_auth:
        return await auth.by_key(seen)
    caller = await auth.by_authx(seen)
    if caller is None:
        raise AuthenticationFailed("Authentication required")
    return caller


async def answer_text(session: Session, text: bytes, methods: Methods | None = None) -> Json | list[Json] | None:
    """The reply to a JSON-RPC text, single or batch; ``None`` if it has only notifications.

    *methods* are ``METHODS`` unless given.
    """
    methods = METHODS if methods is None else methods
    try:
        request = await in_thread(read_json, text) if len(text) > SMALL else read_json(text)
    except NotRead:
        return _error(ERROR_PARSE_ERROR, MESSAGES[ERROR_PARSE_ERROR])
    if not isinstance(request, list):
        return await _answer_one(session, request, methods)
    if not request:
        return _error(ERROR_INVALID_REQUEST, MESSAGES[ERROR_INVALID_REQUEST])
    if len(request) > MAX_BATCH:
        return _error(ERROR_INVALID_REQUEST, f"Invalid Request: a batch holds at most {MAX_BATCH} calls")
    total = AnswerTotal()
    replies = []
    for each in request:
        if total.refusal is not None:
            replies.append(_error(API_ERROR, total.refusal["error_message"], _id_of(each)))
        elif (reply := await _answer_one(session, each, methods)) is not None:
            await total.add(reply)
            replies.append(reply)
    return replies or None


def _id_of(request: Any) -> Any:
    identity = request.get("id") if isinstance(request, dict) else None
    return identity if isinstance(identity, str | int | float) else None


async def _answer_one(session: Session, request: Any, methods: Methods) -> Json | None:
    if not _is_request(request):
        return _error(ERROR_INVALID_REQUEST, MESSAGES[ERROR_INVALID_REQUEST])
    asked = create_request(request)
    found = get_method(methods, asked.method)
    result = found if isinstance(found, Left) else await call(asked, session, found._value)
    return None if asked.id is NOID else _reply(to_response(asked, result))


def _is_request(request: Any) -> bool:
    """Whether *request* is one of JSON-RPC 2.0."""
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
        return False
    identity = request.get("id")  # a string, a number or null
    if isinstance(identity, bool) or not isinstance(identity, str | int | float | None):
        return False
    return isinstance(request.get("params", []), list | dict)


def _reply(response: Response) -> Json:
    """The library's response in the form of the specification, without its explanations."""
    if not isinstance(response, Left):
        success: SuccessResponse = response._value
        return {"jsonrpc": "2.0", "result": success.result, "id": success.id}
    error: ErrorResponse = response._error
    data = error.data if isinstance(error.data, dict) else NODATA
    return _error(error.code, MESSAGES.get(error.code, error.message), error.id, data)


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
    """One APIv3 call: its answer, or an error with its whole envelope as ``data``."""
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
        return Error(ERROR_INTERNAL_ERROR, MESSAGES[ERROR_INTERNAL_ERROR])
    fallback = ERROR_INVALID_PARAMS if "error_field" in value else API_ERROR
    return Error(CODES.get(value.get("error_code"), fallback), str(value.get("error_message", "")), value)


async def _echo(_session: Session, params: list[Any] | Json) -> Result:
    return Success(params)


async def _options(_session: Session, _params: list[Any] | Json) -> Result:
    """The fixed options; there is no session that could change them."""
    return Success({"apiError": "exception"})


async def _login(session: Session, params: list[Any] | Json) -> Result:
    """The contact of a credential. No session is opened."""
    credential = params.get("cred") if isinstance(params, dict) else None
    if not isinstance(credential, str) or not credential:
        return InvalidParams()
    seen = Credentials(
        session.seen.address,
        x_civi_auth=credential,
        guard_key=session.seen.guard_key or session.seen.key,
        with_large_body=session.seen.with_large_body,
    )
    try:
        caller = await session.auth.by_authx(seen)
    except AuthenticationFailed as refusal:
        return Error(UNAUTHENTICATED, refusal.message)
    if caller is None:
        return InvalidParams()
    return Success({"contactId": caller.contact_id, "userId": await session.auth.user_id(caller)})


METHODS = Methods(api3=Method(_api3), echo=Method(_echo), options=Method(_options), login=Method(_login))
