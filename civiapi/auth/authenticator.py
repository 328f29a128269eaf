"""Authenticate a request: credentials in, a caller with permissions out, or CiviCRM's error message.

Two entry points: ``by_key`` (site key and API key, as for ``rest.php``) and ``by_authx`` (headers, ``_authx``, site key
and API key on the AJAX path, or a session). Errors and log lines contain the address and the flow, never a credential.

An API key belongs to a ``[user:NAME]`` of the settings, which has a contact and permissions, or to a contact
(``civicrm_contact.api_key``). Such a contact has the permissions of the settings' user with the same contact; without
one, only ``KEY_HOLDER_PERMISSIONS``, which every account has: the roles of a CMS are not in the database.

Tokens and sessions are signed with a key derived from ``[server] signing_secret`` and a random nonce in the database;
no caller sends either. A session is bound to the API keys of its contact and to the contact's epoch, which a logout
increments: a change of any of these ends it in every process. A token (JWT) is for programs; it ends when it expires or
when the signing key changes, not at a logout.
"""

import hashlib
import hmac
import time
from dataclasses import field

import structlog

from civiapi.api.call import Caller, holds
from civiapi.auth.authx_policy import PERMISSION, SITE_KEY, Policy, read_policy
from civiapi.auth.login_throttle import Attempt, Throttle, TooManyAttempts
from civiapi.auth.tokens import SESSION, Claims, TokenError, Tokens, looks_like_token
from civiapi.runtime.values import call_value
from civiapi.settings import UserSettings
from civiapi.store import signing
from civiapi.store.civicrm import users as rows
from civiapi.store.engine import Store
from civiapi.store.errors import NotUnique

log = structlog.get_logger(__name__)

KEY_HOLDER_PERMISSIONS = frozenset({"access CiviCRM", "access AJAX API", "view my contact"})
API_KEY_PERMISSION = "authenticate with api key"
SESSION_SECONDS = 12 * 3600.0
POLICY_SECONDS = 1.0  # a change of authx's settings takes effect within this time
SIGNING_SECONDS = 1.0  # a signing key changed by another process takes effect within this time
RECHECK_SECONDS = 30.0  # how often the contact of a settings' user is looked up

INVALID = "Invalid credential"
GUARDED = "Login not permitted. Must satisfy guard ({guards})."
MISMATCH = "Cannot login. A mismatched session is already active."
WRONG_SITE_KEY = "Failed to authenticate key"
WRONG_API_KEY = "ERROR: No CMS user associated with given api-key"
NO_API_KEY = "FATAL: mandatory param 'api_key' (user key) missing"


class AuthenticationFailed(Exception):
    """The credentials are missing, wrong or not accepted. The text is public; ``flow`` is authx's flow.

    ``retry_after``: they were not looked at, because too many attempts came from the address; seconds until the next.
    """

    def __init__(self, message: str, flow: str = "", *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.flow = flow
        self.retry_after = retry_after


@call_value
class Credentials:
    """The credentials of a request; empty where there is none."""

    address: str = ""
    key: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    x_civi_auth: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)
    authx: str = field(default="", repr=False)
    guard_key: str = field(default="", repr=False)  # X-Civi-Key or _authxSiteKey
    session: str = field(default="", repr=False)
    with_large_body: bool = False  # the request holds much memory while it waits


@call_value
class _Principal:
    """An authenticated contact, before the policy of the flow is checked."""

    contact_id: int
    permissions: frozenset[str]
    name: str
    cred: str

    def as_caller(self, flow: str) -> Caller:
        return Caller(self.contact_id, self.permissions, self.name, flow, self.cred)


