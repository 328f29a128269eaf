"""CiviCRM's settings: one row per name and domain in ``civicrm_setting``, the value as PHP serialized it.

A setting without a row is None; defaults are in ``entities/site/known_settings.py``. Settings of contacts are never
read or changed.
"""

from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Connection, Dialect, Integer, String, bindparam, insert, select, update

from civiapi.store.databases.compiled_query import Binder, CompiledQuery, compile_query
from civiapi.store.schema.tables import setting
from civiapi.store.text.php import BadSerial, dump_php, load_php

DEFAULT_DOMAIN = 1

log = structlog.get_logger(__name__)


def read_setting(
    conn: Connection, name: str, domain_id: int = DEFAULT_DOMAIN, *, for_update: bool = False, strict: bool = False
) -> Any:
    """The value of a setting, maps as ``dict``; None where it is unset or cannot be read (which is logged).

    *for_update*: lock it until this transaction ends (on MariaDB; SQLite has one writer). *strict*: raise BadSerial
    for one that cannot be read.
    """
    text = read_serialized(conn, name, domain_id, for_update=for_update)
    if not text:
        return None
    try:
        return load_php(text)
    except BadSerial:
        if strict:
            raise
        log.warning("a setting cannot be read and counts as unset", setting=name, domain_id=domain_id)
        return None


def read_serialized(
    conn: Connection, name: str, domain_id: int = DEFAULT_DOMAIN, *, for_update: bool = False
) -> str | None:
    """The value of a setting as it is stored; None where it is unset. *for_update* is as for ``read_setting``."""
    if for_update:
        text: str | None = conn.execute(_LOCKED_VALUE, {"name": name, "domain_id": domain_id}).scalar_one_or_none()
        return text
    # Many calls read a setting, and Core takes more time than the rest of reading it.
    found = _value_query(conn.dialect).rows(conn, (name, domain_id))
    return found[0][0] if found else None


def write_setting(
    conn: Connection, name: str, value: Any, domain_id: int = DEFAULT_DOMAIN, *, at: str | None = None
) -> None:
    """Set a setting: text, number, bool, None, or lists and maps of those. *at* is the site time, kept if it is new."""
    text = dump_php(value).decode()
    row = conn.execute(_LOCKED_ID, {"name": name, "domain_id": domain_id}).scalar_one_or_none()
    if row is None:
        conn.execute(insert(setting).values(name=name, value=text, domain_id=domain_id, is_domain=1, created_date=at))
    else:
        conn.execute(update(setting).where(setting.c.id == row).values(value=text))


def _is(name: Any, domain_id: Any) -> tuple[ColumnElement[bool], ...]:
    return setting.c.name == name, setting.c.domain_id == domain_id, setting.c.contact_id.is_(None)


_NAMED = _is(bindparam("name", type_=String()), bindparam("domain_id", type_=Integer()))
_LOCKED_VALUE = select(setting.c.value).where(*_NAMED).order_by(setting.c.id).limit(1).with_for_update()
_LOCKED_ID = select(setting.c.id).where(*_NAMED).order_by(setting.c.id).limit(1).with_for_update()


@lru_cache(maxsize=16)
def _value_query(dialect: Dialect) -> CompiledQuery:
    bind = Binder()
    wanted = select(setting.c.value).where(*_is(bind(), bind())).order_by(setting.c.id).limit(1)
    return compile_query(dialect, wanted, bind, ("value",))
