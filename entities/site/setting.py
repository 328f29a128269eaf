"""Setting: the site's settings, one value per name and domain. Answers are keyed by domain, not by setting.

``getvalue`` answers the value itself, so ``mailchimpsync_config`` is a JSON text; an unset setting has its default
there, and is left out by ``get``. No table is declared: settings are parameters here, not rows.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select

from civiapi.api.declaration.fields import BOOLEAN, INT, STRING, Field
from civiapi.api.declaration.spec import Action, Entity, Request, Result
from civiapi.api.errors import ApiError, InvalidValue
from civiapi.api.parameters.options import integer, is_empty
from civiapi.api.parameters.params import CONTROL, no_option
from civiapi.store.author import Author
from civiapi.store.civicrm.settings import DEFAULT_DOMAIN, read_setting, write_setting
from civiapi.store.schema import tables
from civiapi.store.text.php import as_json
from entities.site.known_settings import SETTINGS, KnownSetting
from sync.connections.config import SETTING as CONFIG_SETTING
from sync.connections.config import recorded_change

_NOT_SETTINGS = CONTROL | {"domain_id", "id", "entity_id", "entity_table", "group"}
_BOOLEANS = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0, "": 0}


def get(conn: Connection, request: Request) -> Result:
    """The settings asked for (default: all) that are set, by domain."""
    wanted = _known(request.returns) if request.returns else list(SETTINGS)
    return _by_domain(request, {one: _set_values(conn, wanted, one) for one in _domains(conn, request)})


def _set_values(conn: Connection, names: list[str], domain_id: int) -> dict[str, Any]:
    values = {name: as_json(read_setting(conn, name, domain_id)) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def getvalue(conn: Connection, request: Request) -> Result:
    """The value of one setting, or its default; null for an unknown name."""
    name = str(request.params["name"])
    known = SETTINGS.get(name)
    value = as_json(read_setting(conn, name, _domains(conn, request)[0])) if known else None
    if value is None and known is not None:
        value = known.default
    return Result(value, unwrapped=True)


def create(conn: Connection, request: Request) -> Result:
    """Set every setting that is a parameter: all of them, or none."""
    given = {name: value for name, value in request.params.items() if _is_setting(name) and value is not None}
    _known(given)
    values = {name: _stored(SETTINGS[name], value) for name, value in given.items()}
    domains = _domains(conn, request)
    with _recorded(conn, request, values):
        for domain_id in domains:
            for name, value in values.items():
                write_setting(conn, name, value, domain_id, at=request.now())
    return _by_domain(request, {domain_id: dict(values) for domain_id in domains})


def getdefaults(conn: Connection, request: Request) -> Result:
    """The defaults of the settings asked for (default: all), by domain."""
    wanted = _known(_names(request)) or list(SETTINGS)
    defaults = {name: SETTINGS[name].default for name in wanted if SETTINGS[name].default is not None}
    return _by_domain(request, {one: dict(defaults) for one in _domains(conn, request)})


def revert(conn: Connection, request: Request) -> Result:
    """Reset the settings asked for to their defaults."""
    names = _known(_names(request))
    if not names:
        raise ApiError("Mandatory key(s) missing from params array: name", "mandatory_missing", fields=["name"])
    domains, setting = _domains(conn, request), tables.setting
    mine = (setting.c.domain_id.in_(domains), setting.c.name.in_(names), setting.c.contact_id.is_(None))
    with _recorded(conn, request, names):
        conn.execute(delete(setting).where(*mine))
    return _by_domain(request, {one: {name: SETTINGS[name].default for name in names} for one in domains})


def getfields(conn: Connection, request: Request) -> Result:
    """The known settings, or those with the given names."""
    wanted = _names(request)
    fields = {name: _field(one) for name, one in SETTINGS.items() if not wanted or name in wanted}
    return Result(fields)


def _field(one: KnownSetting) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "type": "Array" if one.is_list else one.type.name.capitalize(),
        "default": one.default,
        "is_domain": 1,
        "is_contact": 0,
        "serialize": 1 if one.is_list else None,
    }


def _names(request: Request) -> list[str]:
    """The settings a call is about: ``name`` or ``filters[name]``, one or several."""
    filters = request.sent.get("filters")
    named = request.sent.get("name") or (filters.get("name") if isinstance(filters, Mapping) else None) or []
    return [str(one) for one in named] if isinstance(named, list) else [str(named)]


def _is_setting(name: str) -> bool:
    return name not in _NOT_SETTINGS and not name.startswith(("api.", "api_", "return.", "option.", "format."))


def _known(names: Any) -> list[str]:
    """*names* as a list. Raises ``ApiError`` for an unknown one."""
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise ApiError(f"{','.join(unknown)} not valid settings")
    return list(names)


def _stored(known: KnownSetting, value: Any) -> Any:
    """*value* as it is stored. Raises ``InvalidValue``."""
    if known.is_list:
        parts = (
            value.split(",") if isinstance(value, str) else list(value.values()) if isinstance(value, dict) else value
        )
        if not isinstance(parts, list):
            raise InvalidValue(f"{known.name} is not a list", 2001, error_field=known.name)
        return [part.strip() if isinstance(part, str) else part for part in parts if part != ""]
    if known.type == BOOLEAN:
        found = _BOOLEANS.get(str(value).strip().lower())
        if found is None:
            raise InvalidValue(f"{known.name} is not a valid boolean", 2001, error_field=known.name, type="boolean")
        return found
    if known.type == INT:
        number = integer(value)
        if number is None:
            raise InvalidValue(f"{known.name} is not a valid integer", 2001, error_field=known.name, type="integer")
        return number
    # A map is stored as JSON text (PHP would store "Array").
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _recorded(conn: Connection, request: Request, names: Iterable[str]) -> AbstractContextManager[None]:
    """Records what the block does to the configuration of the sync, if that is among *names*."""
    by = Author(request.caller.contact_id, request.caller.name)
    return recorded_change(conn, by) if CONFIG_SETTING in names else nullcontext()


def _domains(conn: Connection, request: Request) -> list[int]:
    """The domains a call is about: the current one, those named, or ``all``. Raises ``ApiError`` for one unknown."""
    asked = request.params.get("domain_id")
    if is_empty(asked) or asked == "current_domain":
        return [DEFAULT_DOMAIN]
    there = list(conn.execute(select(tables.domain.c.id).order_by(tables.domain.c.id)).scalars())
    if asked == "all":
        return there
    wanted = [integer(one) for one in (asked if isinstance(asked, list) else str(asked).split(","))]
    if not wanted or any(one not in there for one in wanted):
        raise no_option("domain_id", asked)
    return [one for one in wanted if one]


def _by_domain(request: Request, values: dict[int, dict[str, Any]]) -> Result:
    """Values by domain; an empty list for a domain without any, as in PHP."""
    shown: dict[str, Any] = {str(one): found or [] for one, found in values.items()}
    only = next(iter(values)) if len(values) == 1 else None
    return Result(list(shown.values()), key=None, id=only) if request.sequential else Result(shown)


_DOMAIN = Field("domain_id", title="Domain", description="A domain, several, or 'all'; the current one by default.")
_FILTERS = Field("filters", title="Filters", description="name: only the settings of this name.")
_NAME = Field("name", title="Setting Name")
_ALL = tuple(Field(one.name, one.type, title=one.title, default=one.default) for one in SETTINGS.values())

SETTING = Entity(
    "Setting",
    title="Setting",
    description="The site's settings, one value per name and domain.",
    fields=(_DOMAIN, *_ALL),
    actions=(
        Action("get", run=get, short=True, validated=False),
        Action("create", run=create, writes=True, validated=False),
        Action(
            "getvalue",
            run=getvalue,
            short=True,
            single=True,
            validated=False,
            params=(Field("name", STRING, required_by={"getvalue"}, aliases=("return",)), _DOMAIN),
        ),
        Action("getdefaults", run=getdefaults, validated=False, params=(_NAME, _FILTERS, _DOMAIN)),
        Action("revert", run=revert, writes=True, validated=False, params=(_NAME, _FILTERS, _DOMAIN)),
        Action("getfields", run=getfields, validated=False, params=(_NAME, _FILTERS)),
    ),
)