class Auth:
    """Authenticates the callers of a site."""

    def __init__(
        self,
        store: Store,
        site_key: str,
        users: tuple[UserSettings, ...],
        throttle: Throttle | None = None,
        *,
        signing_secret: str = "",
    ) -> None:
        self._store = store
        self._site_key = site_key
        self.throttle = throttle or Throttle()
        # By digest, so that the time of a lookup does not depend on how much of a key is right.
        self._by_key = {_digest(user.api_key): user for user in users}
        self._by_name = {user.name: user for user in users}
        self._by_contact = {user.contact_id: user for user in users if user.contact_id is not None}
        self._known: dict[str, tuple[int, float]] = {}
        self._policy: tuple[Policy, float] | None = None
        self._signing_secret = signing_secret
        self._tokens: tuple[Tokens, str, float] | None = None

    # ---- requests ----

    async def by_key(self, credentials: Credentials) -> Caller:
        """The caller with the site key and an API key. Raises ``AuthenticationFailed``."""
        if not credentials.key:
            raise AuthenticationFailed(WRONG_SITE_KEY, "rest")
        async with self._attempt(credentials, "rest") as attempt:
            if not self._is_site_key(credentials.key):
                raise self._refuse(attempt, WRONG_SITE_KEY, "rest", credentials)
            if not credentials.api_key:
                raise AuthenticationFailed(NO_API_KEY, "rest")
            principal = await self._find_by_api_key(credentials.api_key)
            if principal is None:
                raise self._refuse(attempt, WRONG_API_KEY, "rest", credentials)
        return principal.as_caller("rest")

    async def by_authx(self, credentials: Credentials, param_flow: str = "param") -> Caller | None:
        """The caller by authx's rules, ``None`` without credentials. Raises ``AuthenticationFailed``.

        *param_flow* is the flow of ``_authx``: ``param``, ``auto`` or ``login``.
        """
        policy = await self._current_policy()
        flow, credential = _choose(credentials, param_flow, headers=bool(policy.credentials["header"]))
        if not flow:
            return await self._by_session(credentials)
        if flow == "legacyrest":
            return await self._by_legacy(credentials, policy)
        principal = await self._by_credential(credential, flow, credentials, policy)
        await self._check_session(principal, flow, credentials)
        return principal.as_caller(flow)

    async def open_session(self, caller: Caller, seconds: float = SESSION_SECONDS) -> str:
        """A new session cookie for the caller, valid for *seconds*. Raises ``AuthenticationFailed``."""
        if caller.contact_id is None:
            raise ValueError("An anonymous caller has no session")
        tokens = await self._current_tokens()
        bind = self._bind(tokens, caller.contact_id, await self._account_of(caller.contact_id, caller.flow))
        return tokens.issue(caller.contact_id, seconds, SESSION, caller.cred, bind)

    async def end_sessions(self, session: str) -> None:
        """End every session of the contact of this session; an expired or forged one changes nothing."""
        found = await self._read_session(session)
        if found is not None:
            await self._store.write(rows.end_sessions, found[0].contact_id)

    async def issue_token(self, contact_id: int, seconds: float) -> str:
        """A JWT that authenticates the contact, valid for *seconds*."""
        return (await self._current_tokens()).issue(contact_id, seconds)

    async def rotate_signing_key(self) -> None:
        """Invalidate all tokens and sessions, in other processes within ``SIGNING_SECONDS``."""
        await self._store.write(signing.replace_nonce)
        self._tokens = None

    async def user_id(self, caller: Caller) -> int | None:
        """The number of the caller's user account."""
        return None if caller.contact_id is None else await self._store.read_single(rows.find_uf_id, caller.contact_id)

    # ---- login by name, for a trusted pipe ----

    async def caller_of(self, contact_id: int, flow: str = "login", cred: str = "") -> Caller:
        """The caller for a contact. Raises ``AuthenticationFailed`` if there is no such contact."""
        return (await self._find_by_contact(contact_id, cred, flow)).as_caller(flow)

    async def caller_named(self, name: str) -> Caller:
        """The caller for a user of the settings, or else a user account, by name. Raises ``AuthenticationFailed``."""
        user = self._by_name.get(name)
        if user is not None:
            return (await self._of_user(user, "")).as_caller("login")
        contact_id = await self._store.read(lambda conn: rows.find_account(conn, uf_name=name))
        return await self._account(contact_id)

    async def by_name_and_key(self, name: str, api_key: str, address: str) -> Caller:
        """The user of the settings with this name and key (the log-in page). Raises ``AuthenticationFailed``."""
        shown = Credentials(address)
        async with self._attempt(shown, "login") as attempt:
            user = self._by_key.get(_digest(api_key))
            if user is None or user.name != name:
                raise self._refuse(attempt, INVALID, "login", shown)
        return (await self._of_user(user, "api_key")).as_caller("login")

    async def caller_numbered(self, uf_id: int) -> Caller:
        """The caller for a user account, by its number. Raises ``AuthenticationFailed``."""
        known = 0 < uf_id < 2**31
        return await self._account(
            await self._store.read(lambda conn: rows.find_account(conn, uf_id=uf_id)) if known else None
        )

    async def _account(self, contact_id: int | None) -> Caller:
        if contact_id is None:
            raise AuthenticationFailed("Cannot login. No matching user is available.", "login")
        return await self.caller_of(contact_id)

    # ---- internal ----

    async def _by_session(self, credentials: Credentials) -> Caller | None:
        found = await self._read_session(credentials.session)
        if found is None:
            return None
        claims, account = found
        return self._principal_of(claims.contact_id, account, claims.cred).as_caller("session")

    async def _read_session(self, session: str) -> tuple[Claims, rows.Account] | None:
        """The claims of a valid session and the account of its contact; None for any other."""
        if not session:
            return None
        tokens = await self._current_tokens()
        try:
            claims = tokens.read(session, SESSION)
            account = await self._account_of(claims.contact_id, "session")
        except (TokenError, AuthenticationFailed):
            return None  # an expired cookie is neither a login nor an attack
        bind = self._bind(tokens, claims.contact_id, account)
        return (claims, account) if hmac.compare_digest(bind.encode(), claims.bind.encode()) else None

    def _bind(self, tokens: Tokens, contact_id: int, account: rows.Account) -> str:
        """The state that a session is bound to: it changes with each API key of the contact and with every logout."""
        user = self._user_of(contact_id, account)
        return tokens.digest(
            str(account.epoch), account.api_key, user.name if user else "", user.api_key if user else ""
        )

    async def _current_tokens(self) -> Tokens:
        if self._tokens is None or time.monotonic() - self._tokens[2] > SIGNING_SECONDS:
            nonce = await self._store.read_single(signing.find_nonce)
            if nonce is None:
                nonce = await self._store.write(signing.make_nonce)
            known = self._tokens
            tokens = known[0] if known and known[1] == nonce else Tokens(self._signing_secret, nonce)
            self._tokens = (tokens, nonce, time.monotonic())
        return self._tokens[0]

    async def _current_policy(self) -> Policy:
        if self._policy is None or time.monotonic() - self._policy[1] > POLICY_SECONDS:
            self._policy = (await self._store.read_inline(read_policy), time.monotonic())
        return self._policy[0]

    async def _by_legacy(self, credentials: Credentials, policy: Policy) -> Caller:
        flow = "legacyrest"
        if not credentials.api_key:
            raise AuthenticationFailed("mandatory param 'api_key' (user key) missing", flow)
        async with self._attempt(credentials, flow) as attempt:
            token = await self._find_by_token(credentials.api_key, flow)
            principal = token or await self._find_by_api_key(credentials.api_key)
            if principal is None:
                raise self._refuse(attempt, INVALID, flow, credentials)
            if not self._is_site_key(credentials.key):
                if not credentials.key:
                    raise AuthenticationFailed(_guarded(policy), flow)
                raise self._refuse(attempt, _guarded(policy), flow, credentials)
        _check_policy(policy, principal, flow, site_key=True)
        await self._check_session(principal, flow, credentials)
        return principal.as_caller(flow)

    async def _by_credential(self, credential: str, flow: str, credentials: Credentials, policy: Policy) -> _Principal:
        """The contact of a credential (``Bearer …``) that the policy accepts. Raises ``AuthenticationFailed``."""
        scheme, _, value = credential.strip().partition(" ")
        value = value.strip() if scheme.lower() == "bearer" else ""
        if looks_like_token(value):
            principal = await self._find_by_token(value, flow)
            if principal is not None:  # a signature is not guessed
                _check_policy(policy, principal, flow, site_key=False)
                return principal
            value = ""
        async with self._attempt(credentials, flow) as attempt:
            principal = await self._find_by_api_key(value) if value else None
            if principal is None:
                raise self._refuse(attempt, INVALID, flow, credentials)
            site_key = self._is_site_key(credentials.guard_key)
            try:
                _check_policy(policy, principal, flow, site_key=site_key)
            except AuthenticationFailed as refusal:
                if credentials.guard_key and not site_key:  # the answer would tell a right site key from a wrong one
                    raise self._refuse(attempt, refusal.message, flow, credentials) from refusal
                raise
        return principal

    async def _find_by_token(self, value: str, flow: str) -> _Principal | None:
        """The contact of a token; None if it is not signed here. Raises ``AuthenticationFailed``."""
        if not looks_like_token(value):
            return None
        try:
            claims = (await self._current_tokens()).read(value)
        except TokenError as error:
            if not error.ours:
                return None
            raise AuthenticationFailed(str(error), flow) from error
        return await self._find_by_contact(claims.contact_id, "jwt", flow)

    async def _check_session(self, principal: _Principal, flow: str, credentials: Credentials) -> None:
        if not credentials.session:
            return
        session = await self._by_session(credentials)
        if session is not None and session.contact_id != principal.contact_id:
            raise AuthenticationFailed(MISMATCH, flow)

    async def _find_by_api_key(self, api_key: str) -> _Principal | None:
        user = self._by_key.get(_digest(api_key))
        if user is not None:
            return await self._of_user(user, "api_key")
        holders = await self._store.read_single(rows.find_key_holders, api_key)
        exact = [h.contact_id for h in holders if hmac.compare_digest(h.api_key.encode(), api_key.encode())]
        if len(exact) != 1:  # no contact, or a key that several contacts share
            return None
        return await self._find_by_contact(exact[0], "api_key", "")

    async def _find_by_contact(self, contact_id: int, cred: str, flow: str) -> _Principal:
        return self._principal_of(contact_id, await self._account_of(contact_id, flow), cred)

    def _principal_of(self, contact_id: int, account: rows.Account, cred: str) -> _Principal:
        user = self._user_of(contact_id, account)
        if user is None:
            return _Principal(contact_id, KEY_HOLDER_PERMISSIONS, f"contact {contact_id}", cred)
        return _Principal(contact_id, user.permissions, user.name, cred)

    async def _account_of(self, contact_id: int, flow: str) -> rows.Account:
        known = 0 < contact_id < 2**31
        account = await self._store.read_single(rows.find_contact_account, contact_id) if known else None
        if account is None:
            raise AuthenticationFailed(f"Contact ID {contact_id} is invalid", flow)
        return account

    def _user_of(self, contact_id: int, account: rows.Account) -> UserSettings | None:
        return self._by_contact.get(contact_id) or self._by_name.get(account.user_name or "")

    async def _of_user(self, user: UserSettings, cred: str) -> _Principal:
        known = self._known.get(user.name)
        if known is None or time.monotonic() - known[1] > RECHECK_SECONDS:
            known = (await self._contact_of(user), time.monotonic())
            self._known[user.name] = known
        return _Principal(known[0], user.permissions, user.name, cred)

    async def _contact_of(self, user: UserSettings) -> int:
        if user.contact_id is not None:
            if not await self._store.read_single(rows.is_contact, user.contact_id):
                raise AuthenticationFailed(f"Contact ID {user.contact_id} is invalid")
            return user.contact_id
        now = self._store.clock.now()
        try:
            return await self._store.write(rows.contact_of_user, user.name, now)
        except NotUnique:  # another process created it at the same moment
            return await self._store.write(rows.contact_of_user, user.name, now)

    def _is_site_key(self, key: str) -> bool:
        return bool(self._site_key) and hmac.compare_digest(key.encode(), self._site_key.encode())

    def _attempt(self, credentials: Credentials, flow: str) -> "_Attempt":
        """The context in which a secret is compared, after waiting for its turn."""
        return _Attempt(self.throttle, credentials, flow)

    def _refuse(self, attempt: Attempt, message: str, flow: str, credentials: Credentials) -> AuthenticationFailed:
        """The error for a wrong guess, which is counted and logged."""
        failures = attempt.fail()
        log.warning("login refused", address=credentials.address, flow=flow, reason=message, failures=failures)
        return AuthenticationFailed(message, flow)


