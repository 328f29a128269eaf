"""System: what runs here, and whether something wants looking after."""

import platform
from typing import Any

from sqlalchemy import Connection

from civiapi.request import Request
from civiapi.spec import Action, Entity, Field, Result
from civiapi.store.seed import CIVICRM_VERSION
from entities import system_checks

FRAMEWORK = "Standalone"


def get(conn: Connection, request: Request) -> Result:
    """What runs here, under the names under which CiviCRM tells of itself."""
    shown: dict[str, Any] = {
        "version": CIVICRM_VERSION,
        "uf": FRAMEWORK,
        "php": {"version": "", "time": request.now(), "tz": str(request.clock.zone), "sapi": "", "extensions": []},
        "mysql": {"version": ".".join(str(part) for part in conn.dialect.server_version_info or ())},
        "cms": {"version": CIVICRM_VERSION, "type": FRAMEWORK, "modules": {}},
        "civi": {
            "version": CIVICRM_VERSION,
            "dev": 0,
            "components": ["CiviMail"],
            "extensions": ["mailchimpsync"],
            "multidomain": 0,
            "settings": {},
            "exampleUrl": "",
        },
        "http": {"software": "civiapi", "forwarded": "", "port": ""},
        "os": {
            "type": platform.system(),
            "release": platform.release(),
            "version": platform.version(),
            "machine": platform.machine(),
        },
    }
    return Result([shown], key=None)


def flush(conn: Connection, request: Request) -> Result:
    """Nothing is kept that could be stale for longer than seconds, so there is nothing to throw away."""
    return Result(1)


def check(conn: Connection, request: Request) -> Result:
    """What wants looking after, a row each, the gravest first; none: all is well."""
    return Result([finding.as_row(number) for number, finding in enumerate(system_checks.find(conn, request.clock))])


SYSTEM = Entity(
    "System",
    title="System",
    description="What runs here, and whether something wants looking after.",
    actions=(
        Action("get", run=get, params=()),
        Action(
            "flush",
            run=flush,
            params=(Field("triggers", title="Triggers"), Field("session", title="Session")),
            title="Throw away what is cached",
        ),
        Action("check", run=check, params=(), title="Look for what is amiss"),
    ),
)
