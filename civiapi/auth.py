"""From what a request shows to a caller with permissions, or a refusal in CiviCRM's words.

Two doors: ``by_key`` (site key and API key, as ``rest.php`` has it) and ``by_authx`` (headers, ``_authx``, site key and
API key on the AJAX path, or a session). Nothing here reads HTTP, and no secret leaves: refusals and log lines name
the address and the flow, never what was shown.

An API key belongs to a ``[user:NAME]`` of the settings, who stands for a contact and has the permissions written
there, or to a contact (``civicrm_contact.api_key``). Such a contact has the permissions of the settings' user that
stands for the same contact; without one, only ``KEY_HOLDER_PERMISSIONS``: what roles a CMS gives it is not in the
database, so it gets what every account has and no more.
"""

import hashlib
import hmac
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from civiapi.call import Caller
from civiapi.policy import PERMISSION, SITE_KEY, Policy, read_policy
from civiapi.settings import UserSettings
from civiapi.store import users as rows
from civiapi.store.engine import Store
from civiapi.store.errors import NotUnique
from civiapi.throttle import Throttle
from civiapi.tokens import SESSION, TokenError, Tokens, looks_like_token

log = structlog.get_logger(__name__)

KEY_HOLDER_PERMISSIONS = frozenset({"access CiviCRM", "access AJAX API", "view my contact"})
API_KEY_PERMISSION = "authenticate with api key"
SESSION_SECONDS = 12 * 3600.0
POLICY_SECONDS = 1.0  # how long a change of authx's settings may take to count
RECHECK_SECONDS = 30.0  # how long the contact of a settings' user is taken to be still there

INVALID = "Invalid credential"
GUARDED = "Login not permitted. Must satisfy guard ({guards})."
MISMATCH = "Cannot login. A mismatched session is already active."
NO_API_KEY = "FATAL: mandatory param 'api_key' (user key) missing"


