"""CiviCRM's settings: one row a name and domain in ``civicrm_setting``, the value as PHP serialized it.

Knows no setting by name and no default: a setting without a row is None here. Rows that belong to a contact are
other people's business and never touched.
"""

from typing import Any

import structlog
from sqlalchemy import Connection, Integer, String, bindparam, insert, select, update

from civiapi.store.php import BadSerial, dump_php, load_php
from civiapi.store.tables import setting

DEFAULT_DOMAIN = 1

log = structlog.get_logger(__name__)


def read_setting(conn: Connection, name: str, domain_id: int = DEFAULT_DOMAIN, *, for_update: bool = False) -> Any:
    """The value of a setting, maps as ``dict``; None where it is unset or cannot be read (which is logged).

    *for_update*: nobody else changes it before this transaction ends (MariaDB; on SQLite a writer is alone anyway).
    """
    wanted = {"name": name, "domain_id": domain_id}
    text = conn.execute(_LOCKED_VALUE if for_update else _VALUE, wanted).scalar_one_or_none()
    if not text:
        return None
    try:
        return load_php(text)
    except BadSerial:
        log.warning("a setting cannot be read and counts as unset", setting=name, domain_id=domain_id)
        return None


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


_IS = (
    setting.c.name == bindparam("name", type_=String()),
    setting.c.domain_id == bindparam("domain_id", type_=Integer()),
    setting.c.contact_id.is_(None),
)
_VALUE = select(setting.c.value).where(*_IS).order_by(setting.c.id).limit(1)
_LOCKED_VALUE = _VALUE.with_for_update()
_LOCKED_ID = select(setting.c.id).where(*_IS).order_by(setting.c.id).limit(1).with_for_update()
"""Made once: the watcher reads the configuration whenever it looks."""