class _Attempt(Attempt):
    """An attempt to show a credential in a flow. Entering raises ``AuthenticationFailed`` where it was not decided."""

    __slots__ = ("_flow",)

    def __init__(self, throttle: Throttle, credentials: Credentials, flow: str) -> None:
        super().__init__(throttle, credentials.address, may_wait=not credentials.with_large_body)
        self._flow = flow

    async def __aenter__(self) -> Attempt:
        try:
            return await super().__aenter__()
        except TooManyAttempts as error:
            raise AuthenticationFailed(str(error), self._flow, retry_after=error.retry_after) from None


def _check_policy(policy: Policy, principal: _Principal, flow: str, *, site_key: bool) -> None:
    """Raise ``AuthenticationFailed`` for a credential that the flow does not accept, or an API key without guard."""
    if principal.cred not in policy.credentials[flow]:
        raise AuthenticationFailed(
            f'Authentication type "{principal.cred}" with flow "{flow}" is not allowed for this principal.', flow
        )
    if principal.cred == "jwt" or not policy.guards:
        return
    met = {SITE_KEY: site_key, PERMISSION: holds(principal.permissions, API_KEY_PERMISSION)}
    if not any(met.get(guard, False) for guard in policy.guards):
        raise AuthenticationFailed(_guarded(policy), flow)


def _guarded(policy: Policy) -> str:
    return GUARDED.format(guards=", ".join(policy.guards))


def _choose(credentials: Credentials, param_flow: str, *, headers: bool) -> tuple[str, str]:
    """The flow and its credential; no flow: there is none, except perhaps a session.

    *headers*: whether ``Authorization`` is accepted.
    """
    if credentials.x_civi_auth:
        return "xheader", credentials.x_civi_auth
    others = bool(credentials.authx or credentials.key or credentials.api_key or credentials.session)
    # A Basic header beside other credentials is meant for a proxy in front of this server.
    if (
        headers
        and credentials.authorization
        and not (others and not credentials.authorization.lower().startswith("bearer "))
    ):
        return "header", credentials.authorization
    if credentials.authx:
        return param_flow, credentials.authx
    if credentials.key or credentials.api_key:
        return "legacyrest", ""
    return "", ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