class Refused(Exception):
    """The request does not show who calls. The text may be told to anyone; ``flow`` says which words it came by."""

    def __init__(self, message: str, flow: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.flow = flow


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything in a request that may say who calls; empty where there is nothing."""

    address: str = ""
    key: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    x_civi_auth: str = field(default="", repr=False)
    authorization: str = field(default="", repr=False)
    authx: str = field(default="", repr=False)
    guard_key: str = field(default="", repr=False)  # X-Civi-Key or _authxSiteKey
    session: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class _Principal:
    """A contact that may call, before anyone asked whether this flow lets it in."""

    contact_id: int
    permissions: frozenset[str]
    name: str
    cred: str

    def through(self, flow: str) -> Caller:
        return Caller(self.contact_id, self.permissions, self.name, flow, self.cred)


class Auth:
    """Who may call this site."""

    def __init__(
        self, store: Store, site_key: str, users: tuple[UserSettings, ...], throttle: Throttle | None = None
    ) -> None:
        self._store = store
        self._site_key = site_key
        self._throttle = throttle or Throttle()
        # By digest, so that finding a key takes no longer the more of it is right.
        self._by_key = {_digest(user.api_key): user for user in users}
        self._by_name = {user.name: user for user in users}
        self._by_contact = {user.contact_id: user for user in users if user.contact_id is not None}
        self._known: dict[str, tuple[int, float]] = {}
        self._policy: tuple[Policy, float] | None = None
        self.tokens = Tokens(site_key)

    # ---- the two doors ----

    async def by_key(self, shown: Shown) -> Caller:
        """The caller of a request that shows the site key and an API key. Raises ``Refused``."""
        if not self._is_site_key(shown.key):
            raise await self._refusal("Failed to authenticate key", "rest", shown, guess=bool(shown.key))
        if not shown.api_key:
            raise Refused(NO_API_KEY, "rest")
        principal = await self._find_by_api_key(shown.api_key)
        if principal is None:
            raise await self._refusal("ERROR: No CMS user associated with given api-key", "rest", shown)
        return principal.through("rest")

    async def by_authx(self, shown: Shown, param_flow: str = "param") -> Caller | None:
        """The caller by authx's rules, ``None`` for a request that shows nothing. Raises ``Refused``.

        *param_flow* is the flow of ``_authx`` here: ``param``, ``auto`` or ``login``.
        """
        policy = await self._current_policy()
        flow, credential = _choose(shown, param_flow, headers=bool(policy.credentials["header"]))
        if not flow:
            return await self._by_session(shown)
        if flow == "legacyrest":
            return await self._by_legacy(shown, policy)
        principal = await self._principal(credential, flow, shown)
        _check_policy(policy, principal, flow, site_key=self._is_site_key(shown.guard_key))
        await self._check_session(principal, flow, shown)
        return principal.through(flow)

    def open_session(self, caller: Caller) -> str:
        """A cookie value that stands for the caller for ``SESSION_SECONDS``; a new one at every login."""
        if caller.contact_id is None:
            raise ValueError("An anonymous caller has no session")
        return self.tokens.issue(caller.contact_id, SESSION_SECONDS, SESSION, caller.cred)

    async def user_id(self, caller: Caller) -> int | None:
        """The number of the caller's user account."""
        return None if caller.contact_id is None else await self._store.glance(rows.find_uf_id, caller.contact_id)

    # ---- logging in by name, as a trusted pipe may ----

    async def caller_of(self, contact_id: int, flow: str = "login", cred: str = "") -> Caller:
        """The caller that a contact is. Raises ``Refused`` if there is no such contact."""
        return (await self._find_by_contact(contact_id, cred, flow)).through(flow)

    async def caller_named(self, name: str) -> Caller:
        """The caller that a user of the settings, or else a user account, is. Raises ``Refused``."""
        user = self._by_name.get(name)
        if user is not None:
            return (await self._of_user(user, "")).through("login")
        contact_id = await self._store.read(lambda conn: rows.find_account(conn, uf_name=name))
        return await self._account(contact_id)

    async def by_name_and_key(self, name: str, api_key: str, address: str) -> Caller:
        """The user of the settings with this name, who shows the key (the log-in page). Raises ``Refused``."""
        user = self._by_key.get(_digest(api_key))
        if user is None or user.name != name:
            raise await self._refusal(INVALID, "login", Shown(address=address))
        return (await self._of_user(user, "api_key")).through("login")

    async def caller_numbered(self, uf_id: int) -> Caller:
        """The caller that a user account is, by its number. Raises ``Refused``."""
        known = 0 < uf_id < 2**31
        return await self._account(
            await self._store.read(lambda conn: rows.find_account(conn, uf_id=uf_id)) if known else None
        )

    async def _account(self, contact_id: int | None) -> Caller:
        if contact_id is None:
            raise Refused("Cannot login. No matching user is available.", "login")
        return await self.caller_of(contact_id)

    # ---- inside ----

    async def _by_session(self, shown: Shown) -> Caller | None:
        if not shown.session:
            return None
        try:
            claims = self.tokens.read(shown.session, SESSION)
            return await self.caller_of(claims.contact_id, "session", claims.cred)
        except (TokenError, Refused):
            return None  # an old cookie is no login, and no attack either

    async def _current_policy(self) -> Policy:
        if self._policy is None or time.monotonic() - self._policy[1] > POLICY_SECONDS:
            self._policy = (await self._store.glance(read_policy), time.monotonic())
        return self._policy[0]

    async def _by_legacy(self, shown: Shown, policy: Policy) -> Caller:
        if not shown.api_key:
            raise Refused("mandatory param 'api_key' (user key) missing", "legacyrest")
        principal = await self._principal(f"Bearer {shown.api_key}", "legacyrest", shown)
        if not self._is_site_key(shown.key):
            raise await self._refusal(_guarded(policy), "legacyrest", shown, guess=bool(shown.key))
        _check_policy(policy, principal, "legacyrest", site_key=True)
        await self._check_session(principal, "legacyrest", shown)
        return principal.through("legacyrest")

    async def _principal(self, credential: str, flow: str, shown: Shown) -> _Principal:
        """Who a credential (``Bearer …``) speaks for. Raises ``Refused``, slowly for those who keep guessing."""
        scheme, _, value = credential.strip().partition(" ")
        value = value.strip()
        if scheme.lower() != "bearer" or not value:
            raise await self._refusal(INVALID, flow, shown)
        if looks_like_token(value):
            try:
                claims = self.tokens.read(value)
            except TokenError as error:
                raise await self._refusal(str(error), flow, shown) from error
            return await self._find_by_contact(claims.contact_id, "jwt", flow)
        principal = await self._find_by_api_key(value)
        if principal is None:
            raise await self._refusal(INVALID, flow, shown)
        return principal

    async def _check_session(self, principal: _Principal, flow: str, shown: Shown) -> None:
        session = await self._by_session(shown)
        if session is not None and session.contact_id != principal.contact_id:
            raise Refused(MISMATCH, flow)

    async def _find_by_api_key(self, api_key: str) -> _Principal | None:
        user = self._by_key.get(_digest(api_key))
        if user is not None:
            return await self._of_user(user, "api_key")
        holders = await self._store.glance(rows.find_key_holders, api_key)
        exact = [h.contact_id for h in holders if hmac.compare_digest(h.api_key.encode(), api_key.encode())]
        if len(exact) != 1:  # nobody, or a key that says nothing about who calls
            return None
        return await self._find_by_contact(exact[0], "api_key", "")

    async def _find_by_contact(self, contact_id: int, cred: str, flow: str) -> _Principal:
        known = 0 < contact_id < 2**31
        there, name = await self._store.glance(_look_up, contact_id) if known else (False, None)
        if not there:
            raise Refused(f"Contact ID {contact_id} is invalid", flow)
        user = self._by_contact.get(contact_id) or self._by_name.get(name or "")
        if user is None:
            return _Principal(contact_id, KEY_HOLDER_PERMISSIONS, f"contact {contact_id}", cred)
        return _Principal(contact_id, user.permissions, user.name, cred)

    async def _of_user(self, user: UserSettings, cred: str) -> _Principal:
        known = self._known.get(user.name)
        if known is None or time.monotonic() - known[1] > RECHECK_SECONDS:
            known = (await self._contact_of(user), time.monotonic())
            self._known[user.name] = known
        return _Principal(known[0], user.permissions, user.name, cred)

    async def _contact_of(self, user: UserSettings) -> int:
        if user.contact_id is not None:
            if not await self._store.glance(rows.is_contact, user.contact_id):
                raise Refused(f"Contact ID {user.contact_id} is invalid")
            return user.contact_id
        now = self._store.clock.now()
        try:
            return await self._store.write(rows.contact_of_user, user.name, now)
        except NotUnique:  # another process made it at this very moment
            return await self._store.write(rows.contact_of_user, user.name, now)

    def _is_site_key(self, key: str) -> bool:
        return bool(self._site_key) and hmac.compare_digest(key.encode(), self._site_key.encode())

    async def _refusal(self, message: str, flow: str, shown: Shown, *, guess: bool = True) -> Refused:
        """The refusal to raise. A wrong guess is counted, logged and answered the later the more there were."""
        if guess:
            failures = await self._throttle.failed(shown.address)
            log.warning("login refused", address=shown.address, flow=flow, reason=message, failures=failures)
        return Refused(message, flow)


def _check_policy(policy: Policy, principal: _Principal, flow: str, *, site_key: bool) -> None:
    """Raise ``Refused`` for a credential that the flow does not take, or an API key that no guard holds for."""
    if principal.cred not in policy.credentials[flow]:
        raise Refused(
            f'Authentication type "{principal.cred}" with flow "{flow}" is not allowed for this principal.', flow
        )
    if principal.cred == "jwt" or not policy.guards:
        return
    holds = {SITE_KEY: site_key, PERMISSION: principal.through(flow).may(API_KEY_PERMISSION)}
    if not any(holds.get(guard, False) for guard in policy.guards):
        raise Refused(_guarded(policy), flow)


def _guarded(policy: Policy) -> str:
    return GUARDED.format(guards=", ".join(policy.guards))


def _choose(shown: Shown, param_flow: str, *, headers: bool) -> tuple[str, str]:
    """The flow that counts and its credential; no flow: nothing was shown but perhaps a session.

    *headers*: whether ``Authorization`` is taken at all.
    """
    if shown.x_civi_auth:
        return "xheader", shown.x_civi_auth
    others = bool(shown.authx or shown.key or shown.api_key or shown.session)
    # A Basic header that comes beside other credentials is for a proxy in front of us.
    if headers and shown.authorization and not (others and not shown.authorization.lower().startswith("bearer ")):
        return "header", shown.authorization
    if shown.authx:
        return param_flow, shown.authx
    if shown.key or shown.api_key:
        return "legacyrest", ""
    return "", ""


def _look_up(conn: Connection, contact_id: int) -> tuple[bool, str | None]:
    return rows.is_contact(conn, contact_id), rows.find_user_name(conn, contact_id)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
