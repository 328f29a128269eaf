"""Which kinds of credentials each way of showing them may bring, and what guards an API key: authx's settings.

The ways are authx's flows: a header, a parameter, a login. Knows no caller and no request; ``auth`` asks it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from civiapi.store.site_settings import read_setting

GUARDS_SETTING = "authx_guards"
SITE_KEY, PERMISSION = "site_key", "perm"

# authx's defaults; ``header`` as a fresh install has it.
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
    """*credentials* by flow (``jwt``, ``api_key``); of *guards* one must hold for an API key, if there are any."""

    credentials: Mapping[str, tuple[str, ...]]
    guards: tuple[str, ...] = (SITE_KEY, PERMISSION)


def setting_of(flow: str) -> str:
    """The setting that holds a flow's credentials."""
    return f"authx_{flow}_cred"


def read_policy(conn: Connection) -> Policy:
    """The policy as the site's settings have it; what is unset is as authx has it."""
    return Policy(
        {flow: _words(conn, setting_of(flow), usual) for flow, usual in CREDENTIALS.items()},
        _words(conn, GUARDS_SETTING, (SITE_KEY, PERMISSION)),
    )


def _words(conn: Connection, name: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    value = read_setting(conn, name)
    if isinstance(value, dict):
        value = list(value.values())
    return tuple(str(word) for word in value) if isinstance(value, list) else usual
