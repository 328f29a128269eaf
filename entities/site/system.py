"""System: version information, and health checks."""

import platform
from typing import Any

from sqlalchemy import Connection

from civiapi.api.context import Context
from civiapi.api.declaration.fields import Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.store.schema.seed import CIVICRM_VERSION
from entities.site import system_checks
from sync.reports.status import QUIET_TOO_LONG

FRAMEWORK = "Standalone"


def get(conn: Connection, request: Request) -> Result:
    """The versions of this installation, under CiviCRM's keys."""
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
    """Has no effect: nothing is cached for more than seconds."""
    return Result(1)


async def check(request: Request, ctx: Context) -> Result:
    """A row for each finding that needs attention, the most severe first."""
    quiet = ctx.api.sync.quiet if ctx.api.sync is not None else QUIET_TOO_LONG
    return Result(await ctx.read(system_checks.rows, request.clock, quiet))


SYSTEM = Entity(
    "System",
    title="System",
    description="Version information, and health checks.",
    actions=(
        Action("get", run=get, params=()),
        Action(
            "flush",
            run=flush,
            params=(Field("triggers", title="Triggers"), Field("session", title="Session")),
            title="Clear caches",
        ),
        Action("check", run_async=check, params=(), title="Run the health checks"),
    ),
)
