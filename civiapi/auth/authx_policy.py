"""authx's settings: the credentials that each flow (header, parameter, login) accepts, and the guards of API keys."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from civiapi.store.civicrm.settings import read_setting

GUARDS_SETTING = "authx_guards"
SITE_KEY, PERMISSION = "site_key", "perm"

# authx's defaults; ``header`` as in a new installation.
CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "xheader": ("jwt", "api_key"),
    "header": ("jwt", "api_key"),
    "param": ("jwt", "api_key"),
    "legacyrest": ("jwt", "api_key"),
    "auto": ("jwt",),
    "login": ("jwt",),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """*credentials*: accepted types by flow; *guards*: an API key needs one of them, if there are any."""

    credentials: Mapping[str, tuple[str, ...]]
    guards: tuple[str, ...] = (SITE_KEY, PERMISSION)


def setting_of(flow: str) -> str:
    """The setting with a flow's accepted credentials."""
    return f"authx_{flow}_cred"


def read_policy(conn: Connection) -> Policy:
    """The policy in the site's settings; authx's defaults where they are unset."""
    return Policy(
        {flow: _names(conn, setting_of(flow), default) for flow, default in CREDENTIALS.items()},
        _names(conn, GUARDS_SETTING, (SITE_KEY, PERMISSION)),
    )


def _names(conn: Connection, setting: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = read_setting(conn, setting)
    if isinstance(value, dict):
        value = list(value.values())
    return tuple(str(name) for name in value) if isinstance(value, list) else default
