"""CiviCRM's settings: one row a name and domain in ``civicrm_setting``, the value as PHP serialized it.

Knows no setting by name and no default: a setting without a row is None here. Rows that belong to a contact are
other people's business and never touched.
"""

from typing import Any

import structlog
from sqlalchemy import Connection, insert, select, update

from civiapi.store.php import BadSerial, dump_php, load_php
from civiapi.store.tables import setting

DEFAULT_DOMAIN = 1

log = structlog.get_logger(__name__)


def read_setting(conn: Connection, name: str, domain_id: int = DEFAULT_DOMAIN, *, for_update: bool = False) -> Any:
    """The value of a setting, maps as ``dict``; None where it is unset or cannot be read (which is logged).

    *for_update*: nobody else changes it before this transaction ends (MariaDB; on SQLite a writer is alone anyway).
    """
    wanted = select(setting.c.value).where(*_is(name, domain_id)).order_by(setting.c.id).limit(1)
    text = conn.execute(wanted.with_for_update() if for_update else wanted).scalar_one_or_none()
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
    row = conn.execute(
        select(setting.c.id).where(*_is(name, domain_id)).order_by(setting.c.id).limit(1).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        conn.execute(insert(setting).values(name=name, value=text, domain_id=domain_id, is_domain=1, created_date=at))
    else:
        conn.execute(update(setting).where(setting.c.id == row).values(value=text))


def _is(name: str, domain_id: int) -> tuple[Any, ...]:
    return setting.c.name == name, setting.c.domain_id == domain_id, setting.c.contact_id.is_(None)
